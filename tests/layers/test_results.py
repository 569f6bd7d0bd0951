from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from napari.layers import Labels

from napari_braintumor.engine.volumes import Segmentation
from napari_braintumor.layers import (
    figures_of,
    find_placement,
    kept_slices,
    mark_reviewed,
    replace_kept,
    reviewed_slices,
    select_layers,
    show_region,
    shown_region,
    update_or_add_labels,
    update_or_add_preview,
    update_or_add_probabilities,
)
from open_layers import napari_nifti_layer, open_case


def mirrored(segmentation: Segmentation, label: int = 3) -> Segmentation:
    """Another answer: the tumor on the other side, of one label only."""
    return replace(segmentation, labels=((segmentation.labels[:, :, ::-1] > 0) * label).astype(np.uint8))


def array_ZYX(layer: Labels) -> np.ndarray:
    return find_placement(layer).from_layer(np.asarray(layer.data))


@pytest.mark.parametrize("kind", ["ours", "another order", "zarr"])
def test_slices_that_a_person_changed_or_reviewed_stay_as_they_are(
    viewer, volume, segmentation, synthetic_segmentation, kind
):
    if kind == "another order":
        image = napari_nifti_layer(volume)
        viewer.add_layer(image)
    else:
        image = open_case(viewer, volume)["T1"]
    if kind == "zarr":
        array = zarr.create_array(zarr.storage.MemoryStore(), data=segmentation.labels, chunks=(1, 20, 16))
        segmentation = replace(segmentation, labels=array)
    place, given = find_placement(image), np.array(segmentation.labels)
    layer = update_or_add_labels(viewer, segmentation, place)
    at = place.to_layer(np.zeros(volume.shape)).copy()
    place.from_layer(at)[4, 10, 10] = 1
    layer.data_setitem(tuple(index for index in np.nonzero(at)), 2)  # a correction in slice 4
    mark_reviewed(layer, 1)
    before = array_ZYX(layer).copy()
    second = mirrored(replace(segmentation, labels=given))
    assert update_or_add_labels(viewer, second, place) is layer
    assert kept_slices(layer) == (1, 4)
    expected = second.labels.copy()
    expected[[1, 4]] = before[[1, 4]]
    np.testing.assert_array_equal(array_ZYX(layer), expected)
    assert figures_of(layer).edited == (4,)  # slice 1 is still a model's, as it was reviewed
    assert reviewed_slices(layer) == (1,)

    replace_kept(layer)
    np.testing.assert_array_equal(array_ZYX(layer), second.labels)
    assert (kept_slices(layer), reviewed_slices(layer), figures_of(layer).edited) == ((), (), ())
    layer.undo()
    np.testing.assert_array_equal(array_ZYX(layer), expected)
    layer.undo()
    np.testing.assert_array_equal(array_ZYX(layer), before)
    layer.redo()
    layer.redo()
    np.testing.assert_array_equal(array_ZYX(layer), second.labels)


