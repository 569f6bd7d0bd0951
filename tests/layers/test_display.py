from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.comparison import compare_segmentations
from napari_braintumor.engine.volumes import Reference, Volume
from napari_braintumor.layers import (
    KEY,
    find_placement,
    labels_from_layer,
    labels_from_segmentation,
    masks_in,
    modality_of,
    scans_of,
    select_layers,
    source_of,
    update_or_add_disagreement,
    update_or_add_labels,
    update_or_add_preview,
    update_or_add_probabilities,
)
from open_layers import lazy_layers, open_case


def test_a_case_becomes_one_layer_a_modality_in_mm_at_the_scanners_coordinates(viewer, volume):
    layers = open_case(viewer, volume)
    assert [layer.name for layer in layers.values()] == [f"{m} [patient7]" for m in volume.modalities]
    for layer in layers.values():
        assert tuple(layer.scale) == volume.spacing
        assert tuple(layer.translate) == volume.source.origin
        assert {str(unit) for unit in layer.units} == {"millimeter"}
        assert layer.axis_labels == ("z", "y", "x")


def test_only_flair_is_shown_at_first(viewer, volume):
    assert [m for m, layer in open_case(viewer, volume).items() if layer.visible] == ["FLAIR"]


def test_without_a_voxel_size_the_layers_stay_in_pixels(viewer, synthetic_volume):
    grid = default_grid((6, 20, 16), spacing_known=False)
    layer = open_case(viewer, synthetic_volume(source=grid))["T1"]
    assert {str(unit) for unit in layer.units} == {"pixel"}
    assert not source_of(layer).spacing_known


def test_a_reference_that_knows_only_the_whole_tumor_does_not_call_it_edema(viewer, volume):
    reference = Reference({"whole tumor": np.ones(volume.shape, bool)}, "whole", volume.source)
    open_case(viewer, volume, reference)
    layer = viewer.layers["Reference [patient7]"]
    assert not layer.visible
    assert list(layer.features["name"]) == ["background", "whole tumor"]


def test_labels_have_names_volumes_and_provenance(volume, segmentation):
    layer = Layer.create(*labels_from_segmentation(segmentation))
    assert layer.name == "Tumor [patient7]"
    assert list(layer.features["index"]) == [0, 1, 2, 3]
    assert list(layer.features["name"]) == ["background", "necrotic / non-enhancing core", "edema", "enhancing tumor"]
    voxels = [np.count_nonzero(segmentation.labels == label) for label in (1, 2, 3)]
    np.testing.assert_allclose(layer.features["mL"][1:], np.round(np.multiply(voxels, 4.5) / 1000, 2))
    assert layer.metadata[KEY]["provenance"]["model"] == "fake"
    assert layer.colormap.map(np.array([0]))[0][3] == 0
    assert layer.colormap.map(np.array([9]))[0][3] == 0


def test_painting_on_the_layer_leaves_the_result_alone(segmentation):
    layer = Layer.create(*labels_from_segmentation(segmentation))
    layer.data[...] = 3
    assert segmentation.labels.min() == 0


def test_a_second_run_updates_the_layer_and_can_be_undone(viewer, volume, segmentation):
    image = open_case(viewer, volume)["T1"]
    first = update_or_add_labels(viewer, segmentation, find_placement(image))
    first.name = "my own name"
    before = first.data.copy()
    moved = replace(segmentation, labels=np.ascontiguousarray(segmentation.labels[:, ::-1]))
    second = update_or_add_labels(viewer, moved, find_placement(image))
    assert second == first
    assert len([layer for layer in viewer.layers if isinstance(layer, Labels)]) == 1
    np.testing.assert_array_equal(second.data, moved.labels)
    second.undo()
    np.testing.assert_array_equal(second.data, before)


