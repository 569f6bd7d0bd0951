"""What the Measure dock follows: every change of labels, and never an old state last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_braintumor.widgets.measuring.latest import LabelsWatch, Latest


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


@pytest.mark.parametrize("way", WAYS)
def test_every_change_of_labels_is_noticed(layer: Labels, way: str) -> None:
    layer.paint((2, 9, 9), 1)
    layer.paint((3, 9, 9), 1)
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


def test_what_is_asked_for_meanwhile_is_done_once_more_and_the_last_state_comes_last(qtbot: Any) -> None:
    dock, state, taken = QObject(), [0], []

    def compute(number: int) -> Iterator[int]:
        yield number

    latest = Latest(dock, "Compute", lambda: (compute, (state[0],), taken.append))
    assert latest.idle
    for number in range(5):
        state[0] = number
        latest.ask()
    qtbot.waitUntil(lambda: latest.idle, timeout=20_000)
    assert taken == [0, 4]
    nothing = Latest(dock, "Nothing", lambda: None)
    nothing.ask()
    assert nothing.idle
