"""The models of the store as a tree: tuned versions under their parent, one row a model, sorted as the user likes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from qtpy.QtCore import QModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QPainter, QPalette, QShowEvent
from qtpy.QtWidgets import (
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QTreeWidgetItemIterator,
)

from napari_braintumor.engine.models.card_text import architecture_title, headline_metric
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.shared.parts import literal, name_widget

COLUMNS = ("Model", "Dice", "Network", "Modalities", "Regions", "Licence", "Size", "Kept", "Parent")
NAME_WIDTH_PX = 150
ROWS_SEEN = (4, 9)
"""At least and at most; more are scrolled."""
_SORT_KEY = Qt.ItemDataRole.UserRole


class ModelsTable(QTreeWidget):
    """The table of models: one is chosen, any number are ticked to be compared."""

    chosen_changed = Signal()
    """Another model is chosen."""

    ticked_changed = Signal()
    """Other models are ticked."""

    def __init__(self) -> None:
        super().__init__()
        self._models: list[StoredModel] = []
        self._filling = False
        name_widget(self, "Models", "Choose one to see its card; tick two or more to compare them")
        self.setColumnCount(len(COLUMNS))
        self.setHeaderLabels(list(COLUMNS))
        self.setUniformRowHeights(True)
        self.setItemDelegateForColumn(0, _FramedTicks(self))
        self.setIndentation(12)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.itemSelectionChanged.connect(self._tell_chosen)
        self.itemChanged.connect(self._tell_ticked)

    @property
    def models(self) -> list[StoredModel]:
        """All that are listed."""
        return list(self._models)

    @property
    def chosen(self) -> StoredModel | None:
        """The one whose row is selected."""
        items = self.selectedItems()
        return self._model_of(items[0]) if items else None

    @property
    def ticked(self) -> list[StoredModel]:
        """Those to be compared, from top to bottom."""
        return [self._model_of(item) for item in self._items() if item.checkState(0) == Qt.CheckState.Checked]

    def fill(self, models: Sequence[StoredModel], chosen: Path | None = None) -> None:
        """List models, keeping what was chosen and ticked.

        Parameters
        ----------
        models
            As the store lists them.
        chosen
            The file of the model to choose; left out, the one that was.
        """
        before = self.chosen
        wanted = chosen or (before.path if before else None)
        ticked = {model.path for model in self.ticked}
        self._filling = True
        self.setSortingEnabled(False)
        self.clear()
        self._models = list(models)
        items = [_Row(number, model) for number, model in enumerate(self._models)]
        for item, model in zip(items, self._models, strict=True):
            if model.card is not None:
                item.setCheckState(0, Qt.CheckState.Checked if model.path in ticked else Qt.CheckState.Unchecked)
        parents = [_number_of_parent(number, self._models) for number in range(len(items))]
        for item, parent in zip(items, parents, strict=True):
            if parent is None:
                self.addTopLevelItem(item)
            else:
                items[parent].addChild(item)
        self.expandAll()
        self.setSortingEnabled(True)
        for column in range(1, len(COLUMNS)):
            self.resizeColumnToContents(column)
        self.setColumnWidth(0, NAME_WIDTH_PX)
        paths = [model.path for model in self._models]
        if items:
            self.setCurrentItem(items[paths.index(wanted) if wanted in paths else 0])
        self._fit_height()
        self._filling = False
        self.chosen_changed.emit()
        self.ticked_changed.emit()

    def tick(self, paths: Iterable[Path]) -> None:
        """Tick the models of these files, and no others."""
        wanted = set(paths)
        for item in self._items():
            model = self._model_of(item)
            if model.card is not None:
                item.setCheckState(0, Qt.CheckState.Checked if model.path in wanted else Qt.CheckState.Unchecked)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Fit the height again, now that the theme has told how high rows are."""
        super().showEvent(event)
        self._fit_height()

    def _fit_height(self) -> None:
        least, most = ROWS_SEEN
        rows = min(max(len(self._models), least), most)
        head, scroll = self.header(), self.horizontalScrollBar()
        extra = (head.sizeHint().height() if head else 0) + (scroll.sizeHint().height() if scroll else 0)
        row = max(self.sizeHintForRow(0), self.fontMetrics().height())
        self.setFixedHeight(rows * row + extra + 2 * self.frameWidth())

    def _items(self) -> list[QTreeWidgetItem]:
        found, walk = [], QTreeWidgetItemIterator(self)
        while (item := walk.value()) is not None:
            found.append(item)
            walk += 1
        return found

    def _model_of(self, item: QTreeWidgetItem) -> StoredModel:
        assert isinstance(item, _Row)
        return self._models[item.number]

    def _tell_chosen(self) -> None:
        if not self._filling:
            self.chosen_changed.emit()

    def _tell_ticked(self, _: QTreeWidgetItem, column: int) -> None:
        if not self._filling and column == 0:
            self.ticked_changed.emit()


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


