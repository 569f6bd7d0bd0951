"""Open a case from the dock: find it, show its series where they are not obvious, and read what is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.choosing_series.changing import asks_to_choose, change_row, remember_choice
from napari_braintumor.engine.files.choosing_series.rows import describe_rows
from napari_braintumor.layers import (
    KEY,
    CaseLookedAt,
    CasesFound,
    open_case,
    open_paths,
    read_layers_of,
)
from napari_braintumor.widgets.segmenting.drops import FileDrops, OpenButton
from napari_braintumor.widgets.segmenting.series_table import SeriesView
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import EndingCombo, make_collapsible, name_widget
from napari_braintumor.widgets.shared.showing import LayersInTurn, LayersMade, with_layers

if TYPE_CHECKING:
    import napari

HOW_TO_CHOOSE = "Say what a series shows in the first column of the table."


class CaseOpener(QWidget):
    """The button Open case…, and what was found by it.

    Parameters
    ----------
    dock
        Takes drops; jobs belong to it.
    viewer
        Where the scans are shown.
    """

    def __init__(self, dock: QWidget, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._dock, self._viewer = dock, viewer
        self._cases: tuple[CaseFiles, ...] = ()
        self._number = 0
        self._ended = False  # the job is over, and only layers are still to be shown
        self._showing = LayersInTurn(self, viewer)
        self._showing.done.connect(self._end_showing)
        self.open_button = OpenButton()
        self.open_button.asked.connect(self.open)
        self._drops = FileDrops(dock)
        self._drops.dropped.connect(self.open)
        self.case_box = EndingCombo()
        name_widget(self.case_box, "Case to open", "The cases that were found; choose one to open it")
        self.case_box.activated.connect(self._open_other)
        self.case_box.hide()
        self.series = SeriesView()
        self.series.changed.connect(self._use)
        self.series_part = make_collapsible("Series", self.series)
        self.series_part.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.open_button, self.case_box, self.series_part):
            column.addWidget(widget)

    def serve(self, footer: Footer, message: Message) -> None:
        """Show progress and messages there."""
        self._footer, self._message = footer, message

    @property
    def is_busy(self) -> bool:
        """Whether a case is being opened."""
        return not self.isEnabled()

    @property
    def case(self) -> CaseFiles | None:
        """The case whose series are shown."""
        return self._cases[self._number] if self._cases else None

    def open(self, paths: Sequence[Path]) -> None:
        """Find the cases in folders or files, and open the first."""
        self._run("Open case", open_paths, list(paths), said="Looking for scans…")

    def ask(self) -> bool:
        """Offer to open a folder or files, if nothing is being opened."""
        if self.isEnabled():
            self.open_button.button.showMenu()
        return self.isEnabled()

    def close_table(self) -> bool:
        """Close the table of series; return whether it was open."""
        was_open = self.series_part.isVisibleTo(self) and self.series_part.isExpanded()
        if was_open:
            self.series_part.collapse(animate=False)
        return was_open

    # ---------------------------------------------------------------------------------------------- jobs

    def _run(self, title: str, generator: Callable[..., Generator[Any, None, None]], *args: Any, said: str) -> None:
        if self._footer.job is not None:
            self._message.show_text("Another case is opened when this is done. Wait, or cancel it first.")
            return
        self._message.show_text("")
        self._was = self._cases, self._number
        job = Job(self._dock, title, with_layers, generator, *args)
        job.happened.connect(self._follow)
        job.failed.connect(self._show_failure)
        job.ended.connect(self._end)
        self._ended = False
        self._footer.run(job, said)
        self.setEnabled(False)

    def _follow(self, event: Any) -> None:
        if isinstance(event, PhaseReached):
            self._footer.show_phase(event)
        elif isinstance(event, CasesFound):
            self._cases, self._number = event.cases, 0
            self._number = next((i for i, case in enumerate(event.cases) if case.problem is None), 0)
            self._show_cases()
        elif isinstance(event, CaseLookedAt):
            self._replace_case(event.case)
        elif isinstance(event, LayersMade):
            self._add(event)

    def _show_failure(self, failure: Failure) -> None:
        self._message.show_failure(replace(failure, text=self._with_advice(failure.text)), before="Not opened: ")

    def _with_advice(self, problem: str) -> str:
        return f"{problem} {HOW_TO_CHOOSE}" if self.case is not None and asks_to_choose(self.case) else problem

    def _replace_case(self, case: CaseFiles) -> None:
        """Show another table for the case that is shown."""
        self._cases = (*self._cases[: self._number], case, *self._cases[self._number + 1 :])
        self._show_cases()

    def _end(self) -> None:
        self._ended = True
        if not self._showing.busy:
            self._finish(canceled=self._footer.job is not None and self._footer.job.cancelled)

    def _finish(self, *, canceled: bool = False) -> None:
        self.setEnabled(True)
        self._footer.end()
        if canceled:
            self._cases, self._number = self._was
            self._show_cases()
            self._message.show_text("Canceled. No scan was opened.")

    # ---------------------------------------------------------------------------------------------- what is shown

    def _show_cases(self) -> None:
        case = self.case
        self.case_box.list_names([describe_case(each) for each in self._cases], self._number if self._cases else -1)
        for index, each in enumerate(self._cases):
            if each.problem:
                self.case_box.setItemText(index, f"{describe_case(each)} (cannot be read)")
        self.case_box.setVisible(len(self._cases) > 1)
        self.series_part.setVisible(case is not None and bool(case.rows))
        if case is None or not case.rows:
            return
        used = [row.modality for row in case.rows if row.used]
        text = f"{len(used)} of {len(case.rows)} series are used: {', '.join(filter(None, used)) or 'none'}."
        if unsure := sum(row.used and not row.sure for row in case.rows):
            text += f" Check {'the one' if unsure == 1 else f'the {unsure}'} with a question mark."
        self.series.show_rows(case.rows, f"{describe_case(case)}: {text}")
        if unsure or any(not row.used for row in case.rows) or len(self._cases) > 1:
            self.series_part.expand(animate=False)
        else:
            self.series_part.collapse(animate=False)

    def _add(self, made: LayersMade) -> None:
        """Show a case; of series that are no longer used, the layers go, and none is shown twice."""
        layers, read = self._viewer.layers, made.read
        keys = {image.series.key: image.modality for image in read.case.images if image.series is not None}
        for layer in [layer for layer in layers if self._is_of(layer, read.case)]:
            if layer.metadata[KEY]["modality"] != keys.get(layer.metadata[KEY]["series"]):
                layers.remove(layer)
        there = {self._identify(layer.metadata) for layer in layers if self._is_of(layer, read.case)}
        new = [layer for layer in made.layers if self._identify(layer.metadata) not in there]
        unused = [row for row in read.case.rows if not row.used and row.why_not != row.series.problem]
        in_table = describe_rows(unused)
        self._message.show_text("\n".join(note for note in read.notes if note not in in_table))
        if new:
            self._footer.show_last("Showing the scans…")
            self._showing.show(new)

    def _end_showing(self) -> None:
        if self._ended:
            self._finish()

    def _identify(self, metadata: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return what tells the layers of a case apart."""
        known = metadata.get(KEY, {})
        return known.get("series"), known.get("modality")

    def _is_of(self, layer: Layer, case: CaseFiles) -> bool:
        known = layer.metadata.get(KEY, {})
        return bool(known.get("series")) and known.get("case") == case.name

    # ---------------------------------------------------------------------------------------------- choosing

    def _open_other(self, index: int) -> None:
        case = self._cases[index]
        self._number = index
        self._show_cases()
        if case.problem is not None:
            self._message.show_text(f"Not opened: {self._with_advice(case.problem)}")
            return
        self._run(f"Open {case.name}", open_case, case, said=f"Reading {case.name}…")

    def _use(self, key: str, modality: str) -> None:
        """Use a series for another modality, or for none, and remember it."""
        case = self.case
        if case is None:
            return
        changed = change_row(case, key, modality or None)
        try:
            remember_choice(changed)
        except DataError as error:
            show_warning(str(error))
        self._replace_case(changed)
        known = [layer.metadata[KEY] for layer in self._viewer.layers if self._is_of(layer, changed)]
        open_now = {(each["series"], each["modality"]) for each in known}
        beside = next((each["beside"] for each in known if each.get("beside") is not None), None)
        used = [(image.series.key, image.modality) for image in changed.images if image.series is not None]
        wanted = [modality for key, modality in used if (key, modality) not in open_now]
        self._run(f"Open {changed.name}", read_layers_of, changed, wanted, beside, said="Reading the other series…")


def describe_case(case: CaseFiles) -> str:
    """Return a case in the list: its name, and the day of the examination if it is known."""
    date = next((row.series.date for row in case.rows if row.series.date), "")
    return f"{case.name}, {date}" if date and date not in case.name else case.name
