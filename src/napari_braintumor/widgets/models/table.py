"""The table of models: one is chosen, any number are ticked to be compared, sorted as the user likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from qtpy.QtCore import QModelIndex, QSortFilterProxyModel, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QPainter, QPalette, QShowEvent
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QTreeView

from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.models.tree import COLUMNS, ROOT, SORT_ROLE, ModelTree, Node
from napari_braintumor.widgets.shared.parts import name_widget

NAME_WIDTH_PX = 150
INDENT_PX = 12
ROWS_SEEN = (4, 9)
"""At least and at most; more are scrolled."""


class ModelsTable(QTreeView):
    """A view of a `ModelTree`, sorted.

    Attributes
    ----------
    tree
        What it shows.
    """

    chosen_changed = Signal()
    """Another model is chosen."""

    ticked_changed = Signal()
    """Other models are ticked."""

    def __init__(self) -> None:
        super().__init__()
        name_widget(self, "Models", "Choose one to see its card; tick two or more to compare them")
        self.tree = ModelTree()
        self.tree.ticked_changed.connect(self.ticked_changed)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.tree)
        self._sorted.setSortRole(SORT_ROLE)
        self.setModel(self._sorted)
        self.setUniformRowHeights(True)
        self.setItemDelegateForColumn(0, _FramedTicks(self))
        self.setIndentation(INDENT_PX)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        if (selection := self.selectionModel()) is not None:
            selection.selectionChanged.connect(self.chosen_changed)

    @property
    def models(self) -> list[StoredModel]:
        """All that are listed."""
        return [node.model for node in self.tree.nodes]

    @property
    def chosen(self) -> StoredModel | None:
        """The one whose row is selected."""
        rows = self.selectedIndexes()
        return self.tree.node_of(self._sorted.mapToSource(rows[0])).model if rows else None

    @property
    def shown(self) -> list[Node]:
        """The rows from top to bottom."""
        return list(self._walk(ROOT))

    @property
    def ticked(self) -> list[StoredModel]:
        """Those to be compared, from top to bottom."""
        return [node.model for node in self.shown if self.tree.is_ticked(node)]

    def fill(self, models: Sequence[StoredModel], chosen: Path | None = None) -> None:
        """List models, keeping the choice and the ticks.

        Parameters
        ----------
        models
            As the store lists them.
        chosen
            The file of the model to choose; left out, the one that was.
        """
        before = self.chosen
        path = chosen or (before.path if before else None)
        blocked = self.blockSignals(True)
        self.tree.fill(models)
        self.expandAll()
        for column in range(1, len(COLUMNS)):
            self.resizeColumnToContents(column)
        self.setColumnWidth(0, NAME_WIDTH_PX)
        if models:
            self.choose(path if path in [model.path for model in models] else models[0].path)
        self._fit_height()
        self.blockSignals(blocked)
        self.chosen_changed.emit()
        self.ticked_changed.emit()

    def choose(self, path: Path) -> None:
        """Choose the model of a file."""
        (node,) = (node for node in self.tree.nodes if node.model.path == path)
        self.setCurrentIndex(self._sorted.mapFromSource(self.tree.index_of(node)))

    def tick(self, paths: Iterable[Path]) -> None:
        """Tick the models of these files, and no others."""
        self.tree.tick(paths)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Fit the height again, now that the theme has set the height of rows."""
        super().showEvent(event)
        self._fit_height()

    def _fit_height(self) -> None:
        least, most = ROWS_SEEN
        rows = min(max(len(self.tree.nodes), least), most)
        head, scroll = self.header(), self.horizontalScrollBar()
        extra = (head.sizeHint().height() if head else 0) + (scroll.sizeHint().height() if scroll else 0)
        row = max(self.sizeHintForRow(0), self.fontMetrics().height())
        self.setFixedHeight(rows * row + extra + 2 * self.frameWidth())

    def _walk(self, parent: QModelIndex) -> Iterator[Node]:
        for row in range(self._sorted.rowCount(parent)):
            cell = self._sorted.index(row, 0, parent)
            yield self.tree.node_of(self._sorted.mapToSource(cell))
            yield from self._walk(cell)


class _FramedTicks(QStyledItemDelegate):
    """Frames the boxes to tick, which cannot be seen in napari's dark theme as long as they are empty."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().paint(painter, option, index)
        tree = self.parent()
        if painter is None or not isinstance(tree, ModelsTable) or index.data(Qt.ItemDataRole.CheckStateRole) is None:
            return
        shown = QStyleOptionViewItem(option)
        self.initStyleOption(shown, index)
        if (style := tree.style()) is not None:
            box = style.subElementRect(QStyle.SubElement.SE_ItemViewItemCheckIndicator, shown, tree)
            painter.setPen(tree.palette().color(QPalette.ColorRole.Text))
            painter.drawRect(box.adjusted(0, 0, -1, -1))
