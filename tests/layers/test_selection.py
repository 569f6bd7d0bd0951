from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_braintumor.engine.alignment import AlignedScan, Alignment
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.inspecting.inspection import Inspection
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import StreamedVolume, Volume
from napari_braintumor.layers import (
    Inspector,
    Placement,
    Selection,
    align_selection,
    find_placement,
    find_scan_of,
    match_modalities,
    modality_of,
    select_layers,
    stream_selection,
    update_or_add_labels,
    volume_from_layers,
)
from open_layers import lazy_layers, open_case


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


def test_lazy_data_is_read(volume):
    lazy = Image(da.from_array(volume.data[0], chunks=(2, 20, 16)))
    np.testing.assert_array_equal(volume_from_layers({"T1": lazy}).data[0], volume.data[0])


def test_memory_mapped_data_is_read(volume, tmp_path):
    np.save(tmp_path / "scan.npy", volume.data[0])
    mapped = Image(np.load(tmp_path / "scan.npy", mmap_mode="r"))
    np.testing.assert_array_equal(volume_from_layers({"T1": mapped}).data[0], volume.data[0])


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
    with pytest.raises(DataError, match="'mask' is not an image layer"):
        select_layers({"T1": Labels(np.zeros((6, 20, 16), int), name="mask")})


def test_one_layer_twice_is_refused(volume):
    layer = Image(volume.data[0], name="scan")
    with pytest.raises(DataError, match="'scan' is chosen as T1 and as T2"):
        select_layers({"T1": layer, "T2": layer})


def test_layers_of_unknown_voxel_size_and_different_shape_are_refused(volume):
    layers = {"T1": Image(volume.data[0], name="one"), "FLAIR": Image(volume.data[0, :, 1:], name="two")}
    with pytest.raises(DataError, match=r"'one' \(6, 20, 16\) and layer 'two' \(6, 19, 16\) differ in shape.*Choose"):
        select_layers(layers)


ELSEWHERE = {
    "other shape": {"data": np.s_[:, 2:], "translate": (0, 3, 0)},
    "other voxel size": {"scale": (5, 1.5, 1)},
    "other place": {"translate": (0, 0, 2)},
}


@pytest.mark.parametrize("where", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "lazy"])
def test_layers_on_different_grids_are_brought_onto_that_of_the_reference(volume, where, lazy):
    options = {"scale": (3, 1.5, 1), "units": "mm"} | {key: value for key, value in where.items() if key != "data"}
    other = volume.data[1][where.get("data", np.s_[:])]
    layers = {
        "T1": Image(da.from_array(other) if lazy else other, name="two", **options),
        "FLAIR": Image(volume.data[0], name="one", scale=(3, 1.5, 1), units="mm"),
    }
    selection = select_layers(layers)
    assert (selection.reference, selection.shape) == ("FLAIR", volume.shape)
    np.testing.assert_array_equal(selection.placement.matrix, find_placement(layers["FLAIR"]).matrix)
    assert Inspector().inspect(selection) == (None if lazy else Inspection(("T1", "FLAIR"), ()))
    aligned = stream_selection(selection)
    assert aligned.modalities == ("T1", "FLAIR")
    np.testing.assert_array_equal(aligned.data[1], volume.data[0])
    assert aligned.alignment.reference == "FLAIR"
    assert any(note.startswith("T1 was ") for note in aligned.notes)


def test_a_layer_that_shows_nothing_of_the_head_is_refused(volume):
    layers = {
        "T1": Image(volume.data[1], name="two", scale=(3, 1.5, 1), translate=(900, 0, 0), units="mm"),
        "FLAIR": Image(volume.data[0], name="one", scale=(3, 1.5, 1), units="mm"),
    }
    with pytest.raises(DataError, match=r"Layer 'two' \(T1\) does not show the head that layer 'one' \(FLAIR\) shows"):
        *_, _ = align_selection(select_layers(layers), AlignConfig(registration="never"))


def test_a_layer_of_nan_is_refused_before_it_is_resampled(volume):
    spoiled = np.where(volume.data[1] > 290, np.nan, volume.data[1])
    layers = {
        "T1": Image(spoiled, name="two", scale=(5, 1.5, 1), units="mm", contrast_limits=(0, 300)),
        "FLAIR": Image(volume.data[0], name="one", scale=(3, 1.5, 1), units="mm"),
    }
    with pytest.raises(DataError, match=r"'T1' has \d+ voxels that are NaN"):
        volume_from_layers(layers)


def test_how_a_case_was_aligned_when_it_was_opened_stays_known(viewer, volume):
    alignment = Alignment("T1", {m: AlignedScan(volume.source, np.eye(4), "same grid") for m in volume.modalities})
    layers = open_case(viewer, replace(volume, alignment=alignment))
    assert volume_from_layers(layers).alignment is alignment
    assert volume_from_layers({"T1": layers["T1"]}).alignment is alignment
    layers["T2"].metadata = {}
    assert volume_from_layers(layers).alignment is None


def test_oblique_scans_that_only_look_alike_are_brought_onto_one_grid(viewer, oblique_grid, synthetic_volume):
    tilted = oblique_grid.affine.copy()
    tilted[:3, 0] = tilted[:3, 0][[0, 1, 2]] * (1, 1, -1)
    one = open_case(viewer, synthetic_volume(("T1",), oblique_grid))["T1"]
    other_grid: SourceGrid = replace(oblique_grid, affine=tilted)
    two = open_case(viewer, synthetic_volume(("FLAIR",), other_grid))["FLAIR"]
    assert select_layers({"T1": one, "FLAIR": two}).reference == "FLAIR"


def test_the_same_image_under_two_names_is_refused(volume):
    layers = {"T1": Image(volume.data[0], name="one"), "T1ce": Image(volume.data[0].copy(), name="two")}
    with pytest.raises(DataError, match="T1 and T1ce hold the same image"):
        volume_from_layers(layers)


def test_the_case_that_is_meant_is_that_of_the_selected_layer(viewer, volume, segmentation, synthetic_volume):
    first = open_case(viewer, volume)
    result = update_or_add_labels(viewer, segmentation, find_placement(first["T1"]))
    second = open_case(viewer, synthetic_volume(name="patient8"))
    strange = viewer.add_points([[0, 0, 0]])
    assert find_scan_of(viewer.layers, first["T1"]) is first["T1"]
    assert find_scan_of(viewer.layers, result) is first["FLAIR"]
    assert find_scan_of(viewer.layers, strange) is None
    assert match_modalities(viewer.layers, find_scan_of(viewer.layers, None)) == second


def test_each_scan_is_looked_at_once_and_quickly_however_often_layers_change(monkeypatch):
    from napari_braintumor.layers import inspection as module

    looked: list[int] = []
    real = module.make_thumbnail
    monkeypatch.setattr(module, "make_thumbnail", lambda image: (looked.append(image.size), real(image))[1])
    big = np.broadcast_to(np.linspace(0, 1, 512, dtype=np.float32), (300, 512, 512))
    layers = {m: Image(big + 0, name=f"p_{m}", contrast_limits=(0, 1)) for m in ("T1", "T1ce", "T2", "FLAIR")}
    inspector = Inspector()
    for count in (1, 2, 3, 4, 4, 4, 2, 4):
        inspector.inspect(select_layers(dict(list(layers.items())[:count])))
    assert len(looked) == 4
    assert real(big).size <= 32**3
    layers["T1"].data = layers["T1"].data + 1
    assert inspector.inspect(select_layers(layers)) is not None
    assert len(looked) == 5
