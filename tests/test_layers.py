from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_braintumor.engine.comparison import compare_segmentations
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.types import (
    Reference,
    Segmentation,
    SourceGrid,
    StreamedVolume,
    Volume,
    default_grid,
)
from napari_braintumor.layers import (
    KEY,
    Placement,
    Selection,
    default_placement,
    find_placement,
    find_reference,
    label_names,
    labels_for,
    labels_from_layer,
    labels_from_segmentation,
    layers_from_case,
    mark_reviewed,
    masks_in,
    match_modalities,
    modality_of,
    reference_from_labels,
    reviewed_slices,
    scan_beside,
    select_layers,
    slice_at,
    source_of,
    stream_selection,
    update_or_add_disagreement,
    update_or_add_labels,
    update_or_add_preview,
    update_or_add_probabilities,
    volume_from_layers,
)


def open_case(viewer: ViewerModel, volume: Volume, reference: Reference | None = None) -> dict[str, Layer]:
    layers = [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume, reference)]
    return {modality: layers[i] for i, modality in enumerate(volume.modalities)}


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


# ------------------------------------------------------------------------------------------------------ to layers


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
    first.data_setitem(tuple(np.array([[5], [19], [15]])), 1)  # a correction
    first.name = "my own name"
    corrected = first.data.copy()
    second = update_or_add_labels(viewer, segmentation, find_placement(image))
    assert second == first
    assert len([layer for layer in viewer.layers if isinstance(layer, Labels)]) == 1
    np.testing.assert_array_equal(second.data, segmentation.labels)
    second.undo()
    np.testing.assert_array_equal(second.data, corrected)


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


# ---------------------------------------------------------------------------------------------------- from layers


@pytest.mark.parametrize(
    ("name", "modality"),
    [("BraTS21_t1ce", "T1ce"), ("sub-1_FLAIR", "FLAIR"), ("BraTS-GLI-00000-000-t2w", "T2"), ("scan", None)],
)
def test_the_modality_is_read_from_a_layers_name(name, modality):
    assert modality_of(Image(np.zeros((2, 3, 4)), name=name)) == modality


def test_the_noted_modality_survives_renaming(viewer, volume):
    layer = open_case(viewer, volume)["T2"]
    layer.name = "looks like flair"
    assert modality_of(layer) == "T2"


def test_modalities_are_matched_within_one_case(viewer, volume, synthetic_volume):
    first = open_case(viewer, volume)
    second = open_case(viewer, synthetic_volume(("T1", "FLAIR"), name="patient8"))
    assert match_modalities(viewer.layers) == second
    assert match_modalities(viewer.layers, first["T2"]) == first


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
    assert plain.name == "a t1"


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


def test_lazy_data_is_read(volume):
    lazy = Image(da.from_array(volume.data[0], chunks=(2, 20, 16)))
    np.testing.assert_array_equal(volume_from_layers({"T1": lazy}).data[0], volume.data[0])


def test_memory_mapped_data_is_read(volume, tmp_path):
    np.save(tmp_path / "scan.npy", volume.data[0])
    mapped = Image(np.load(tmp_path / "scan.npy", mmap_mode="r"))
    np.testing.assert_array_equal(volume_from_layers({"T1": mapped}).data[0], volume.data[0])


def lazy_layers(volume: Volume, kind: str, folder: Path) -> dict[str, Image]:
    layers = {}
    for modality, data in zip(volume.modalities, volume.data, strict=True):
        if kind == "dask":
            lazy = da.from_array(data, chunks=(2, 20, 16))
        elif kind == "zarr":
            lazy = zarr.create_array(zarr.storage.MemoryStore(), data=data, chunks=(2, 10, 16))
        else:
            np.save(folder / f"{modality}.npy", data)
            lazy = np.load(folder / f"{modality}.npy", mmap_mode="r")
        layers[modality] = Image(lazy, name=modality, scale=(3, 1.5, 1), units="mm")
    return layers


@pytest.mark.parametrize(("kind", "together"), [("dask", 2), ("zarr", 2), ("memmap", 1)])
def test_layers_that_are_not_in_memory_are_streamed_to_a_model(volume, tmp_path, kind: str, together: int):
    streamed = stream_selection(select_layers(lazy_layers(volume, kind, tmp_path)))
    assert isinstance(streamed, StreamedVolume)
    assert (streamed.slab_slices, streamed.shape, streamed.spacing) == (together, volume.shape, (3, 1.5, 1))
    read = streamed.read(1, np.array([0, 3, 4]))
    np.testing.assert_array_equal(read, volume.data[1, [0, 3, 4]])


