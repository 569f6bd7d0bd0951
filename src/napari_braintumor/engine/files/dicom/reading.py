"""Read the voxels of DICOM series: decoded, rescaled, in order, with missing slices interpolated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.codestreams import check_sizes
from napari_braintumor.engine.files.dicom.headers import damaged, read_dataset
from napari_braintumor.engine.files.dicom.quiet import FAULTS, silence_gdcm, unheard
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


def locate_slices(paths: Sequence[Path], channel: int | None = None) -> tuple[tuple[Path, int] | None, ...]:
    """Return the file and frame of each slice along the third source axis of `read_series`; None for those missing."""
    stack = find_stacks(paths)[channel or 0]
    return tuple(None if plane is None else (plane.path, plane.frame) for plane in stack.planes)


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
    for path, frames in wanted.items():
        _read_frames(path, frames, values, stack.name)
    there = [place for place, plane in enumerate(stack.planes) if plane is not None]
    for place, plane in enumerate(stack.planes):
        if plane is None:
            before, after = max(p for p in there if p < place), min(p for p in there if p > place)
            share = (place - before) / (after - before)
            values[place] = (1 - share) * values[before] + share * values[after]
    return values


def _read_frames(path: Path, frames: dict[int, int], values: NDArray[np.float32], name: str) -> None:
    """Decode the frames of a file into their places."""
    try:
        data = read_dataset(path, pixels=True)
        with unheard(), np.errstate(all="ignore"):
            pixels = _decode(data)
            if pixels.ndim == 2:
                pixels = pixels[None]
            if pixels.ndim != 3 or pixels.shape[1:] != values.shape[1:]:
                raise ValueError("not the size in the header")
            for frame, place in frames.items():
                slope, intercept = _rescale_of(data, frame)
                values[place] = pixels[frame] if (slope, intercept) == (1, 0) else pixels[frame] * slope + intercept
    except (DataError, *FAULTS) as error:
        raise DataError(f"{name} cannot be read. {damaged(path)}") from error


def _decode(data: FileDataset) -> NDArray[Any]:
    """Return the stored numbers, with the sign that the header states; some decoders leave it out."""
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    bits, allocated = int(data.get("BitsStored", data.BitsAllocated)), int(data.BitsAllocated)
    if data.file_meta.TransferSyntaxUID.is_compressed:
        silence_gdcm()
        check_sizes(data, int(data.Rows), int(data.Columns))
    pixels = np.asarray(data.pixel_array)
    if pixels.dtype.kind not in "iu" or not 0 < bits < allocated:
        return pixels
    signed = int(data.get("PixelRepresentation", 0)) == 1
    low = pixels & ((1 << bits) - 1)
    return np.where(low >> (bits - 1) & 1, low - (1 << bits), low) if signed else low


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
