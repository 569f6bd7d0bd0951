from __future__ import annotations

import gc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager

from dicom import Acquisition, affine_of, write_series
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.grid import SourceGrid, default_grid
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import default_placement, layers_from_scans, match_modalities, volume_from_layers
from napari_braintumor.readers import find_reader, read_layers

NAMES = {"T1": "t1", "T1ce": "t1ce", "T2": "t2", "FLAIR": "flair"}


def write_case(folder: Path, volume: Volume, mask: bool = True) -> Path:
    case = folder / volume.name
    case.mkdir(parents=True)
    for modality, array_ZYX in zip(volume.modalities, volume.data, strict=True):
        image = nib.Nifti1Image(volume.source.to_source(array_ZYX), volume.source.affine)
        nib.save(image, case / f"{volume.name}_{NAMES[modality]}.nii.gz")
    if mask:
        labels = volume.source.to_source((volume.data[0] == 300).astype(np.uint8) * 2)
        nib.save(nib.Nifti1Image(labels, volume.source.affine), case / f"{volume.name}_seg_brats2023.nii.gz")
    return case


def read(path: Path | list[Path]) -> list[Layer]:
    paths = [str(item) for item in path] if isinstance(path, list) else str(path)
    reader = find_reader(paths)
    assert reader is not None
    return [Layer.create(*layer) for layer in reader(paths)]


def test_a_case_folder_opens_with_its_mask(tmp_path, synthetic_volume, oblique_grid: SourceGrid):
    volume = synthetic_volume(source=oblique_grid)
    *images, mask = read(write_case(tmp_path, volume))
    assert [layer.name for layer in images] == [f"{m} [patient7]" for m in volume.modalities]
    back = volume_from_layers(dict(zip(volume.modalities, images, strict=True)))
    np.testing.assert_array_equal(back.data, volume.data)
    assert mask.name == "Reference [patient7]"
    np.testing.assert_array_equal(mask.data == 2, volume.data[0] == 300)


def test_a_file_opens_without_its_siblings(tmp_path, volume):
    folder = write_case(tmp_path, volume)
    assert [layer.name for layer in read(folder / "patient7_t2.nii.gz")] == ["T2 [patient7]"]


def test_several_files_open_as_one_case(tmp_path, volume):
    folder = write_case(tmp_path, volume)
    files = [folder / f"patient7_{kind}.nii.gz" for kind in ("flair", "t1")]
    assert [layer.name for layer in read(files)] == ["T1 [patient7]", "FLAIR [patient7]"]


def test_upper_case_names_open_too(tmp_path, volume):
    nib.save(nib.Nifti1Image(volume.data[0], np.eye(4)), tmp_path / "scan.nii")
    (tmp_path / "scan.nii").rename(tmp_path / "SCAN_FLAIR.NII")
    assert read(tmp_path / "SCAN_FLAIR.NII")[0].metadata["braintumor"]["modality"] == "FLAIR"


def test_a_scan_of_unknown_modality_is_a_plain_image(tmp_path, volume):
    nib.save(nib.Nifti1Image(volume.data[0], np.diag([-1.0, -1, 2, 1])), tmp_path / "scan.nii.gz")
    (layer,) = read(tmp_path / "scan.nii.gz")
    assert layer.name == "scan"
    assert tuple(layer.scale) == (2, 1, 1)
    assert layer.metadata["braintumor"]["modality"] is None


def test_the_channels_of_an_unnamed_file_are_taken_apart(tmp_path, volume):
    nib.save(nib.Nifti1Image(np.moveaxis(volume.data, 0, -1), np.eye(4)), tmp_path / "all.nii.gz")
    assert [layer.name for layer in read(tmp_path / "all.nii.gz")] == [f"all channel {i}" for i in (1, 2, 3, 4)]


def test_saved_results_open_as_labels_with_their_names(tmp_path, volume):
    labels = (volume.data[0] == 300).astype(np.uint8) * 3
    write_labels(labels, volume.source, tmp_path / "patient7_tumor.nii.gz")
    (layer,) = read(tmp_path / "patient7_tumor.nii.gz")
    assert layer._type_string == "labels"
    assert list(layer.features["name"])[1:] == ["necrotic / non-enhancing core", "edema", "enhancing tumor"]


