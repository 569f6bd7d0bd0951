"""The Measure dock: sizes and lesions of labels, scores against others, changes since an earlier visit, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.measuring.export import list_row
from napari_braintumor.engine.measuring.measurements import Measured
from napari_braintumor.layers import LabelsWatch, follow_labels, label_names, masks_in, unwrap_layer
from napari_braintumor.layers.measuring import (
    DrawnLabels,
    add_converted,
    drawn_labels_of,
    find_differences,
    go_to_slice,
    remove_diameters,
    update_or_add_diameters,
    update_or_add_differences,
)
from napari_braintumor.layers.visits import list_modalities
from napari_braintumor.widgets.measuring.convert_box import ConvertBox, Converted, convert_drawn, describe_converted
from napari_braintumor.widgets.measuring.folders_box import FoldersBox
from napari_braintumor.widgets.measuring.latest import Latest, Prepared
from napari_braintumor.widgets.measuring.scores_box import ScoresBox
from napari_braintumor.widgets.measuring.sizes_table import SizesTable
from napari_braintumor.widgets.measuring.visits_box import VisitsBox
from napari_braintumor.widgets.measuring.working import (
    Compared,
    Exported,
    MeasuredNow,
    Scored,
    compare_drawn,
    export_drawn,
    measure_drawn,
    score_drawn,
)
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.following import follow, follow_names, when_destroyed
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.meaning_box import MeaningBox
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import copy_text, make_collapsible, make_line, name_widget
from napari_braintumor.widgets.shared.tables import make_table_view

if TYPE_CHECKING:
    import napari

NOTHING_YET = "There are no labels to measure yet. Segment a case, or open or draw labels."

PAUSE_MS = 600
"""After a stroke, until what is drawn is measured again."""


class MeasureDock(Dock):
    """The Measure dock.

    Parameters
    ----------
    napari_viewer
        The viewer whose labels are measured; napari passes it by this name.
    """

    title = "Measure"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._rows: tuple[Measured, ...] = ()
        self._scored: Scored | None = None
        self._differing = ""
        self.measuring = Latest(self, "Measure", self._prepare_measuring)
        self.scoring = Latest(self, "Score", self._prepare_scoring)
        for latest in (self.measuring, self.scoring):
            latest.failed.connect(self._show_problem)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(PAUSE_MS)
        self._soon.timeout.connect(self._start_anew)
        self._watched = LabelsWatch(self._soon.start)
        self._against = LabelsWatch(self._soon.start)
        for watch in (self._watched, self._against):
            when_destroyed(self, watch.follow, None)
        self._build()
        follow_labels(napari_viewer)
        layers = napari_viewer.layers
        follow(self, self._choose, layers.selection.events.active, layers.events.inserted, layers.events.removed)
        follow_names(self, self._choose, layers)
        self._choose()

    @property
    def target(self) -> Labels | None:
        """The layer that is measured."""
        return self._watched.layer

    @property
    def rows(self) -> tuple[Measured, ...]:
        """What was measured last."""
        return self._rows

    def describe_closing(self) -> str:
        """Say that a job under way ends with its dock."""
        return "What was under way was canceled because its dock was closed." if self.footer.job is not None else ""

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.export_button = QPushButton("Export for a paper…")
        name_widget(
            self.export_button,
            "Export for a paper",
            "Write a CSV row, the lesions, a figure at 300 dpi, a methods paragraph and a record into a folder",
        )
        self.export_button.clicked.connect(self._ask_where)
        self.footer = Footer(self.export_button, "Stop; nothing is changed")
        self.message = Message()
        self.target_line = make_line("", "What is measured")
        self.table = SizesTable()
        self.view = make_table_view(self.table, "Measurements", "Click a row to go to the slice of its diameters")
        self.view.clicked.connect(lambda index: self._go_to(index.row()))
        self.view.setMinimumHeight(150)
        self.view.setMaximumHeight(280)
        self.divided_line = make_line("", "How sides are divided")
        self.diameters_box = QCheckBox("Draw diameters")
        name_widget(self.diameters_box, "Draw diameters", "Draw the two diameters of each lesion in their slice")
        self.diameters_box.toggled.connect(self._draw)
        self.copy_button = QPushButton("Copy CSV row")
        name_widget(self.copy_button, "Copy CSV row", "Copy all measurements of the regions, with a header")
        self.copy_button.clicked.connect(self._copy)

        self.meaning_box = MeaningBox("What the labels mean", "Meaning: as their numbers suggest")
        self.meaning_box.currentIndexChanged.connect(self._start_anew)
        self.scores_box = ScoresBox()
        self.scores_box.reference_slot.currentIndexChanged.connect(self._choose_reference)
        self.scores_box.view.clicked.connect(lambda index: self._show_differences(max(index.column() - 1, 0)))
        self.scores_box.differences_button.clicked.connect(lambda: self._show_differences())
        self.visits_box = VisitsBox(self._viewer)
        self.visits_box.changed.connect(self._enable)
        self.visits_box.compare_button.clicked.connect(self._compare)
        self.convert_box = ConvertBox()
        self.convert_box.asked.connect(self._convert)
        self.folders_box = FoldersBox()
        self.folders_box.asked.connect(self._score_folders)
        self.folders_box.said.connect(self.message.show_text)

        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.scores_part = make_collapsible("Against other labels", self.scores_box)
        self.visits_part = make_collapsible("Earlier visit", self.visits_box)
        self.convert_part = make_collapsible("Label conventions", self.convert_box)
        self.folders_part = make_collapsible("Many cases", self.folders_box)
        for widget in (
            self.target_line,
            self.meaning_box,
            self.view,
            self.divided_line,
            self.diameters_box,
            self.copy_button,
            self.message,
            self.scores_part,
            self.visits_part,
            self.convert_part,
            self.folders_part,
        ):
            column.addWidget(widget)
        column.addStretch(1)
        self.lay_out(body, (self.footer,))

    # ---------------------------------------------------------------------------------------------- which layer

    def _choose(self, _: Any = None) -> None:
        """Measure the selected labels, else the last ones if they are still there, else the topmost."""
        masks = [unwrap_layer(layer) for layer in masks_in(self._viewer.layers)]
        active = unwrap_layer(self._viewer.layers.selection.active)
        last = self.target
        chosen = active if active in masks else last if last in masks else (masks[-1] if masks else None)
        others = [layer for layer in masks if layer is not chosen]
        slot = self.scores_box.reference_slot
        slot.blockSignals(True)
        slot.offer(others, slot.layer if slot.layer in others else None)
        slot.blockSignals(False)
        if slot.layer is not self._against.layer:
            self._choose_reference()
        self.visits_box.offer(chosen, others, chosen is not last)
        if chosen is not last:
            self._work_on(chosen)
        self.target_line.setText(NOTHING_YET if chosen is None else str(chosen.name))
        self.meaning_box.setVisible(any(not label_names(layer) for layer in masks))
        self._enable()

    def _work_on(self, layer: Labels | None) -> None:
        self._watched.follow(layer)
        self._show_rows((), "")
        self._forget_scores()
        self.visits_box.forget()
        self.message.show_text("")
        if layer is not None:
            self._start_anew()

    def _start_anew(self, _: int = 0) -> None:
        self.measuring.ask()
        self.scoring.ask()

    def _drawn(self, layer: Labels | None) -> DrawnLabels | None:
        """Return a layer's labels for a worker; None, with a message, if they cannot be measured."""
        if layer is None:
            return None
        try:
            return drawn_labels_of(layer, self._viewer.layers, self.meaning_box.convention)
        except DataError as error:
            self.message.show_text(str(error))
            return None

    def _enable(self) -> None:
        there, busy = self.target is not None, self.footer.job is not None
        self.export_button.setEnabled(there)
        self.convert_box.convert_button.setEnabled(there and not busy)
        self.folders_box.set_busy(busy)
        self.copy_button.setEnabled(bool(self._rows))
        self.diameters_box.setEnabled(bool(self._rows))
        self.scores_box.differences_button.setEnabled(self._scored is not None and bool(self._scored.differences))
        self.visits_box.compare_button.setEnabled(there and not busy and self.visits_box.earlier_slot.layer is not None)

    # ---------------------------------------------------------------------------------------------- measuring

    def _prepare_measuring(self) -> Prepared | None:
        drawn = self._drawn(self.target)
        return None if drawn is None else (measure_drawn, (drawn,), partial(self._take_measured, self.target))

    def _take_measured(self, layer: Labels, event: Any) -> None:
        if isinstance(event, MeasuredNow) and layer is self.target:
            self.message.show_text("")
            self._show_rows(event.rows, event.divided_by)

    def _show_rows(self, rows: tuple[Measured, ...], divided_by: str) -> None:
        self._rows = rows
        self.table.show_rows(rows)
        self.view.resizeColumnsToContents()
        self.divided_line.setText(f"Sides are the patient's, divided by {divided_by}." if divided_by else "")
        self._draw()
        self._enable()

    def _go_to(self, row: int) -> None:
        """Go to the slice of the diameters of a row."""
        if self.target is not None and row < len(self._rows) and (found := self._rows[row].diameters) is not None:
            go_to_slice(self._viewer, self.target, found.z)

    def _draw(self, _: bool = False) -> None:
        if self.target is None:
            return
        if self.diameters_box.isChecked() and self._rows:
            update_or_add_diameters(self._viewer, self.target, self._rows)
        else:
            remove_diameters(self._viewer, self.target)

    def _copy(self) -> None:
        row = list_row(self._rows)
        copy_text("\n".join((",".join(row), ",".join(row.values()))))
        self.message.show_text("The row is on the clipboard.")

    # ---------------------------------------------------------------------------------------------- scores

    def _choose_reference(self, _: int = 0) -> None:
        """Score against the chosen labels, now and whenever they change."""
        other = self.scores_box.reference_slot.layer
        self._against.follow(other if isinstance(other, Labels) else None)
        self._forget_scores()
        self.scoring.ask()

    def _forget_scores(self) -> None:
        self._scored, self._differing = None, ""
        self.scores_box.show_scores({})
        self._enable()

    def _prepare_scoring(self) -> Prepared | None:
        other = self._against.layer
        drawn, reference = self._drawn(self.target), self._drawn(other) if other is not None else None
        if drawn is None or reference is None:
            return None
        return score_drawn, (drawn, reference), partial(self._take_scored, self.target, other)

    def _take_scored(self, layer: Labels, other: Labels, event: Any) -> None:
        if not isinstance(event, Scored) or layer is not self.target or other is not self._against.layer:
            return
        self._scored = event
        self.scores_box.show_scores(event.scores)
        if self._differing in event.differences and find_differences(self._viewer, layer) is not None:
            update_or_add_differences(self._viewer, layer, event.differences[self._differing])
        self._enable()

    def _show_differences(self, number: int = 0) -> None:
        """Show where a region differs, by its number, and go to the worst slice."""
        if self._scored is None or self.target is None:
            return
        region, differences = list(self._scored.differences.items())[number]
        self._differing = region
        update_or_add_differences(self._viewer, self.target, differences)
        wrong = (differences > 1).sum(axis=(1, 2))
        if wrong.any():
            go_to_slice(self._viewer, self.target, int(wrong.argmax()))
        self.message.show_text(f"The differences are those of {region}.")

    # ---------------------------------------------------------------------------------------------- visits, export

    def _compare(self) -> None:
        earlier = self.visits_box.earlier_slot.layer
        if isinstance(earlier, Labels):
            first, second = self._drawn(earlier), self._drawn(self.target)
            if first is not None and second is not None:
                first_shown = list_modalities(self._viewer.layers, [earlier, self.target])
                self.visits_box.forget()
                take = partial(self._show_changes, earlier)
                self._run("Compare visits", take, compare_drawn, first, second, first_shown)

    def _show_changes(self, earlier: Labels, event: Any) -> None:
        if isinstance(event, Compared):
            self.visits_box.show_changes(earlier, event)

    def _convert(self, convention: str) -> None:
        drawn = self._drawn(self.target)
        if drawn is not None:
            self._run("Convert", partial(self._show_converted, self.target), convert_drawn, drawn, convention)

    def _show_converted(self, layer: Labels, event: Any) -> None:
        if isinstance(event, Converted) and layer in self._viewer.layers:
            made = add_converted(self._viewer, layer, event.values_ZYX, event.convention)
            self.message.show_text(describe_converted(str(made.name), event))

    def _score_folders(self, generator: Any, args: tuple[Any, ...]) -> None:
        self._run("Score all cases", self.folders_box.take, generator, *args)

    def _ask_where(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the export")
        if folder:
            self.export_to(Path(folder))

    def export_to(self, folder: Path) -> None:
        """Write what a paper needs into a new folder, in the background, and report it."""
        drawn = self._drawn(self.target)
        if drawn is not None:
            self._run("Export", self._show_exported, export_drawn, drawn, folder)

    def _show_exported(self, event: Any) -> None:
        if isinstance(event, Exported):
            self.message.show_text(f"Row, lesions, figure, methods and record are in '{event.folder}'.")

    def _run(self, title: str, take: Any, generator: Any, *args: Any) -> None:
        job = Job(self, title, generator, *args)
        job.happened.connect(partial(self._take, take))
        job.failed.connect(self._show_failure)
        job.ended.connect(self._end)
        self.message.show_text("")
        self.footer.run(job, f"{title}…")
        self._enable()

    def _take(self, take: Any, event: Any) -> None:
        if isinstance(event, PhaseReached):
            self.footer.show_phase(event)
        else:
            take(event)

    def _end(self) -> None:
        if self.footer.end():
            self.message.show_text("Canceled. Nothing was changed.")
        self._enable()

    def _show_problem(self, failure: Failure) -> None:
        """Say why something that nobody asked for cannot be measured; a bug is shown like any other."""
        if failure.details:
            self._show_failure(failure)
        else:
            self.message.show_text(failure.text)

    def _show_failure(self, failure: Failure) -> None:
        self.message.show_failure(failure)
