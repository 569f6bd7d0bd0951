from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume
from napari_braintumor.layers import (
    KEY,
    default_placement,
    find_reference,
    label_names,
    labels_for,
    mark_reviewed,
    match_modalities,
    reference_from_labels,
    reviewed_slices,
    select_layers,
    update_or_add_labels,
)
from open_layers import open_case


def test_labels_drawn_on_the_scans_are_taken_in_their_order(drawn: tuple[ViewerModel, Labels]) -> None:
    viewer, labels = drawn
    labels.data[1, 2, 3] = 2
    taken = labels_for(select_layers(match_modalities(viewer.layers)), labels)
    assert taken[1, 2, 3] == 2
    assert taken.sum() == 2


def test_labels_of_another_shape_or_place_are_refused(drawn: tuple[ViewerModel, Labels]) -> None:
    viewer, labels = drawn
    selection = select_layers(match_modalities(viewer.layers))
    labels.translate = np.add(labels.translate, (0, 5, 0))
    with pytest.raises(DataError, match=r"Labels 'mine' .* belong to another image"):
        labels_for(selection, labels)
    with pytest.raises(DataError, match="belong to another image"):
        labels_for(selection, Labels(np.zeros((2, 3, 4), np.uint8), name="small"))
    with pytest.raises(DataError, match="has 2 dimensions"):
        labels_for(selection, Labels(np.zeros((3, 4), np.uint8), name="flat"))


def test_slices_are_marked_as_reviewed_and_marks_stay_with_what_was_reviewed(
    volume: Volume, segmentation: Segmentation
) -> None:
    viewer = ViewerModel()
    place = default_placement(volume.source)
    layer = update_or_add_labels(viewer, segmentation, place)
    assert reviewed_slices(layer) == ()
    for z in (4, 2, 4):
        mark_reviewed(layer, z)
    assert reviewed_slices(layer) == (2, 4)
    mark_reviewed(layer, 4, False)
    assert reviewed_slices(layer) == (2,)
    assert layer.metadata[KEY]["role"] == "tumor"
    assert update_or_add_labels(viewer, segmentation, place) is layer
    assert reviewed_slices(layer) == (2,)


def test_the_reference_of_a_case_is_found(viewer, volume, synthetic_volume):
    reference = Reference({"whole tumor": np.ones(volume.shape, bool)}, "whole", volume.source)
    open_case(viewer, volume, reference)
    viewer.add_labels(np.ones(volume.shape, int), name="Reference [patient8]")
    assert find_reference(viewer.layers, "patient7") is viewer.layers["Reference [patient7]"]
    assert find_reference(viewer.layers, "patient8") is None


@pytest.mark.parametrize(
    "regions",
    [("whole tumor",), ("whole tumor", "tumor core"), ("whole tumor", "tumor core", "enhancing tumor")],
)
def test_a_reference_defines_what_its_file_defined(viewer, volume, segmentation, regions):
    masks = {name: segmentation.labels > 0 if name == "whole tumor" else segmentation.labels == 3 for name in regions}
    open_case(viewer, volume, Reference(masks, "some", volume.source))
    layer = viewer.layers["Reference [patient7]"]
    read = reference_from_labels(layer.data, label_names(layer), volume.source)
    assert tuple(read.regions) == regions
    for name in regions:
        np.testing.assert_array_equal(read.regions[name], masks[name])


def test_a_reference_of_another_origin_is_read_by_its_numbers(volume):
    labels = np.zeros(volume.shape, np.int64)
    labels[:3] = np.array([1, 2, 4])[:, None, None]
    read = reference_from_labels(labels, {}, volume.source)
    assert [int(mask.any((1, 2)).sum()) for mask in read.regions.values()] == [3, 2, 1]
    one = reference_from_labels((labels == 4) * 7, {}, volume.source)
    assert list(one.regions) == ["whole tumor"]
    with pytest.raises(DataError, match=r"contains the values 0, 3, 7, which may mean different things"):
        reference_from_labels(labels // 4 * 4 + labels // 4 * 3 * (labels == 4) + 3 * (labels == 1), {}, volume.source)
    with pytest.raises(DataError, match=r"contains the values 0, which may"):
        reference_from_labels(np.zeros_like(labels), {}, volume.source)


def test_a_label_layer_of_another_origin_names_nothing(viewer, volume, segmentation):
    assert label_names(viewer.add_labels(segmentation.labels)) == {}
    layer = update_or_add_labels(viewer, segmentation, default_placement(volume.source))
    assert label_names(layer) == {2: "edema", 1: "necrotic / non-enhancing core", 3: "enhancing tumor"}
