"""A path that is typed or chosen in a dialog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget

from napari_braintumor.widgets.shared.parts import name_widget


class PathRow(QWidget):
    """A path that is typed or chosen.

    Parameters
    ----------
    name, meaning
        For screen readers, and for the tooltip.
    choose
        Asks for a path, given the parent; an empty text for none.
    """

    chosen = Signal()
    """Another path is given."""

    def __init__(self, name: str, meaning: str, choose: Callable[[QWidget], str]) -> None:
        super().__init__()
        self._choose = choose
        self.edit = QLineEdit()
        name_widget(self.edit, name, meaning)
        self.edit.editingFinished.connect(self.chosen)
        self.button = QPushButton("…")
        name_widget(self.button, f"Choose: {name.lower()}", meaning)
        self.button.clicked.connect(self._ask)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.edit, 1)
        row.addWidget(self.button)

    @property
    def path(self) -> Path | None:
        """The path; None if none is given."""
        text = self.edit.text().strip()
        return Path(text).expanduser() if text else None

    def show_path(self, path: Path | None) -> None:
        """Show a path, or none, as if it were typed."""
        self.edit.setText("" if path is None else str(path))
        self.chosen.emit()

    def _ask(self) -> None:
        if chosen := self._choose(self):
            self.show_path(Path(chosen))


def ask_folder(parent: QWidget) -> str:
    """Ask for a folder; an empty text if none is chosen."""
    return str(QFileDialog.getExistingDirectory(parent, "Folder"))
