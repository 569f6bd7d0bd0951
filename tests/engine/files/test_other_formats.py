"""NRRD, MetaImage, FreeSurfer and Analyze files are read at their place, and labels written onto the same grid."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.analyze import read_pair
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.formats import check_readable, find_format, find_label_suffix
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine

SHAPE = (31, 36, 41)
RAMP = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
WRITTEN = (".nrrd", ".mha", ".mgz", ".mgh")
READ = (*WRITTEN, ".nhdr", ".mhd")


def affine_of(seed: int) -> np.ndarray:
    """Any of the 48 orientations, oblique for odd seeds."""
    random = np.random.default_rng(seed)
    orders, signs = list(permutations(range(3))), list(product((-1, 1), repeat=3))
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(orders[seed % 6])] * signs[seed % 8] * random.uniform(1.5, 4, 3)
    if seed % 2:
        affine[:3, :3] = np.linalg.qr(np.eye(3) + random.normal(0, 0.2, (3, 3)))[0] @ affine[:3, :3]
    affine[:3, 3] = random.uniform(-90, 90, 3)
    return affine


def write(path: Path, affine: np.ndarray, array: np.ndarray = RAMP) -> Path:
    """Write an array with axes as in its affine, by the libraries of the formats."""
    if path.suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(array, affine), path)
        return path
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetDirection((lps[:3, :3] / sides).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.mark.parametrize("suffix", READ)
def test_a_scan_lies_where_its_header_says(tmp_path, suffix):
    for seed in range(8):
        path = write(tmp_path / f"{seed}{suffix}", affine_of(seed))
        form = check_readable(path)
        array, grid = form.read(path)
        np.testing.assert_allclose(grid.affine, affine_of(seed), atol=1e-4)
        np.testing.assert_array_equal(grid.to_source(array), RAMP)
        assert (array.dtype, grid.orientation_known, grid.spacing_known) == (np.float32, True, True)
        assert form.read_grid is not None
        np.testing.assert_array_equal(form.read_grid(path).affine, grid.affine)
        assert form.count_channels(path) == (1, ())


@pytest.mark.parametrize("sheared", [False, True])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_labels_return_to_exactly_the_grid_of_their_scan(tmp_path, suffix, sheared):
    affine = affine_of(3)
    affine[:3, 2] += 0.3 * affine[:3, 0] * sheared
    grid = grid_from_affine(SHAPE, affine)
    labels = np.random.default_rng(1).integers(0, 4, grid.shape_ZYX).astype(np.uint8)
    path = write_labels(labels, grid, tmp_path / f"x_seg{suffix}")
    array, back = check_readable(path).read(path)
    np.testing.assert_array_equal(array, labels)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    with pytest.raises(DataError, match=r"differ in shape"):
        write_labels(labels[1:], grid, tmp_path / f"y{suffix}")


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("nrrd", ".nrrd"), ("metaimage", ".mha"), ("mgh", ".mgz"), ("dicom", ".nii.gz"), ("analyze", ".nii.gz")],
)
def test_labels_are_written_in_the_format_of_their_scan_if_there_are_such(form, suffix):
    assert find_label_suffix(default_grid((1, 1, 1), format=form)) == suffix


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.img"])
def test_labels_are_not_written_where_one_file_would_not_hold_them(tmp_path, name):
    with pytest.raises(DataError, match=rf"Labels cannot be written as '{name}'\. Expected a name ending in \.nii\.gz"):
        write_labels(np.zeros((2, 2, 2), np.uint8), default_grid((2, 2, 2)), tmp_path / name)


@pytest.mark.parametrize("suffix", READ)
def test_files_named_by_modality_make_a_case(tmp_path, suffix):
    for name in ("t1", "flair"):
        write(tmp_path / f"anna_{name}{suffix}", affine_of(2), RAMP + (name == "t1"))
    (case,) = find_cases(tmp_path)
    assert [image.modality for image in case.images] == ["T1", "FLAIR"]
    assert read_case(case).source.format in ("nrrd", "metaimage", "mgh")


# ------------------------------------------------------------------------------------------------------------- pairs


def test_a_pair_is_one_scan_whichever_file_is_given(tmp_path):
    affine = affine_of(1)
    nib.save(nib.Nifti1Pair(RAMP, affine), tmp_path / "t1.hdr")
    for name in ("t1.hdr", "t1.img"):
        array, grid = read_pair(tmp_path / name)
        np.testing.assert_allclose(grid.affine, affine, atol=1e-4)
        np.testing.assert_array_equal(grid.to_source(array), RAMP)
        assert grid.orientation_known
    (case,) = find_cases(tmp_path)
    assert (case.problem, [image.paths[0].name for image in case.images]) == (None, ["t1.hdr"])


def test_an_analyze_pair_says_that_left_and_right_are_a_guess(tmp_path):
    nib.save(nib.AnalyzeImage(RAMP, np.diag([-2.0, 2, 3, 1])), tmp_path / "t1.hdr")
    array, grid = read_pair(tmp_path / "t1.img")
    assert (grid.spacing, grid.orientation_known) == ((3, 2, 2), False)
    np.testing.assert_array_equal(grid.to_source(array), RAMP)
    assert grid.notes[0].startswith(
        "'t1.img' does not state its orientation, so left and right, front and back are guesses"
    )


def test_half_a_pair_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(RAMP, np.eye(4)), tmp_path / "t1.hdr")
    (tmp_path / "t1.img").unlink()
    with pytest.raises(DataError, match=r"'t1\.hdr' is half of a pair, and its 't1\.img' is not beside it\. Copy both"):
        read_pair(tmp_path / "t1.hdr")


@pytest.mark.parametrize("content", [b"#?RADIANCE\n", b"ENVI\nsamples = 4\n"])
def test_a_picture_named_hdr_is_no_scan(tmp_path, content):
    (tmp_path / "sky.hdr").write_bytes(content * 50)
    assert find_format(tmp_path / "sky.hdr") is None


# ---------------------------------------------------------------------------------------------------------- what is off


def channels(path: Path) -> tuple[np.ndarray, SourceGrid]:
    array = np.stack([RAMP, RAMP + 1, RAMP + 2], -1)
    if path.suffix == ".mgz":
        return write(path, np.eye(4), array), array
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0, 3), isVector=True)
    SimpleITK.WriteImage(image, str(path))
    return path, array


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mgz"])
def test_several_numbers_a_voxel_are_channels(tmp_path, suffix):
    path, array = channels(tmp_path / f"a{suffix}")
    form = check_readable(path)
    read, grid = form.read(path)
    assert form.count_channels(path) == (3, ())
    for number in range(3):
        np.testing.assert_array_equal(grid.to_source(read[number]), array[..., number])


def test_a_header_that_relates_nothing_to_the_patient_says_so(tmp_path):
    path = write(tmp_path / "a.mha", np.eye(4))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith((b"TransformMatrix", b"Anatomical"))))
    assert not check_readable(path).read(path)[1].orientation_known
    path = write(tmp_path / "a.nrrd", np.eye(4))
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior", b"space: 3D-right-handed"))
    assert not check_readable(path).read(path)[1].orientation_known


@pytest.mark.parametrize(("suffix", "keyword"), [(".mhd", "ElementDataFile = "), (".nhdr", "data file: ")])
def test_voxels_in_another_folder_are_not_read(tmp_path, suffix, keyword):
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / f"a{suffix}", np.eye(4))
    lines = path.read_text().splitlines()
    for elsewhere, message in (
        ("../b.raw", "in several files or in another folder"),
        ("/etc/passwd", "in several files or in another folder"),
        ("LIST", "in several files or in another folder"),
        ("gone.raw", "in another file, which is not beside it"),
    ):
        text = "\n".join(f"{keyword}{elsewhere}" if line.startswith(keyword) else line for line in lines)
        path.write_text(f"{text}\n")
        with pytest.raises(DataError, match=message):
            check_readable(path).read(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mgz", ".mgh"])
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, suffix):
    whole = write(tmp_path / f"whole{suffix}", affine_of(1), RAMP[:9, :9, :9]).read_bytes()
    packed = suffix == ".mgz"
    whole = gzip.decompress(whole) if packed else whole
    path = tmp_path / f"a{suffix}"
    refused = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        content, at = bytearray(whole), int(random.integers(min(len(whole), 500)))
        if seed % 3 == 0:
            del content[at + 6 :]
        else:
            content[at : at + 2] = random.integers(0, 256, 2).astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if packed else content)
        try:
            array, grid = check_readable(path).read(path)
        except DataError as error:
            assert f"'a{suffix}'" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert array.shape[-3:] == grid.shape_ZYX
    assert 20 <= refused < 60