def test_a_mask_by_itself_opens_as_labels(tmp_path, volume):
    labels = (volume.data[0] == 300).astype(np.uint8) * 7
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "x_mask.nii.gz")
    (layer,) = read(tmp_path / "x_mask.nii.gz")
    assert layer._type_string == "labels"
    assert layer.data.max() == 7


def test_a_mask_that_cannot_be_understood_does_not_keep_the_scan_closed(tmp_path, volume):
    folder = write_case(tmp_path, volume, mask=False)
    nib.save(
        nib.Nifti1Image(np.full((16, 20, 6), 0.5, np.float32), volume.source.affine), folder / "patient7_seg.nii.gz"
    )
    notification_manager.records.clear()
    assert len(read(folder)) == 4
    assert "The scan was opened without its mask." in notification_manager.records[-1].message


def scan_like(shape, dtype=np.uint8):
    return np.clip(np.random.default_rng(0).normal(90, 30, shape), 0, 255).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize(
    "name", ["brain_tumor_017", "Tumor_Patient_Anna", "no_tumor_3", "label_17", "anna_mask_17", "gt_4", "lesion_scan"]
)
def test_a_scan_whose_name_speaks_of_a_tumor_or_a_label_opens_as_an_image(tmp_path, name, dtype):
    nib.save(nib.Nifti1Image(scan_like((12, 14, 6), dtype), np.eye(4)), tmp_path / f"{name}.nii.gz")
    (layer,) = read(tmp_path / f"{name}.nii.gz")
    assert layer._type_string == "image"


def test_a_mask_of_another_program_gets_no_names_of_ours(tmp_path, volume):
    labels = (volume.data[0] == 300).astype(np.uint8) * 3
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "anna_tumor_seg.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "anna_tumor.nii.gz")
    for layer in (*read(tmp_path / "anna_tumor_seg.nii.gz"), *read(tmp_path / "anna_tumor.nii.gz")):
        assert layer._type_string == "labels"
        assert "name" not in layer.features


def warnings_of(path) -> list[str]:
    notification_manager.records.clear()
    read(path)
    return [record.message for record in notification_manager.records]


def test_the_notes_of_a_case_are_shown_once(tmp_path, volume):
    folder = write_case(tmp_path, volume)
    assert warnings_of(folder) == []
    nib.save(nib.Nifti1Image(volume.data[0], volume.source.affine), folder / "patient7_swi.nii.gz")
    nib.save(nib.Nifti1Image(volume.data[0], volume.source.affine), folder / "bert_mask.nii.gz")
    (message,) = warnings_of(folder)
    assert message.startswith("patient7: ")
    assert "'patient7_swi.nii.gz' was left out" in message
    assert "Mask 'bert_mask.nii.gz' was left out" in message


def test_a_bad_case_beside_others_is_named_and_they_are_opened(tmp_path, synthetic_volume):
    for name in ("anna", "bert"):
        write_case(tmp_path, synthetic_volume(("T1", "FLAIR"), name=name), mask=False)
    (tmp_path / "bert" / "bert_t1.nii.gz").write_bytes(b"damaged")
    (message,) = warnings_of(tmp_path)
    assert message.startswith("Case 'bert' was not opened. 'bert_t1.nii.gz'")
    assert [layer.name for layer in read(tmp_path)] == ["T1 [anna]", "FLAIR [anna]"]


