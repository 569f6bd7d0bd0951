"""Read the voxels of DICOM series: decoded, rescaled, in order, with missing slices interpolated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.decoding import decode_files
from napari_braintumor.engine.files.dicom.headers import damaged
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard
from napari_braintumor.engine.files.dicom.scanning import find_stacks, grid_of
from napari_braintumor.engine.files.dicom.stacking import Stack
from napari_braintumor.engine.grid import SourceGrid

Image = tuple[NDArray[Any], SourceGrid]


def read_series(paths: Sequence[Path], channel: int | None = None) -> Image:
    """Read a series as an array in (Z, Y, X).

    Parameters
    ----------
    paths
        The files of one series, such as `Series.paths`, in any order.
    channel
        Which stack, if one file holds several; `Series.channel`.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)``, or ``(C, Z, Y, X)`` if the files hold several stacks and none is chosen, with
        RescaleSlope and RescaleIntercept applied and missing slices interpolated; and the grid, whose source axes are
        column, row and slice.

    Raises
    ------
    DataError
        If a file is damaged, the files make no even stack, or several stacks differ in where they lie.
    """
    stacks = find_stacks(paths)
    grids = [grid_of(stack, _first_path(stack)) for stack in stacks]
    if channel is not None and not 0 <= channel < len(stacks):
        raise DataError(f"{stacks[0].name} holds {len(stacks)} stacks; there is no number {channel + 1}.")
    if channel is not None:
        stacks, grids = stacks[channel : channel + 1], grids[channel : channel + 1]
    first = grids[0]
    if any(grid.shape != first.shape or not np.allclose(grid.affine, first.affine, atol=0.01) for grid in grids):
        raise DataError(
            f"{stacks[0].name} holds {len(stacks)} stacks of slices that lie in different places. Choose one of them."
        )
    arrays = [_read_stack(stack) for stack in stacks]
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    return first.from_source(np.swapaxes(array, -1, -3)), first  # slice, row, column -> column, row, slice


def _first_path(stack: Stack) -> Path:
    return next(plane.path for plane in stack.planes if plane is not None)


def _read_stack(stack: Stack) -> NDArray[np.float32]:
    """Return a stack's values: ``(slice, row, column)``."""
    columns, rows, slices = stack.shape
    values = np.empty((slices, rows, columns), np.float32)
    wanted: dict[Path, dict[int, int]] = defaultdict(dict)
    for place, plane in enumerate(stack.planes):
        if plane is not None:
            wanted[plane.path][plane.frame] = place
    _read_frames(wanted, values, stack.name)
    there = [place for place, plane in enumerate(stack.planes) if plane is not None]
    for place, plane in enumerate(stack.planes):
        if plane is None:
            before, after = max(p for p in there if p < place), min(p for p in there if p > place)
            share = (place - before) / (after - before)
            values[place] = (1 - share) * values[before] + share * values[after]
    return values


def _read_frames(wanted: Mapping[Path, Mapping[int, int]], values: NDArray[np.float32], name: str) -> None:
    """Decode files, and put their frames into their places."""
    paths = list(wanted)
    decoded = decode_files(paths)
    for path in paths:
        try:
            data, pixels = next(decoded)
            if pixels.shape[1:] != values.shape[1:]:
                raise ValueError("not the size in the header")
            with unheard(), np.errstate(all="ignore"):
                for frame, place in wanted[path].items():
                    slope, intercept = _rescale_of(data, frame)
                    values[place] = pixels[frame] if (slope, intercept) == (1, 0) else pixels[frame] * slope + intercept
        except (DataError, *FAULTS) as error:
            decoded.close()
            raise DataError(f"{name} cannot be read. {damaged(path)}") from error


def _rescale_of(data: FileDataset, frame: int) -> tuple[float, float]:
    """Return the slope and intercept of a frame."""
    own = data.get("PerFrameFunctionalGroupsSequence")
    groups = [own[frame]] if own else []
    groups += list(data.get("SharedFunctionalGroupsSequence") or [])[:1]
    for group in groups:
        if transformation := group.get("PixelValueTransformationSequence"):
            return _pair(transformation[0])
    return _pair(data)


def _pair(item: Any) -> tuple[float, float]:
    slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
    pair = 1.0 if slope in (None, "") else float(slope), 0.0 if intercept in (None, "") else float(intercept)
    if not np.isfinite(pair).all() or pair[0] == 0:
        return 1.0, 0.0
    return pair
