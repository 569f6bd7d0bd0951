"""One case of a cohort: opened with its labels, marked, and its corrections saved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Labels, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.cohorts.followed import FollowedRun
from napari_braintumor.engine.cohorts.marks import MARKS, mark_case
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.layers import (
    case_of,
    figures_of,
    follow_labels,
    go_to_largest_section,
    is_result,
    unwrap_layer,
)
from napari_braintumor.layers.segmented import open_segmented
from napari_braintumor.widgets.cohort.correcting import CorrectionSaved, save_correction, take_correction
from napari_braintumor.widgets.cohort.table import CohortRow
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import make_line, name_widget
from napari_braintumor.widgets.shared.showing import LayersInTurn, LayersMade, with_layers

if TYPE_CHECKING:
    import napari

_TIPS = dict(
    zip(
        MARKS,
        (
            "The result is right as it is",
            "The result must be corrected before it is used",
            "The case is not to be used",
        ),
        strict=True,
    )
)


class CaseBox(QWidget):
    """What is done with the case that is chosen in the table.

    Parameters
    ----------
    viewer
        Where cases are opened.
    message
        Where the dock says what happened.
    """

    marked = Signal(str, object)
    """The name of a case, and its `Mark` now."""

    corrected = Signal(object)
    """A `CorrectionSaved`."""

    def __init__(self, viewer: napari.viewer.Viewer, message: Message) -> None:
        super().__init__()
        self._viewer, self._message = viewer, message
        self._run: FollowedRun | None = None
        self._row: CohortRow | None = None
        self._opened: CohortRow | None = None  # the case whose layers are open, and the run that it is of
        self._opened_of: FollowedRun | None = None
        self._layers: list[Layer] = []
        self._saved: Any = None  # the content of its labels as they are on disk
        self._taken: Any = None  # and as they are being written
        self._ended = True
        self._showing = LayersInTurn(self, viewer)
        self._showing.done.connect(self._end_showing)
        self.line = make_line("", "About the chosen case")
        self.open_button = QPushButton("Open")
        name_widget(
            self.open_button,
            "Open the case",
            "Open its scans and labels, to look at, correct and measure them (double click). The case that was opened "
            "here before is closed, unless it has corrections that are not saved",
        )
        self.open_button.clicked.connect(self.open)
        self.footer = Footer(self.open_button, "Stop; nothing is changed")
        self.open_button.setDefault(False)
        self.mark_buttons = {word: QPushButton(word.capitalize()) for word in MARKS}
        for word, button in self.mark_buttons.items():
            button.setCheckable(True)
            name_widget(button, f"Mark as {word}", f"{_TIPS[word]}; press again to take the mark back")
            button.clicked.connect(partial(self._mark, word))
        self.save_button = QPushButton("Save correction")
        name_widget(
            self.save_button,
            "Save the correction",
            "Save the labels as they are now beside the model's, which stay, and keep the case to learn from",
        )
        self.save_button.clicked.connect(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.footer)
        grid = QGridLayout()
        for place, button in enumerate((*self.mark_buttons.values(), self.save_button)):
            grid.addWidget(button, place // 2, place % 2)
        column.addLayout(grid)
        column.addWidget(self.line)
        self.work_on(None, None)

    @property
    def layer(self) -> Labels | None:
        """The labels of the case that is open, if they are still there: those selected, else those opened here."""
        name = self._opened.name if self._opened is not None else None
        there = [layer for layer in self._viewer.layers if is_result(layer) and name and case_of(layer) == name]
        active = unwrap_layer(self._viewer.layers.selection.active)
        chosen = [layer for layer in there if layer in self._layers] or there
        return active if active in there else chosen[-1] if chosen else None

    def work_on(self, run: FollowedRun | None, row: CohortRow | None) -> None:
        """Offer what can be done with a case of a run."""
        self._run, self._row = run, row
        self.line.setText(row.described if row is not None else "")
        self.line.setVisible(row is not None)
        self._enable()

    def open(self) -> None:
        """Open the scans of the case, with its labels if there are any."""
        row = self._row
        if row is None or row.files is None or self.footer.job is not None:
            return
        self._message.show_text("")
        if self._opened is not None and self._opened.name == row.name and self._is_changed():
            self._message.show_text(
                f"'{row.name}' is open, with corrections that are not saved. Save them, or close its layers first."
            )
            return
        result = row.row.result if row.row is not None else None
        job = Job(self, f"Open {row.name}", with_layers, open_segmented, row.files, result and result.files[0])
        job.happened.connect(partial(self._take_opened, row, self._run))
        job.failed.connect(partial(self._message.show_failure, before="Not opened: "))
        job.ended.connect(self._end_opening)
        self._ended = False
        self.footer.run(job, f"Reading {row.name}…")
        self._enable()

    def save(self) -> None:
        """Save the labels of the open case as they are now."""
        row, run, layer = self._opened, self._opened_of, self.layer
        result = row.row.result if row is not None and row.row is not None else None
        if row is None or run is None or layer is None or result is None or self.footer.job is not None:
            return
        try:
            correction = take_correction(layer, self._viewer.layers, row.name, run.output, result)
        except BrainTumorError as error:
            self._message.show_text(f"Not saved: {error}")
            return
        self._taken = figures_of(layer).slices
        job = Job(self, f"Save {row.name}", save_correction, correction)
        job.happened.connect(self._take_saved)
        job.failed.connect(partial(self._message.show_failure, before="Not saved: "))
        job.ended.connect(self._end)
        self.footer.run(job, "Saving…")
        self._enable()

    # ---------------------------------------------------------------------------------------------- opening

    def _take_opened(self, row: CohortRow, run: FollowedRun | None, event: Any) -> None:
        if isinstance(event, PhaseReached):
            self.footer.show_phase(event)
        elif isinstance(event, LayersMade):
            self._close_last()
            self._opened, self._opened_of, self._layers = row, run, list(event.layers)
            self._message.add("\n".join(event.read.notes))
            self.footer.show_last("Showing the case…")
            follow_labels(self._viewer)
            self._showing.show(event.layers)

    def _close_last(self) -> None:
        """Close the case that was opened before, unless that would lose what a person drew."""
        if self._opened is not None and self._is_changed():
            self._message.show_text(f"'{self._opened.name}' stays open: its corrections are not saved.")
            return
        for layer in self._layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _is_changed(self) -> bool:
        layer = self.layer
        if layer is None or self._saved is None:
            return False
        figures_of(layer).settle()
        return bool(figures_of(layer).slices != self._saved)

    def _end_opening(self) -> None:
        self._ended = True
        if not self._showing.busy:
            self._end()  # else what it shows is waited for

    def _end_showing(self) -> None:
        layer = self.layer
        if layer is not None:
            self._viewer.layers.selection.active = layer
            self._saved = figures_of(layer).slices
            go_to_largest_section(self._viewer, layer)
        if self._ended:
            self._finish()

    def _end(self) -> None:
        if self.footer.job is not None and self.footer.job.cancelled:
            self._message.show_text("Canceled. Nothing was changed.")
        self._finish()

    def _finish(self) -> None:
        self.footer.end()
        self._enable()

    # ---------------------------------------------------------------------------------------------- marks

    def _mark(self, word: str, checked: bool) -> None:
        row, run = self._row, self._run
        if row is None or run is None:
            return
        try:
            mark = mark_case(run.output, row.name, word if checked else "")
        except BrainTumorError as error:
            self._message.show_text(str(error))
            self._enable()
            return
        self.marked.emit(row.name, mark)

    def _take_saved(self, event: Any) -> None:
        if isinstance(event, PhaseReached):
            self.footer.show_phase(event)
        elif isinstance(event, CorrectionSaved):
            self._saved = self._taken
            self._message.show_text(f"Saved as '{event.labels.name}'. The model's labels stay as they are.")
            self.marked.emit(event.case, event.mark)
            self.corrected.emit(event)

    def _enable(self) -> None:
        row, busy = self._row, self.footer.job is not None
        self.open_button.setEnabled(row is not None and row.files is not None and bool(row.files.images))
        for word, button in self.mark_buttons.items():
            button.setEnabled(row is not None and self._run is not None)
            button.setChecked(row is not None and row.mark.word == word)
        self.save_button.setEnabled(not busy and self.layer is not None)
