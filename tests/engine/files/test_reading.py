import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from stored import ALL, OLD, SHAPE, ramp, save_nifti, save_tiff, touch

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.reading import align_case, read_case, read_reference
from napari_braintumor.engine.settings import AlignConfig

# ------------------------------------------------------------------------------------------------- reading cases


def test_a_case_is_read_with_all_modalities_on_one_grid(tmp_path):
    for seed, kind in enumerate(OLD):
        save_nifti(tmp_path / f"BraTS2021_00000_{kind}.nii.gz", ramp(seed=seed))
    (case,) = find_cases(tmp_path)
    volume = read_case(case)
    assert (volume.modalities, volume.name, volume.spacing) == (ALL, "BraTS2021_00000", (5, 1, 1))
    assert volume.source.path == tmp_path / "BraTS2021_00000_t1.nii.gz"
    for seed in range(4):
        np.testing.assert_array_equal(volume.data[seed], ramp(seed=seed))


def test_modalities_stored_in_different_axis_orders_but_one_place_fit(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    turned = ramp(seed=1)[:, ::-1, ::-1]
    affine = np.diag([1.0, 1, 5, 1])
    affine[:2, 3] = 1 - SHAPE[2], 1 - SHAPE[1]
    save_nifti(tmp_path / "flair.nii", turned, affine)
    (case,) = find_cases(tmp_path)
    np.testing.assert_array_equal(read_case(case).data, [ramp(), ramp(seed=1)])


def test_modalities_on_different_grids_are_brought_onto_one(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "flair.nii", ramp((6, 8, 9)))
    volume = read_case(*find_cases(tmp_path), AlignConfig(registration="never"))
    assert (volume.modalities, volume.shape) == (("T1", "FLAIR"), (6, 8, 9))
    assert volume.alignment.reference == "FLAIR"
    assert volume.source.path.name == "flair.nii"
    np.testing.assert_allclose(volume.data[0], ramp()[:, :, :9], atol=1e-4)
    np.testing.assert_array_equal(volume.data[1], ramp((6, 8, 9)))
    assert any(note.startswith("T1 was brought onto the grid of FLAIR") for note in volume.notes)


def test_modalities_on_different_grids_that_do_not_say_where_they_lie_are_refused(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_tiff(tmp_path / "flair.tif", ramp((6, 8, 9)))
    with pytest.raises(DataError, match=r"'t1\.nii' \(6, 8, 10\) and 'flair\.tif' \(6, 8, 9\) differ in shape.*Choose"):
        read_case(*find_cases(tmp_path))


@pytest.mark.parametrize("drawn_on", ["t1", "flair"])
def test_a_case_with_a_mask_is_brought_onto_the_grid_of_the_scan_that_it_was_drawn_on(tmp_path, drawn_on):
    shapes = {"t1": SHAPE, "flair": (6, 8, 9)}
    for seed, (kind, shape) in enumerate(shapes.items()):
        save_nifti(tmp_path / f"{kind}.nii", ramp(shape, seed))
    save_nifti(tmp_path / "mask_whole.nii", (ramp(shapes[drawn_on]) > 100).astype(np.uint8))
    (case,) = find_cases(tmp_path)
    volume, reference = read_case(case, AlignConfig(registration="never")), read_reference(case)
    assert volume.source.path.stem == drawn_on
    assert reference.regions["whole tumor"].shape == volume.shape == shapes[drawn_on]


def test_a_mask_that_lies_on_none_of_the_grids_is_refused(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "flair.nii", ramp((6, 8, 9)))
    save_nifti(tmp_path / "mask_whole.nii", (ramp((6, 7, 9)) > 100).astype(np.uint8))
    with pytest.raises(DataError, match=r"'mask_whole\.nii' \(6, 7, 9\) differ in shape.*Resample the mask"):
        read_reference(*find_cases(tmp_path))


def test_a_scan_that_shows_nothing_of_the_head_is_left_out_with_a_note(tmp_path):
    save_nifti(tmp_path / "flair.nii", ramp())
    affine = np.diag([-1.0, -1, 5, 1])
    affine[2, 3] = 500
    save_nifti(tmp_path / "t1.nii", ramp(seed=1), affine)
    volume = read_case(*find_cases(tmp_path), AlignConfig(registration="never"))
    assert volume.modalities == ("FLAIR",)
    assert any("'t1.nii' (T1) does not show the head" in note for note in volume.notes)


def test_the_voxel_size_of_aligned_scans_cannot_be_changed(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "flair.nii", ramp((6, 8, 9)))
    volume = read_case(*find_cases(tmp_path), AlignConfig(registration="never"))
    with pytest.raises(SettingsError, match="aligned by the voxel sizes that their files state"):
        volume.with_spacing((5, 2, 2))


def test_reading_reports_its_phases(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "flair.nii", ramp((6, 8, 9)))
    (case,) = find_cases(tmp_path)
    *phases, volume = align_case(case, AlignConfig(registration="never"))
    assert list(dict.fromkeys(each.phase for each in phases)) == [
        f"reading {case.name}",
        "resampling T1 to the grid of FLAIR",
    ]
    assert [(each.done, each.total) for each in phases][:3] == [(0, 2), (1, 2), (2, 2)]
    np.testing.assert_array_equal(volume.data, read_case(case, AlignConfig(registration="never")).data)


@pytest.mark.parametrize(("shift_mm", "fits"), [(0.006, True), (0.09, True), (0.11, False)])
def test_modalities_in_the_same_place_stay_as_they_are(tmp_path, shift_mm, fits):
    affine = np.diag([-1.0, -1, 5, 1])
    affine[0, 3] = shift_mm
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "flair.nii", ramp(seed=1), affine)
    (case,) = find_cases(tmp_path)
    volume = read_case(case, AlignConfig(registration="never"))
    assert volume.modalities == ("T1", "FLAIR")
    assert (volume.alignment is None) == fits
    if fits:
        np.testing.assert_array_equal(volume.data, [ramp(), ramp(seed=1)])


def test_a_file_that_became_unreadable_is_refused(tmp_path):
    (case,) = find_cases(touch(tmp_path, "BraTS2021_00000_t1.nii.gz", "BraTS2021_00000_seg.nii.gz"))
    with pytest.raises(DataError, match=r"'BraTS2021_00000_t1\.nii\.gz' is empty"):
        read_case(case)
    with pytest.raises(DataError, match=r"'BraTS2021_00000_seg\.nii\.gz' is empty"):
        read_reference(case)
    case.images[0].paths[0].unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_case(case)


def test_a_file_of_more_channels_than_its_name_says_is_refused(tmp_path):
    path = save_nifti(tmp_path / "anna_t1.nii", np.stack([ramp(), ramp(seed=1)]))
    with pytest.raises(DataError, match=r"'anna_t1\.nii' has 2 channels, but its name says T1.*--modalities"):
        read_case(*find_cases(path))
    assert read_case(*find_cases(path, ["T1", "T2"])).modalities == ("T1", "T2")


def test_a_file_of_fewer_channels_than_its_name_says_is_refused(tmp_path):
    path = save_tiff(tmp_path / "TCGA_CS_4941_19960909.tif", ramp())
    with pytest.raises(DataError, match="has 1 channels, but channel 1 was expected to be T1"):
        read_case(*find_cases(path))


def test_a_case_without_images_is_refused():
    with pytest.raises(DataError, match="Case 'anna' has no image"):
        read_case(CaseFiles("anna", "anna", "other", ()))


# -------------------------------------------------------------------------------------------------------- LGG


def lgg_case(tmp_path, channels, width=10):
    stem = "TCGA_CS_4941_19960909"
    save_tiff(tmp_path / f"{stem}.tif", np.stack(channels, -1), photometric="rgb", metadata={"axes": "ZYXS"})
    save_tiff(tmp_path / f"{stem}_mask.tif", (ramp() > 100).astype(np.uint8) * 255)
    (case,) = find_cases(tmp_path)
    return case


def test_lgg_channels_are_pre_contrast_flair_and_post_contrast(tmp_path):
    images = [ramp(seed=i) for i in range(3)]
    case = lgg_case(tmp_path, images)
    volume = read_case(case)
    for modality, image in zip(("T1", "FLAIR", "T1ce"), images, strict=True):
        np.testing.assert_array_equal(volume.with_modalities((modality,)).data[0], image)
    reference = read_reference(case)
    assert list(reference.regions) == ["whole tumor"]
    np.testing.assert_array_equal(reference.regions["whole tumor"], ramp() > 100)


def test_lgg_voxels_get_the_size_of_a_usual_field_of_view(tmp_path):
    case = lgg_case(tmp_path, [ramp(seed=i) for i in range(3)])
    volume, reference = read_case(case), read_reference(case)
    assert volume.spacing == reference.source.spacing == (5, 25.6, 25.6)
    assert not volume.source.spacing_known


@pytest.mark.parametrize(
    ("seeds", "modalities"), [((1, 1, 2), ("T1ce", "FLAIR")), ((0, 1, 1), ("T1", "FLAIR")), ((1, 1, 1), ("FLAIR",))]
)
def test_a_sequence_that_lgg_replaced_by_flair_is_missing(tmp_path, seeds, modalities):
    case = lgg_case(tmp_path, [ramp(seed=seed) for seed in seeds])
    assert read_case(case).modalities == modalities


def test_a_sequence_that_differs_from_flair_in_one_voxel_is_there(tmp_path):
    nearly = ramp(seed=1)
    nearly[3, 2, 1] += 1
    assert read_case(lgg_case(tmp_path, [nearly, ramp(seed=1), ramp()])).modalities == ("T1", "T1ce", "FLAIR")


def save_slices(folder, numbers):
    stem = "TCGA_CS_4942_19970222"
    for n in numbers:
        image = np.stack([ramp(seed=i)[n] for i in range(3)], -1)
        save_tiff(folder / stem / f"{stem}_{n + 1}.tif", image, photometric="rgb", metadata=None)
        save_tiff(folder / stem / f"{stem}_{n + 1}_mask.tif", (ramp()[n] > 100).astype(np.uint8) * 255, metadata=None)


def test_lgg_slices_are_read_as_one_stack(tmp_path):
    save_slices(tmp_path, range(6))
    (case,) = find_cases(tmp_path)
    np.testing.assert_array_equal(read_case(case).data, [ramp(seed=i) for i in (0, 2, 1)])
    np.testing.assert_array_equal(read_reference(case).regions["whole tumor"], ramp() > 100)


def test_a_missing_slice_is_noticed(tmp_path):
    save_slices(tmp_path, (0, 1, 3, 5))
    with pytest.raises(DataError, match=r"Slices 3, 5 are missing next to 'TCGA_CS_4942_19970222_1\.tif'"):
        read_case(*find_cases(tmp_path))


# ---------------------------------------------------------------------------------------------------- references


def test_a_case_without_mask_has_no_reference(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    assert read_reference(*find_cases(tmp_path)) is None


def test_a_mask_is_read_by_the_convention_of_its_set(tmp_path):
    save_nifti(tmp_path / "BraTS2021_00000_t1.nii", ramp())
    save_nifti(tmp_path / "BraTS2021_00000_seg.nii", np.where(ramp() > 100, 4, 0).astype(np.float32))
    reference = read_reference(*find_cases(tmp_path))
    assert reference.convention == "brats2017"
    np.testing.assert_array_equal(reference.regions["enhancing tumor"], ramp() > 100)


def test_a_mask_stored_in_another_axis_order_is_turned_with_its_header(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    affine = np.diag([1.0, -1, 5, 1])
    affine[0, 3] = 1 - SHAPE[2]
    save_nifti(tmp_path / "mask_whole.nii", (ramp() > 100)[:, :, ::-1].astype(np.uint8), affine)
    np.testing.assert_array_equal(read_reference(*find_cases(tmp_path)).regions["whole tumor"], ramp() > 100)


def test_a_mask_whose_values_fit_one_convention_needs_no_name(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "seg.nii", np.array([0, 1, 2, 4])[ramp() % 4].astype(np.uint8))
    assert read_reference(*find_cases(tmp_path)).convention == "brats2017"


@pytest.mark.parametrize(
    ("values", "example"),
    [((1, 2, 3), "seg_brats2023"), ((1, 2), "seg_brats2023"), ((3,), "seg_whole"), ((1,), "seg_whole"),
     ((4,), "seg_whole"),
     ((255,), "seg_whole"), ((1, 2, 3, 4), "seg_brats2013"), ((7, 9), "seg_whole")],
)  # fmt: skip
def test_a_mask_whose_values_fit_several_conventions_is_refused_with_how_to_name_it(tmp_path, values, example):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "seg.nii", np.array([0, *values])[ramp() % (len(values) + 1)].astype(np.uint8))
    shown = ", ".join(map(str, (0, *values)))
    with pytest.raises(DataError, match=rf"'seg\.nii' contains the values {shown}, which fit .*whole.*'{example}'"):
        read_reference(*find_cases(tmp_path))
    (tmp_path / "seg.nii").rename(tmp_path / f"{example}.nii")
    assert read_reference(*find_cases(tmp_path)).convention == example.removeprefix("seg_")


@pytest.mark.parametrize("convention", ["decathlon", "brats2013", "brats2023"])
def test_a_case_may_state_the_convention_of_its_mask(tmp_path, convention):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "seg.nii", ramp() % 4)
    (case,) = find_cases(tmp_path)
    assert read_reference(replace(case, convention=convention)).convention == convention


def test_a_dataset_file_beside_a_mask_says_what_its_numbers_mean(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "seg.nii", ramp() % 4)
    labels = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert read_reference(*find_cases(tmp_path)).convention == "decathlon"


def test_the_reference_of_a_case_with_a_problem_is_refused_too(tmp_path):
    (case,) = find_cases(touch(tmp_path, "t1.nii", "seg.nii", "mask.nii"))
    with pytest.raises(DataError, match="has two masks"):
        read_reference(case)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((6, 8, 9), None, r"'t1\.nii' \(6, 8, 10\) and 'mask_whole\.nii' \(6, 8, 9\) differ in shape. A mask must lie"),
        (SHAPE, np.diag([-1.0, -1, 5.2, 1]), r"'mask_whole\.nii' \(5\.2 x .* differ in voxel size.*Resample the mask"),
        ((2, *SHAPE), None, r"Mask 'mask_whole\.nii' has 2 channels"),
    ],
)
def test_a_mask_on_another_grid_is_refused(tmp_path, shape, affine, message):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_nifti(tmp_path / "mask_whole.nii", ramp(shape), affine)
    with pytest.raises(DataError, match=message):
        read_reference(*find_cases(tmp_path))


