"""The table of a cohort: a row a case, that can be sorted and filtered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QPixmap

from napari_braintumor.engine.cohorts.marks import MARKS, Mark
from napari_braintumor.engine.cohorts.rows import (
    GUESSED,
    LOW_TRUST,
    NO_TUMOR,
    NOT_SHOWN,
    NOTES,
    CaseRow,
)
from napari_braintumor.engine.files.calling import natural_sort_key
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.widgets.cohort.watching import DONE, FAILED, RUNNING, WAITING, CaseNews
from napari_braintumor.widgets.shared.parts import literal
from napari_braintumor.widgets.shared.tables import RIGHT, ROOT

CASE, STATUS, MARK, TRUST = "Case", "Status", "Mark", "Trust"
FLAGS, SERIES, NOTED = "Flags", "Series", "Notes"
_FIRST, _LAST = (CASE, STATUS, MARK, TRUST), (FLAGS, SERIES, NOTED)

UNSURE, NOT_MARKED = "unsure series", "not marked"
FILTERS = ("", DONE, NOT_MARKED, *MARKS, UNSURE, LOW_TRUST, NO_TUMOR, NOT_SHOWN, GUESSED, NOTES, FAILED, WAITING)
"""What the table can be filtered by; empty shows all."""

_TRUST_ORDER = ("low", "medium", "high")
_PICTURE_WIDTH_PX = 420

_UNMARKED = Mark()

SORT_ROLE = Qt.ItemDataRole.UserRole


@dataclass(frozen=True, eq=False)
class CohortRow:
    """A case in the table.

    Attributes
    ----------
    name
        Its name.
    files
        Its scans, as they were found; None for a case of the run that is not found any more.
    status
        One of `WAITING`, `RUNNING`, `DONE` and `FAILED`.
    row
        What came of it.
    picture
        Its three planes, small.
    slices
        How many slices the network has seen, of how many.
    mark
        What a person did with it.
    """

    name: str
    files: CaseFiles | None = None
    status: str = WAITING
    row: CaseRow | None = None
    picture: QPixmap | None = None
    slices: tuple[int, int] | None = None
    mark: Mark = _UNMARKED

    @property
    def unsure(self) -> tuple[str, ...]:
        """A sentence for each series that is used and may show something else."""
        rows = self.files.rows if self.files is not None else ()
        return tuple(
            f"{each.title} is used as {each.modality}, which is not certain: {each.reason}."
            for each in rows
            if each.used and not each.sure
        )

    @property
    def series(self) -> str:
        """The modalities that were found, with a question mark where that is not certain."""
        if self.files is None:
            return ""
        doubted = {each.modality for each in self.files.rows if each.used and not each.sure}
        return ", ".join(f"{each.modality}{'?' * (each.modality in doubted)}" for each in self.files.images)

    @property
    def problem(self) -> str:
        """Why there is no result, as far as that is known."""
        if self.row is not None and self.row.reason:
            return self.row.reason
        return (self.files.problem or "") if self.files is not None and self.row is None else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the case, one sentence each."""
        if self.problem:
            return (self.problem,)
        of_run = tuple(map(str, self.row.content.get("notes", ()))) if self.row is not None else ()
        return of_run or (self.files.notes if self.files is not None else ())

    @property
    def flags(self) -> tuple[str, ...]:
        """What a person should look at."""
        found = self.row.flags if self.row is not None else (FAILED,) if self.problem else ()
        return (*found, UNSURE) if self.unsure else found

    @property
    def described(self) -> str:
        """All of it in a few lines."""
        trust = self.row.trust if self.row is not None else None
        lines = [self.name, *(trust.lines() if trust is not None else ()), *self.notes, *self.unsure]
        return "\n".join(lines)

    def answers(self, filtered_by: str) -> bool:
        """Whether the row is to be seen with a filter of `FILTERS`."""
        if filtered_by == NOT_MARKED:
            return self.status == DONE and not self.mark.word
        return filtered_by in ("", self.status, self.mark.word, *self.flags)


