"""Tables of text: a model that is filled and read without a window, and a view of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractItemModel, QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import QAbstractItemView, QTableView

from napari_braintumor.widgets.shared.parts import literal, name_widget

ROOT = QModelIndex()
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class TextTable(QAbstractTableModel):
    """Rows of text below a header; a cell's whole text is also its tooltip.

    Parameters
    ----------
    header
        What the columns are called.
    numbers_from
        The first column that holds numbers, which stand on the right; None without any.
    """

    def __init__(self, header: Sequence[str] = (), numbers_from: int | None = None) -> None:
        super().__init__()
        self.header = list(header)
        self.header_tips: list[str] = []
        self.rows: list[list[str]] = []
        self._numbers_from = numbers_from

    def fill(
        self, rows: Sequence[Sequence[str]], header: Sequence[str] | None = None, header_tips: Sequence[str] = ()
    ) -> None:
        """Show other rows, and another header if one is given."""
        self.beginResetModel()
        self.rows = [list(row) for row in rows]
        self.header = self.header if header is None else list(header)
        self.header_tips = list(header_tips)
        self.endResetModel()

    def add(self, row: Sequence[str]) -> None:
        """Add a row at the end."""
        self.beginInsertRows(ROOT, len(self.rows), len(self.rows))
        self.rows.append(list(row))
        self.endInsertRows()

    def change(self, row: int, column: int, text: str) -> None:
        """Write another text into a cell."""
        self.rows[row][column] = text
        cell = self.index(row, column)
        self.dataChanged.emit(cell, cell)

    def rowCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many rows there are; cells have none."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many columns there are; cells have none."""
        return 0 if parent.isValid() else len(self.header)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, its tooltip, or where it stands."""
        text = self.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return text
        if role == Qt.ItemDataRole.ToolTipRole:
            return literal(text)
        numbers = self._numbers_from is not None and index.column() >= self._numbers_from
        return RIGHT if role == Qt.ItemDataRole.TextAlignmentRole and numbers else None

    def headerData(self, section: int, side: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a column is called, or its tooltip."""
        if side == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self.header[section]
        if side == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole and self.header_tips:
            return literal(self.header_tips[section])
        return None


def make_table_view(table: QAbstractItemModel, name: str, tooltip: str) -> QTableView:
    """Return a view of a table in which whole rows are chosen, one at a time, and nothing is edited."""
    view = QTableView()
    view.setModel(table)
    view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    view.setTabKeyNavigation(False)  # Tab leaves the table, as it does any other widget of a dock
    name_widget(view, name, tooltip)
    return view
