import gzip
import sys
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.nifti import read_nifti, read_nifti_grid, write_nifti_labels
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.grid import default_grid

SHAPE = (4, 5, 6)
ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def ramp(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def affine_of(order=(0, 1, 2), signs=(1, 1, 1), spacing=(1.0, 1.5, 5.0), turn=0.0, origin=(7.0, -30.0, 11.0)):
    """Affine of a grid whose i-th axis runs along world axis `order[i]`, turned about an oblique axis."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, size) in enumerate(zip(order, signs, spacing, strict=True)):
        affine[world, axis] = sign * size
    c, s = np.cos(turn), np.sin(turn)
    about_x, about_z = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine[:3, :3] = about_x @ about_z @ affine[:3, :3]
    affine[:3, 3] = origin
    return affine


def save(path, data, affine=None, codes=(2, 1), kind=nib.Nifti1Image, change=lambda header: None):
    image = kind(data, affine_of() if affine is None else affine)
    image.set_qform(image.affine, codes[0], strip_shears=True)
    image.set_sform(image.affine, codes[1])
    change(image.header)
    nib.save(image, path)
    return path


def assert_same_grid(path, reference):
    """Compare by nibabel alone."""
    one, two = nib.load(path), nib.load(reference)
    assert one.shape == two.shape[:3]
    np.testing.assert_array_equal(one.affine, two.affine)
    for form in ("sform", "qform"):
        a, a_code = getattr(one.header, f"get_{form}")(coded=True)
        b, b_code = getattr(two.header, f"get_{form}")(coded=True)
        assert a_code == b_code
        if a is not None or b is not None:
            np.testing.assert_array_equal(a, b)


def world_of_voxels(path):
    """Map each nonzero voxel's value to where its center lies, by nibabel's affine alone."""
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    return {int(data[tuple(i)]): nib.affines.apply_affine(image.affine, i) for i in np.argwhere(data)}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_values_come_back_with_axes_zyx(tmp_path, suffix):
    path = save(tmp_path / f"scan{suffix}", ramp(), affine_of(signs=(-1, -1, 1)))
    data, grid = read_nifti(path)
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, ramp().transpose(2, 1, 0))
    assert grid.spacing == pytest.approx((5, 1.5, 1))
    assert (grid.shape, grid.format, grid.path, grid.spacing_known) == (SHAPE, "nifti", path, True)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_labels_of_any_orientation_return_to_the_same_place(tmp_path, order, signs, turn):
    marks = np.zeros(SHAPE, np.uint8)
    marks[0, 0, 0], marks[3, 1, 2], marks[1, 4, 5], marks[2, 2, 0] = 1, 2, 3, 4
    scan = save(tmp_path / "scan.nii", marks, affine_of(order, signs, turn=turn))
    data, grid = read_nifti(scan)

    # The array that people see: each axis runs superior, posterior, left, to within the obliqueness.
    z_step, y_step, x_step = (world_at(grid, step) - world_at(grid, (0, 0, 0)) for step in np.eye(3, dtype=int))
    assert z_step[2] > 0
    assert y_step[1] < 0
    assert x_step[0] < 0
    assert world_at(grid, (0, 0, 0)) == pytest.approx([-grid.origin[2], -grid.origin[1], grid.origin[0]])

    labels = tmp_path / "labels.nii.gz"
    write_nifti_labels(data.astype(np.uint8), grid, labels)
    expected, written = world_of_voxels(scan), world_of_voxels(labels)
    assert expected.keys() == written.keys() == {1, 2, 3, 4}
    for value in expected:
        np.testing.assert_allclose(written[value], expected[value], atol=1e-5)
        z, y, x = np.argwhere(data == value)[0]
        np.testing.assert_allclose(world_at(grid, (z, y, x)), expected[value], atol=1e-5)
    assert_same_grid(labels, scan)


def world_at(grid, index_ZYX):
    """Where one of our voxels lies, through `to_source`."""
    probe = np.zeros(tuple(grid.shape[axis] for axis in grid.axes), bool)
    probe[tuple(index_ZYX)] = True
    return nib.affines.apply_affine(grid.affine, np.argwhere(grid.to_source(probe))[0])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    turn=st.floats(-0.7, 0.7),
    codes=st.sampled_from([(0, 1), (1, 0), (1, 1), (2, 0), (0, 2), (4, 3)]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_any_grid_gets_its_labels_back_exactly(tmp_path, orientation, shape, spacing, turn, codes, kind):
    values = (ramp(shape) % 4).astype(np.uint8)
    scan = save(tmp_path / "scan.nii", values, affine_of(*orientation, spacing, turn), codes, kind)
    data, grid = read_nifti(scan)
    write_nifti_labels(data.astype(np.uint8), grid, tmp_path / "labels.nii")
    written = nib.load(tmp_path / "labels.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), values)
    assert isinstance(written, kind)
    assert_same_grid(tmp_path / "labels.nii", scan)


def test_scaled_integers_are_read_as_their_real_values(tmp_path):
    scan = save(tmp_path / "scan.nii", ramp(), change=lambda header: header.set_slope_inter(0.5, -3))
    data, grid = read_nifti(scan)
    assert np.asarray(nib.load(scan).dataobj.get_unscaled()).dtype == np.int16
    np.testing.assert_array_equal(np.sort(data.ravel()), 0.5 * ramp().ravel() - 3)

    write_nifti_labels(np.ones(data.shape, np.uint8), grid, tmp_path / "labels.nii.gz")
    written = nib.load(tmp_path / "labels.nii.gz")
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    assert np.asarray(written.dataobj).dtype == np.uint8
    assert np.unique(written.dataobj).tolist() == [1]


def test_both_byte_orders_are_read_and_written(tmp_path):
    header = nib.Nifti1Header(endianness="<" if sys.byteorder == "big" else ">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(ramp(), affine_of(), header), tmp_path / "scan.nii")
    assert read_nifti(tmp_path / "scan.nii")[0].max() == ramp().max()
    data, grid = read_nifti(tmp_path / "scan.nii")
    write_nifti_labels((data % 3).astype(np.uint8), grid, tmp_path / "labels.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "labels.nii").dataobj), ramp() % 3)
    assert_same_grid(tmp_path / "labels.nii", tmp_path / "scan.nii")


def test_a_file_of_several_channels_is_read_with_channels_first(tmp_path):
    scan = save(tmp_path / "scan.nii.gz", ramp((*SHAPE, 3)), affine_of(signs=(-1, -1, 1)))
    data, grid = read_nifti(scan)
    np.testing.assert_array_equal(data, ramp((*SHAPE, 3)).transpose(3, 2, 1, 0))
    assert read_nifti_grid(scan)[1] == 3
    write_nifti_labels(np.ones(data.shape[1:], np.uint8), grid, tmp_path / "labels.nii.gz")
    assert_same_grid(tmp_path / "labels.nii.gz", scan)


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 2)])
def test_empty_axes_beyond_the_third_do_not_count(tmp_path, extra):
    data, _ = read_nifti(save(tmp_path / "scan.nii", ramp((*SHAPE, *extra)), affine_of(signs=(-1, -1, 1))))
    assert data.shape == ((2,) if 2 in extra else ()) + SHAPE[::-1]


def test_a_voxel_size_in_micrometers_is_read_as_millimeters(tmp_path):
    affine = np.diag([1000.0, 1500, 5000, 1])
    scan = save(tmp_path / "scan.nii", ramp(), affine, change=lambda header: header.set_xyzt_units("micron"))
    data, grid = read_nifti(scan)
    assert grid.spacing == pytest.approx((5, 1.5, 1))
    assert (grid.spacing_known, grid.notes) == (True, ())
    write_nifti_labels(data.astype(np.uint8), grid, tmp_path / "labels.nii")
    assert_same_grid(tmp_path / "labels.nii", scan)


def test_header_extensions_of_the_scan_do_not_shift_the_labels(tmp_path):
    image = nib.Nifti1Image(ramp(), affine_of())
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    nib.save(image, tmp_path / "scan.nii")
    data, grid = read_nifti(tmp_path / "scan.nii")
    write_nifti_labels((data % 3).astype(np.uint8), grid, tmp_path / "labels.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "labels.nii").dataobj), ramp() % 3)
    assert (tmp_path / "labels.nii").stat().st_size == 352 + ramp().size


def test_labels_of_an_array_get_a_header_from_its_affine(tmp_path):
    grid = default_grid((3, 4, 5), (5, 2, 1))
    labels = (ramp((3, 4, 5)) % 4).astype(np.uint8)
    write_nifti_labels(labels, grid, tmp_path / "labels.nii.gz")
    written = nib.load(tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(written.affine, grid.affine)
    np.testing.assert_allclose(written.get_qform(), grid.affine, atol=1e-6)
    assert written.header.get_xyzt_units()[0] == "mm"
    data, again = read_nifti(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(data, labels)
    assert again.spacing == (5, 2, 1)


def test_labels_say_what_they_are(tmp_path):
    _, grid = read_nifti(save(tmp_path / "scan.nii", ramp()))
    write_nifti_labels(np.ones(grid.shape[::-1], np.uint8), grid, tmp_path / "labels.nii")
    header = nib.load(tmp_path / "labels.nii").header
    assert header.get_intent()[0] == "label"
    assert header["descrip"] == b"napari-braintumor"
    assert header.get_data_dtype() == np.uint8


def test_labels_take_the_place_of_an_older_file_and_leave_nothing_else(tmp_path):
    _, grid = read_nifti(save(tmp_path / "scan.nii", ramp()))
    path = tmp_path / "labels.nii.gz"
    path.write_text("old")
    write_nifti_labels(np.ones(grid.shape[::-1], np.uint8), grid, path)
    assert {file.name for file in tmp_path.iterdir()} == {"scan.nii", "labels.nii.gz"}
    assert read_nifti(path)[0].min() == 1


def test_an_interrupted_writing_leaves_the_older_file(tmp_path, monkeypatch):
    _, grid = read_nifti(save(tmp_path / "scan.nii", ramp()))
    path = tmp_path / "labels.nii"
    path.write_text("old")

    def fill_the_disk(image, name):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", fill_the_disk)
    with pytest.raises(DataError, match=r"labels\.nii' cannot be written: No space left on device"):
        write_nifti_labels(np.ones(grid.shape[::-1], np.uint8), grid, path)
    assert path.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"scan.nii", "labels.nii"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/labels.nii", r"labels\.nii' cannot be written: No such file.*Choose an existing folder"),
        ("scan.nii/labels.nii", r"labels\.nii' cannot be written: Not a directory"),
        ("folder.nii", r"folder\.nii' is a folder"),
    ],
)
def test_labels_that_cannot_be_written_there_are_refused(tmp_path, name, message):
    _, grid = read_nifti(save(tmp_path / "scan.nii", ramp()))
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(DataError, match=message):
        write_nifti_labels(np.ones(grid.shape[::-1], np.uint8), grid, tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"scan\.nii' does not exist"):
        read_nifti(tmp_path / "scan.nii")
    with pytest.raises(DataError, match="is a folder"):
        read_nifti(tmp_path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    path.touch()
    with pytest.raises(DataError, match="is empty"):
        read_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16)
    path = save(tmp_path / f"scan{suffix}", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * share))])
    with pytest.raises(DataError, match="damaged, truncated or not a NIfTI file"):
        read_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "content", [b"no scan at all" * 60, gzip.compress(b"no scan at all" * 60, mtime=0), bytes(500), b"\x1f\x8b" * 300]
)
def test_a_foreign_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged, truncated or not a NIfTI file"):
        read_nifti(path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2, 2)])
def test_a_file_of_another_dimension_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match=r"has shape .* Expected three axes"):
        read_nifti(save(tmp_path / "scan.nii", ramp(shape)))


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colors_and_complex_numbers_are_refused(tmp_path, dtype):
    with pytest.raises(DataError, match=r"contains (colors|complex numbers).*Expected a scan of real numbers"):
        read_nifti(save(tmp_path / "scan.nii", np.zeros(SHAPE, dtype)))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_affine_that_cannot_be_inverted_is_refused(tmp_path, value):
    scan = save(tmp_path / "scan.nii", ramp(), codes=(0, 1))
    content = bytearray(scan.read_bytes())
    content[280:292] = np.full(3, value, np.float32).tobytes()  # srow_x
    scan.write_bytes(content)
    with pytest.raises(DataError, match="affine that cannot be inverted"):
        read_nifti(scan)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["brats/BraTS2021_00019", "brats/brats_2013_pat0001_1", "brats/brats_tcia_pat222_2", "btp/PGBM-006_post"]
)
def test_labels_of_a_real_scan_lie_on_its_grid(tmp_path, real_data, name):
    (case,) = find_cases(real_data / name)
    volume = read_case(case)
    labels = (volume.data[0] > volume.data[0].mean()).astype(np.uint8)
    write_nifti_labels(labels, volume.source, tmp_path / "labels.nii.gz")
    assert_same_grid(tmp_path / "labels.nii.gz", case.images[0].paths[0])
    scan = np.asarray(nib.load(case.images[0].paths[0]).dataobj)
    written = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj)
    assert scan[written == 1].min() > scan[written == 0].max()