def test_a_tiff_mask_fits_a_nifti_image_by_shape(tmp_path):
    save_nifti(tmp_path / "t1.nii", ramp())
    save_tiff(tmp_path / "mask_core.tif", (ramp() > 100).astype(np.uint8))
    np.testing.assert_array_equal(read_reference(*find_cases(tmp_path)).regions["tumor core"], ramp() > 100)


# ------------------------------------------------------------------------------------------------------ real data


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "group", "count", "some"),
    [("lgg", "lgg", 11, 11), ("lgg_half", "lgg", 69, 4), ("brats", "brats", 10, 10), ("btp", "btp", 8, 8)],
)
def test_all_real_cases_are_found_and_readable(real_data, folder, group, count, some):
    cases = find_cases(real_data / folder)
    assert len(cases) == len({case.patient for case in cases}) == count
    assert {case.group for case in cases} == {group}
    for case in cases[:some]:
        volume, reference = read_case(case), read_reference(case)
        assert np.isfinite(volume.data).all()
        assert all(region.shape == volume.shape and region.any() for region in reference.regions.values())
        assert volume.source.spacing_known == (group == "brats")


@pytest.mark.real_data
def test_the_two_layouts_of_an_lgg_patient_are_the_same_volume(real_data):
    (stack,) = find_cases(real_data / "lgg" / "TCGA_CS_4942_19970222")
    (slices,) = find_cases(real_data / "lgg_kaggle_layout")
    np.testing.assert_array_equal(read_case(stack).data, read_case(slices).data)
    np.testing.assert_array_equal(read_reference(stack).labels, read_reference(slices).labels)


