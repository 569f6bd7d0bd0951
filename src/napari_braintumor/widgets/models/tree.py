"""The models of the store as Qt's item views take them: tuned versions under their parent, with ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtpy.QtCore import QAbstractItemModel, QModelIndex, Qt, Signal  # type: ignore[attr-defined]

from napari_braintumor.engine.models.card_text import architecture_title, headline_metric
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.models.lineage import find_parent
from napari_braintumor.widgets.shared.parts import literal

COLUMNS = ("Model", "Dice", "Network", "Modalities", "Regions", "License", "Size", "Kept", "Parent")
ROOT = QModelIndex()
SORT_ROLE = Qt.ItemDataRole.UserRole
"""Of what a column is sorted by: numbers where it shows numbers, else text in small letters."""


@dataclass(eq=False)
class Node:
    """A model's row, with its place in the tree and its size on disk."""

    model: StoredModel
    size_bytes: int
    texts: list[str]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)


class ModelTree(QAbstractItemModel):
    """The rows of the models, which can be read without a window."""

    ticked_changed = Signal()
    """Other models are ticked."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._top: list[Node] = []
        self._ticked: set[Path] = set()

    def fill(self, models: Sequence[StoredModel]) -> None:
        """Show other models; those that were ticked stay so."""
        self.beginResetModel()
        self.nodes = [_make_node(model) for model in models]
        self._top = []
        for number, node in enumerate(self.nodes):
            parent = find_parent(number, models)
            node.parent = None if parent is None else self.nodes[parent]
            (self._top if node.parent is None else node.parent.children).append(node)
        self.endResetModel()

    def tick(self, paths: Iterable[Path]) -> None:
        """Tick the models of these files, and no others; those without a card cannot be."""
        self._ticked = set(paths)
        for node in self.nodes:
            cell = self.index_of(node)
            self.dataChanged.emit(cell, cell, [Qt.ItemDataRole.CheckStateRole])
        self.ticked_changed.emit()

    def is_ticked(self, node: Node) -> bool:
        """Return whether a model is ticked."""
        return node.model.card is not None and node.model.path in self._ticked

    def node_of(self, index: QModelIndex) -> Node:
        """Return the row that a cell belongs to."""
        node: Node = index.internalPointer()
        return node

    def index_of(self, node: Node) -> QModelIndex:
        """Return the first cell of a row."""
        return self.createIndex((node.parent.children if node.parent else self._top).index(node), 0, node)

    # ---------------------------------------------------------------------------------------- as Qt asks for it

    def index(self, row: int, column: int, parent: QModelIndex = ROOT) -> QModelIndex:
        """Return a cell."""
        if not self.hasIndex(row, column, parent):
            return QModelIndex()
        return self.createIndex(row, column, self._children(parent)[row])

    def parent(self, index: QModelIndex) -> QModelIndex:  # type: ignore[override]
        """Return the row that a cell's row is under."""
        node = self.node_of(index) if index.isValid() else None
        return self.index_of(node.parent) if node is not None and node.parent is not None else QModelIndex()

    def rowCount(self, parent: QModelIndex = ROOT) -> int:
        """Return how many models were tuned from one, or come from none that is here."""
        return len(self._children(parent)) if parent.column() <= 0 else 0

    def columnCount(self, _: QModelIndex = ROOT) -> int:
        """Return how many columns there are."""
        return len(COLUMNS)

    def headerData(self, section: int, side: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a column is called."""
        return COLUMNS[section] if side == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, tooltip, tick, or what it is sorted by."""
        node, column = self.node_of(index), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return node.texts[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return literal(node.texts[column] if column else _describe(node.model))
        if role == SORT_ROLE:
            return _sort_key(node, COLUMNS[column])
        if role == Qt.ItemDataRole.CheckStateRole and column == 0 and node.model.card is not None:
            return Qt.CheckState.Checked if self.is_ticked(node) else Qt.CheckState.Unchecked
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Tick a model, or take its tick away."""
        node = self.node_of(index)
        if role != Qt.ItemDataRole.CheckStateRole or index.column() or node.model.card is None:
            return False
        if Qt.CheckState(value) == Qt.CheckState.Checked:
            self._ticked.add(node.model.path)
        else:
            self._ticked.discard(node.model.path)
        self.dataChanged.emit(index, index, [role])
        self.ticked_changed.emit()
        return True

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return that rows can be chosen, and ticked if they have a card."""
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        tickable = index.column() == 0 and self.node_of(index).model.card is not None
        return flags | Qt.ItemFlag.ItemIsUserCheckable if tickable else flags

    def _children(self, parent: QModelIndex) -> list[Node]:
        return self.node_of(parent).children if parent.isValid() else self._top


def _make_node(model: StoredModel) -> Node:
    size = model.path.stat().st_size if model.path.exists() else 0
    return Node(model, size, _describe_cells(model, f"{size / 1e6:.1f} MB"))


def _describe_cells(model: StoredModel, size: str) -> list[str]:
    kept, card = "package" if model.bundled else "yours", model.card
    if card is None:
        return [f"{model.name} (damaged)", "", "", "", "", "", size, kept, ""]
    measured = headline_metric(card)
    return [
        model.name,
        ", ".join((*([f"{measured.mean:.2f} (n = {measured.n})"] if measured else []), *card.badges)),
        architecture_title(card) + (", 3-D" if card.spatial_dims == 3 else ""),
        ", ".join(card.modalities) + (" or some" if card.accepts_missing else ""),
        ", ".join(region.name for region in card.regions),
        card.license,
        size,
        kept,
        card.parent or "",
    ]


def _describe(model: StoredModel) -> str:
    card = model.card
    return model.problem if card is None else "\n".join((card.title or model.name, *card.doubts))


def _sort_key(node: Node, column: str) -> float | str:
    if column == "Size":
        return float(node.size_bytes)
    if column == "Dice":
        measured = headline_metric(node.model.card) if node.model.card else None
        return measured.mean if measured else -1.0
    return node.texts[COLUMNS.index(column)].casefold()
