"""FreeSurfer's MGH and MGZ files <-> arrays with axes (Z, Y, X)."""

from __future__ import annotations

import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files._access import MOST_PACKED, check_file, take, unpacked
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine, replace_impossible_spacing

MGH_SUFFIXES = (".mgz", ".mgh")

_OFFSET = 284
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_DAMAGES = (OSError, EOFError, zlib.error, ValueError, OverflowError, KeyError, TypeError, MemoryError)


def read_mgh(path: Path) -> tuple[NDArray[np.float32], SourceGrid]:
    """Read an MGH or MGZ file and reorder its axes to (Z, Y, X), without resampling.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)`` or ``(C, Z, Y, X)``, and the grid.

    Raises
    ------
    DataError
        If the file is damaged or has another format.
    """
    shape, dtype, grid = _read_header(path)
    size = _OFFSET + prod(shape) * dtype.itemsize
    try:
        with path.open("rb") as file:
            content = take(unpacked(file), size) if _is_packed(path) else file.read(size)
        data = np.frombuffer(content, dtype, prod(shape), _OFFSET)
    except _DAMAGES as error:
        raise _damaged(path) from error
    values = np.moveaxis(data.reshape(shape, order="F"), 3, 0)
    return grid.from_source((values if len(values) > 1 else values[0]).astype(np.float32)), grid


def read_mgh_grid(path: Path) -> tuple[SourceGrid, int]:
    """Read only the grid of an MGH or MGZ file, and how many channels it has.

    Returns
    -------
    tuple
        As `read_mgh`, with the number of channels.

    Raises
    ------
    DataError
        As `read_mgh`.
    """
    shape, _, grid = _read_header(path)
    return grid, shape[3]


def write_mgh_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path) -> None:
    """Write labels as an MGH or MGZ file onto exactly the grid of their scan.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``, of the source's shape.
    source
        The grid of the scan.
    path
        Ending in ``.mgz`` or ``.mgh``. The file appears only when it is complete.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    labels = np.asarray(source.to_source(labels_ZYX), np.uint8)
    image = MGHImage(labels, source.affine)
    with replacing(path) as temporary:
        image.to_filename(temporary)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _read_header(path: Path) -> tuple[tuple[int, int, int, int], np.dtype[Any], SourceGrid]:
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.wrapstruct import WrapStructError

    check_file(path, _foreign.MGH)
    try:
        packed = _is_packed(path)
        with path.open("rb") as file:
            block = take(unpacked(file), _OFFSET) if packed else file.read(_OFFSET)
        header = MGHHeader(block, check=False)
        i, j, k, frames = (int(size) for size in header["dims"])
        dtype = np.dtype(_TYPES[int(header["type"])])
        with np.errstate(all="ignore"):
            affine = np.array(header.get_affine(), np.float64)
            flatness = abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))
        there = path.stat().st_size * (MOST_PACKED if packed else 1)
        if int(header["version"]) != 1 or min(i, j, k, frames) < 1 or not np.isfinite(affine).all():
            raise ValueError("a header that cannot be")
        if not flatness > 1e-3 or i * j * k * frames * dtype.itemsize + _OFFSET > there:
            raise ValueError("more voxels than the file can hold, or no directions")
    except (*_DAMAGES, WrapStructError, IndexError) as error:
        raise _damaged(path) from error
    oriented = int(header["goodRASFlag"]) == 1
    grid = grid_from_affine((i, j, k), affine, path=path, format="mgh", orientation_known=oriented)
    return (i, j, k, frames), dtype, replace_impossible_spacing(grid)


def _damaged(path: Path) -> DataError:
    return DataError(f"'{path.name}' is damaged, truncated or not an MGH file. Copy or download it again.")
