"""NIfTI files <-> arrays with axes (Z, Y, X), and back onto exactly the same grid.

nibabel is imported where it is used: it takes pydicom along, which would double the time in which a dock opens.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import NIFTI_SUFFIXES, check_labels, check_readable, find_suffix
from napari_braintumor.engine.types import SourceGrid, grid_from_affine

_MM = {"meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> tuple[NDArray[np.float32], SourceGrid]:
    """Read a NIfTI file and bring its axes into the order (Z, Y, X), without resampling.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file of real numbers, stored along its axes in any of the 48 orders, or oblique.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)``, or ``(C, Z, Y, X)`` for a 4-D file, with the header's scaling applied; and the grid.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged, of another format or dimension, or its affine cannot be inverted.
    """
    image, source = _open_nifti(path)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            data = np.asarray(image.dataobj, dtype=np.float32)
    except _damages() as error:
        raise _damaged(path, error) from error
    extra = [size for size in data.shape[3:] if size > 1]
    data = data.reshape((*source.shape, *extra), order="F")
    return source.from_source(np.moveaxis(data, 3, 0) if extra else data), source


def read_nifti_grid(path: Path) -> tuple[SourceGrid, int]:
    """Read only where a NIfTI file's voxels lie, and how many channels it has.

    Raises
    ------
    DataError
        As `read_nifti`.
    """
    image, source = _open_nifti(path)
    return source, int(np.prod(image.shape[3:]))


def _open_nifti(path: Path) -> tuple[Any, SourceGrid]:
    import nibabel as nib

    check_readable(path)
    try:
        image: Any = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
            raise ValueError("another format than its name says")
        shape, kind, affine = image.shape, image.get_data_dtype().kind, np.array(image.affine, np.float64)
        unit = image.header.get_xyzt_units()[0]
    except _damages() as error:
        raise _damaged(path, error) from error
    if len(shape) < 3 or sum(size > 1 for size in shape[3:]) > 1 or 0 in shape:
        raise DataError(f"'{path.name}' has the shape {shape}. Expected were three axes, or four with channels last.")
    if kind not in "biuf":
        raise DataError(f"'{path.name}' holds colors or complex numbers. Expected were real numbers.")
    affine[:3] *= _MM.get(unit, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"'{path.name}' has an affine that cannot be inverted, so its orientation and voxel size are unknown. "
            "Correct its header, or convert the scan again."
        )
    return image, grid_from_affine(shape[:3], affine, path=path, format="nifti", header=bytes(image.header.binaryblock))


def _damages() -> tuple[type[Exception], ...]:
    """Return what nibabel raises on files that are not what their name says."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    unreadable = OSError, EOFError, zlib.error, ImageFileError, HeaderDataError
    return *unreadable, ValueError, OverflowError, MemoryError, KeyError


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"'{path.name}' is damaged, cut short or not a NIfTI file ({str(error).rstrip('.') or type(error).__name__}). "
        "Copy or download it again."
    )


def write_nifti_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path) -> None:
    """Write labels onto exactly the grid of the file that the scan came from.

    The file gets the source's shape, affine, sform, qform and both codes; a source without a NIfTI header gets a new
    one from its affine. It appears under its name only when it is complete.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``.
    source
        The grid of the scan.
    path
        Ending in ``.nii`` or ``.nii.gz``.

    Raises
    ------
    DataError
        If the shape is not the source's, the name has another ending, or the file cannot be written.
    """
    import nibabel as nib

    if find_suffix(path) not in NIFTI_SUFFIXES:
        raise DataError(f"'{path.name}' is no NIfTI name. Expected was a name that ends in .nii or .nii.gz.")
    check_labels(labels_ZYX, source)
    labels = source.to_source(labels_ZYX)
    if source.header:
        kind = nib.Nifti1Image if len(source.header) == 348 else nib.Nifti2Image
        header = kind.header_class(source.header, check=False)
        affine = None  # the header's own sform, qform and codes stay as they are
    else:
        kind, affine = nib.Nifti1Image, source.affine
        header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(labels.shape)
    header.set_slope_inter(1, 0)
    header.set_data_offset(0)  # the source's may leave room for extensions
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_intent("label", name="tumor labels")
    header["descrip"] = b"napari-braintumor"
    image = kind(np.asarray(labels, np.uint8), affine, header)
    if not source.header:
        image.set_qform(source.affine, code="aligned", strip_shears=True)
        image.set_sform(source.affine, code="aligned")
        image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
