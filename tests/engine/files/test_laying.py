"""Masks whose file, or whose scan's, does not say how the head lies in it."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import tifffile
from nibabel.orientations import axcodes2ornt, ornt_transform

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference

SHAPE_RAS = (40, 48, 12)
GRAY = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "ASL"]


def make_head():
    """A head that fills the front, right and lower part of the field of view only, with a tumor far out; in RAS."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE_RAS), indexing="ij")
    head = ((x - 0.35) / 0.6) ** 2 + ((y - 0.3) / 0.65) ** 2 + ((z + 0.3) / 0.7) ** 2 < 1
    tumor = ((x - 0.7) / 0.18) ** 2 + ((y - 0.4) / 0.3) ** 2 + ((z + 0.3) / 0.25) ** 2 < 1
    scan = np.random.default_rng(0).normal(100, 8, SHAPE_RAS) * head * np.where(tumor, 0.05, 1)  # a dark, necrotic one
    return scan.astype(np.float32), tumor.astype(np.uint8)


SCAN, TUMOR = make_head()


def turned(array, codes):
    """Give a RAS array the axes of an orientation, and the affine that says so."""
    image = nib.Nifti1Image(array, np.diag([4.0, 4, 10, 1]))
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))


def save(image, path, oriented=True):
    if not oriented:
        header = image.header.copy()
        image = nib.Nifti1Image(np.asarray(image.dataobj), None, header)
        image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, path)


def read(folder):
    (case,) = find_cases(folder)
    return read_case(case), read_reference(case)


def expected_core(folder):
    """Where the tumor lies when all is oriented."""
    whole = folder / "whole"
    whole.mkdir()
    save(turned(SCAN, "RAS"), whole / "p_flair.nii")
    save(turned(TUMOR, "RAS"), whole / "p_mask_whole.nii")
    return read(whole)[1].regions["whole tumor"]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_mask_without_orientation_is_laid_on_its_scan_as_stored_with_a_note(tmp_path, codes):
    expected = expected_core(tmp_path)
    (tmp_path / "case").mkdir()
    save(turned(SCAN, codes), tmp_path / "case" / "p_flair.nii")
    save(turned(TUMOR, codes), tmp_path / "case" / "p_mask_whole.nii", oriented=False)
    volume, reference = read(tmp_path / "case")
    np.testing.assert_array_equal(reference.regions["whole tumor"], expected)
    assert np.array_equal(reference.source.affine, volume.source.affine)
    (note,) = reference.notes
    assert "'p_mask_whole.nii' does not state its orientation" in note
    assert "Check that left and right are not swapped" in note


