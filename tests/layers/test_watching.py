"""Every change of labels is noticed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.layers import LabelsWatch


@pytest.fixture
def layer() -> Labels:
    made: Labels = ViewerModel().add_labels(np.zeros((4, 20, 20), np.uint8))
    return made


WAYS = {
    "the brush": lambda layer: layer.paint((1, 5, 5), 2),
    "an edit": lambda layer: layer.data_setitem(tuple(np.array([at]) for at in (0, 1, 2)), 3),
    "undo": lambda layer: layer.undo(),
    "redo": lambda layer: layer.redo(),
    "other data": lambda layer: setattr(layer, "data", np.ones((4, 20, 20), np.uint8)),
}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_change_of_labels_is_noticed(layer: Labels, way: str, before: int) -> None:
    for z in range(before or (way in ("undo", "redo"))):
        layer.paint((z, 9, 9), 1)
    if way == "redo":
        layer.undo()
    seen: list[int] = []
    watch = LabelsWatch(lambda: seen.append(1))
    watch.follow(layer)
    WAYS[way](layer)
    assert seen
    seen.clear()
    watch.follow(None)
    WAYS["the brush"](layer)
    assert not seen


def test_a_slider_that_moves_changes_nothing(layer: Labels) -> None:
    viewer = ViewerModel()
    viewer.add_layer(layer)
    layer.paint((2, 9, 9), 1)
    seen: list[int] = []
    watch = LabelsWatch(lambda: seen.append(1))
    watch.follow(layer)
    for z in range(4):
        viewer.dims.set_current_step(0, z)
    layer.visible = False
    layer.refresh()
    assert not seen


def test_the_first_stroke_is_noticed_and_so_is_its_undoing(layer: Labels) -> None:
    seen: list[int] = []
    watch = LabelsWatch(lambda: seen.append(1))
    watch.follow(layer)
    for act in (lambda: layer.paint((1, 5, 5), 2), layer.undo, layer.redo, layer.undo):
        seen.clear()
        act()
        assert seen