class CohortTable(QAbstractTableModel):
    """The cases; it is filled and read without a window."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[CohortRow] = []
        self.regions: list[str] = []
        self._places: dict[str, int] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns are called."""
        return (*_FIRST, *(f"{region}, mL" for region in self.regions), *_LAST)

    def fill(self, cases: Iterable[CaseFiles]) -> None:
        """Show the cases of another dataset."""
        self.beginResetModel()
        self.rows = [CohortRow(case.name, case) for case in cases]
        self.regions = []
        self._places = {row.name: place for place, row in enumerate(self.rows)}
        self.endResetModel()

    def find(self, name: str) -> CohortRow | None:
        """Return the row of a case."""
        return self.rows[self._places[name]] if name in self._places else None

    def take(self, news: Iterable[CaseNews]) -> None:
        """Show how cases stand now."""
        for each in news:
            if each.case not in self._places:  # it was found by the run alone
                self.beginInsertRows(ROOT, len(self.rows), len(self.rows))
                self._places[each.case] = len(self.rows)
                self.rows.append(CohortRow(each.case))
                self.endInsertRows()
            if each.row is not None:
                self._add_regions(each.row)
            picture = QPixmap.fromImage(each.picture) if each.picture is not None else None
            self._change(each.case, status=each.status, row=each.row, picture=picture, slices=each.slices)

    def mark(self, name: str, mark: Mark) -> None:
        """Show the mark of a case."""
        if name in self._places:
            self._change(name, mark=mark)

    def wait_again(self, *statuses: str) -> None:
        """Show cases of some statuses as waiting: they are tried again, or nobody is at work on them any more."""
        for row in [row for row in self.rows if row.status in statuses]:
            self._change(row.name, status=WAITING, row=None, slices=None)

    def _change(self, name: str, **values: Any) -> None:
        place = self._places[name]
        self.rows[place] = replace(self.rows[place], **values)
        self.dataChanged.emit(self.index(place, 0), self.index(place, len(self.columns) - 1))

    def _add_regions(self, row: CaseRow) -> None:
        new = [region for region in row.content.get("volumes_ml") or {} if region not in self.regions]
        if new:
            first = len(_FIRST) + len(self.regions)
            self.beginInsertColumns(ROOT, first, first + len(new) - 1)
            self.regions += new
            self.endInsertColumns()

    def rowCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many cases there are."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, picture or tooltip, or what it is sorted by."""
        row, column = self.rows[index.row()], self.columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._read(row, column)
        if role == SORT_ROLE:
            return self._key(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return _describe_with_picture(row) if column == CASE else literal(row.described)
        if role == Qt.ItemDataRole.DecorationRole and column == CASE:
            return row.picture
        return RIGHT if role == Qt.ItemDataRole.TextAlignmentRole and column.endswith(", mL") else None

    def headerData(self, section: int, side: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a column is called."""
        if side == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section]
        return None

    def _read(self, row: CohortRow, column: str) -> str:
        if column == STATUS and row.slices is not None:
            return f"{row.status} {row.slices[0]}/{row.slices[1]}"
        if column.endswith(", mL"):
            value = _volume_of(row, column)
            return "" if value is None else f"{value:.1f}"
        texts = {
            CASE: row.name,
            STATUS: row.status,
            MARK: str(row.mark),
            TRUST: row.row.trust.word if row.row is not None and row.row.trust is not None else "",
            FLAGS: ", ".join(row.flags),
            SERIES: row.series,
            NOTED: " ".join(row.notes),
        }
        return texts[column]

    def _key(self, row: CohortRow, column: str) -> Any:
        if column == CASE:
            return natural_sort_key(row.name)
        if column.endswith(", mL"):
            value = _volume_of(row, column)
            return -1.0 if value is None else value
        text = self._read(row, column)
        if column == TRUST:
            return _TRUST_ORDER.index(text) if text in _TRUST_ORDER else -1
        return (RUNNING, DONE, FAILED, WAITING).index(row.status) if column == STATUS else text


class SortedCases(QSortFilterProxyModel):
    """The rows of a `CohortTable` in the order, and of the kind, that was asked for."""

    def __init__(self, table: CohortTable) -> None:
        super().__init__()
        self.table = table
        self._kind, self._text = "", ""
        self.setSourceModel(table)

    def filter_by(self, kind: str, text: str) -> None:
        """Show the rows of a kind, one of `FILTERS`, that have a text somewhere."""
        self._kind, self._text = kind, text.strip().casefold()
        self.invalidateFilter()

    def row_at(self, place: QModelIndex) -> CohortRow | None:
        """Return the case of a cell of the view."""
        return self.table.rows[self.mapToSource(place).row()] if place.isValid() else None

    def find(self, name: str) -> QModelIndex:
        """Return the first cell of a case in the view; an invalid one if it is filtered out."""
        names: Sequence[str] = [row.name for row in self.table.rows]
        return self.mapFromSource(self.table.index(names.index(name), 0)) if name in names else QModelIndex()

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:  # noqa: N802  as Qt calls it
        """Whether a row is shown."""
        row = self.table.rows[source_row]
        return row.answers(self._kind) and self._text in f"{row.described} {row.mark}".casefold()

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:  # noqa: N802  as Qt calls it
        """Whether a cell stands above another one."""
        return bool(self.table.data(left, SORT_ROLE) < self.table.data(right, SORT_ROLE))


def _volume_of(row: CohortRow, column: str) -> float | None:
    value = (row.row.content.get("volumes_ml") or {}).get(column.removesuffix(", mL")) if row.row is not None else None
    return None if value is None else float(value)


def _describe_with_picture(row: CohortRow) -> str:
    result = row.row.result if row.row is not None else None
    text = escape(row.described).replace("\n", "<br>")
    if result is None or result.picture is None:
        return literal(row.described)
    return f'<qt>{text}<br><img src="{escape(str(result.picture))}" width="{_PICTURE_WIDTH_PX}"></qt>'
