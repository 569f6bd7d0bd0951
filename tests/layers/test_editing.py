"""Edits of labels: what is wanted and no more, each undone by one step, on layers of any order of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari.layers.labels import labels as napari_labels

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import (
    apply_labels,
    copy_labels,
    copy_section,
    default_placement,
    figures_of,
    find_outline,
    find_placement,
    keep_inside,
    mark_reviewed,
    masks_in,
    model_labels,
    restore_model,
    update_or_add_labels,
    update_or_add_outline,
)
from open_layers import open_result


@pytest.fixture
def opened(volume: Volume, segmentation: Segmentation) -> tuple[ViewerModel, Labels]:
    return open_result(volume, segmentation)


@pytest.fixture
def turned(synthetic_volume: Any, synthetic_segmentation: Any, oblique_grid: Any) -> Labels:
    """A result in the order of its file's axes, which are swapped and flipped against ours."""
    segmentation = synthetic_segmentation(synthetic_volume(source=oblique_grid))
    labels = Labels(np.array(oblique_grid.to_source(segmentation.labels)), metadata={})
    place = default_placement(oblique_grid)
    labels.metadata = {"braintumor": {**place.remember()["braintumor"], "in_source_order": True}}
    labels.metadata["braintumor"]["matrix"] = np.eye(4)
    assert find_placement(labels).in_source_order
    return labels


def test_labels_are_replaced_in_one_step(opened, segmentation):
    _, layer = opened
    wanted = np.zeros_like(segmentation.labels)
    wanted[3, 5:9, 5:9] = 2
    edit = apply_labels(layer, wanted)
    np.testing.assert_array_equal(layer.data, wanted)
    assert edit.slices == (0, 1, 3)
    assert edit.voxels == np.count_nonzero(wanted != segmentation.labels)
    layer.undo()
    np.testing.assert_array_equal(layer.data, segmentation.labels)
    layer.redo()
    np.testing.assert_array_equal(layer.data, wanted)


def test_reviewed_slices_stay_and_are_named(opened, segmentation):
    _, layer = opened
    mark_reviewed(layer, 1)
    mark_reviewed(layer, 4)
    edit = apply_labels(layer, np.zeros_like(segmentation.labels))
    assert edit.locked == (1,)
    assert layer.data[1].any()
    assert not layer.data[0].any()


def test_an_edit_that_changes_nothing_leaves_nothing_to_undo(opened, segmentation):
    _, layer = opened
    steps = len(layer._undo_history)
    assert apply_labels(layer, segmentation.labels.copy()).voxels == 0
    assert len(layer._undo_history) == steps


@pytest.mark.parametrize("turned_to", [(1, 0, 2), (2, 1, 0), "3-D"])
def test_a_layer_that_was_hidden_while_the_plane_changed_is_edited(opened, segmentation, turned_to):
    viewer, layer = opened
    layer.visible = False
    if turned_to == "3-D":
        viewer.dims.ndisplay = 3
    else:
        viewer.dims.order = turned_to
    wanted = np.roll(segmentation.labels, 9, axis=2)
    apply_labels(layer, wanted)
    np.testing.assert_array_equal(layer.data, wanted)
    viewer.dims.ndisplay = 2
    layer.visible = True
    layer.undo()
    np.testing.assert_array_equal(layer.data, segmentation.labels)


def test_labels_in_the_order_of_their_file_are_edited_where_they_lie(turned):
    before = copy_labels(turned)
    wanted = before.copy()
    wanted[2:4, 7:12, 3:9] = 3
    apply_labels(turned, wanted)
    np.testing.assert_array_equal(copy_labels(turned), wanted)
    turned.undo()
    np.testing.assert_array_equal(copy_labels(turned), before)


def test_a_copy_of_labels_is_one(opened):
    _, layer = opened
    copy_labels(layer)[:] = 7
    assert layer.data.max() == 3


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.full((2, 3, 4), 300), "numbers from 300 to 300. Expected 0 to 255"),
        (np.zeros((3, 4), np.uint8), "has 2 dimensions"),
    ],
)
def test_labels_that_no_tool_can_edit_are_refused(data, match):
    with pytest.raises(DataError, match=match):
        copy_labels(Labels(data))


def test_labels_outside_memory_are_refused():
    import dask.array as da

    with pytest.raises(DataError, match="not in memory, so only the brush"):
        copy_labels(Labels(da.zeros((2, 3, 4), dtype=np.uint8)))


@pytest.mark.parametrize(("axis", "source", "target"), [(0, 0, 3), (1, 2, 9), (2, 1, 12)])
def test_a_section_of_any_plane_is_copied(opened, axis, source, target):
    _, layer = opened
    before = layer.data.copy()
    copy_section(layer, axis, source, target)
    np.testing.assert_array_equal(layer.data.take(target, axis), before.take(source, axis))
    others = [n for n in range(before.shape[axis]) if n != target]
    np.testing.assert_array_equal(layer.data.take(others, axis), before.take(others, axis))
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.parametrize(("source", "target"), [(-1, 0), (5, 6)])
def test_there_is_nothing_to_copy_beyond_the_ends(opened, source, target):
    _, layer = opened
    with pytest.raises(DataError, match=rf"There is no section {source if source < 0 else target} of 6"):
        copy_section(layer, 0, source, target)