@pytest.mark.parametrize("order", ["ours", "scan's"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_tiff_mask_beside_a_nifti_scan_is_laid_on_it_with_a_note(tmp_path, codes, order):
    expected = expected_core(tmp_path)
    (tmp_path / "case").mkdir()
    image = turned(SCAN, codes)
    save(image, tmp_path / "case" / "p_flair.nii")
    stored = np.asarray(turned(TUMOR, codes).dataobj)
    mask = expected.astype(np.uint8) if order == "ours" else stored
    tifffile.imwrite(tmp_path / "case" / "p_mask_whole.tif", mask, **GRAY)
    _, reference = read(tmp_path / "case")
    np.testing.assert_array_equal(reference.regions["whole tumor"], expected)
    assert len(reference.notes) == 1


@pytest.mark.parametrize("axes", [a for n in (1, 2, 3) for a in itertools.combinations(range(3), n)])
@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_a_mask_without_orientation_that_does_not_lie_in_the_head_is_refused(tmp_path, codes, axes):
    save(turned(SCAN, codes), tmp_path / "p_flair.nii")
    save(turned(np.flip(TUMOR, axes), codes), tmp_path / "p_mask_whole.nii", oriented=False)
    (case,) = find_cases(tmp_path)
    with pytest.raises(
        DataError,
        match=r"'p_mask_whole\.nii' does not state its orientation.*would be if it were mirrored from.*Save the",
    ):
        read_reference(case)


def test_a_mask_that_is_nowhere_in_the_head_is_refused(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    outside = (SCAN == 0).astype(np.uint8)
    save(turned(outside, "RAS"), tmp_path / "p_mask_whole.nii", oriented=False)
    (case,) = find_cases(tmp_path)
    with pytest.raises(DataError, match=r"only \d% of what it marks is in the head\. Save"):
        read_reference(case)


def test_a_mask_without_orientation_of_another_shape_is_refused(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    save(turned(TUMOR[:-1], "RAS"), tmp_path / "p_mask_whole.nii", oriented=False)
    (case,) = find_cases(tmp_path)
    with pytest.raises(DataError, match=r"\(40, 48, 12\) and .* \(39, 48, 12\), as stored, differ in shape"):
        read_reference(case)


def test_an_empty_mask_without_orientation_fits_any_head(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    save(turned(TUMOR * 0, "RAS"), tmp_path / "p_mask_whole.nii", oriented=False)
    assert not read(tmp_path)[1].regions["whole tumor"].any()


def test_a_mask_and_a_scan_that_both_state_no_orientation_are_stored_alike(tmp_path):
    expected = expected_core(tmp_path)
    (tmp_path / "case").mkdir()
    for array, name in ((SCAN, "p_flair.nii"), (TUMOR, "p_mask_whole.nii")):
        save(turned(array, "LAS"), tmp_path / "case" / name, oriented=False)
    volume, reference = read(tmp_path / "case")
    np.testing.assert_array_equal(reference.regions["whole tumor"], expected)
    assert "'p_flair.nii' does not state its orientation" in volume.notes[0]


def test_a_modality_without_orientation_beside_one_with_it_is_refused(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    save(turned(SCAN + 1, "RAS"), tmp_path / "p_t1.nii", oriented=False)
    (case,) = find_cases(tmp_path)
    with pytest.raises(DataError, match=r"'p_t1\.nii' does not state its orientation .* but 'p_flair\.nii' does"):
        read_case(case)


def test_the_modality_that_states_most_gives_the_grid(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    wrong = turned(SCAN + 1, "RAS")
    wrong.header["xyzt_units"] = 1  # meters
    save(wrong, tmp_path / "p_t1.nii")
    (case,) = find_cases(tmp_path)
    volume = read_case(case)
    assert volume.source.spacing == pytest.approx((10, 4, 4))
    assert volume.source.spacing_known
    assert volume.notes == (
        "The voxel size of 'p_t1.nii' is not known; it was matched to 'p_flair.nii' voxel by voxel.",
    )


def test_a_voxel_size_given_by_the_user_takes_the_place_of_a_guess_and_its_note(tmp_path):
    image = turned(SCAN, "RAS")
    image.header["xyzt_units"] = 1
    save(image, tmp_path / "p_flair.nii")
    (case,) = find_cases(tmp_path)
    volume = read_case(case)
    assert "4000" in volume.notes[0]
    stated = volume.with_spacing((8, 3, 3))
    assert (stated.notes, stated.source.spacing_known) == ((), True)
    assert stated.spacing == pytest.approx((8, 3, 3))


def test_a_tiff_modality_beside_a_nifti_one_is_put_on_it_slice_by_slice_with_a_note(tmp_path):
    save(turned(SCAN, "RAS"), tmp_path / "p_flair.nii")
    ours = read_case(find_cases(tmp_path)[0]).data[0]
    tifffile.imwrite(tmp_path / "p_t1.tif", ours + 1, **GRAY)
    (case,) = find_cases(tmp_path)
    volume = read_case(case)
    np.testing.assert_array_equal(volume.data[0], ours + 1)
    assert volume.source.path.name == "p_flair.nii"
    assert any("'p_t1.tif' does not state its orientation" in note for note in volume.notes)
