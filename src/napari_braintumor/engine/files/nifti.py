"""NIfTI files <-> arrays with axes (Z, Y, X), and back onto exactly the same grid.

A file is read by its content: gzipped or not, whatever its name says. nibabel interprets the header. It is imported
where it is used, because it also imports pydicom, which would double the time that a dock takes to open.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files._access import MOST_PACKED, check_file, take, unpacked
from napari_braintumor.engine.grid import (
    SourceGrid,
    format_sides,
    grid_from_affine,
    guess_spacing,
    replace_impossible_spacing,
)

NIFTI_SUFFIXES = (".nii.gz", ".nii")

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""The ``xyzt_units`` codes for meters, millimeters and micrometers."""

_DAMAGES = (OSError, EOFError, zlib.error, ValueError, OverflowError, KeyError, TypeError, MemoryError)

_UNHEARD = logging.Logger("nibabel, unheard")
_UNHEARD.addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)
class _StoredFile:
    """A file whose header has been checked: shape and type are valid, and the file can contain the declared bytes."""

    path: Path
    packed: bool
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    slope: float | None
    intercept: float | None
    source: SourceGrid

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the axes beyond the three spatial ones, except those of length 1."""
        return tuple(size for size in self.shape[3:] if size > 1)


def read_nifti(path: Path) -> tuple[NDArray[np.float32], SourceGrid]:
    """Read a NIfTI file and reorder its axes to (Z, Y, X), without resampling.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file of real numbers, with any of the 48 axis orientations, or oblique.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)``, or ``(C, Z, Y, X)`` for a 4-D file, with the header's scaling applied; and the grid. A
        voxel size impossible for a head is replaced by a guess, with `SourceGrid.spacing_known` False and a note.

    Raises
    ------
    DataError
        If the file is missing, empty or damaged, has another format or dimension, or its affine cannot be inverted.
    """
    stored = _read_header(path)
    try:
        raw = _read_values(stored)
    except _DAMAGES as error:
        raise _damaged(path, error) from error
    data = _scale(raw.reshape((*stored.source.shape, *stored.channels), order="F"), stored)
    return stored.source.from_source(np.moveaxis(data, 3, 0) if stored.channels else data), stored.source


def read_nifti_grid(path: Path) -> tuple[SourceGrid, int]:
    """Read only the grid of a NIfTI file, and how many channels it has.

    Returns
    -------
    tuple
        The grid, as `read_nifti` returns it; and the number of channels, 1 for a 3-D file.

    Raises
    ------
    DataError
        As `read_nifti`.
    """
    stored = _read_header(path)
    return stored.source, prod(stored.channels)


def _read_header(path: Path) -> _StoredFile:
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    check_file(path, _foreign.NIFTI)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            block = take(unpacked(file), 540) if packed else file.read(540)
        kind = nib.Nifti2Header if block[4:8] == b"n+2\0" else nib.Nifti1Header
        header = kind(block[: kind.sizeof_hdr], check=False)  # type: ignore[no-untyped-call]
        sound = header.copy()  # ours keeps what the file says, for the label file
        with np.errstate(all="ignore"):
            sound.check_fix(logger=_UNHEARD, error_level=40)
            shape = tuple(int(size) for size in sound.get_data_shape())
            dtype, offset = sound.get_data_dtype(), int(sound.get_data_offset())
            slope, intercept = sound.get_slope_inter()
            affine = np.array(sound.get_best_affine(), np.float64)
    except (*_DAMAGES, HeaderDataError, WrapStructError) as error:
        raise _damaged(path, error) from error
    if len(shape) < 3 or sum(size > 1 for size in shape[3:]) > 1 or min(shape, default=0) < 1:
        raise DataError(f"'{path.name}' has shape {shape}. Expected three axes, or four with channels last.")
    if dtype.kind not in "biuf":
        what = "complex numbers" if dtype.kind == "c" else "colors (red, green, blue)"
        raise DataError(f"'{path.name}' contains {what}. Expected a scan of real numbers. Convert the scan again.")
    stated, there = offset + prod(shape) * dtype.itemsize, path.stat().st_size * (MOST_PACKED if packed else 1)
    if stated > there:
        raise _damaged(path, ValueError(f"its header declares {stated:,} bytes, more than it can contain"))
    source = _find_grid(path, (shape[0], shape[1], shape[2]), affine, header, sound)
    return _StoredFile(path, packed, offset, dtype, shape, slope, intercept, source)


def _find_grid(
    path: Path, shape: tuple[int, int, int], affine: NDArray[np.float64], header: Any, sound: Any
) -> SourceGrid:
    """Return the grid, noting what had to be guessed."""
    # The header is the file's own; in the sound one nibabel has replaced unknown codes and voxel sizes of zero or less.
    affine[:3] *= _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    with np.errstate(all="ignore"):
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        flatness = abs(np.linalg.det(affine[:3, :3] / sides))
    if not np.isfinite(affine).all() or not flatness > 1e-3 or not 1e-30 < sides.min() <= sides.max() < 1e30:
        raise DataError(
            f"'{path.name}' has an affine that cannot be inverted, so its orientation and voxel size are unknown. "
            "Correct its header, or convert the scan again."
        )
    by_sform = int(sound["sform_code"]) > 0
    oriented = by_sform or int(sound["qform_code"]) > 0
    source = grid_from_affine(
        shape, affine, path=path, format="nifti", header=bytes(header.binaryblock), orientation_known=oriented
    )
    sizes = [float(side) for side in header["pixdim"][1:4]]
    if not by_sform and min(sizes) <= 0:
        stated = f"'{path.name}' states voxels of {format_sides(sizes)}, as stored"
        return guess_spacing(source, source.spacing if 0 not in sizes else (1.0, 1.0, 1.0), stated)
    if int(header["xyzt_units"]) & 7 not in _MM and np.array_equal(np.abs(affine), np.eye(4)):
        note = (
            f"The header of '{path.name}' may have been lost: it states no unit, voxels of exactly 1 mm and a corner "
            "at 0. Check the voxel size, and left and right."
        )
        return replace(source, spacing_note=note)
    return replace_impossible_spacing(source)


def _read_values(stored: _StoredFile) -> NDArray[Any]:
    """Return a file's values as stored, as a flat array."""
    count = prod(stored.shape)
    if not stored.packed:
        return np.memmap(stored.path, stored.dtype, "r", stored.offset, (count,))
    buffer = np.empty(stored.offset + count * stored.dtype.itemsize, np.uint8)
    filled = 0
    with stored.path.open("rb") as file:
        for part in unpacked(file):  # to the end, where the checksum is
            taken = part[: buffer.size - filled]
            buffer[filled : filled + len(taken)] = np.frombuffer(taken, np.uint8)
            filled += len(taken)
    if filled < buffer.size:
        raise EOFError(f"only {filled:,} of {buffer.size:,} bytes are present")
    return buffer[stored.offset :].view(stored.dtype)