# ------------------------------------------------------------------------------------------------ nesting


def paint(layer: Labels, at: tuple[int, ...], label: int, size: int, outside_stays: bool) -> None:
    def restrain(event: Any) -> None:
        keep_inside(layer, event.value, label)

    layer.brush_size = size
    if outside_stays:
        layer.events.paint.connect(restrain)
    with layer.block_history():  # as in a stroke: several dabs are one step
        layer.paint(at, label)
        layer.paint((at[0], at[1] + 1, at[2]), label)
    if outside_stays:
        layer.events.paint.disconnect(restrain)


@pytest.mark.parametrize(("label", "around"), [(3, (1, 3)), (1, (1, 2, 3))])
def test_an_inner_tissue_may_be_kept_inside_the_region_around_it(opened, segmentation, label, around):
    _, layer = opened
    paint(layer, (0, 2, 2), label, 5, outside_stays=True)
    changed = layer.data != segmentation.labels
    assert changed.any()
    assert set(segmentation.labels[changed]) <= set(around)
    assert set(layer.data[changed]) == {label}
    layer.undo()
    np.testing.assert_array_equal(layer.data, segmentation.labels)
    layer.redo()
    np.testing.assert_array_equal(layer.data != segmentation.labels, changed)


@pytest.mark.parametrize("label", [0, 2, 4, 77])
def test_what_has_no_region_around_it_is_painted_anywhere(opened, label):
    _, layer = opened
    paint(layer, (3, 10, 10), label, 3, outside_stays=True)
    assert (layer.data[3, 10, 10] == label) or label == 0


def test_edema_stays_edema_where_the_brush_was_kept_out_and_counts_follow(opened, segmentation):
    _, layer = opened
    figures = figures_of(layer)
    before = figures.region_ml
    paint(layer, (3, 10, 10), 3, 5, outside_stays=True)
    np.testing.assert_array_equal(layer.data, segmentation.labels)
    figures.settle()
    assert figures.region_ml == before


def test_a_stroke_of_napari_is_read_as_it_is_stored(opened):
    """napari stores the box of each dab and a mask in it; this fails if that changes."""
    _, layer = opened
    seen: list[Any] = []
    layer.events.paint.connect(lambda event: seen.append(event.value))
    layer.brush_size = 3
    layer.paint((3, 10, 10), 2)
    assert isinstance(seen[0][0], napari_labels._MaskedPaintAtom)


# ------------------------------------------------------------------------------------------------ the model's own


def test_what_the_model_drew_is_restored_whole_or_slice_by_slice(opened, segmentation):
    _, layer = opened
    layer.data_setitem((np.array([0, 1, 3]), np.array([3, 3, 3]), np.array([3, 3, 3])), 3)
    assert restore_model(layer, 1).slices == (1,)
    np.testing.assert_array_equal(layer.data[1], segmentation.labels[1])
    assert layer.data[0, 3, 3] == 3
    assert restore_model(layer).slices == (0, 3)
    np.testing.assert_array_equal(layer.data, segmentation.labels)
    layer.undo()
    assert layer.data[3, 3, 3] == 3


def test_a_second_run_is_what_is_restored_then_except_where_it_was_not_taken(opened, volume, segmentation):
    from dataclasses import replace

    viewer, layer = opened
    mark_reviewed(layer, 1)
    second = replace(segmentation, labels=np.where(segmentation.labels > 0, 2, 0).astype(np.uint8))
    update_or_add_labels(viewer, second, default_placement(volume.source))
    drawn = model_labels(layer)
    np.testing.assert_array_equal(drawn[0], second.labels[0])
    np.testing.assert_array_equal(drawn[1], segmentation.labels[1])


def test_labels_that_no_model_drew_have_nothing_to_restore():
    layer = Labels(np.zeros((2, 3, 4), np.uint8))
    assert model_labels(layer) is None
    assert restore_model(layer).voxels == 0
    assert update_or_add_outline(ViewerModel(), layer) is None


def test_the_outline_shows_what_the_model_drew_and_is_no_mask(opened, segmentation):
    viewer, layer = opened
    viewer.layers.selection.active = layer
    layer.data_setitem((np.array([3]), np.array([3]), np.array([3])), 3)
    outline = update_or_add_outline(viewer, layer)
    np.testing.assert_array_equal(outline.data, segmentation.labels)
    assert outline.contour == 1
    assert outline not in masks_in(viewer.layers)
    assert viewer.layers.selection.active is layer
    assert update_or_add_outline(viewer, layer) is outline is find_outline(viewer, layer)
    np.testing.assert_array_equal(outline.scale, layer.scale)
