"""What the readers and writers share: names of files and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.grid import SourceGrid

NIFTI_SUFFIXES = (".nii.gz", ".nii")
TIFF_SUFFIXES = (".tif", ".tiff")


def find_suffix(path: Path) -> str:
    """Return a file name's ending in lower case, with ``.nii.gz`` as one."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def strip_suffix(path: Path) -> str:
    """Return a file's name without the ending that `find_suffix` gives."""
    return path.name[: len(path.name) - len(find_suffix(path))]


def check_readable(path: Path) -> None:
    """Refuse a path that is not a file, has no content, or is of a format that is not read, whatever its name says.

    Raises
    ------
    DataError
        Naming the file.
    """
    if not path.is_file():
        raise DataError(f"'{path}' {'is a folder' if path.is_dir() else 'does not exist'}. Expected an image file.")
    suffix = find_suffix(path)
    expected = _foreign.NIFTI if suffix in NIFTI_SUFFIXES else _foreign.TIFF if suffix in TIFF_SUFFIXES else None
    try:
        found = _foreign.describe(path)
    except OSError as error:
        raise DataError(f"'{path.name}' cannot be opened: {error.strerror}. Check its permissions.") from error
    if found and found != expected:
        raise DataError(f"'{path.name}' is {found.what}. {found.remedy}")
    if path.stat().st_size == 0:
        raise DataError(f"'{path.name}' is empty. Expected an image. Copy or download it again.")
    if expected is None:
        raise DataError(f"'{path.name}' cannot be read. Expected NIfTI (.nii, .nii.gz) or TIFF (.tif, .tiff).")


def check_labels(labels_ZYX: NDArray[Any], source: SourceGrid) -> None:
    """Refuse labels that are not on the grid of their scan.

    Raises
    ------
    DataError
        Naming both shapes.
    """
    expected = tuple(source.shape[axis] for axis in source.axes)
    if labels_ZYX.shape != expected:
        raise DataError(
            f"Labels {labels_ZYX.shape} and their scan {expected} differ in shape. "
            "Expected one label for each voxel. Make the labels on the grid of the scan."
        )
