"""Save the labels of a layer in the background: a button, or while they are written how far that is and Cancel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels
from napari.utils.notifications import show_warning
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.layers import alignment_of, case_of, find_placement
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.parts import name_widget
from napari_braintumor.widgets.shared.save_form import SaveForm
from napari_braintumor.writers import TakenLabels, take_labels, write_taken

if TYPE_CHECKING:
    import napari


class LabelSaver(QWidget):
    """Asks how labels are saved, and writes them as they are at that moment.

    Parameters
    ----------
    viewer
        Whose other layers say where labels from elsewhere belong.
    find_layer
        Returns the layer to save, or None.
    """

    reported = Signal(str)
    """A sentence for the dock to show."""

    failed = Signal(object, str)
    """A `Failure` for the dock to show, and what did not happen."""

    def __init__(self, viewer: napari.viewer.Viewer, find_layer: Callable[[], Labels | None]) -> None:
        super().__init__()
        self._viewer, self._find_layer = viewer, find_layer
        self.save_button = QPushButton("Save labels…")
        name_widget(
            self.save_button,
            "Save labels",
            "Save the labels, with your corrections, on the grid of a scan of the case",
        )
        self.save_button.clicked.connect(self._ask)
        self.footer = Footer(self.save_button, "Stop saving; no file is left")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.footer)

    @property
    def is_busy(self) -> bool:
        """Whether labels are being written."""
        return self.footer.job is not None

    def describe_closing(self) -> str:
        """Say that saving ends with its dock; empty if nothing is being written."""
        return "Saving was canceled because its dock was closed. No file was written." if self.is_busy else ""

    def save_to(self, layer: Labels, path: Path, also: Collection[str] = (), on: str | None = None) -> None:
        """Write labels as they are now, with their record, in the background.

        Parameters
        ----------
        layer, path, also, on
            As for `take_labels`.
        """
        if self.is_busy:
            return
        try:
            taken = take_labels(layer, path, self._viewer.layers, also, on)
        except (DataError, SettingsError) as error:
            self.reported.emit(f"Not saved: {error}")
            show_warning(str(error))
            return
        files: list[Path] = []
        job = Job(self, f"Save {path.name}", _write, taken, files)
        job.happened.connect(self._follow)
        job.failed.connect(self._fail)
        job.ended.connect(partial(self._end, files, taken.note))
        self.footer.run(job, "Saving…")

    def _ask(self) -> None:
        """Ask for the grid, the format and the file, and write the layer there."""
        layer = self._find_layer()
        if layer is None:
            return
        form = SaveForm(self, case_of(layer) or layer.name, find_placement(layer).grid, alignment_of(layer))
        if form.exec() and form.wish is not None:
            self.save_to(layer, form.wish.path, form.wish.also, form.wish.on)

    def _follow(self, event: PhaseReached) -> None:
        self.footer.show_phase(event)

    def _fail(self, failure: Failure) -> None:
        self.failed.emit(failure, "Not saved: ")

    def _end(self, files: list[Path], note: str) -> None:
        canceled = self.footer.end()
        if files:  # even if it was canceled meanwhile
            self.reported.emit(" ".join(filter(None, (f"Saved {', '.join(map(str, files))}.", note))))
        elif canceled:
            self.reported.emit("Canceled. Nothing was saved.")


def _write(taken: TakenLabels, files: list[Path]) -> Generator[PhaseReached, None, None]:
    """Write labels, and list the files once they are there, also for somebody who has canceled it too late."""
    for event in write_taken(taken):
        if isinstance(event, PhaseReached):
            yield event
        else:
            files += event.files