@pytest.mark.real_data
def test_the_half_resolution_lgg_stacks_count_as_two_millimeters(real_data):
    case = find_cases(real_data / "lgg_half")[0]
    assert read_case(case).spacing == (5, 2, 2)


@pytest.mark.real_data
def test_a_real_case_with_replaced_sequences_has_flair_only(real_data):
    (case,) = find_cases(real_data / "lgg" / "TCGA_HT_A616_19991226")
    assert read_case(case).modalities == ("FLAIR",)


@pytest.mark.real_data
def test_real_modalities_on_different_grids_are_brought_onto_one(real_data):
    (case,) = find_cases(real_data / "unlabelled")
    assert case.patient == "TCGA_FG_6692"
    volume = read_case(case)
    assert volume.alignment.reference == "FLAIR"
    for modality, scan in volume.alignment.scans.items():
        if modality != "FLAIR":  # the head moved between the scans, most between T1 and FLAIR
            assert scan.how == "registered"
            assert scan.after > 2 * scan.before
            assert 4 < volume.alignment.find_move(modality)[0] < 20


def test_a_color_picture_with_the_name_of_a_modality_is_recognized(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "anna_flair.tif", picture, photometric="rgb")
    (case,) = find_cases(tmp_path)
    with pytest.raises(
        DataError, match=r"has 3 channels, but its name says FLAIR\. It is a color picture, not a scan, or"
    ):
        read_case(case)