class _Row(QTreeWidgetItem):
    """A model's row, which is sorted by numbers where it shows numbers."""

    def __init__(self, number: int, model: StoredModel) -> None:
        super().__init__()
        self.number = number
        kept = "package" if model.bundled else "yours"
        size = model.path.stat().st_size if model.path.exists() else 0
        card = model.card
        if card is None:
            texts = [f"{model.name} (damaged)", "", "", "", "", "", _in_mb(size), kept, ""]
            mean, tip = -1.0, model.problem
        else:
            measured = headline_metric(card)
            texts = [
                model.name,
                ", ".join((*([f"{measured.mean:.2f} (n = {measured.n})"] if measured else []), *card.badges)),
                architecture_title(card) + (", 3-D" if card.spatial_dims == 3 else ""),
                ", ".join(card.modalities) + (" or some" if card.accepts_missing else ""),
                ", ".join(region.name for region in card.regions),
                card.licence,
                _in_mb(size),
                kept,
                card.parent or "",
            ]
            mean, tip = measured.mean if measured else -1.0, "\n".join((card.title or model.name, *card.doubts))
        for column, text in enumerate(texts):
            self.setText(column, text)
            self.setToolTip(column, literal(text if column else tip))
        self.setData(COLUMNS.index("Dice"), _SORT_KEY, mean)
        self.setData(COLUMNS.index("Size"), _SORT_KEY, float(size))

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        tree = self.treeWidget()
        column = tree.sortColumn() if tree is not None else 0
        mine, theirs = self.data(column, _SORT_KEY), other.data(column, _SORT_KEY)
        if mine is not None and theirs is not None:
            return bool(mine < theirs)
        return self.text(column).casefold() < other.text(column).casefold()


def describe_lineage(model: StoredModel, models: Sequence[StoredModel]) -> str:
    """Return in words what a model was tuned from, what was tuned from it, and which of them is missing."""
    if model.card is None:
        return ""
    chain, missing = trace_lineage(model, models)
    parts = [f"Tuned step by step: {' → '.join(chain)}."] if len(chain) > 1 else []
    if missing:
        parts.append(f"'{chain[0]}' was tuned from '{missing}', which is not among your models.")
    if children := list_children(model.name, models):
        parts.append(f"Tuned from it: {', '.join(children)}.")
    return " ".join(parts)


def trace_lineage(model: StoredModel, models: Sequence[StoredModel]) -> tuple[list[str], str]:
    """Return the names from a model's oldest known parent to itself, and the parent of that one if it is missing."""
    chain = [model.name]
    parent = model.card.parent if model.card else None
    while parent and parent not in chain:
        known = [m for m in models if m.name == parent and m.card is not None]
        if not known:
            return chain, parent
        chain.insert(0, parent)
        parent = known[-1].card.parent if known[-1].card else None
    return chain, ""


def _number_of_parent(number: int, models: Sequence[StoredModel]) -> int | None:
    """Return which model another was tuned from; None where that is missing or, by mistake, descends from itself."""
    seen, at = {number}, number
    first: int | None = None
    while True:
        card = models[at].card
        parent = card.parent if card is not None else None
        found = [n for n, m in enumerate(models) if parent and m.name == parent and m.card is not None]
        if not found:
            return first
        at = found[-1]
        if at in seen:
            return None
        seen.add(at)
        first = at if first is None else first


def _in_mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def list_children(name: str, models: Sequence[StoredModel]) -> list[str]:
    """Return the names of the models that were tuned from one."""
    return [model.name for model in models if model.card is not None and model.card.parent == name]
