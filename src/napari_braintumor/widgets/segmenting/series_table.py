"""The table of the series that were found: what each is used for, and boxes to change that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QFont, QResizeEvent
from qtpy.QtWidgets import QTableView, QVBoxLayout, QWidget

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.files.choosing_series.rows import NO_MODALITY, SeriesRow
from napari_braintumor.widgets.shared.parts import Combo, literal, make_line, name_widget
from napari_braintumor.widgets.shared.tables import ROOT, make_table_view

NOT_USED = "not used"
"""The entry of a box that leaves a series out."""

MOST_ROWS = 12
"""Rows in sight at once; the rest is scrolled to."""


@dataclass(frozen=True)
class _Column:
    title: str
    tip: str
    read: Callable[[SeriesRow], str]


def _read_description(row: SeriesRow) -> str:
    number = "" if row.series.number is None else f"{row.series.number} "
    return f"{number}{row.series.description}" if row.series.description else row.title


def _read_kind(row: SeriesRow) -> str:
    if row.modality is None:
        return row.reason if row.sure else "unknown"
    return row.modality if row.sure else f"{row.modality}?"


def _read_reason(row: SeriesRow) -> str:
    return row.why_not if row.sure and not row.used else row.reason


_COLUMNS = (
    _Column("Use as", "What the series is used for", lambda row: row.modality or "" if row.used else NOT_USED),
    _Column("Series", "Its number and what the scanner's operator called it", _read_description),
    _Column("Shows", "What it is, by its headers; a question mark where that is not certain", _read_kind),
    _Column("Plane", "How its slices lie", lambda row: row.plane),
    _Column("Voxels, mm", "From foot to head, front to back, right to left", lambda row: row.voxel_size),
    _Column("Date", "The day of the examination", lambda row: row.series.date),
    _Column("Why", "Why it is thought to show that, or why it is not used", _read_reason),
)
USE, NAME, SHOWS, PLANE, VOXELS, DATE, WHY = range(len(_COLUMNS))

MOST_PX = {NAME: 160, SHOWS: 70, WHY: 400}
"""The widest that a column is made; the rest of its text is in the tooltip."""

BOX_PX = 52
"""What a box needs beside its text."""


class SeriesTable(QAbstractTableModel):
    """The series of an examination, a row each. It is filled and read without a window."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: tuple[SeriesRow, ...] = ()

    def fill(self, rows: Sequence[SeriesRow]) -> None:
        """Show other rows."""
        self.beginResetModel()
        self.rows = tuple(rows)
        self.endResetModel()

    def is_open(self, row: SeriesRow) -> bool:
        """Whether a person should look at a row, so that its box is in sight."""
        return row.usable and (row.used or row.choice is not None or bool(row.modality) or not row.sure)

    def rowCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many series there are."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, or its tooltip, which says why; used series are bold."""
        row, column = self.rows[index.row()], _COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.read(row)
        if role == Qt.ItemDataRole.ToolTipRole:
            return literal(explain_row(row))
        if role == Qt.ItemDataRole.FontRole and row.used:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def headerData(self, section: int, side: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a column is called, or its tooltip."""
        if side != Qt.Orientation.Horizontal:
            return None
        texts = {
            Qt.ItemDataRole.DisplayRole: _COLUMNS[section].title,
            Qt.ItemDataRole.ToolTipRole: _COLUMNS[section].tip,
        }
        return texts.get(Qt.ItemDataRole(role))

    def is_same_everywhere(self, column: int) -> bool:
        """Whether a column says the same of all series, so that it need not be shown."""
        return len({_COLUMNS[column].read(row) for row in self.rows}) < 2


def explain_row(row: SeriesRow) -> str:
    """Return a series in a few lines: what it is and why, and why it is not used."""
    kind = row.modality or "none of the modalities"
    lines = [row.title, f"{kind}: {row.reason}"] if row.reason else [row.title]
    if not row.used and row.why_not and row.why_not != row.reason:
        lines.append(f"Not used: {row.why_not}")
    if not row.sure:
        lines.append("This is not certain. Change it in the first column if it is wrong.")
    return "\n".join((*lines, *row.series.notes))


class SeriesView(QWidget):
    """The table with a headline, and a box in each row that a person may want to change."""

    changed = Signal(str, str)
    """The key of a row, and the modality that it is to be used for; empty to leave it out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SeriesTable()
        self.line = make_line("", "What was found")
        self.view: QTableView = make_table_view(
            self.table, "Series", "The series that were found. Bold ones are used; change a box to use another one."
        )
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.view.setWordWrap(False)
        if (side := self.view.verticalHeader()) is not None:
            side.hide()
        self._boxes: dict[str, Combo] = {}
        self._name_px = MOST_PX[NAME]
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.line)
        column.addWidget(self.view)

    def show_rows(self, rows: Sequence[SeriesRow], headline: str) -> None:
        """Show the series of an examination."""
        self.line.setText(headline)
        self.table.fill(rows)
        self._boxes = {}
        for number, row in enumerate(self.table.rows):
            if self.table.is_open(row):
                self._boxes[row.key] = box = self._make_box(row)
                self.view.setIndexWidget(self.table.index(number, USE), box)
        self.view.setColumnHidden(DATE, self.table.is_same_everywhere(DATE))
        self._fit()

    def box_of(self, key: str) -> Combo | None:
        """Return the box of a row; None where nothing can be chosen."""
        return self._boxes.get(key)

    def _make_box(self, row: SeriesRow) -> Combo:
        box = Combo()
        box.addItems([*MODALITIES, NOT_USED])
        box.setCurrentText(row.modality if row.used and row.modality else NOT_USED)
        name_widget(box, f"Use of {row.title}", explain_row(row))
        box.activated.connect(partial(self._choose, row.key))
        return box

    def _choose(self, key: str, _: int) -> None:
        text = self._boxes[key].currentText()
        self.changed.emit(key, NO_MODALITY if text == NOT_USED else text)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give the description what room there is."""
        super().resizeEvent(event)
        self._fill_width()

    def _fill_width(self) -> None:
        others_px = sum(self.view.columnWidth(column) for column in range(len(_COLUMNS)) if column != NAME)
        room_px = self.width() - 2 * self.view.frameWidth() - others_px
        self.view.setColumnWidth(NAME, max(self._name_px, room_px))

    def _fit(self) -> None:
        """Make columns as wide as their text, the description as wide as there is room, and the table as high."""
        header = self.view.horizontalHeader()
        assert header is not None
        header.setMinimumSectionSize(20)
        self.view.resizeColumnsToContents()
        self.view.resizeRowsToContents()
        self.view.setColumnWidth(USE, self.view.fontMetrics().horizontalAdvance(NOT_USED) + BOX_PX)
        for column, most_px in MOST_PX.items():
            self.view.setColumnWidth(column, min(self.view.columnWidth(column), most_px))
        self._name_px = self.view.columnWidth(NAME)
        self._fill_width()
        heights = [self.view.rowHeight(row) for row in range(min(self.table.rowCount(), MOST_ROWS))]
        bar = self.view.horizontalScrollBar()
        below = bar.sizeHint().height() if bar is not None else 0
        self.view.setFixedHeight(header.sizeHint().height() + sum(heights) + below + 2 * self.view.frameWidth())