def test_another_case_gets_a_layer_of_its_own(viewer, volume, segmentation, synthetic_volume, synthetic_segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    update_or_add_labels(viewer, segmentation, place)
    other = synthetic_segmentation(synthetic_volume(name="patient8"))
    update_or_add_labels(viewer, other, place)
    assert [layer.name for layer in viewer.layers[-2:]] == ["Tumor [patient7]", "Tumor [patient8]"]


def test_probabilities_become_hidden_images_that_a_second_run_updates(viewer, volume, segmentation):
    from dataclasses import replace

    place = find_placement(open_case(viewer, volume)["T1"])
    assert update_or_add_probabilities(viewer, segmentation, place) == []
    values = np.linspace(0, 1, 3 * segmentation.labels.size).reshape(3, *volume.shape).astype(np.float16)
    layers = update_or_add_probabilities(viewer, replace(segmentation, probabilities=values), place)
    again = update_or_add_probabilities(viewer, replace(segmentation, probabilities=values[::-1]), place)
    assert layers == again
    assert not any(layer.visible for layer in layers)
    np.testing.assert_array_equal(again[0].data, values[2])
    assert modality_of(layers[0]) is None


def test_streamed_labels_stay_compressed_and_can_be_painted_and_replaced(viewer, volume, segmentation, tmp_path):
    labels = zarr.create_array(zarr.storage.MemoryStore(), data=segmentation.labels, chunks=(1, 20, 16))
    streamed = replace(segmentation, labels=labels)
    place = select_layers(lazy_layers(volume, "dask", tmp_path)).placement
    layer = update_or_add_labels(viewer, streamed, place)
    assert isinstance(layer.data, zarr.Array)
    assert layer.features["mL"].iloc[1:].sum() == pytest.approx((segmentation.labels > 0).sum() * 4.5 / 1000, abs=0.02)
    layer.selected_label, layer.brush_size = 3, 1
    layer.paint((5, 10, 10), 3)
    assert layer.data[5, 10, 10] == 3
    layer.undo()
    assert layer.data[5, 10, 10] == 0
    assert update_or_add_labels(viewer, streamed, place) is layer
    labels_ZYX = labels_from_layer(layer).labels_ZYX
    np.testing.assert_array_equal(labels_ZYX, segmentation.labels)


def test_a_preview_is_one_slice_on_the_scans_and_is_not_a_mask(
    drawn: tuple[ViewerModel, Labels], volume: Volume
) -> None:
    viewer, mine = drawn
    slice_YX = np.full(volume.shape[1:], 2, np.uint8)
    layer = update_or_add_preview(viewer, volume.name, 4, slice_YX)
    assert layer is not None
    assert layer.data[4].min() == 2
    assert layer.data.sum() == slice_YX.sum()
    assert np.allclose(layer.scale, viewer.layers[0].scale)
    assert update_or_add_preview(viewer, volume.name, 1, slice_YX) is layer
    assert layer.data[4].max() == 0
    assert masks_in(viewer.layers) == [mine]
    assert update_or_add_preview(viewer, "somebody else", 4, slice_YX) is None
    assert update_or_add_preview(viewer, volume.name, 99, slice_YX) is None


def test_each_of_several_models_has_a_layer_that_its_next_result_updates(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    update_or_add_labels(viewer, segmentation, place)
    one = update_or_add_labels(viewer, segmentation, place, "unet")
    update_or_add_labels(viewer, segmentation, place, "u2net")
    names = ["Tumor [patient7]", "Tumor [patient7] by unet", "Tumor [patient7] by u2net"]
    assert [layer.name for layer in viewer.layers[-3:]] == names
    emptied = replace(segmentation, labels=np.zeros_like(segmentation.labels))
    assert update_or_add_labels(viewer, emptied, place, "unet") is one
    assert [int(layer.data.any()) for layer in viewer.layers[-3:]] == [1, 0, 1]


def test_disagreement_is_a_layer_where_the_scan_is_that_the_next_comparison_updates(viewer, volume, segmentation):
    place = find_placement(open_case(viewer, volume)["T1"])
    nothing = replace(segmentation, labels=np.zeros_like(segmentation.labels))
    found = [segmentation, nothing, nothing, segmentation]
    layer = update_or_add_disagreement(viewer, compare_segmentations(volume, "abcd", found), place)
    assert layer.name == "Disagreement [patient7]"
    np.testing.assert_array_equal(layer.data, 2 * (segmentation.labels > 0))
    np.testing.assert_array_equal(layer.translate, place.options["translate"])
    assert list(layer.features["name"]) == ["background", "1 of 4 models differs", "2 of 4 models differ"]
    again = update_or_add_disagreement(viewer, compare_segmentations(volume, "abc", found[:3]), place)
    assert again is layer
    np.testing.assert_array_equal(layer.data, segmentation.labels > 0)
    assert list(layer.features["name"]) == ["background", "1 of 3 models differs"]
    assert layer not in masks_in(viewer.layers)


def test_a_result_keeps_its_model_and_the_scans_it_was_made_from(viewer, volume, segmentation):
    scans = open_case(viewer, volume)
    selection = select_layers({"T1": scans["T1"], "FLAIR": scans["FLAIR"]})
    layer = update_or_add_labels(
        viewer, segmentation, selection.placement, made_from=selection.made_from, model_path=Path("a.safetensors")
    )
    known = layer.metadata[KEY]
    assert known["model"] == {"name": "fake", "version": None, "path": "a.safetensors"}
    assert known["made_from"]["FLAIR"]["unique_id"] == str(scans["FLAIR"].unique_id)
    scans["T1"].name = "renamed"
    open_case(viewer, volume)  # the same case once more, in other layers
    assert scans_of(viewer.layers, layer) == {"T1": scans["T1"], "FLAIR": scans["FLAIR"]}
    viewer.layers.remove(scans["T1"])
    assert scans_of(viewer.layers, layer) == {"FLAIR": scans["FLAIR"]}