def test_a_streamed_scan_in_another_order_is_reordered_without_reading_it(volume):
    source = replace(volume.source, shape=volume.shape, axes=(0, 1, 2), flips=(True, False, False))
    place = Placement(source, True, {}, np.eye(4))
    lazy = da.from_array(volume.data[0], chunks=(2, 20, 16))
    other = da.from_array(volume.data[1], chunks=(2, 20, 16))
    both = {"T1": (lazy, place), "T2": (other, place)}
    streamed = stream_selection(Selection(both, place, "case", volume.shape))
    assert isinstance(streamed.images[0], da.Array)
    np.testing.assert_array_equal(streamed.read(0, np.arange(2)), volume.data[0, ::-1][:2])


def test_layers_in_memory_are_read_at_once(volume):
    layers = {m: Image(data, name=m) for m, data in zip(volume.modalities, volume.data, strict=True)}
    assert isinstance(stream_selection(select_layers(layers)), Volume)


def test_two_streamed_modalities_must_not_be_the_same_image(volume, tmp_path):
    layers = lazy_layers(volume, "dask", tmp_path)
    layers["T2"] = Image(layers["T1"].data, name="T2", scale=(3, 1.5, 1), units="mm")
    with pytest.raises(DataError, match="T1 and T2 hold the same image"):
        stream_selection(select_layers(layers))


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
    labels_ZYX, _ = labels_from_layer(layer)
    np.testing.assert_array_equal(labels_ZYX, segmentation.labels)


def napari_nifti_layer(volume: Volume, name: str = "scan_flair", order: str = "RAS+") -> Image:
    """A layer as napari-nifti 0.0.20 makes it: axes S, A, R; negative scales; translate at the far corner; no units."""
    sar = volume.data[0][:, ::-1, ::-1]
    spacing = np.array(volume.spacing)
    origin = np.array(volume.source.origin)
    to_sar = np.array([origin[0], -(origin[1] + 19 * spacing[1]), -(origin[2] + 15 * spacing[2])])  # S, A, R mm
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = to_sar[::-1]
    return Image(
        sar,
        name=name,
        scale=-spacing,
        translate=to_sar + (np.array(sar.shape) - 1) * spacing,
        metadata={"affine": affine, "coordinate_system": order, "spacing": spacing[::-1]},
    )


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
    labels_ZYX, source = labels_from_layer(layer)
    np.testing.assert_array_equal(labels_ZYX, result.labels)
    np.testing.assert_array_equal(source.affine, back.source.affine)
    assert update_or_add_labels(viewer, result, find_placement(image)) == layer


def test_labels_of_another_plugin_are_written_where_they_are_shown(volume):
    labels = Labels(np.ones((6, 20, 16), np.int32), scale=(3, -1.5, 1), translate=(10, 20, 30), units="mm")
    source = source_of(labels)
    assert source.flips == (False, True, False)
    assert source.spacing == (3, 1.5, 1)
    np.testing.assert_allclose(source.affine @ (0, 0, 0, 1), (-30, -20, 10, 1))


# ------------------------------------------------------------------------------------------------- what is refused


def test_no_layer_is_refused():
    with pytest.raises(DataError, match="No image is chosen"):
        select_layers({})


def test_a_flat_image_is_refused():
    with pytest.raises(DataError, match=r"'slice' \(20, 16\) has 2 dimensions.*Open the whole scan"):
        select_layers({"T1": Image(np.zeros((20, 16)), name="slice")})


def test_a_multichannel_image_is_refused():
    with pytest.raises(DataError, match=r"has 4 dimensions.*choose Split Stack"):
        select_layers({"T1": Image(np.zeros((4, 6, 20, 16)), name="all")})


def test_a_color_picture_is_refused():
    with pytest.raises(DataError, match=r"'photo' is a color picture.*choose Split RGB"):
        select_layers({"T1": Image(np.zeros((6, 20, 16, 3), np.uint8), rgb=True, name="photo")})


def test_a_label_layer_is_refused():
    with pytest.raises(DataError, match="'mask' is no image layer"):
        select_layers({"T1": Labels(np.zeros((6, 20, 16), int), name="mask")})


def test_one_layer_twice_is_refused(volume):
    layer = Image(volume.data[0], name="scan")
    with pytest.raises(DataError, match="'scan' is chosen as T1 and as T2"):
        select_layers({"T1": layer, "T2": layer})


