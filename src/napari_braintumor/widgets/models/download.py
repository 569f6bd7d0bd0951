"""What can be downloaded, with size and license, from the shipped catalogue, a mirror, or a folder."""

from __future__ import annotations

from collections.abc import Generator

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.exchange.catalogue import Entry, read_catalogue
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.parts import make_line, name_widget
from napari_braintumor.widgets.shared.tables import TextTable, make_table_view

SIZE_PX = (560, 420)
HEADER = ("Model", "Size", "License", "What it is")
NOTHING = "This catalogue lists no models. Give the address or the folder of another one."


def list_entries(source: str | None) -> Generator[list[Entry], None, None]:
    """Read a catalogue; runs in a worker thread, since it may be on the network."""
    yield read_catalogue(source)


class DownloadForm(QDialog):
    """Lets the user choose what to download; nothing is fetched before a button is pressed.

    Parameters
    ----------
    parent
        The dock.
    """

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Download a model")
        self.resize(*SIZE_PX)
        self._entries: list[Entry] = []
        self._job: Job | None = None
        self.source_edit = QLineEdit()
        self.source_edit.setPlaceholderText("the one that comes with the plugin")
        name_widget(self.source_edit, "Catalogue", "Address, file or folder of a catalogue; empty: the plugin's own")
        self.list_button = QPushButton("List")
        name_widget(self.list_button, "List", "Read this catalogue; an address is fetched")
        self.list_button.setAutoDefault(False)
        self.list_button.clicked.connect(self.reload)
        browse = QPushButton("Folder…")
        name_widget(browse, "Choose a folder", "A folder with a catalogue and its models, for use without a network")
        browse.setAutoDefault(False)
        browse.clicked.connect(self._browse)
        self.mirror_edit = QLineEdit()
        self.mirror_edit.setPlaceholderText("where the catalogue says")
        name_widget(self.mirror_edit, "Mirror", "Address or folder that has the files, where the usual one is blocked")
        self.table = TextTable(HEADER)
        self.view = make_table_view(self.table, "Models to download", "Choose one")
        if (selection := self.view.selectionModel()) is not None:
            selection.selectionChanged.connect(self._show_chosen)
        self.line = make_line("", "About the chosen model")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.download_button = buttons.button(QDialogButtonBox.StandardButton.Ok)
        assert self.download_button is not None
        self.download_button.setText("Download")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        row = QHBoxLayout()
        for widget in (self.source_edit, self.list_button, browse):
            row.addWidget(widget)
        form = QFormLayout()
        form.addRow("Catalogue", row)
        form.addRow("Mirror", self.mirror_edit)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.view, 1)
        column.addWidget(self.line)
        column.addWidget(buttons)
        self._show_chosen()

    @property
    def entry(self) -> Entry | None:
        """The chosen model."""
        chosen = self.view.selectedIndexes()
        return self._entries[chosen[0].row()] if chosen else None

    @property
    def mirror(self) -> str | None:
        """Where its file is to be taken from instead."""
        return self.mirror_edit.text().strip() or None

    def reload(self) -> None:
        """Read the catalogue in the background."""
        if self._job is not None:
            return
        self._fill([])
        self.line.setText("Reading the catalogue…")
        self.list_button.setEnabled(False)
        self._job = Job(self, "Read the catalogue", list_entries, self.source_edit.text().strip() or None)
        self._job.happened.connect(self._fill)
        self._job.failed.connect(self._fail)
        self._job.ended.connect(self._end)
        self._job.start()

    def _end(self) -> None:
        self._job = None
        self.list_button.setEnabled(True)

    def _fail(self, failure: Failure) -> None:
        self.line.setText(failure.text)

    def _fill(self, entries: list[Entry]) -> None:
        self._entries = entries
        self.table.fill([(entry.name, in_megabytes(entry.bytes), entry.license, entry.title) for entry in entries])
        self.view.resizeColumnsToContents()
        if entries:
            self.view.selectRow(0)
        self._show_chosen()

    def _show_chosen(self) -> None:
        entry = self.entry
        if self.download_button is not None:
            self.download_button.setEnabled(entry is not None)
        if entry is None:
            self.line.setText(NOTHING)
        else:
            text = f"{entry.name}: {in_megabytes(entry.bytes)}, {entry.kind}, license {entry.license}. {entry.note}"
            self.line.setText(text.strip())

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder with a catalogue", self.source_edit.text())
        if chosen:
            self.source_edit.setText(chosen)
            self.reload()


def in_megabytes(size_bytes: float) -> str:
    """Return a size for people."""
    return f"{size_bytes / 1e6:.1f} MB"
