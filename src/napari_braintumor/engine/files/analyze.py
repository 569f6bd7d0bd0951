"""Pairs of a header (.hdr) and voxels (.img) as arrays with axes (Z, Y, X): Analyze 7.5, SPM and NIfTI pairs.

Only NIfTI pairs say where left and right are. Others are taken as radiologists store them: the first column is on the
patient's right. SPM's .mat files beside them are not read.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files._access import check_file
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine, replace_impossible_spacing

PAIR_SUFFIXES = (".hdr", ".img")

_HEADER = 348
_DAMAGES = (OSError, EOFError, ValueError, OverflowError, KeyError, TypeError, MemoryError)


def read_pair(path: Path) -> tuple[NDArray[np.float32], SourceGrid]:
    """Read a pair and reorder its axes to (Z, Y, X), without resampling.

    Parameters
    ----------
    path
        Either of the two files.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)`` or ``(C, Z, Y, X)`` with the header's scaling applied, and the grid, with
        `SourceGrid.orientation_known` False for other than NIfTI pairs.

    Raises
    ------
    DataError
        If half of the pair is missing or a file is damaged.
    """
    header, shape, grid = _read_header(path)
    dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
    slope, intercept = _scaling_of(header)
    voxels = _find_half(path, ".img")
    try:
        data = np.fromfile(voxels, dtype, prod(shape), offset=offset)
        values = np.moveaxis(data.reshape(shape, order="F"), 3, 0)
    except _DAMAGES as error:
        raise _damaged(path) from error
    values = values if len(values) > 1 else values[0]
    with np.errstate(all="ignore"):
        scaled = values if (slope, intercept) == (1, 0) else values * np.float64(slope) + intercept
        return grid.from_source(scaled.astype(np.float32)), grid


def read_pair_grid(path: Path) -> tuple[SourceGrid, int]:
    """Read only the grid of a pair, and how many channels it has.

    Returns
    -------
    tuple
        As `read_pair`, with the number of channels.

    Raises
    ------
    DataError
        As `read_pair`.
    """
    _, shape, grid = _read_header(path)
    return grid, shape[3]


def _find_half(path: Path, suffix: str) -> Path:
    """Return the header or the voxels of a pair."""
    if path.suffix.lower() == suffix:
        return path
    other = next((each for way in (suffix, suffix.upper()) if (each := path.with_suffix(way)).is_file()), None)
    if other is None:
        raise DataError(f"'{path.name}' is half of a pair, and its '{path.stem}{suffix}' is not beside it. Copy both.")
    return other


def _read_header(path: Path) -> tuple[Any, tuple[int, int, int, int], SourceGrid]:
    from nibabel.analyze import AnalyzeHeader
    from nibabel.nifti1 import Nifti1PairHeader
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    check_file(path, _foreign.PAIR)
    stated, voxels = _find_half(path, ".hdr"), _find_half(path, ".img")
    try:
        with stated.open("rb") as file:
            block = file.read(_HEADER)
        nifti = block[344:347] == b"ni1"
        header = (Nifti1PairHeader if nifti else AnalyzeHeader)(block, check=False)  # type: ignore[no-untyped-call]
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype = header.get_data_dtype()
        i, j, k, frames = (*shape, 1)[:4]
        if len(shape) not in (3, 4) or min(i, j, k, frames) < 1 or dtype.kind not in "biuf":
            raise ValueError("no scan of real numbers")
        if int(header.get_data_offset()) < 0 or prod(shape) * dtype.itemsize > voxels.stat().st_size:
            raise ValueError("more voxels than the file can hold")
        with np.errstate(all="ignore"):
            affine = np.array(header.get_best_affine(), np.float64)
            flatness = abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))
        if not np.isfinite(affine).all() or not flatness > 1e-3:
            raise ValueError("no voxel size")
    except (*_DAMAGES, HeaderDataError, WrapStructError) as error:
        raise _damaged(path) from error
    oriented = nifti and (int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0)
    grid = grid_from_affine((i, j, k), affine, path=path, format="analyze", orientation_known=oriented)
    return header, (i, j, k, frames), replace_impossible_spacing(grid)


def _scaling_of(header: Any) -> tuple[float, float]:
    """Return slope and intercept; SPM keeps a slope where Analyze has nothing."""
    names = ("scl_slope", "scl_inter") if "scl_slope" in header.keys() else ("funused1", "funused2")  # noqa: SIM118
    slope, intercept = float(header[names[0]]), float(header[names[1]])
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if names[0] == "scl_slope" and np.isfinite(intercept) else 0.0


def _damaged(path: Path) -> DataError:
    return DataError(
        f"'{path.name}' is damaged, truncated or not half of an Analyze or NIfTI pair. Copy both files again."
    )
