"""What the readers and writers share: names of files and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.types import SourceGrid

NIFTI_SUFFIXES = (".nii.gz", ".nii")
TIFF_SUFFIXES = (".tif", ".tiff")
_UNREAD = {".mha": "MetaImage", ".mhd": "MetaImage", ".dcm": "DICOM", ".ima": "DICOM", ".nrrd": "NRRD", ".mgz": "MGZ"}


def find_suffix(path: Path) -> str:
    """Return a file name's ending in lower case, with ``.nii.gz`` as one."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def strip_suffix(path: Path) -> str:
    """Return a file's name without the ending that `find_suffix` gives."""
    return path.name[: len(path.name) - len(find_suffix(path))]


def check_readable(path: Path) -> None:
    """Refuse a path that is no file, has no content, or is of a format that is not read.

    Raises
    ------
    DataError
        Naming the file.
    """
    if not path.is_file():
        raise DataError(f"'{path}' {'is a folder' if path.is_dir() else 'does not exist'}. Expected was an image file.")
    suffix = find_suffix(path)
    if suffix in _UNREAD:
        raise DataError(
            f"'{path.name}' is a {_UNREAD[suffix]} file; {suffix} is not read yet. Convert it to NIfTI (.nii.gz) first."
        )
    if suffix not in NIFTI_SUFFIXES + TIFF_SUFFIXES:
        raise DataError(f"'{path.name}' cannot be read. Expected was NIfTI (.nii, .nii.gz) or TIFF (.tif, .tiff).")
    if path.stat().st_size == 0:
        raise DataError(f"'{path.name}' is empty. Expected was an image. Copy or download it again.")


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
            "Expected was one label for each voxel. Make the labels on the grid of the scan."
        )