def _scale(raw: NDArray[Any], stored: _StoredFile) -> NDArray[np.float32]:
    """Return values in memory, scaled by the header's slope and intercept."""
    slope, intercept = stored.slope, stored.intercept or 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        if slope is None or (slope, intercept) == (1, 0):
            return raw.astype(np.float32, order="K", subok=False, copy=isinstance(raw, np.memmap))
        values = np.empty(raw.shape, np.float32, order="F")
        for last in range(raw.shape[-1]):  # large integers need more than float32, but one volume at a time
            values[..., last] = raw[..., last] * np.float64(slope) + intercept
    return values


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"'{path.name}' is damaged, truncated or not a NIfTI file ({str(error).rstrip('.') or type(error).__name__}). "
        "Copy or download it again."
    )


def write_nifti_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path) -> None:
    """Write labels onto exactly the grid of the file that the scan came from.

    The file gets the source's shape, affine, sform, qform and both codes; if the source has no NIfTI header, a new one
    is made from its affine. The file appears under its name only when it is complete.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``, of the source's shape.
    source
        The grid of the scan.
    path
        Ending in ``.nii`` or ``.nii.gz``.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    import nibabel as nib

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
    image = kind(np.asarray(labels, np.uint8), affine, header)  # type: ignore[no-untyped-call]
    if not source.header:
        image.set_qform(source.affine, code="aligned", strip_shears=True)
        image.set_sform(source.affine, code="aligned")
        image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