def test_layers_of_different_shape_are_refused(volume):
    layers = {"T1": Image(volume.data[0], name="one"), "FLAIR": Image(volume.data[0, :, 1:], name="two")}
    with pytest.raises(DataError, match=r"'one' \(6, 20, 16\) and 'two' \(6, 19, 16\) differ in shape"):
        select_layers(layers)


def test_layers_of_different_voxel_size_are_refused(volume):
    layers = {
        "T1": Image(volume.data[0], name="one", scale=(3, 1, 1)),
        "FLAIR": Image(volume.data[1], name="two", scale=(5, 1, 1)),
    }
    with pytest.raises(DataError, match=r"\(3 x 1 x 1 mm\) and 'two' \(5 x 1 x 1 mm\) differ in voxel size"):
        select_layers(layers)


def test_layers_in_different_places_are_refused(volume):
    layers = {"T1": Image(volume.data[0], name="one"), "FLAIR": Image(volume.data[1], name="two", translate=(0, 0, 7))}
    with pytest.raises(DataError, match="'one' and 'two' lie up to 7 mm apart"):
        select_layers(layers)


def test_oblique_scans_that_only_look_alike_are_refused(viewer, oblique_grid, synthetic_volume):
    from dataclasses import replace

    tilted = oblique_grid.affine.copy()
    tilted[:3, 0] = tilted[:3, 0][[0, 1, 2]] * (1, 1, -1)
    one = open_case(viewer, synthetic_volume(("T1",), oblique_grid))["T1"]
    other_grid: SourceGrid = replace(oblique_grid, affine=tilted)
    two = open_case(viewer, synthetic_volume(("FLAIR",), other_grid))["FLAIR"]
    with pytest.raises(DataError, match="mm apart"):
        select_layers({"T1": one, "FLAIR": two})


def test_the_same_image_under_two_names_is_refused(volume):
    layers = {"T1": Image(volume.data[0], name="one"), "T1ce": Image(volume.data[0].copy(), name="two")}
    with pytest.raises(DataError, match="T1 and T1ce hold the same image"):
        volume_from_layers(layers)


def test_labels_that_are_flat_cannot_be_written():
    with pytest.raises(DataError, match="has 2 dimensions"):
        labels_from_layer(Labels(np.zeros((4, 4), int)))


# --------------------------------------------------------------------------------------------- to learn from layers


@pytest.fixture
def drawn(volume: Volume) -> tuple[ViewerModel, Labels]:
    """The scans of a case, and labels drawn on them."""
    viewer = ViewerModel()
    for data, options, _ in layers_from_case(volume):
        viewer.add_image(data, **options)
    scan = viewer.layers[0]
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units, "axis_labels": scan.axis_labels}
    return viewer, viewer.add_labels(np.zeros(scan.data.shape, np.uint8), name="mine", **place)


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


def test_slices_are_marked_as_reviewed_and_a_new_result_forgets_them(
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
    assert reviewed_slices(layer) == ()


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


def test_a_preview_is_one_slice_on_the_scans_and_is_no_mask(drawn: tuple[ViewerModel, Labels], volume: Volume) -> None:
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


# ---------------------------------------------------------------------------------------------- to compare models


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
    with pytest.raises(DataError, match=r"holds the values 0, 3, 7, which may mean different things"):
        reference_from_labels(labels // 4 * 4 + labels // 4 * 3 * (labels == 4) + 3 * (labels == 1), {}, volume.source)
    with pytest.raises(DataError, match=r"holds the values 0, which may"):
        reference_from_labels(np.zeros_like(labels), {}, volume.source)


def test_a_label_layer_of_another_origin_names_nothing(viewer, volume, segmentation):
    assert label_names(viewer.add_labels(segmentation.labels)) == {}
    layer = update_or_add_labels(viewer, segmentation, default_placement(volume.source))
    assert label_names(layer) == {2: "edema", 1: "necrotic / non-enhancing core", 3: "enhancing tumor"}


def test_the_case_that_is_meant_is_that_of_the_selected_layer(viewer, volume, segmentation, synthetic_volume):
    first = open_case(viewer, volume)
    result = update_or_add_labels(viewer, segmentation, find_placement(first["T1"]))
    second = open_case(viewer, synthetic_volume(name="patient8"))
    strange = viewer.add_points([[0, 0, 0]])
    assert scan_beside(viewer.layers, first["T1"]) is first["T1"]
    assert scan_beside(viewer.layers, result) is first["FLAIR"]
    assert scan_beside(viewer.layers, strange) is None
    assert match_modalities(viewer.layers, scan_beside(viewer.layers, None)) == second