def test_files_that_are_given_are_all_opened(tmp_path, volume):
    folder = write_case(tmp_path, volume)
    for name in ("swi", "t1w"):
        nib.save(nib.Nifti1Image(volume.data[0], volume.source.affine), folder / f"patient7_{name}.nii.gz")
    opened = read([folder / "patient7_flair.nii.gz", folder / "patient7_swi.nii.gz"])
    assert [layer.name for layer in opened] == ["FLAIR [patient7]", "patient7_swi"]
    both = [folder / "patient7_t1.nii.gz", folder / "patient7_t1w.nii.gz"]
    assert [layer.name for layer in read(both)] == ["patient7_t1", "patient7_t1w"]
    assert "has two T1 images" in warnings_of(both)[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("t1.mnc", "t2.mnc"), "a MINC file"),
        (("1.png", "2.png"), "a PNG picture, not a scan"),
    ],
)
def test_a_folder_of_something_else_is_named_for_what_it_holds(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_the_derivatives_of_a_bids_data_set_open(tmp_path, volume):
    folder = tmp_path / "derivatives/prep/sub-01/anat"
    folder.mkdir(parents=True)
    for suffix, channel in (("T1w", volume.data[0]), ("FLAIR", volume.data[3])):
        nib.save(nib.Nifti1Image(channel, volume.source.affine), folder / f"sub-01_desc-preproc_{suffix}.nii.gz")
    assert [layer.name for layer in read(tmp_path / "derivatives")] == ["T1 [sub-01]", "FLAIR [sub-01]"]


def test_a_few_cases_open_together(tmp_path, synthetic_volume):
    for name in ("anna", "bert"):
        write_case(tmp_path, synthetic_volume(("T1", "FLAIR"), name=name), mask=False)
    assert [layer.name for layer in read(tmp_path)] == ["T1 [anna]", "FLAIR [anna]", "T1 [bert]", "FLAIR [bert]"]


def test_many_cases_are_refused_by_number(tmp_path, synthetic_volume):
    for i in range(5):
        write_case(tmp_path / "cohort", synthetic_volume(("T1",), name=f"p{i}"), mask=False)
    with pytest.raises(DataError, match=r"'cohort' contains 5 cases, from 'p0' to 'p4'. At most 4 can be open at once"):
        read(tmp_path / "cohort")


def test_many_tiff_cases_are_refused_by_number(tmp_path):
    for i in range(5):
        tifffile.imwrite(tmp_path / f"TCGA_DU_000{i}_19950101.tif", np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="contains 5 cases"):
        read(tmp_path)


def test_a_tiff_case_opens(tmp_path, volume):
    tifffile.imwrite(tmp_path / "patient_flair.tif", volume.data[3], metadata={"axes": "ZYX"}, imagej=True)
    assert [layer.name for layer in read(tmp_path / "patient_flair.tif")] == ["FLAIR [patient]"]


@pytest.mark.parametrize("name", ["cells.tif", "plate_t1.tif", "notes.txt", "scan.nii.txt"])
def test_ordinary_pictures_and_other_files_are_left_to_others(tmp_path, name):
    tifffile.imwrite(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 48), np.uint8))
    assert find_reader(str(tmp_path / name)) is None


def test_a_folder_without_scans_is_left_to_others(tmp_path):
    assert find_reader(str(tmp_path)) is None
    tifffile.imwrite(tmp_path / "cells.tif", np.random.default_rng(0).integers(0, 255, (64, 48), np.uint8))
    assert find_reader(str(tmp_path)) is None


def test_a_damaged_nifti_file_is_reported(tmp_path):
    (tmp_path / "broken_t1.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"'broken_t1.nii.gz'"):
        read_layers(str(tmp_path / "broken_t1.nii.gz"))


def test_napari_opens_a_case_folder_with_this_plugin(tmp_path, volume, plugins):
    viewer = ViewerModel()
    viewer.open(str(write_case(tmp_path, volume)), plugin="napari-braintumor")
    assert [layer.name for layer in viewer.layers][-1] == "Reference [patient7]"
    assert [layer.name for layer in viewer.layers if layer.visible] == ["FLAIR [patient7]"]


@pytest.mark.real_data
def test_a_brats_case_opens(real_data):
    layers = read(min((real_data / "brats").glob("BraTS2021_*")))
    assert [layer.name.split(" ")[0] for layer in layers] == ["T1", "T1ce", "T2", "FLAIR", "Reference"]
    assert layers[0].data.shape == (155, 240, 240)


def test_one_file_of_a_dicom_series_opens_the_whole_series_at_its_place(tmp_path):
    values = scan_like((6, 12, 10), np.int16).astype(float)
    affine = affine_of(shape=values.shape, center=(5, -20, 40))
    paths = write_series(tmp_path, values, affine, Acquisition("flair_tra", 3))
    (layer,) = read(paths[2])
    assert layer.metadata["braintumor"]["modality"] == "FLAIR"
    np.testing.assert_array_equal(layer.data, values)
    left, posterior, superior = -affine[0, 3], -affine[1, 3], affine[2, 3]
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), (superior, posterior, left))
    assert "SECRET" not in f"{layer.name} {layer.metadata}"


