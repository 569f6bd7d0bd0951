from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_braintumor.engine.volumes import Reference, Segmentation
from napari_braintumor.layers import (
    Figures,
    default_placement,
    figures_of,
    find_placement,
    follow_labels,
    mark_reviewed,
    update_or_add_labels,
)
from napari_braintumor.layers.figures import AT_ONCE_VOXELS
from open_layers import napari_nifti_layer, open_case


@pytest.fixture
def layer(viewer, volume, segmentation) -> Labels:
    """A result on its scans."""
    return update_or_add_labels(viewer, segmentation, find_placement(open_case(viewer, volume)["T1"]))


def brush(layer: Labels) -> None:
    layer.selected_label, layer.brush_size = 3, 4
    layer.paint((4, 10, 10), 3)


def stroke(layer: Labels) -> None:
    with layer.block_history():  # as napari does while the mouse is down
        for x in range(5, 9):
            layer.paint((3, 12, x), 1, refresh=False)


def brush_in_3d(layer: Labels) -> None:
    layer.n_edit_dimensions, layer.brush_size = 3, 3
    layer.paint((3, 10, 10), 2)


def erase(layer: Labels) -> None:
    layer.brush_size = 6
    layer.paint((0, 0, 0), 0)


def fill(layer: Labels) -> None:
    layer.fill((0, 4, 3), 1)


def polygon(layer: Labels) -> None:
    layer.n_edit_dimensions = 2  # napari draws no others
    layer.paint_polygon([(5, 2, 2), (5, 2, 12), (5, 14, 7)], 2)


def strange_label(layer: Labels) -> None:
    layer.paint((2, 10, 10), 4)


def set_items(layer: Labels) -> None:
    layer.data_setitem(tuple(np.array([[5, 4], [19, 3], [15, 2]])), [1, 3])


def another_array(layer: Labels) -> None:
    layer.data = np.roll(np.asarray(layer.data), 2, axis=1).astype(np.int32)


def nothing_left(layer: Labels) -> None:
    layer.data = np.zeros_like(np.asarray(layer.data))


def written_by_a_script(layer: Labels) -> None:
    layer.data[3, :4, :4] = 2
    layer.refresh()


def undo(layer: Labels) -> None:
    brush(layer)
    set_items(layer)
    layer.undo()


def undo_all(layer: Labels) -> None:
    brush(layer)
    erase(layer)
    layer.undo()
    layer.undo()


def redo(layer: Labels) -> None:
    erase(layer)
    layer.undo()
    layer.redo()


EDITS = (
    brush, stroke, brush_in_3d, erase, fill, polygon, strange_label, set_items, another_array, nothing_left,
    written_by_a_script, undo, undo_all, redo,
)  # fmt: skip


def check(layer: Labels, given: np.ndarray, voxel_ml: float = 4.5e-3) -> Figures:
    """Everything that is shown of a layer is what a plain count gives."""
    data = find_placement(layer).from_layer(np.asarray(layer.data))
    figures = figures_of(layer)
    ml = {label: float((data == label).sum()) * voxel_ml for label in {1, 2, 3, *np.unique(data[data > 0]).tolist()}}
    assert figures.label_ml == pytest.approx(ml)
    regions = {"whole tumor": ml[1] + ml[2] + ml[3], "tumor core": ml[1] + ml[3], "enhancing tumor": ml[3]}
    assert figures.region_ml == pytest.approx(regions)
    table = layer.features.set_index("index")
    assert {i: table["mL"][i] for i in ml} == pytest.approx({i: round(each, 2) for i, each in ml.items()})
    edited = tuple(np.flatnonzero((data != given).any((1, 2))).tolist())
    assert figures.edited == edited
    record = figures.describe()
    assert record["volumes_ml"] == pytest.approx(regions, abs=1e-3)
    assert record["edited_slices_z"] == list(edited)
    assert record["model_volumes_ml"]["whole tumor"] == pytest.approx((given > 0).sum() * voxel_ml, abs=1e-3)
    by_hand = regions["whole tumor"] - (given > 0).sum() * voxel_ml
    assert record["by_hand_ml"]["whole tumor"] == pytest.approx(by_hand, abs=2e-3)
    return figures


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_after_any_edit_all_numbers_are_those_of_the_labels_as_they_are(layer, segmentation, edit):
    check(layer, segmentation.labels)
    edit(layer)
    check(layer, segmentation.labels)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*EDITS, Labels.undo, Labels.redo]), min_size=3, max_size=8), st.booleans())
def test_after_any_row_of_edits_all_numbers_are_those_of_the_labels_as_they_are(
    synthetic_volume, synthetic_segmentation, edits, again
):
    viewer = ViewerModel()
    volume = synthetic_volume()
    result = synthetic_segmentation(volume)
    place = default_placement(volume.source)
    layer = update_or_add_labels(viewer, result, place)
    for edit in edits:
        edit(layer)
        check(layer, result.labels)
    if again and layer.data.dtype == np.uint8:
        before = {z: np.array(layer.data[z]) for z in figures_of(layer).edited}
        update_or_add_labels(viewer, result, place)
        check(layer, result.labels)
        for z, plane in before.items():
            np.testing.assert_array_equal(layer.data[z], plane)


@pytest.mark.parametrize(
    "edit", [e for e in EDITS if e not in (fill, another_array, nothing_left)], ids=lambda e: e.__name__
)
def test_numbers_follow_labels_that_are_a_zarr_array(viewer, volume, segmentation, edit):
    array = zarr.create_array(zarr.storage.MemoryStore(), data=segmentation.labels, chunks=(1, 20, 16))
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, replace(segmentation, labels=array), place)
    assert isinstance(layer.data, zarr.Array)
    edit(layer)
    figures_of(layer).count_some(np.inf)
    check(layer, segmentation.labels)


