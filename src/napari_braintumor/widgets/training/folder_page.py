"""Cases on disk to learn from: the cases found in a folder, and the side each patient is on."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path

from qtpy.QtCore import QModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QHeaderView, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.files.usable import CaseReport, survey_cases
from napari_braintumor.engine.files.written import corrected_folder
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.parts import make_line, name_widget
from napari_braintumor.widgets.shared.tables import TextTable, make_table_view

SOURCES = {"layers": "The open layers", "folder": "A folder of cases", "corrected": "My corrected cases"}
SIDES = ("automatic", "training", "validation", "left out")
FIELDS = {"training": "training", "validation": "validation", "left out": "held_out"}
"""What a plan calls the sides that are chosen by hand."""

TABLE_HEIGHT_PX = 140


class CasesTable(TextTable):
    """The cases found and the side each patient is on, which can be read without a window."""

    def __init__(self) -> None:
        super().__init__(("case", "side", "what it has"))
        self.reports: list[CaseReport] = []
        self.sides: dict[str, str] = {}

    @property
    def usable(self) -> list[CaseReport]:
        """The cases that can be learned from."""
        return [report for report in self.reports if not report.problem]

    def clear(self) -> None:
        """Forget all cases."""
        self.reports, self.sides = [], {}
        self.fill(())

    def add_report(self, report: CaseReport) -> None:
        """Add a case; its patient is on no side yet."""
        self.reports.append(report)
        self.sides.setdefault(report.case.patient, SIDES[0])
        content = report.problem or f"{', '.join(report.modalities)}; {', '.join(report.regions)}"
        self.add((report.case.name, "unusable" if report.problem else SIDES[0], content))

    def change_side(self, row: int) -> None:
        """Put the patient of a case on the next side, with all of its cases; nothing if the case is unusable."""
        if self.reports[row].problem:
            return
        patient = self.reports[row].case.patient
        self.sides[patient] = SIDES[(SIDES.index(self.sides[patient]) + 1) % len(SIDES)]
        for number, report in enumerate(self.reports):
            if report.case.patient == patient and not report.problem:
                self.change(number, 1, self.sides[patient])


class FolderPage(QWidget):
    """Choose a folder of cases and see what is in it."""

    changed = Signal()
    """Other cases are found, or a patient is on another side."""

    def __init__(self) -> None:
        super().__init__()
        self._job: Job | None = None
        self._source = ""
        self.folder_row = QWidget()
        row = QHBoxLayout(self.folder_row)
        row.setContentsMargins(0, 0, 0, 0)
        self.folder_edit = QLineEdit()
        self.folder_edit.setPlaceholderText("Folder of cases")
        name_widget(self.folder_edit, "Folder of cases", "Cases named as in BraTS, LGG, BIDS, or by their modality")
        self.folder_edit.editingFinished.connect(self.look)
        browse = QPushButton("Choose…")
        name_widget(browse, "Choose the folder of cases", "Look for a folder")
        browse.clicked.connect(self._browse)
        row.addWidget(self.folder_edit, 1)
        row.addWidget(browse)
        self.found_line = make_line("", "Cases found")
        self.cases = CasesTable()
        self.view = make_table_view(
            self.cases, "Cases found", "Double-click a case, or press Enter, to change the side its patient is on"
        )
        self.view.setMinimumHeight(TABLE_HEIGHT_PX)
        if (header := self.view.horizontalHeader()) is not None:
            for column in (0, 1):
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self.view.doubleClicked.connect(self._change_side)
        enter = QShortcut(QKeySequence(Qt.Key.Key_Return), self.view)
        enter.setContext(Qt.ShortcutContext.WidgetShortcut)
        enter.activated.connect(self._change_current_side)
        column_layout = QVBoxLayout(self)
        column_layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.folder_row, self.found_line, self.view):
            column_layout.addWidget(widget)

    @property
    def folder(self) -> Path | None:
        """The folder of cases, if one is chosen."""
        if self._source == "corrected":
            return corrected_folder()
        text = self.folder_edit.text().strip()
        return Path(text).expanduser() if text and self._source == "folder" else None

    @property
    def slice_count(self) -> int | None:
        """How many slices there are to learn from and to judge by; None where that is not known yet."""
        if self._job is not None or not self.cases.usable:
            return None
        counts = [(report.case.reviewed, report.shape) for report in self.cases.usable]
        return sum(len(marks) if marks is not None else shape[0] if shape else 0 for marks, shape in counts)

    def named_sides(self) -> dict[str, tuple[str, ...]]:
        """Return the patients that the user put on a side by hand, as fields of a plan."""
        return {
            field: patients
            for side, field in FIELDS.items()
            if (patients := tuple(patient for patient, chosen in self.cases.sides.items() if chosen == side))
        }

    def show_source(self, source: str) -> None:
        """Look at what is learned from, a key of `SOURCES`: a folder that is chosen here, or the corrected cases."""
        self._source = source
        self.folder_row.setVisible(source == "folder")
        self.look()

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of cases", self.folder_edit.text())
        if chosen:
            self.folder_edit.setText(chosen)
            self.look()

    def look(self) -> None:
        """Look at the cases of the chosen folder, in the background."""
        folder = self.folder
        if self._job is not None:
            self._job.cancel()
        self.cases.clear()
        self.found_line.setText("")
        if folder is None:
            return
        if self._source == "corrected" and not folder.is_dir():
            self.found_line.setText("There are none yet. Correct a case, then press Keep for later at the open layers.")
            return
        self.found_line.setText("Looking…")
        self._job = job = Job(self, "Look at cases", _survey, folder)
        job.happened.connect(partial(self._add, job))
        job.failed.connect(partial(self._fail, job))
        job.ended.connect(partial(self._end, job))
        job.start()

    def _add(self, job: Job, report: CaseReport) -> None:
        if job is self._job:
            self.cases.add_report(report)

    def _fail(self, job: Job, failure: Failure) -> None:
        if job is self._job:
            self.found_line.setText(failure.text)

    def _end(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self._count()

    def _count(self) -> None:
        usable = self.cases.usable
        if self.cases.reports:
            of_all = f"{len(usable)} of {len(self.cases.reports)} cases"
            patients = len({report.case.patient for report in usable})
            self.found_line.setText(
                f"{of_all} can be used, {patients} patients in all. Double-click one, or press Enter, to change "
                "the side its patient is on."
            )
        self.changed.emit()

    def _change_side(self, cell: QModelIndex) -> None:
        self.cases.change_side(cell.row())
        self.changed.emit()

    def _change_current_side(self) -> None:
        if (cell := self.view.currentIndex()).isValid():
            self._change_side(cell)


def _survey(folder: Path) -> Generator[CaseReport, None, None]:
    yield from survey_cases([folder])
