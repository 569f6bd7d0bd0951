"""A format is a module and a row: whatever asks which files are scans follows the table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._foreign import FileKind
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.formats import (
    FORMATS,
    Format,
    check_readable,
    describe_for_dialog,
    find_format,
    find_label_suffix,
    strip_suffix,
)
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.grid import SourceGrid, default_grid


def read(path: Path) -> tuple[NDArray[Any], SourceGrid]:
    with path.open("rb") as file:
        array = np.load(file)
    return array, default_grid(array.shape, (1, 1, 1), path=path, format="numpy")


def write(labels_ZYX: NDArray[np.uint8], _: SourceGrid, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, labels_ZYX)


@pytest.fixture
def toy() -> Iterator[Format]:
    form = Format(
        name="numpy", title="NumPy", suffixes=(".npy",), content=FileKind("a NumPy file", "Give it a name in .npy."),
        always_scan=True, names_channels=False, read=read, count_channels=lambda _: (1, ()), write_labels=write,
    )  # fmt: skip
    FORMATS.append(form)
    yield form
    FORMATS.remove(form)


def test_a_format_is_found_read_and_written_once_it_has_a_row(toy: Format, tmp_path: Path) -> None:
    scan = np.random.default_rng(0).normal(100, 10, (3, 8, 8)).astype(np.float32)
    mask = (scan > 100).astype(np.uint8)
    write(scan, None, tmp_path / "anna_t1.npy")
    write(mask, None, tmp_path / "anna_seg_whole.npy")
    (case,) = find_cases(tmp_path)
    volume = read_case(case)
    np.testing.assert_array_equal(volume.data[0], scan)
    np.testing.assert_array_equal(read_reference(case).regions["whole tumor"], mask > 0)
    assert find_label_suffix(volume.source) == ".npy"
    np.testing.assert_array_equal(read(write_labels(mask, volume.source, tmp_path / "out.npy"))[0], mask)
    assert describe_for_dialog() == (
        "NIfTI (*.nii.gz *.nii);;TIFF (*.tif *.tiff);;DICOM (*.dcm);;NRRD (*.nrrd);;MetaImage (*.mha);;"
        "FreeSurfer (*.mgz *.mgh);;NumPy (*.npy)"
    )
    with pytest.raises(
        DataError, match=r"Expected NIfTI \(\.nii, \.nii\.gz\), TIFF \(\.tif, \.tiff\), DICOM .* or NumPy \(\.npy\)"
    ):
        check_readable(Path(__file__))


def test_a_format_that_has_no_row_is_not_read(tmp_path: Path) -> None:
    write(np.zeros((2, 2, 2)), None, tmp_path / "t1.npy")
    with pytest.raises(DataError, match=r"'t1\.npy' cannot be read\. Expected NIfTI .* or Analyze"):
        find_cases(tmp_path / "t1.npy")
    with pytest.raises(
        DataError, match=r"Labels cannot be written as 'a\.npy'\. Expected a name ending in \.nii\.gz, .*\.mgz or \.mgh"
    ):
        write_labels(np.zeros((2, 2, 2), np.uint8), default_grid((2, 2, 2)), tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "form", "stem"),
    [
        ("a.b.nii.gz", "nifti", "a.b"),
        ("A.NII", "nifti", "A"),
        ("x.TIFF", "tiff", "x"),
        ("a.gz", None, "a"),
        ("a.b.MHA", "metaimage", "a.b"),
        ("IM1.dcm", "dicom", "IM1"),
        ("a.hdr", "analyze", "a"),
        ("a.mgz", "mgh", "a"),
        ("a.nhdr", "nrrd", "a"),
    ],
)
def test_the_ending_of_a_name_gives_the_format(name: str, form: str | None, stem: str) -> None:
    found = find_format(Path(name))
    assert (found.name if found else None) == form
    assert strip_suffix(Path(name)) == stem
