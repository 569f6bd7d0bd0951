"""What a header states of units, sizes and orientation, and how a file is packed, whatever its name says."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.nifti import read_nifti, read_nifti_grid, write_nifti_labels

SHAPE = (80, 96, 24)
SIDES = (2.0, 2.0, 5.0)
METER, MM, MICRON, UNKNOWN = 1, 2, 3, 0


def save(path, sides=SIDES, unit=MM, codes=(1, 1), shape=SHAPE, **header):
    data = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.int16)
    affine = np.diag([-sides[0], -sides[1], sides[2], 1.0])
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header["xyzt_units"] = unit
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    for name, value in header.items():
        dtype, at = nib.Nifti1Header.template_dtype.fields[name]
        content[at : at + dtype.itemsize] = np.asarray(value, dtype.base).tobytes()
    path.write_bytes(content)
    return path


# ------------------------------------------------------------------------------------------------------ units, sizes


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize(("unit", "factor"), [(METER, 1e-3), (MM, 1.0), (MICRON, 1e3)])
def test_a_voxel_size_in_any_unit_is_converted_exactly_and_is_known(tmp_path, unit, factor, codes):
    path = save(tmp_path / "a.nii", np.array(SIDES) * factor, unit, codes)
    _, grid = read_nifti(path)
    assert grid.spacing == pytest.approx(SIDES[::-1])
    assert grid.spacing_known
    assert grid.spacing_note == ""
    assert read_nifti_grid(path)[0].spacing == grid.spacing
    write_nifti_labels(np.ones(SHAPE[::-1], np.uint8), grid, tmp_path / "labels.nii")
    scan, labels = nib.load(path), nib.load(tmp_path / "labels.nii")
    assert np.array_equal(scan.affine, labels.affine)
    assert scan.header.get_xyzt_units() == labels.header.get_xyzt_units()


@pytest.mark.parametrize("unit", [UNKNOWN, 5, 7])
def test_a_usual_voxel_size_without_a_unit_is_in_mm(tmp_path, unit):
    _, grid = read_nifti(save(tmp_path / "a.nii", unit=unit))
    assert (grid.spacing, grid.spacing_known, grid.notes) == (SIDES[::-1], True, ())


def test_a_header_as_programs_write_it_who_lost_the_scans_is_noted(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((9, 8, 7), np.uint8), np.eye(4)), tmp_path / "a.nii")
    _, grid = read_nifti(tmp_path / "a.nii")
    assert len(grid.notes) == 1
    assert "The header of 'a.nii' may have been lost" in grid.notes[0]


@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 4)])
@pytest.mark.parametrize(
    ("unit", "factor", "guess"),
    [
        (METER, 1.0, SIDES),  # mm called m: a head of 160 m
        (MICRON, 1.0, SIDES),  # mm called micrometers: a head of 0.2 mm
        (MM, 1e-3, SIDES),  # m called mm
        (MM, 1e3, SIDES),  # micrometers called mm
        (MM, 0.1, SIDES),  # cm called mm
        (MM, 10.0, SIDES),
        (UNKNOWN, 1e-3, SIDES),
        (UNKNOWN, 1e3, SIDES),
        (MM, 1e-12, SIDES),
        (MM, 1e12, SIDES),
    ],
)
def test_a_head_of_an_impossible_size_is_read_with_a_guess_that_is_noted(tmp_path, unit, factor, guess, codes):
    path = save(tmp_path / "a.nii", np.array(SIDES) * factor, unit, codes)
    _, grid = read_nifti(path)
    assert not grid.spacing_known
    assert grid.spacing == pytest.approx(guess[::-1])
    assert len(grid.notes) == 1
    assert grid.notes[0].startswith("'a.nii' states voxels of ")
    assert "which cannot be right. 5 x 2 x 2 mm was assumed" in grid.notes[0]
    write_nifti_labels(np.ones(SHAPE[::-1], np.uint8), grid, tmp_path / "labels.nii")
    assert np.array_equal(nib.load(path).affine, nib.load(tmp_path / "labels.nii").affine)


@pytest.mark.parametrize("sides", [(1, 1, 1000), (0.001, 1, 1), (1, 300, 1), (1, 1, 1e-6), (1e5, 1, 1e-5)])
def test_where_only_one_side_is_impossible_nothing_is_known_and_1_mm_assumed(tmp_path, sides):
    _, grid = read_nifti(save(tmp_path / "a.nii", sides))
    assert grid.spacing == pytest.approx((1, 1, 1))
    assert not grid.spacing_known
    assert "1 x 1 x 1 mm was assumed" in grid.notes[0]


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("side", [0.0, -2.0])
@pytest.mark.parametrize("codes", [(1, 0), (0, 0)])
def test_a_voxel_size_of_zero_or_below_is_not_known(tmp_path, axis, side, codes):
    pixdim = [1, *SIDES, 0, 0, 0, 0]
    pixdim[axis] = side
    path = save(tmp_path / "a.nii", codes=codes, pixdim=pixdim)
    _, grid = read_nifti(path)
    assert not grid.spacing_known
    assert min(grid.spacing) > 0
    assert grid.notes[0].startswith("'a.nii' states voxels of ")
    write_nifti_labels(np.ones(SHAPE[::-1], np.uint8), grid, tmp_path / "labels.nii")
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(tmp_path / "labels.nii").affine)


def test_a_voxel_size_beside_an_sform_is_that_of_the_sform(tmp_path):
    _, grid = read_nifti(save(tmp_path / "a.nii", pixdim=[1, 0, -3, 9, 0, 0, 0, 0]))
    assert (grid.spacing, grid.notes, grid.spacing_known) == (SIDES[::-1], (), True)


@pytest.mark.parametrize(
    "header",
    [
        {"pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0], "sform_code": 0},
        {"pixdim": [1, np.inf, 1, 1, 0, 0, 0, 0], "sform_code": 0},
        {"srow_x": [0, 0, 0, 0]},
        {"srow_y": [np.nan, 1, 0, 0]},
        {"srow_x": [-2, 0, 0, 0], "srow_y": [-2, 0, 0, 0]},
        {"srow_x": [-2, -2, 0, 0], "srow_y": [-2, -2.0001, 0, 0]},
    ],
)
def test_a_place_that_cannot_be_computed_is_refused(tmp_path, header):
    with pytest.raises(
        DataError, match="affine that cannot be inverted, so its orientation and voxel size are unknown"
    ):
        read_nifti(save(tmp_path / "a.nii", **header))


@pytest.mark.parametrize("shape", [(10, 10, 10), (64, 64, 12), (240, 240, 155), (32, 512, 512)])
@pytest.mark.parametrize("side", [0.5, 1.0])
def test_parts_of_a_scan_and_whole_scans_of_usual_voxels_have_a_known_size(tmp_path, shape, side):
    _, grid = read_nifti(save(tmp_path / "a.nii", (side, side, side), shape=shape))
    assert (grid.spacing_known, grid.notes) == (True, ())


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("intercept", [0.0, 7.0])
def test_a_scaling_that_is_not_one_is_none(tmp_path, slope, intercept):
    data, _ = read_nifti(save(tmp_path / "a.nii", scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(data[0, 0, :3], [0, 24 * 96, 2 * 24 * 96])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_scaled_values_are_those_of_nibabel(tmp_path, dtype, name):
    data = np.random.default_rng(0).integers(0, 200, (9, 8, 7)).astype(dtype)
    image = nib.Nifti1Image(data, np.diag([-1, -1, 1, 1]), dtype=dtype)
    image.header.set_slope_inter(0.0037, -1000.5)
    nib.save(image, tmp_path / name)
    expected = np.asarray(nib.load(tmp_path / name).get_fdata(), np.float32).T
    np.testing.assert_allclose(read_nifti(tmp_path / name)[0], expected, rtol=1e-6)


def test_a_header_without_orientation_says_so(tmp_path):
    _, grid = read_nifti(save(tmp_path / "a.nii", codes=(0, 0)))
    assert not grid.orientation_known
    assert len(grid.notes) == 1
    assert "'a.nii' does not state its orientation (neither qform nor sform), so left and right" in grid.notes[0]
    assert grid.with_spacing((3, 1, 1)).notes == grid.notes


# ------------------------------------------------------------------------------------------------------------ packing


def pack_plainly(raw):
    return raw


def pack_in_members(raw):
    return b"".join(gzip.compress(raw[i : i + 9001], 1) for i in range(0, len(raw), 9001))


PACKED = {
    "plain": pack_plainly,
    "gzip": lambda raw: gzip.compress(raw, 1),
    "gzip in many members": pack_in_members,
    "gzip and zeros": lambda raw: gzip.compress(raw, 1) + bytes(512),
    "gzip and junk": lambda raw: gzip.compress(raw, 1) + b"a proxy added this" * 9,
    "plain and junk": lambda raw: raw + b"junk" * 9,
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_file_is_unpacked_by_what_it_holds_not_by_its_name(tmp_path, name, pack):
    raw = save(tmp_path / "whole.nii").read_bytes()
    (tmp_path / name).write_bytes(pack(raw))
    data, grid = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(data, read_nifti(tmp_path / "whole.nii")[0])
    assert grid.path == tmp_path / name
    assert read_nifti_grid(tmp_path / name)[0].spacing == grid.spacing


def test_a_gzip_file_whose_check_sum_is_wrong_is_refused(tmp_path):
    content = bytearray(gzip.compress(save(tmp_path / "whole.nii").read_bytes(), 1))
    content[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"'a\.nii\.gz' is damaged.*Copy or download it again"):
        read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("size", [3000, 32767])
def test_a_header_that_declares_more_than_the_file_can_hold_is_refused_before_anything_is_read(tmp_path, name, size):
    content = bytearray(save(tmp_path / "whole.nii").read_bytes())
    content[40:48] = struct.pack("<4h", 3, size, size, size)
    (tmp_path / name).write_bytes(content if name == "a.nii" else gzip.compress(content, 1))
    for read in (read_nifti, read_nifti_grid):
        with pytest.raises(DataError, match=r"its header declares [\d,]+ bytes, more than it can contain"):
            read(tmp_path / name)