@pytest.mark.parametrize("edit", [brush, brush_in_3d, polygon, undo, redo, another_array], ids=lambda e: e.__name__)
def test_numbers_follow_labels_in_another_order_than_ours(viewer, volume, synthetic_segmentation, edit):
    image = napari_nifti_layer(volume)
    viewer.add_layer(image)
    result = synthetic_segmentation(volume)
    layer = update_or_add_labels(viewer, result, find_placement(image))
    edit(layer)
    check(layer, result.labels)


def test_labels_that_the_model_does_not_know_are_listed_and_seen(layer):
    strange_label(layer)
    figures = figures_of(layer)
    assert figures.label_names[4] == "label 4"
    assert list(layer.features["name"])[-1] == "label 4"
    assert layer.colormap.map(np.array([4]))[0][3] == 1
    assert figures.describe()["labels"]["4"] == "label 4"
    layer.undo()
    assert 4 not in figures.label_names
    assert list(layer.features["index"]) == [0, 1, 2, 3]


def test_milliliters_follow_a_corrected_voxel_size(layer, segmentation):
    layer.scale = (6, 1.5, 1)
    figures = check(layer, segmentation.labels, 9e-3)
    assert figures.describe()["spacing_zyx_mm"] == [6, 1.5, 1]


def test_columns_that_a_user_added_stay(layer):
    table = layer.features.copy()
    table["mine"] = ["a", "b", "c", "d"]
    layer.features = table
    brush(layer)
    assert list(layer.features["mine"]) == ["a", "b", "c", "d"]


def test_slices_that_look_the_same_but_are_not_are_edited(layer, segmentation):
    swapped = segmentation.labels.copy()
    swapped[1, :5, :4] = swapped[1, :5, :4][::-1]
    layer.data = swapped
    assert figures_of(layer).edited == (1,)
    layer.data = segmentation.labels.astype(np.int16)
    assert figures_of(layer).edited == ()


def test_reviewed_slices_are_in_the_record(layer):
    mark_reviewed(layer, 3)
    assert figures_of(layer).describe()["reviewed_slices_z"] == [3]


def test_masks_of_people_are_followed_as_soon_as_a_dock_or_a_result_is_there(viewer, volume):
    open_case(viewer, volume, Reference({"whole tumor": np.ones(volume.shape, bool)}, "whole", volume.source))
    mask = viewer.layers["Reference [patient7]"]
    mask.visible = True
    follow_labels(viewer)
    mask.paint((0, 0, 0), 0)
    assert mask.features["mL"].iloc[-1] == round(int((mask.data > 0).sum()) * 4.5e-3, 2)
    listening = len(viewer.layers.events.inserted.callbacks)
    follow_labels(viewer)  # twice is once
    assert len(viewer.layers.events.inserted.callbacks) == listening


def test_a_copy_of_a_layer_is_counted_by_itself(viewer, layer, segmentation):
    data, options, kind = layer.as_layer_data_tuple()
    copy = viewer.add_layer(Layer.create(np.array(data), {**options, "name": "copy"}, kind))
    brush(copy)
    check(copy, segmentation.labels)
    check(layer, segmentation.labels)
    assert figures_of(layer).edited == ()


def test_regions_that_the_scans_cannot_show_have_no_volume_unless_somebody_paints_them(viewer, volume, segmentation):
    without = replace(
        segmentation,
        labels=np.where(segmentation.labels == 3, 1, segmentation.labels).astype(np.uint8),
        not_measurable={"enhancing tumor": "not measurable without T1ce"},
    )
    layer = update_or_add_labels(viewer, without, find_placement(open_case(viewer, volume)["T1"]))
    figures = figures_of(layer)
    assert list(figures.region_ml) == ["whole tumor", "tumor core"]
    assert np.isnan(layer.features["mL"].iloc[3])
    assert "3" not in figures.describe()["label_volumes_ml"]
    brush(layer)
    assert figures.region_ml["enhancing tumor"] > 0
    assert layer.features["mL"].iloc[3] > 0


def test_moving_the_slider_counts_nothing(viewer, layer, monkeypatch):
    counted = []
    monkeypatch.setattr("napari_braintumor.layers.figures.tally_slice", lambda plane: counted.append(1))
    for z in range(6):
        viewer.dims.set_current_step(0, z)
    assert not counted


def test_a_stroke_in_a_large_layer_keeps_the_window_waiting_for_one_slice_only(viewer, volume, segmentation):
    depth = AT_ONCE_VOXELS // (320 * 320) + 20
    source = replace(volume.source, shape=(depth, 320, 320))
    labels = np.zeros(source.shape, np.uint8)
    labels[40:60, 100:200, 100:200] = 2
    large: Segmentation = replace(segmentation, labels=labels, source=source)
    layer = update_or_add_labels(viewer, large, default_placement(source))
    figures = figures_of(layer)
    figures.count_some(np.inf)
    begun = time.perf_counter()
    layer.paint((50, 10, 10), 1)
    assert time.perf_counter() - begun < 0.1
    assert figures.edited == (50,)
    layer.undo()
    assert figures.edited == ()
    layer.data = np.where(labels > 0, 3, 0).astype(np.uint8)
    assert not figures.complete  # counted bit by bit, by whoever shows it
    while not figures.complete:
        figures.count_some(0.01)
    assert figures.edited == tuple(range(40, 60))
