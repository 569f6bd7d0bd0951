"""The Cohort dock: segment many cases in a process that outlives the viewer, and walk through the results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QSize, Qt, QUrl
from qtpy.QtGui import QDesktopServices, QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.cohorts.followed import FollowedRun, make_request, suggest_output
from napari_braintumor.engine.cohorts.ledger import REPORT
from napari_braintumor.engine.cohorts.marks import Mark, find_corrected_cases, read_marks
from napari_braintumor.engine.cohorts.rows import CaseRow, write_table
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.layers import CasesFound
from napari_braintumor.widgets.cohort.asking import ask_dataset
from napari_braintumor.widgets.cohort.case_box import CaseBox
from napari_braintumor.widgets.cohort.correcting import CorrectionSaved
from napari_braintumor.widgets.cohort.run_bar import RunBar
from napari_braintumor.widgets.cohort.table import FILTERS, CohortTable, SortedCases
from napari_braintumor.widgets.cohort.watching import (
    DONE,
    FAILED,
    PICTURE_PX,
    RUNNING,
    CaseNews,
    CohortNews,
    look_for_cases,
)
from napari_braintumor.widgets.segmenting.drops import FileDrops
from napari_braintumor.widgets.segmenting.model_choice import ModelChoice
from napari_braintumor.widgets.shared.dock import Dock, open_dock
from napari_braintumor.widgets.shared.doubts import DoubtQuestion
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.keys import DockKeys
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget
from napari_braintumor.widgets.shared.path_row import PathRow, ask_folder
from napari_braintumor.widgets.shared.preferences import MODELS
from napari_braintumor.widgets.shared.tables import make_table_view

if TYPE_CHECKING:
    import napari

TABLE_HEIGHT_PX = 260
_WIDTHS_PX = (190, 90, 80, 60)


class CohortDock(Dock):
    """The Cohort dock.

    Parameters
    ----------
    napari_viewer
        The viewer in which cases are opened; napari passes it by this name.
    """

    title = "Cohort"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._dataset: Path | None = None
        self._suggested: Path | None = None  # where results go, unless the user has said otherwise
        self._looking: Job | None = None
        self._build()
        self.model_choice.reload()
        MODELS.changed.connect(self.model_choice.reload)
        self._show_state()

    @property
    def run(self) -> FollowedRun | None:
        """The run that is shown."""
        return self.run_bar.run

    def describe_closing(self) -> str:
        """Say that a run goes on without its dock."""
        if not self.run_bar.running:
            return ""
        return "The cohort goes on. Open Cohort and choose the same results to follow it again."

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.dataset_row = PathRow(
            "Cases",
            "A folder of cases, a BIDS dataset, DICOM files, or a table of paths; or drop it here",
            ask_dataset,
        )
        self.dataset_row.chosen.connect(self._take_dataset)
        self.output_row = PathRow(
            "Results", "The folder of results; choose that of an earlier run to follow it again", ask_folder
        )
        self.output_row.chosen.connect(self._take_output)
        self._drops = FileDrops(self)
        self._drops.dropped.connect(self._take_dropped)
        self.model_choice = ModelChoice()
        self.found_line = make_line("Choose a folder of cases, or drop it here.", "What was found")
        self.table = CohortTable()
        self.cases = SortedCases(self.table)
        self.view = make_table_view(
            self.cases, "Cases", "Click a heading to sort; double-click a case, or press Enter, to open it"
        )
        self.filter_box = Combo()
        name_widget(self.filter_box, "Show", "Which cases are shown")
        self.filter_box.addItems([each or "all cases" for each in FILTERS])
        self.search_edit = QLineEdit()
        self.search_edit.setPlaceholderText("with these words")
        name_widget(self.search_edit, "Words", "Show only cases with this in their name, their notes or their mark")
        self.filter_box.currentIndexChanged.connect(self._filter)
        self.search_edit.textChanged.connect(self._filter)
        self.message = Message()
        self.case_box = CaseBox(self._viewer, self.message)
        self.case_box.marked.connect(self._show_mark)
        self.case_box.corrected.connect(self._show_corrected)
        self._fit_table()
        self.learn_button, self.export_button, self.report_button = map(
            QPushButton, ("Learn…", "Export table…", "Report")
        )
        for button, tip, act in (
            (self.learn_button, "Tune the model to the cases that were corrected here, in the Train dock", self._learn),
            (self.export_button, "Save the table with all measurements and marks as CSV", self._ask_where),
            (self.report_button, "Open the report, with the pictures, in your browser", self._open_report),
        ):
            name_widget(button, button.text().strip("…"), tip)
            button.clicked.connect(act)

        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        form = QFormLayout()
        form.addRow("Cases", self.dataset_row)
        form.addRow("Results", self.output_row)
        column.addLayout(form)
        column.addWidget(self.model_choice)
        column.addWidget(self.found_line)
        filters = QHBoxLayout()
        filters.addWidget(self.filter_box)
        filters.addWidget(self.search_edit)
        column.addLayout(filters)
        column.addWidget(self.view)
        column.addWidget(self.case_box)
        more = QHBoxLayout()
        for button in (self.learn_button, self.export_button, self.report_button):
            more.addWidget(button)
        column.addLayout(more)

        self.run_bar = RunBar(self.message)
        self.run_bar.start_asked.connect(self._start)
        self.run_bar.followed.connect(self._show_marks)
        self.run_bar.news.connect(self._take_news)
        self.run_bar.changed.connect(self._show_state)
        self.doubts = DoubtQuestion()
        self.doubts.accepted.connect(self._start)
        self.model_choice.changed.connect(self.doubts.withdraw)
        self.lay_out(body, (self.message, self.doubts, self.run_bar))
        DockKeys(self, {"Esc": self.case_box.footer.cancel, "Ctrl+Return": self.run_bar.run_button.click})

    def _fit_table(self) -> None:
        self.view.setSortingEnabled(True)
        self.view.sortByColumn(-1, Qt.SortOrder.AscendingOrder)  # as in the dataset until somebody clicks
        self.view.setMinimumHeight(TABLE_HEIGHT_PX)
        self.view.setIconSize(QSize(3 * PICTURE_PX, PICTURE_PX))
        self.view.setWordWrap(False)
        if (side := self.view.verticalHeader()) is not None:
            side.setDefaultSectionSize(PICTURE_PX + 4)
            side.hide()
        for column, width_px in enumerate(_WIDTHS_PX):
            self.view.setColumnWidth(column, width_px)
        if (selection := self.view.selectionModel()) is not None:
            selection.currentRowChanged.connect(self._choose)
        self.view.doubleClicked.connect(self._open)
        enter = QShortcut(QKeySequence(Qt.Key.Key_Return), self.view)
        enter.setContext(Qt.ShortcutContext.WidgetShortcut)
        enter.activated.connect(self.case_box.open)
        self.cases.columnsInserted.connect(self._fit_columns)

    def _fit_columns(self, _: QModelIndex, first: int, last: int) -> None:
        """Give columns of regions the width of their headings."""
        for column in range(first, last + 1):
            self.view.resizeColumnToContents(column)

    # ---------------------------------------------------------------------------------------------- dataset, results

    def _take_dropped(self, paths: list[Path]) -> None:
        if len(paths) != 1:
            self.message.show_text("Drop one folder or one table: the cases of one dataset.")
        elif FollowedRun(paths[0]).request is not None:
            self.output_row.show_path(paths[0])
        else:
            self._dataset = None  # so that what was dropped once more is looked at again
            self.dataset_row.show_path(paths[0])

    def _take_dataset(self) -> None:
        """Look for the cases of another dataset."""
        path = self.dataset_row.path
        if path is None or path == self._dataset:
            return
        self._leave()
        self._look(path)

    def _take_output(self) -> None:
        """Follow the run of other results, if there is one."""
        path = self.output_row.path
        if path is None or (self.run is not None and path == self.run.output):
            return
        request = FollowedRun(path).request
        self._leave()
        if request is None:
            self._show_state()
            return
        try:
            self.model_choice.choose(ModelStore().find(request.model).path)
        except BrainTumorError as error:
            self.message.show_text(str(error))
        dataset = self._dataset if self._dataset is not None and request.is_of(self._dataset) else request.dataset
        if dataset is None:
            self._show_state()
            self.message.show_text("Choose the folder of the cases too: paths of DICOM files are not kept.")
            return
        self.dataset_row.edit.setText(str(dataset))
        self._look(dataset)

    def _leave(self) -> None:
        """Follow no run any more; it goes on."""
        self.run_bar.leave()
        self.case_box.work_on(None, None)

    def _look(self, dataset: Path) -> None:
        """Find the cases, in the background, and then follow what there is of a run."""
        self._dataset = dataset
        self.table.fill(())
        self.message.show_text("")
        self.found_line.setText("Looking for cases…")
        if self._looking is not None:
            self._looking.cancel()
        self._looking = job = Job(self, "Look for cases", look_for_cases, dataset)
        job.happened.connect(partial(self._take_cases, job))
        job.failed.connect(partial(self._fail_looking, job))
        job.ended.connect(partial(self._end_looking, job))
        job.start()
        self._show_state()

    def _take_cases(self, job: Job, event: CasesFound) -> None:
        if job is not self._looking:
            return
        self.table.fill(event.cases)
        self._count()
        if self._dataset is not None and self.output_row.path in (None, self._suggested):
            self._suggested = suggest_output(self._dataset, event.cases)
            self.output_row.edit.setText(str(self._suggested))

    def _fail_looking(self, job: Job, failure: Failure) -> None:
        if job is self._looking:
            self.found_line.setText("")
            self.message.show_failure(failure)

    def _end_looking(self, job: Job) -> None:
        if job is not self._looking:
            return
        self._looking = None
        output = self.output_row.path
        if output is not None and self.table.rows and self._is_of(FollowedRun(output)):
            self.run_bar.follow(FollowedRun(output.absolute()))
        self._show_state()

    def _is_of(self, run: FollowedRun) -> bool:
        """Whether a run is that of the cases that are shown."""
        request = run.request
        return request is not None and self._dataset is not None and request.is_of(self._dataset)

    # ---------------------------------------------------------------------------------------------- the run

    def _start(self) -> None:
        """Start the run, or go on with it."""
        model, output, dataset = self.model_choice.model, self.output_row.path, self._dataset
        if model is None or output is None or dataset is None or not self.doubts.settles([model]):
            return
        self.message.show_text("")
        cases = [row.files for row in self.table.rows if row.files is not None]
        name = model.name if model.bundled else str(model.path)  # the process knows nothing of napari's Preferences
        self.run_bar.start(make_request(dataset, name, cases), dataset, output.absolute())

    def _show_marks(self) -> None:
        """Show what was marked in the results of a run that is shown now."""
        assert self.run is not None
        try:
            for case, mark in read_marks(self.run.output).items():
                self.table.mark(case, mark)
        except BrainTumorError as error:
            self.message.show_text(str(error))
        self._choose()

    def _take_news(self, news: CohortNews) -> None:
        if news.begun:
            self.table.wait_again(RUNNING, FAILED)
        self.table.take(news.cases)
        chosen = self.cases.row_at(self.view.currentIndex())
        if chosen is not None and any(each.case == chosen.name for each in news.cases):
            self.case_box.work_on(self.run, chosen)
        self._count()

    def _show_state(self) -> None:
        """Offer what can be done."""
        running = self.run_bar.running
        if not running:
            self.table.wait_again(RUNNING)
        self.run_bar.allow(bool(self.table.rows) and self._looking is None)
        for widget in (self.model_choice, self.dataset_row):
            widget.setEnabled(not running)
        self.report_button.setEnabled(self.run is not None and (self.run.output / REPORT).is_file())
        self.export_button.setEnabled(any(row.row is not None for row in self.table.rows))
        self.learn_button.setEnabled(self.run is not None and find_corrected_cases(self.run.output).is_dir())
        self._count()

    def _count(self) -> None:
        """Say what was found, and how the cases stand."""
        rows = self.table.rows
        if not rows:
            return
        counts = {
            "cannot be read": sum(bool(row.files and row.files.problem) for row in rows),
            "unsure, see the column Series": sum(bool(row.unsure) for row in rows),
            "done": sum(row.status == DONE for row in rows),
            "failed": sum(row.status == FAILED for row in rows),
        }
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        self.found_line.setText("; ".join((f"{len(rows)} cases" if len(rows) > 1 else "1 case", *parts)) + ".")

    # ---------------------------------------------------------------------------------------------- the cases

    def _filter(self, _: Any = None) -> None:
        self.cases.filter_by(FILTERS[self.filter_box.currentIndex()], self.search_edit.text())

    def _choose(self, place: QModelIndex | None = None, _: QModelIndex | None = None) -> None:
        self.case_box.work_on(self.run, self.cases.row_at(self.view.currentIndex() if place is None else place))

    def _open(self, place: QModelIndex) -> None:
        self._choose(place)
        self.case_box.open()

    def _show_mark(self, case: str, mark: Mark) -> None:
        self.table.mark(case, mark)
        self._choose()

    def _show_corrected(self, saved: CorrectionSaved) -> None:
        self.table.take([CaseNews(saved.case, DONE, CaseRow(saved.case, saved.result))])
        self._choose()
        self._show_state()

    def _learn(self) -> None:
        """Open the Train dock, filled to tune the model to the corrected cases."""
        from napari_braintumor.widgets.training.dock import TrainDock

        model, run = self.model_choice.model, self.run
        if model is not None and run is not None and (dock := open_dock(self._viewer, TrainDock)) is not None:
            dock.prepare_tuning_to(find_corrected_cases(run.output), model.path)

    def _ask_where(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Export the table", "cohort.csv", "Tables (*.csv)")
        if chosen:
            self.export_to(Path(chosen))

    def export_to(self, path: Path) -> None:
        """Write the table with all measurements and marks as CSV."""
        rows = [
            CaseRow(each.name, each.row.result, each.row.reason, str(each.mark))
            for each in self.table.rows
            if each.row is not None
        ]
        try:
            with replacing(path) as temporary:
                temporary.write_text(write_table(rows, path.parent), encoding="utf-8", errors="backslashreplace")
        except BrainTumorError as error:
            self.message.show_text(str(error))
        else:
            self.message.show_text(f"Saved as '{path}'.")

    def _open_report(self) -> None:
        if self.run is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.run.output / REPORT)))
