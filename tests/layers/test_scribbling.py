"""Strokes and the labels that follow from them come and go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import (
    NOTHING,
    Request,
    Scribble,
    corrected_slices,
    figures_of,
    masks_in,
)
from open_layers import open_result


class Follower:
    """Stands in for the engine: each stroke grows by a voxel in all directions. Counts how often it was asked."""

    def __init__(self, scribble: Scribble) -> None:
        self.scribble = scribble
        self.asked = 0
        self.followed = 0
        self.waits = False
        scribble.events.asked.connect(self.follow)

    def follow(self, _: Any = None) -> None:
        self.asked += 1
        request = self.scribble.request()
        if request is None or self.waits:
            return
        self.followed += 1
        self.scribble.apply(request, self.correct(request))

    @staticmethod
    def correct(request: Any) -> np.ndarray:
        numbers = {None: 0, "whole tumor": 2, "tumor core": 1, "enhancing tumor": 3}
        labels = request.labels_ZYX.copy()
        for stroke in request.strokes:
            for point in stroke.points:
                z, y, x = (round(each) for each in point)
                labels[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = numbers[stroke.region]
        return labels


@pytest.fixture
def opened(volume: Volume, segmentation: Segmentation) -> tuple[ViewerModel, Labels]:
    return open_result(volume, segmentation)


@pytest.fixture
def scribble(opened: tuple[ViewerModel, Labels]) -> Scribble:
    viewer, layer = opened
    return Scribble(viewer, layer)


@pytest.fixture
def follower(scribble: Scribble) -> Follower:
    return Follower(scribble)


def draw(scribble: Scribble, at: tuple[int, int, int], label: int, size: int = 1) -> None:
    scribble.layer.brush_size = size
    scribble.layer.paint(at, label)


def test_strokes_have_a_layer_of_their_own_that_is_no_mask(opened, scribble):
    viewer, layer = opened
    assert scribble.layer.name == "Strokes [patient7]"
    assert scribble.layer not in masks_in(viewer.layers)
    assert viewer.layers.selection.active is layer
    assert Scribble(viewer, layer).layer is scribble.layer


@pytest.mark.parametrize(
    ("label", "region"), [(2, "whole tumor"), (1, "tumor core"), (3, "enhancing tumor"), (NOTHING, None)]
)
def test_a_stroke_says_which_region_its_tissue_is_the_innermost_part_of(scribble, label, region):
    draw(scribble, (3, 10, 8), label, size=3)
    (stroke,) = scribble.strokes
    assert stroke.region == region
    assert stroke.points == ((3, 10, 8),)
    assert stroke.innermost
    assert stroke.radius_mm == pytest.approx(1.5)


def test_a_stroke_of_no_tissue_of_the_model_is_not_drawn(scribble, follower):
    draw(scribble, (3, 10, 8), 77)
    assert scribble.strokes == ()
    assert not scribble.layer.data.any()
    assert follower.asked == 0
    scribble.layer.selected_label = 77
    assert scribble.layer.selected_label in (1, 2, 3)


def test_the_labels_follow_and_one_undo_of_the_stroke_takes_both_back(scribble, follower, segmentation):
    draw(scribble, (3, 10, 8), 3)
    assert scribble.target.data[4, 11, 9] == 3
    scribble.layer.undo()
    np.testing.assert_array_equal(scribble.target.data, segmentation.labels)
    assert scribble.strokes == ()
    assert not scribble.layer.data.any()
    scribble.layer.redo()
    assert scribble.target.data[4, 11, 9] == 3
    assert len(scribble.strokes) == 1


def test_undo_in_the_labels_takes_the_stroke_back_too(scribble, follower, segmentation):
    draw(scribble, (3, 10, 8), 3)
    draw(scribble, (1, 4, 3), NOTHING)
    draw(scribble, (4, 15, 12), NOTHING)  # where nothing is already
    first = scribble.strokes[:1]
    scribble.target.undo()
    assert scribble.strokes == first
    assert scribble.layer.data[1, 4, 3] == 0
    scribble.target.undo()
    np.testing.assert_array_equal(scribble.target.data, segmentation.labels)
    assert scribble.strokes == ()


def test_any_row_of_strokes_is_undone_one_by_one_exactly(scribble, follower, segmentation):
    random = np.random.default_rng(3)
    states = [segmentation.labels.copy()]
    for _ in range(6):
        at = tuple(int(random.integers(1, size - 1)) for size in segmentation.labels.shape)
        draw(scribble, at, int(random.choice([1, 2, 3, NOTHING])))
        states.append(scribble.target.data.copy())
    while len(states) > 1:
        np.testing.assert_array_equal(scribble.target.data, states.pop())
        scribble.layer.undo()
    np.testing.assert_array_equal(scribble.target.data, states.pop())


def test_strokes_drawn_while_others_are_followed_are_followed_together(scribble, follower, segmentation):
    follower.waits = True
    draw(scribble, (3, 10, 8), 3)
    late = scribble.request()
    draw(scribble, (3, 15, 4), 2)
    assert scribble.apply(late, Follower.correct(late)) is None
    follower.waits = False
    follower.follow()
    assert scribble.target.data[3, 10, 8] == 3
    assert scribble.target.data[3, 15, 4] == 2
    scribble.layer.undo()
    assert scribble.target.data[3, 10, 8] == 3
    assert scribble.target.data[3, 15, 4] == 0
    scribble.layer.undo()
    np.testing.assert_array_equal(scribble.target.data, segmentation.labels)


def test_a_stroke_undone_before_it_was_followed_changes_nothing(scribble, follower, segmentation):
    follower.waits = True
    draw(scribble, (3, 10, 8), 3)
    late = scribble.request()
    scribble.layer.undo()
    assert scribble.request() is None
    assert scribble.apply(late, Follower.correct(late)) is None
    np.testing.assert_array_equal(scribble.target.data, segmentation.labels)


def test_what_the_brush_did_between_two_strokes_is_kept(scribble, follower):
    draw(scribble, (3, 10, 8), 3)
    scribble.target.brush_size = 1
    scribble.target.paint((3, 2, 12), 1)
    draw(scribble, (3, 15, 4), 2)
    assert scribble.target.data[3, 2, 12] == 1
    scribble.layer.undo()
    assert scribble.target.data[3, 2, 12] == 1
    assert scribble.target.data[3, 10, 8] == 3
    assert scribble.target.data[3, 15, 4] == 0


def test_the_eraser_is_put_away(scribble):
    for mode in ("erase", "fill", "polygon"):
        scribble.layer.mode = mode
        assert scribble.layer.mode == "paint"


def test_the_way_of_the_pen_is_the_stroke(scribble):
    layer = scribble.layer
    layer.mode, layer.selected_label, layer.brush_size = "paint", 3, 1
    view = {"view_direction": None, "dims_displayed": [1, 2]}
    way = [layer.data_to_world(index) for index in ((0, 10, 4), (0, 10, 7), (0, 12, 9))]
    mouse_press_callbacks(layer, read_only_mouse_event("mouse_press", position=way[0], **view))
    for position in way[1:]:
        mouse_move_callbacks(layer, read_only_mouse_event("mouse_move", is_dragging=True, position=position, **view))
    mouse_release_callbacks(layer, read_only_mouse_event("mouse_release", position=way[-1], **view))
    (stroke,) = scribble.strokes
    np.testing.assert_allclose(stroke.points, [(0, 10, 4), (0, 10, 7), (0, 12, 9)])


def test_a_closed_scribble_follows_no_more(scribble, follower):
    scribble.close()
    draw(scribble, (3, 10, 8), 3)
    assert follower.asked == 0


def test_a_slice_that_only_followed_counts_as_corrected_once_a_person_drew_in_it(scribble, follower):
    draw(scribble, (3, 10, 8), 3)
    assert figures_of(scribble.target).edited == (2, 3, 4)
    assert corrected_slices(scribble.target) == (3,)
    scribble.target.data_setitem((np.array([4]), np.array([1]), np.array([1])), np.array([1]))
    assert corrected_slices(scribble.target) == (3, 4)
    draw(scribble, (2, 4, 4), 1)
    assert set(corrected_slices(scribble.target)) >= {2, 3, 4}


def test_taking_a_stroke_back_takes_its_slice_back(scribble, follower):
    draw(scribble, (3, 10, 8), 3)
    scribble.layer.undo()
    assert corrected_slices(scribble.target) == ()
    scribble.layer.redo()
    assert corrected_slices(scribble.target) == (3,)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_undone_and_redone_in_either_layer_labels_and_strokes_say_the_same(
    scribble, follower, segmentation, seed
):
    random = np.random.default_rng(seed)
    done = []
    for _ in range(14):
        what = random.choice(
            ["draw", "undo", "redo", "undo in labels", "redo in labels"], p=[0.4, 0.2, 0.15, 0.15, 0.1]
        )
        if what == "draw":
            at = tuple(int(random.integers(1, size - 1)) for size in segmentation.labels.shape)
            draw(scribble, at, int(random.choice([1, 2, 3, NOTHING])))
        else:
            layer = scribble.target if what.endswith("labels") else scribble.layer
            getattr(layer, what.split()[0])()
        done.append(str(what))
        expected = Follower.correct(Request(segmentation.labels, scribble.strokes))
        np.testing.assert_array_equal(scribble.target.data, expected, err_msg=", ".join(done))
        drawn = {tuple(map(int, stroke.points[0])) for stroke in scribble.strokes}
        assert {tuple(map(int, at)) for at in np.argwhere(scribble.layer.data)} == drawn, done


def test_what_is_redone_is_not_followed_anew(scribble, follower):
    draw(scribble, (3, 10, 8), 3)
    draw(scribble, (3, 15, 4), 2)
    after, asked = scribble.target.data.copy(), follower.followed
    for layer in (scribble.layer, scribble.target):
        layer.undo()
        layer.undo()
        layer.redo()
        layer.redo()
        np.testing.assert_array_equal(scribble.target.data, after)
        assert len(scribble.strokes) == 2
    assert follower.followed == asked