def test_hand_work_survives_any_number_of_runs(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    layer.paint((5, 10, 10), 2)
    mark_reviewed(layer, 0)
    drawn, reviewed = layer.data[5].copy(), layer.data[0].copy()
    for label in (3, 1, 2, 3):
        update_or_add_labels(viewer, mirrored(segmentation, label), place)
        np.testing.assert_array_equal(layer.data[5], drawn)
        np.testing.assert_array_equal(layer.data[0], reviewed)
        assert kept_slices(layer) == (0, 5)
        assert figures_of(layer).edited == (5,)


def test_edits_without_an_event_of_napari_survive_too(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    layer.data[3, 2:4, 2:4] = 1  # by a script, without a word to napari
    update_or_add_labels(viewer, mirrored(segmentation), place)
    assert layer.data[3].sum() == 4
    assert kept_slices(layer) == (3,)


def test_an_erased_slice_stays_erased(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    layer.data_setitem(np.nonzero(layer.data), 0)
    update_or_add_labels(viewer, mirrored(segmentation), place)
    assert not layer.data.any()
    assert kept_slices(layer) == (0, 1)


def test_a_run_that_is_undone_brings_back_its_own_figures(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    layer.paint((5, 10, 10), 2)
    second = replace(mirrored(segmentation), volumes_ml={"whole tumor": 9.0})
    update_or_add_labels(viewer, second, place)
    assert figures_of(layer).model_ml["whole tumor"] == 9
    layer.undo()
    figures = figures_of(layer)
    assert figures.model_ml == pytest.approx(segmentation.volumes_ml)
    assert figures.edited == (5,)
    assert kept_slices(layer) == ()
    layer.redo()
    assert figures.model_ml["whole tumor"] == 9
    assert kept_slices(layer) == (5,)


def test_a_run_with_nothing_drawn_by_hand_replaces_all(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    update_or_add_labels(viewer, mirrored(segmentation), place)
    assert kept_slices(layer) == ()
    np.testing.assert_array_equal(layer.data, mirrored(segmentation).labels)


def test_results_of_other_scans_never_share_a_layer_though_case_and_grid_are_called_the_same(
    viewer, volume, segmentation, synthetic_volume, synthetic_segmentation
):
    one = select_layers(open_case(viewer, volume))
    two = select_layers(open_case(viewer, synthetic_volume()))  # the same name, the same grid, another patient
    first = update_or_add_labels(viewer, segmentation, one.placement, made_from=one.made_from)
    second = update_or_add_labels(viewer, mirrored(segmentation), two.placement, made_from=two.made_from)
    assert first != second
    np.testing.assert_array_equal(first.data, segmentation.labels)
    again = update_or_add_labels(viewer, segmentation, two.placement, made_from=two.made_from)
    assert again is second


def test_a_case_that_was_closed_and_opened_again_keeps_its_layer(viewer, volume, segmentation, tmp_path):
    at = replace(volume.source, path=tmp_path / "a_flair.nii.gz")
    layers = open_case(viewer, replace(volume, source=at))
    one = select_layers(layers)
    first = update_or_add_labels(viewer, segmentation, one.placement, made_from=one.made_from)
    for layer in layers.values():
        viewer.layers.remove(layer)
    two = select_layers(open_case(viewer, replace(volume, source=at)))
    assert update_or_add_labels(viewer, segmentation, two.placement, made_from=two.made_from) is first


@pytest.mark.parametrize("selected", [["Tumor [patient7]"], ["T1 [patient7]", "FLAIR [patient7]"], []])
def test_what_is_selected_stays_selected_when_previews_and_probabilities_come(viewer, volume, segmentation, selected):
    place = find_placement(open_case(viewer, volume)["T1"])
    layer = update_or_add_labels(viewer, segmentation, place)
    assert viewer.layers.selection.active == layer
    viewer.layers.selection = {viewer.layers[name] for name in selected}
    before, active = set(viewer.layers.selection), viewer.layers.selection.active
    probabilities = np.zeros((3, *volume.shape), np.float16)
    added = update_or_add_probabilities(viewer, replace(segmentation, probabilities=probabilities), place)
    preview = update_or_add_preview(viewer, volume.name, 2, np.ones(volume.shape[1:], np.uint8))
    update_or_add_preview(viewer, volume.name, 3, np.ones(volume.shape[1:], np.uint8))
    assert {*added, preview} <= set(viewer.layers)
    assert (set(viewer.layers.selection), viewer.layers.selection.active) == (before, active)


# ------------------------------------------------------------------------------------------------ regions in one color


@pytest.fixture
def layer(viewer, volume, segmentation) -> Labels:
    return update_or_add_labels(viewer, segmentation, find_placement(open_case(viewer, volume)["T1"]))


def show(layer: Labels, region: str | None) -> None:
    figures = figures_of(layer)
    show_region(layer, region, figures.label_colors, figures.answer.regions.get(region, ()))


@pytest.mark.parametrize("mode", ["paint", "fill", "erase", "polygon"])
@pytest.mark.parametrize("first", ["brush", "region"])
def test_while_a_region_is_shown_no_brush_can_be_held(layer, mode, first):
    if first == "brush":
        layer.mode = mode
        show(layer, "whole tumor")
    else:
        show(layer, "whole tumor")
        layer.mode = mode
    assert str(layer.mode) == "pan_zoom"
    layer.mode = "pick"
    assert str(layer.mode) == "pick"
    show(layer, None)
    layer.mode = mode
    assert str(layer.mode) == mode


def test_locking_the_brush_keeps_what_can_be_undone(layer, segmentation):
    layer.paint((5, 10, 10), 2)
    show(layer, "tumor core")
    layer.undo()
    np.testing.assert_array_equal(layer.data, segmentation.labels)


@pytest.mark.parametrize(
    "edit",
    [lambda layer: layer.paint((0, 1, 1), 2), lambda layer: layer.data_setitem(tuple(np.array([[0], [0], [0]])), 1)],
    ids=["paint", "data_setitem"],
)
def test_no_hidden_label_changes_unseen(layer, edit):
    show(layer, "whole tumor")
    assert len({tuple(layer.colormap.map(label)) for label in (1, 2, 3)}) == 1
    edit(layer)
    assert shown_region(layer) is None
    assert len({tuple(layer.colormap.map(label)) for label in (1, 2, 3)}) == 3


def test_a_new_run_shows_its_labels(viewer, layer, segmentation):
    show(layer, "whole tumor")
    update_or_add_labels(viewer, mirrored(segmentation), find_placement(layer))
    assert shown_region(layer) is None
    assert len({tuple(layer.colormap.map(label)) for label in (1, 2, 3)}) == 3


def test_regions_of_other_models_are_shown_by_the_labels_that_make_them(viewer, volume, segmentation):
    other = replace(
        segmentation,
        label_names={2: "outer", 3: "inner"},
        label_colors={2: "#112233", 3: "#445566"},
        regions={"everything": (2, 3), "inside": (3,)},
        volumes_ml={"everything": 1.0, "inside": 0.5},
    )
    layer = update_or_add_labels(viewer, other, find_placement(open_case(viewer, volume)["T1"]))
    show(layer, "inside")
    assert layer.colormap.map(3)[3] == 1
    assert layer.colormap.map(2)[3] == 0