def test_a_dicom_series_of_unknown_modality_opens_as_a_plain_image(tmp_path):
    values = scan_like((6, 12, 10), np.int16).astype(float)
    silent = Acquisition("head", 3, echo_time=None, repetition_time=None)
    write_series(tmp_path, values, affine_of(shape=values.shape), silent)
    (layer,) = read(tmp_path)
    assert layer.name == "head"
    np.testing.assert_array_equal(layer.data, values)


def write_on_two_grids(folder: Path) -> list[Path]:
    paths = []
    for name, shape, sides in (("t1", (10, 20, 24), (4.0, 2.0, 2.0)), ("flair", (20, 16, 8), (2.0, 2.5, 6.0))):
        affine = np.diag([*sides, 1.0])
        affine[:3, 3] = -np.array(sides) * (np.array(shape) - 1) / 2
        nib.save(nib.Nifti1Image(scan_like(shape), affine), folder / f"{name}.nii.gz")
        paths.append(folder / f"{name}.nii.gz")
    return paths


@pytest.mark.parametrize("together", [True, False])
def test_scans_on_different_grids_open_each_on_its_own_and_are_one_case(tmp_path, together):
    paths = write_on_two_grids(tmp_path)
    viewer = ViewerModel()
    layers = read(tmp_path) if together else [layer for path in paths for layer in read(path)]
    for layer in layers:
        viewer.add_layer(layer)
    assert sorted(layer.data.shape for layer in layers) == [(8, 16, 20), (24, 20, 10)]
    assert set(match_modalities(viewer.layers)) == {"T1", "FLAIR"}
    middles = [np.mean(layer.extent.world, axis=0) for layer in layers]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_labels_that_are_opened_again_lie_on_the_scan_whose_voxels_they_share(tmp_path, suffix, oblique_grid):
    gc.collect()  # of scans on this grid that other tests have shown elsewhere
    reference = default_grid((12, 30, 30), (4.0, 1.0, 1.0))
    scans = {
        "FLAIR": Scan(np.zeros(reference.shape_ZYX, np.float32), reference, "FLAIR", "a"),
        "T1": Scan(np.zeros(oblique_grid.shape_ZYX, np.float32), oblique_grid, "T1", "a"),
    }
    layers = {data[1]["name"]: Layer.create(*data) for data in layers_from_scans(scans, "p7", reference)}
    labels = np.zeros(oblique_grid.shape_ZYX, np.uint8)
    labels[2, 3:6, 3:6] = 2
    write_labels(labels, oblique_grid, tmp_path / f"mask{suffix}")
    (opened,) = [Layer.create(*data) for data in read_layers(tmp_path / f"mask{suffix}")]
    assert isinstance(opened, Labels)
    np.testing.assert_array_equal(opened.data, labels)
    shown = layers["T1 [p7]"]
    np.testing.assert_allclose(opened.extent.world, shown.extent.world, atol=1e-3)
    assert not np.allclose(default_placement(oblique_grid).options["translate"], shown.translate)
    layers.clear()
    del shown
    gc.collect()
    (alone,) = [Layer.create(*data) for data in read_layers(tmp_path / f"mask{suffix}")]
    np.testing.assert_allclose(alone.translate, default_placement(oblique_grid).options["translate"], atol=1e-3)
