from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import (
    find_placement,
    labels_from_layer,
    layers_from_case,
    select_layers,
    slice_at,
    update_or_add_labels,
    volume_from_layers,
)
from open_layers import napari_nifti_layer, open_case


def test_our_layers_give_back_the_volume_and_the_files_grid(viewer, oblique_grid, synthetic_volume):
    volume = synthetic_volume(source=oblique_grid)
    back = volume_from_layers(open_case(viewer, volume))
    np.testing.assert_array_equal(back.data, volume.data)
    assert (back.modalities, back.name) == (volume.modalities, volume.name)
    np.testing.assert_array_equal(back.source.affine, oblique_grid.affine)


def test_a_layer_that_was_moved_or_rescaled_no_longer_has_the_files_grid(viewer, volume):
    layer = open_case(viewer, volume)["T1"]
    layer.scale = (5, 1.5, 1)
    assert volume_from_layers({"T1": layer}).spacing == (5, 1.5, 1)


def test_correcting_the_scale_of_a_tiff_makes_its_voxel_size_known(viewer, synthetic_volume):
    volume = synthetic_volume(source=default_grid((6, 20, 16), spacing_known=False))
    layer = open_case(viewer, volume)["T1"]
    layer.scale = (5, 0.9, 0.9)
    source = volume_from_layers({"T1": layer}).source
    assert source.spacing_known
    assert source.spacing == pytest.approx((5, 0.9, 0.9))


def test_a_plain_array_is_taken_as_displayed(volume):
    plain = volume_from_layers({"T1": Image(volume.data[0], name="a t1")})
    np.testing.assert_array_equal(plain.data[0], volume.data[0])
    assert not plain.source.spacing_known
    assert plain.spacing == (1, 1, 1)
    assert plain.name == "a"


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_a_negative_scale_flips_the_axis(volume, signs):
    scale = np.array((3, 1.5, 1)) * signs
    flip = tuple(slice(None, None, sign) for sign in signs)
    layer = Image(volume.data[0][flip], scale=scale, units="mm")
    back = volume_from_layers({"T1": layer})
    np.testing.assert_array_equal(back.data[0], volume.data[0])
    assert back.spacing == (3, 1.5, 1)


def test_units_are_converted_to_mm(volume):
    layer = Image(volume.data[0], scale=(3000, 1500, 1000), units="µm")
    assert volume_from_layers({"T1": layer}).spacing == pytest.approx((3, 1.5, 1))


def test_a_permuting_affine_is_undone(volume):
    affine = np.eye(4)[[1, 2, 0, 3]]  # the array's first axis is the world's third
    with pytest.warns(UserWarning, match="Non-orthogonal"):
        layer = Image(np.transpose(volume.data[0], (2, 0, 1)), affine=affine)
    np.testing.assert_array_equal(volume_from_layers({"T1": layer}).data[0], volume.data[0])


def test_layers_of_napari_nifti_are_understood_and_fit_ours(viewer, volume):
    foreign = napari_nifti_layer(volume.with_modalities(("FLAIR",)))
    back = volume_from_layers({"FLAIR": foreign})
    np.testing.assert_array_equal(back.data[0], volume.data[3])
    assert back.spacing == volume.spacing
    assert back.source.origin == volume.source.origin
    ours = open_case(viewer, volume.with_modalities(("T1",)))["T1"]
    both = volume_from_layers({"T1": ours, "FLAIR": foreign})
    np.testing.assert_array_equal(both.data, volume.data[[0, 3]])


def test_layers_that_napari_nifti_mislabels_are_refused(volume):
    with pytest.raises(DataError, match=r"opened by napari-nifti, which shows scans stored along SLP\+"):
        select_layers({"FLAIR": napari_nifti_layer(volume, order="SLP+")})


@pytest.mark.parametrize("opened_by", ["napari-nifti", "plain, flipped"])
def test_labels_come_back_in_the_order_of_a_foreign_layer(viewer, volume, opened_by, synthetic_segmentation):
    if opened_by == "napari-nifti":
        image = napari_nifti_layer(volume)
    else:
        image = Image(volume.data[0][::-1, :, ::-1], scale=(-3, 1.5, -1), translate=(4, 5, 6), name="scan_flair")
    viewer.add_layer(image)
    back = volume_from_layers({"FLAIR": image})
    result = synthetic_segmentation(back)
    layer = update_or_add_labels(viewer, result, find_placement(image))
    np.testing.assert_array_equal(layer.data > 0, image.data == 300)
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert layer.units == image.units
    assert layer.axis_labels == image.axis_labels
    landing = labels_from_layer(layer)
    labels_ZYX, source = landing.labels_ZYX, landing.grid
    np.testing.assert_array_equal(labels_ZYX, result.labels)
    np.testing.assert_array_equal(source.affine, back.source.affine)
    assert update_or_add_labels(viewer, result, find_placement(image)) == layer


def test_labels_that_are_flat_cannot_be_written():
    with pytest.raises(DataError, match="has 2 dimensions"):
        labels_from_layer(Labels(np.zeros((4, 4), int)))


def test_the_slice_that_is_shown_is_found_also_in_layers_that_run_the_other_way(volume: Volume) -> None:
    data, options, _ = layers_from_case(volume)[0]
    ours = Image(data, **options)
    for z in (0, 3, 5):
        assert slice_at(ours, ours.data_to_world((z, 0, 0))) == z
    assert slice_at(ours, (1e6, 0, 0)) is None
    upside_down = Image(data[::-1], scale=(-3, 1.5, 1), name="upside down")
    assert slice_at(upside_down, upside_down.data_to_world((0, 0, 0))) == 5
    with pytest.raises(DataError, match="has 2 dimensions"):
        slice_at(Image(np.zeros((3, 3)), name="flat"), (0, 0))
