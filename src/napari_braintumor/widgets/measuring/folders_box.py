"""A part of the Measure dock that is folded away: labels of many cases, or a model, against references."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_braintumor import engine
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import CaseEvaluated, CaseFailed, Noted, PhaseReached
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.measuring.folders import (
    CaseScored,
    PairedScore,
    Scored,
    Summary,
    compare_scored,
    read_scores,
    score_files,
    summarize,
    write_scores,
)
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from napari_braintumor.widgets.shared.meaning_box import MeaningBox
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget
from napari_braintumor.widgets.shared.path_row import PathRow, ask_folder
from napari_braintumor.widgets.shared.tables import TextTable, make_table_view

FOLDER = "Labels in a folder"

ScoreEvent = PhaseReached | Noted | CaseScored | CaseFailed

_COLUMNS = ("region", "score", "n", "mean", "95 % interval", "difference", "p")


@dataclass(frozen=True)
class Summarized:
    """The means over cases, and how they differ from those of another table."""

    summaries: list[Summary]
    paired: list[PairedScore]


def score_all(
    score: Callable[..., Iterator[ScoreEvent]], args: tuple[Any, ...], others: Scored
) -> Generator[ScoreEvent | Summarized, None, None]:
    """Score cases, and sum up at the end: the intervals take long enough to be felt in the window.

    Parameters
    ----------
    score, args
        `score_files` or `score_model`, and what it is given.
    others
        Another table of the same cases; empty for none.

    Yields
    ------
    ScoreEvent or Summarized
        The events of `score`, and `Summarized` last.
    """
    scored = {}
    for event in score(*args):
        if isinstance(event, CaseScored):
            scored[event.case] = event.scores
        yield event
    yield PhaseReached("summing up", 1, 1)
    yield Summarized(summarize(scored), compare_scored(scored, others))


def score_model(folder: Path, model: str, convention: str | None) -> Generator[ScoreEvent, None, None]:
    """Segment the cases of a folder with a model, and score it against their masks.

    Yields
    ------
    PhaseReached, Noted, CaseScored or CaseFailed
        As `score_files`.

    Raises
    ------
    BrainTumorError
        If there is no such folder, it holds no cases, or none has a mask.
    """
    yield PhaseReached("looking for cases")
    cases = find_cases(folder)
    if convention is not None:  # cases written by this program state it themselves
        cases = [case if case.group == "corrected" else replace(case, convention=convention) for case in cases]
    config = EvaluateConfig(segmentation=SegmentConfig(model=model), every_score=True)
    done = 0
    yield PhaseReached(f"segmenting {cases[0].name}" if cases else "segmenting", 0, len(cases))
    for event in engine.evaluate(cases, config):
        if isinstance(event, CaseEvaluated):
            yield CaseScored(event.case, event.scores)
        elif isinstance(event, CaseFailed | Noted):
            yield event
        if isinstance(event, CaseEvaluated | CaseFailed):
            done += 1
            yield PhaseReached("segmenting and scoring", done, len(cases))


def _ask_table(parent: QWidget) -> str:
    return str(QFileDialog.getOpenFileName(parent, "Table of scores", "", "Tables (*.csv)")[0])


class FoldersBox(QWidget):
    """Score many cases: two folders of labels, or a model on a folder of cases with masks."""

    asked = Signal(object, tuple)
    """A generator function to run in the background, and its arguments."""

    said = Signal(str)
    """A sentence for the dock to show."""

    def __init__(self) -> None:
        super().__init__()
        self._scored: dict[str, Any] = {}
        self._others: Scored = {}
        self._notes: list[str] = []
        self._name = FOLDER
        self.source_box = Combo()
        name_widget(self.source_box, "What is scored", "Labels that are there already, or a model that draws them")
        self.source_box.currentIndexChanged.connect(self._show_rows)
        self.labels_row = PathRow("Folder of labels", "Files named as the references are", ask_folder)
        self.labels_meaning = MeaningBox("What the labels of the folder mean", "Meaning: as the files say")
        self.reference_row = PathRow(
            "Folder of references", "Masks named as the labels are; for a model, cases with their masks", ask_folder
        )
        self.reference_meaning = MeaningBox("What the references mean", "Meaning: as the files say")
        self.against_row = PathRow(
            "Compare with",
            "A table that was saved here or by evaluate: do the two differ on the same cases?",
            _ask_table,
        )
        self.score_button = QPushButton("Score all cases")
        name_widget(self.score_button, "Score all cases", "Score every case, and show means with their intervals")
        self.score_button.clicked.connect(self._ask)
        self.table = TextTable(_COLUMNS, numbers_from=2)
        self.view = make_table_view(self.table, "Scores of all cases", "Means over cases, and a paired test")
        self.view.setMinimumHeight(200)
        self.notes_line = make_line("", "What was left out")
        self.table_button, self.page_button = QPushButton("Save table…"), QPushButton("Save page…")
        name_widget(self.table_button, "Save table of scores", "A CSV file, a row for each region of a case")
        name_widget(
            self.page_button, "Save page of scores", "Points, means with intervals and a table on one page, at 300 dpi"
        )
        self.table_button.clicked.connect(partial(self._ask_file, "scores.csv", self.save_table))
        self.page_button.clicked.connect(partial(self._ask_file, "scores.png", self.save_page))
        column = QVBoxLayout(self)
        column.addWidget(self.source_box)
        self._form = QFormLayout()
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self._form.addRow("Labels", self.labels_row)
        self._form.addRow(self.labels_meaning)
        self._form.addRow("References", self.reference_row)
        self._form.addRow(self.reference_meaning)
        self._form.addRow("Compare with", self.against_row)
        column.addLayout(self._form)
        for widget in (self.score_button, self.view, self.notes_line):
            column.addWidget(widget)
        buttons = QHBoxLayout()
        buttons.addWidget(self.table_button)
        buttons.addWidget(self.page_button)
        column.addLayout(buttons)
        self.offer_models()
        self.set_busy(False)

    @property
    def scored(self) -> Scored:
        """The scores of each case."""
        return self._scored

    def offer_models(self) -> None:
        """List the models that are installed."""
        chosen = self.source_box.currentData()
        self.source_box.blockSignals(True)
        self.source_box.clear()
        self.source_box.addItem(FOLDER, None)
        for model in ModelStore().list():
            if model.card is not None:
                self.source_box.addItem(f"Model {model.name}", model.name)
        self.source_box.setCurrentIndex(max(self.source_box.findData(chosen), 0))
        self.source_box.blockSignals(False)
        self._show_rows()

    def take(self, event: Any) -> None:
        """Take an event of what was asked for."""
        if isinstance(event, CaseScored):
            self._scored[event.case] = event.scores
        elif isinstance(event, Summarized):
            self._fill(event.summaries, event.paired)
        elif isinstance(event, Noted):
            self._note(event.text)
        elif isinstance(event, CaseFailed):
            self._note(f"{event.case} failed: {event.reason}")

    def save_table(self, path: Path) -> None:
        """Write the scores of each case as CSV."""
        write_scores(path, self._scored)

    def save_page(self, path: Path) -> None:
        """Write the page of all cases."""
        from napari_braintumor.engine.measuring.summary_page import save_summary_page  # matplotlib takes long to import

        sets: dict[str, Scored] = {self._name: self._scored}
        if self._others:
            sets["compared with"] = self._others
        save_summary_page(sets, path)

    def _show_rows(self, _: int = 0) -> None:
        of_model = self.source_box.currentData() is not None
        for widget in (self.labels_row, self.labels_meaning):
            widget.setVisible(not of_model)
            if (label := self._form.labelForField(widget)) is not None:
                label.setVisible(not of_model)

    def set_busy(self, busy: bool) -> None:
        """Offer nothing to start while a job of the dock runs."""
        self.score_button.setEnabled(not busy)
        for button in (self.table_button, self.page_button):
            button.setEnabled(bool(self._scored) and not busy)

    def _ask(self) -> None:
        """Ask for the scores, or say what is missing."""
        model, reference = self.source_box.currentData(), self.reference_row.path
        labels, against = self.labels_row.path, self.against_row.path
        try:
            if reference is None:
                raise SettingsError("No folder of references is given. Choose it first.")
            if model is None and labels is None:
                raise SettingsError("No folder of labels is given. Choose it, or score a model.")
            self._others = read_scores(against) if against is not None else {}
        except (SettingsError, DataError) as error:
            self.said.emit(str(error))
            return
        self._scored, self._notes, self._name = {}, [], model or "labels"
        self.notes_line.setText("")
        self._fill([], [])
        means = self.reference_meaning.convention
        if model is not None:
            self.asked.emit(score_all, (score_model, (reference, model, means), self._others))
        else:
            of_files = (labels, reference, self.labels_meaning.convention, means)
            self.asked.emit(score_all, (score_files, of_files, self._others))

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self.notes_line.setText("\n".join(self._notes))

    def _fill(self, summaries: Sequence[Summary], paired: Sequence[PairedScore]) -> None:
        """Show means, and how they differ from those of another table."""
        tests = {(each.region, each.score.name): each for each in paired}
        rows = []
        for each in summaries:
            show, found = each.score.show, tests.get((each.region, each.score.name))
            interval = f"{show(each.low)} to {show(each.high)}" if each.count > 1 else ""
            test = (show(found.test.difference), f"{found.test.p_value:.2g}") if found is not None else ("", "")
            rows.append([each.region, each.score.heading, str(each.count), show(each.mean), interval, *test])
        self.table.fill(rows)
        self.view.resizeColumnsToContents()

    def _ask_file(self, name: str, save: Callable[[Path], None]) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save", name)
        if not chosen:
            return
        try:
            save(Path(chosen))
        except DataError as error:
            self.said.emit(str(error))
        else:
            self.said.emit(f"Saved as '{chosen}'.")
