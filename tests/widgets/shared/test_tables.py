"""Tables can be read, and hold what Qt asks of a model, without a window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.widgets.models.tree import COLUMNS, ModelTree
from napari_braintumor.widgets.shared.tables import TextTable

CARD = ModelCard(name="a", architecture="unet")


def stored(name: str, parent: str | None = None) -> StoredModel:
    return StoredModel(name, Path(f"{name}.safetensors"), CARD.model_copy(update={"name": name, "parent": parent}))


@pytest.fixture
def tree() -> ModelTree:
    tree = ModelTree()
    damaged = StoredModel("bad", Path("bad.safetensors"), None, problem="It is damaged.")
    tree.fill([stored("child", "old"), stored("old"), stored("grandchild", "child"), damaged])
    return tree


def test_a_text_table_is_a_sound_model(qtmodeltester: Any) -> None:
    table = TextTable(("case", "side"))
    qtmodeltester.check(table)
    table.add(("a", "training"))
    table.change(0, 1, "left out")
    table.add(("b", "automatic"))
    table.fill([("c", "1")], header=("x", "y"))
    assert table.rows == [["c", "1"]]
    assert table.headerData(1, Qt.Orientation.Horizontal) == "y"


def test_numbers_stand_on_the_right_and_every_cell_says_its_whole_text(qtbot: Any) -> None:
    table = TextTable(("region", "mL"), numbers_from=1)
    table.fill([("<core>", "1.5")], header_tips=("of the tumor", "volume"))
    align = Qt.ItemDataRole.TextAlignmentRole
    assert table.data(table.index(0, 0), align) is None
    assert table.data(table.index(0, 1), align) & Qt.AlignmentFlag.AlignRight
    assert "&lt;core&gt;" in table.data(table.index(0, 0), Qt.ItemDataRole.ToolTipRole)
    assert table.headerData(1, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole) == "volume"


def test_the_tree_of_models_is_a_sound_model(tree: ModelTree, qtmodeltester: Any) -> None:
    qtmodeltester.check(tree)
    tree.fill([stored("old"), stored("child", "old")])
    assert tree.rowCount() == 1
    assert tree.rowCount(tree.index(0, 0)) == 1
    assert tree.columnCount() == len(COLUMNS)


def test_tuned_models_are_under_their_parents_whatever_the_order(tree: ModelTree) -> None:
    parents = {node.model.name: node.parent.model.name if node.parent else None for node in tree.nodes}
    assert parents == {"child": "old", "old": None, "grandchild": "child", "bad": None}


def test_only_models_with_a_card_are_ticked_and_ticks_outlive_a_reload(tree: ModelTree) -> None:
    role, changes = Qt.ItemDataRole.CheckStateRole, []
    tree.ticked_changed.connect(lambda: changes.append(1))
    for node in tree.nodes:
        cell = tree.index_of(node)
        assert tree.setData(cell, Qt.CheckState.Checked, role) == (node.model.card is not None)
        assert bool(tree.flags(cell) & Qt.ItemFlag.ItemIsUserCheckable) == (node.model.card is not None)
    assert len(changes) == 3
    tree.fill([stored("old"), replace(stored("child"), bundled=True)])
    assert [tree.is_ticked(node) for node in tree.nodes] == [True, True]
    tree.setData(tree.index_of(tree.nodes[0]), Qt.CheckState.Unchecked, role)
    assert [tree.is_ticked(node) for node in tree.nodes] == [False, True]
