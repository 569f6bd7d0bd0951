from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.anatomy import CAVITY, CONVENTIONS, CORE, ENHANCING, WHOLE, guess_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.formats import FORMATS, find_label_suffix
from napari_braintumor.engine.files.labels import (
    find_label_values,
    looks_like_labels,
    reference_from_values,
    write_labels,
)
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.tiff import read_tiff
from napari_braintumor.engine.grid import default_grid

OF_2024 = {WHOLE: [0, 1, 1, 1, 0], CORE: [0, 1, 0, 1, 0], ENHANCING: [0, 0, 0, 1, 0]}


def mask_of(*values, dtype=np.uint8):
    return np.array(values, dtype).reshape(1, 1, -1)


def regions_of(convention, *values, dtype=np.uint8):
    mask = mask_of(*values, dtype=dtype)
    reference = reference_from_values(mask, convention, default_grid(mask.shape))
    assert reference.convention == convention
    return {name: region.ravel().astype(int).tolist() for name, region in reference.regions.items()}


@pytest.mark.parametrize(
    ("convention", "values", "expected"),
    [
        ("brats2012", (0, 1, 2), {WHOLE: [0, 1, 1], CORE: [0, 0, 1]}),
        ("brats2013", (0, 1, 2, 3, 4), {WHOLE: [0, 1, 1, 1, 1], CORE: [0, 1, 0, 1, 1], ENHANCING: [0, 0, 0, 0, 1]}),
        ("brats2017", (0, 1, 2, 4), {WHOLE: [0, 1, 1, 1], CORE: [0, 1, 0, 1], ENHANCING: [0, 0, 0, 1]}),
        ("brats2023", (0, 1, 2, 3), {WHOLE: [0, 1, 1, 1], CORE: [0, 1, 0, 1], ENHANCING: [0, 0, 0, 1]}),
        ("brats2024", (0, 1, 2, 3, 4), {**OF_2024, CAVITY: [0, 0, 0, 0, 1]}),
        ("bratsped2024", (0, 1, 2, 3, 4), {WHOLE: [0, 1, 1, 1, 1], CORE: [0, 1, 1, 1, 0], ENHANCING: [0, 1, 0, 0, 0]}),
        ("decathlon", (0, 1, 2, 3), {WHOLE: [0, 1, 1, 1], CORE: [0, 0, 1, 1], ENHANCING: [0, 0, 0, 1]}),
        ("whole", (0, 1, 2, 3), {WHOLE: [0, 1, 1, 1]}),
        ("core", (0, 100, 127, 128, 255), {CORE: [0, 0, 0, 1, 1]}),
        ("enhancing", (0, 1, 0, 1), {ENHANCING: [0, 1, 0, 1]}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_numbers_are_read_by_their_convention(convention, values, expected, dtype):
    assert regions_of(convention, *values, dtype=dtype) == expected


def test_every_convention_is_nested():
    for convention in CONVENTIONS.values():
        table = convention.regions
        regions = [set(table[name]) for name in (WHOLE, CORE, ENHANCING) if name in table]
        assert all(inner <= outer for outer, inner in pairwise(regions))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_empty_mask_is_a_case_without_tumor(convention):
    assert not any(map(any, regions_of(convention, 0, 0).values()))


def test_a_binary_mask_may_be_boolean():
    assert regions_of("whole", True, False, dtype=np.bool_) == {WHOLE: [1, 0]}


def test_a_reference_paints_the_labels_of_this_plugin():
    mask = mask_of(0, 1, 2, 4)
    labels = reference_from_values(mask, "brats2017", default_grid(mask.shape)).labels
    assert labels.ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("convention", "mask", "message"),
    [
        (
            "brats2023",
            mask_of(0, 3, 4, 9),
            "contains the values 4, 9, which the convention 'brats2023' does not define",
        ),
        ("brats2017", mask_of(3), r"contains the values 3, .* \(it has 0, 1, 2, 4\)"),
        ("brats1999", mask_of(1), "no label convention 'brats1999'. Choose one of: brats2012"),
        ("brats2023", mask_of(1.5, dtype=np.float32), "contains fractions"),
        ("brats2023", mask_of(-1, 2, dtype=np.int16), "contains values from -1 to 2. Expected labels from 0"),
        ("whole", mask_of(np.nan, 1, dtype=np.float32), "contains values from nan to nan"),
        ("whole", mask_of(1e9, dtype=np.float64), r"contains values from 1e\+09 to 1e\+09"),
        ("whole", np.zeros((0, 2, 2)), "has no voxels"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(convention, mask, message):
    with pytest.raises(DataError, match=message):
        reference_from_values(mask, convention, default_grid(mask.shape))


def test_a_refused_mask_is_named(tmp_path):
    grid = default_grid((1, 1, 1), path=tmp_path / "anna_seg.nii.gz")
    with pytest.raises(DataError, match=r"Mask 'anna_seg\.nii\.gz' contains the values 9"):
        reference_from_values(mask_of(9), "brats2017", grid)


@pytest.mark.parametrize(
    ("values", "convention"),
    [
        ({0, 1, 2, 4}, "brats2017"), ({2, 4}, "brats2017"), ({1, 4}, "brats2017"), ({0, 1, 2, 3}, None),
        ({1, 2}, None), ({2, 3}, None), ({2}, None), ({0, 4}, None), ({0, 1}, None), ({0, 255}, None),
        ({1, 2, 3, 4}, None), ({3, 4}, None),
        ({0}, None), (set(), None), ({0, 1, 7}, None),
    ],
)  # fmt: skip
def test_a_convention_is_guessed_only_if_the_values_allow_one(values, convention):
    assert guess_convention(values) == convention


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("by", [1e-6, 1e-4, 0.009])
def test_fractions_near_whole_numbers_are_rounded_with_a_note(dtype, by):
    mask = mask_of(0 - by, 1 - by, 2 + by, 3 - by, dtype=dtype)
    reference = reference_from_values(mask, "brats2023", default_grid(mask.shape))
    assert reference.labels.ravel().tolist() == [0, 1, 2, 3]
    assert "close to whole numbers" in reference.notes[0]
    assert reference_from_values(np.rint(mask), "brats2023", default_grid(mask.shape)).notes == ()


@pytest.mark.parametrize("value", [0.5, 0.98, 2.02, -0.02])
def test_other_fractions_are_refused(value):
    mask = mask_of(0, 1, value, dtype=np.float32)
    with pytest.raises(DataError, match=r"contains (fractions|values from -0)"):
        reference_from_values(mask, "brats2023", default_grid(mask.shape))


def scan_of(seed, dtype, top):
    smooth = np.add.outer(np.arange(12), np.add.outer(np.arange(20), np.arange(24))) / 54 * top
    noisy = smooth + np.random.default_rng(seed).normal(0, top / 20, smooth.shape)
    return np.clip(noisy, 0, top).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint8, 120), (np.int16, 800), (np.float32, 1), (np.float64, 4e3)]
)
def test_a_scan_does_not_look_like_labels_whatever_its_data_type(dtype, top):
    assert not looks_like_labels(scan_of(0, dtype, top))


@pytest.mark.parametrize("values", [(1,), (255,), (1, 2, 4), tuple(range(1, 100))])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_painted_areas_look_like_labels(values, dtype):
    labels = np.zeros((12, 20, 24), dtype)
    for i, value in enumerate(values):
        labels[i % 12, (i // 12) * 2 : (i // 12) * 2 + 2, 4:14] = value
    assert looks_like_labels(labels)
    assert looks_like_labels(np.zeros((2, 3, 4), dtype))
    assert not looks_like_labels(np.zeros((0, 3, 4), dtype))


def test_the_values_of_a_mask_are_listed_in_order():
    assert find_label_values(mask_of(4, 0, 2, 2, dtype=np.float32), default_grid((1, 1, 4))) == (0, 2, 4)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("nifti", ".nii.gz"), ("array", ".nii.gz"), ("tiff", ".tif"), ("dicom", ".nii.gz")]
)
def test_labels_go_into_a_file_like_their_scan(kind, suffix):
    assert find_label_suffix(default_grid((1, 1, 1), format=kind)) == suffix


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif", "a.tiff", "A.TIF", "scan.1.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_the_name_of_the_file_chooses_the_format(tmp_path, name, dtype):
    labels = (np.arange(60).reshape(3, 4, 5) % 4).astype(dtype)
    path = write_labels(labels, default_grid(labels.shape, (5, 1, 1)), tmp_path / name)
    assert path == tmp_path / name
    array = read_nifti(path)[0] if "nii" in name.lower() else read_tiff(path)[0]
    np.testing.assert_array_equal(array, labels)


def test_another_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot be written as 'labels\.png'\. Expected a name ending in \.nii\.gz"):
        write_labels(np.zeros((1, 2, 3), np.uint8), default_grid((1, 2, 3)), tmp_path / "labels.png")


@pytest.mark.parametrize("suffix", [suffix for form in FORMATS for suffix in form.written_suffixes])
@pytest.mark.parametrize("shape", [(3, 2, 1), (2, 3), (1, 1, 2, 3)])
def test_labels_of_another_shape_are_refused(tmp_path, suffix, shape):
    path = tmp_path / f"labels{suffix}"
    with pytest.raises(DataError, match=r"Labels \(.*\) and their scan \(1, 2, 3\) differ in shape"):
        write_labels(np.zeros(shape, np.uint8), default_grid((1, 2, 3)), path)
    assert not path.exists()


@pytest.mark.parametrize("value", [-1, 256])
def test_labels_beyond_eight_bits_are_refused(tmp_path, value):
    labels = np.full((1, 2, 3), value)
    with pytest.raises(DataError, match=f"Labels range from {value} to {value}"):
        write_labels(labels, default_grid((1, 2, 3)), tmp_path / "labels.nii")


def test_a_folder_without_write_permission_is_named(tmp_path, monkeypatch):
    def refuse(image, name):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(nib, "save", refuse)
    with pytest.raises(
        DataError, match=r"labels\.nii' cannot be written: Permission denied. Choose an existing folder"
    ):
        write_labels(np.zeros((1, 2, 3), np.uint8), default_grid((1, 2, 3)), tmp_path / "labels.nii")
