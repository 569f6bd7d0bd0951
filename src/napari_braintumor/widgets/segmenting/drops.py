"""Files that are dropped onto a dock, or chosen in a dialog: both ask for the same."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QEvent, QMimeData, QObject, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.widgets.shared.parts import name_widget

_DRAGS = (QEvent.Type.DragEnter, QEvent.Type.DragMove)


class FileDrops(QObject):
    """Takes files and folders that are dropped onto a widget or what is in it.

    Parameters
    ----------
    target
        The widget.
    """

    dropped = Signal(object)
    """A list of `Path`."""

    def __init__(self, target: QWidget) -> None:
        super().__init__(target)
        target.setAcceptDrops(True)
        target.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take files; leave anything else to the widget."""
        kind = event.type() if event is not None else None
        if event is None or (kind not in _DRAGS and kind != QEvent.Type.Drop):
            return super().eventFilter(watched, event)
        paths = paths_in(event.mimeData())  # type: ignore[attr-defined]
        if not paths:
            return False
        event.acceptProposedAction()  # type: ignore[attr-defined]
        if kind == QEvent.Type.Drop:
            self.dropped.emit(paths)
        return True


def paths_in(data: QMimeData | None) -> list[Path]:
    """Return the files and folders on this computer that are dragged; empty if something else is."""
    urls = data.urls() if data is not None else []
    return [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]


class OpenButton(QWidget):
    """Asks for a folder or for files; where they are dropped, the same happens."""

    asked = Signal(object)
    """A list of `Path`."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""
        self.button = QPushButton("Open case…")
        name_widget(
            self.button,
            "Open case",
            "Open a patient's scans: a folder from the scanner, a zip of it, or files (F3). Or drop them "
            "onto this dock.",
        )
        menu = QMenu(self.button)
        self.folder_action = menu.addAction("Folder…", self._ask_for_folder)
        self.files_action = menu.addAction("Files…", self._ask_for_files)
        self.button.setMenu(menu)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.button)

    def _ask_for_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open the folder of a case", self._last)
        self._take([path] if path else [])

    def _ask_for_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open the files of a case", self._last)
        self._take(paths)

    def _take(self, names: list[str]) -> None:
        if names:
            self._last = str(Path(names[0]).parent)
            self.asked.emit([Path(name) for name in names])
