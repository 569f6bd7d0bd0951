"""Match a mask that does not state its position to its scan, if that can be checked."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.inspecting.inspection import find_foreground

_INSIDE = 0.9
"""The least share of a correctly placed mask that lies in the head."""

_AXES = {0: "feet to head", 1: "front to back", 2: "right to left"}


def match_to_scan(
    mask_ZYX: NDArray[Any], grid: SourceGrid, scan: SourceGrid, scan_ZYX: NDArray[Any], one: str, two: str
) -> tuple[NDArray[Any], str]:
    """Match a mask to its scan, voxel by voxel as stored, if the marked voxels then lie in the head.

    Parameters
    ----------
    mask_ZYX, grid
        The mask, and its grid as far as its file states it.
    scan, scan_ZYX
        The scan's grid and one of its images. Either the mask or the scan does not state its orientation.
    one, two
        The names of the scan and the mask in messages.

    Returns
    -------
    tuple
        The mask on the scan's grid, and a note about it for the user.

    Raises
    ------
    DataError
        If their shapes differ, or the mask lies outside the head: it may be mirrored, or belong to another patient.
    """
    from scipy.ndimage import binary_fill_holes

    remedy = "Save the mask with the scan's orientation (its affine), or draw it again on the scan."
    silent = two if not grid.orientation_known else one
    laid = mask_ZYX
    if grid.format == scan.format or grid.shape_ZYX != scan.shape_ZYX:
        stored = grid.to_source(mask_ZYX)
        if stored.shape != scan.shape:
            raise DataError(
                f"{one} {scan.shape} and {two} {stored.shape}, as stored, differ in shape, and {silent} does not state "
                f"its orientation. {remedy}"
            )
        laid = scan.from_source(stored)
    marked = laid != 0
    head = np.stack([binary_fill_holes(plane) for plane in find_foreground(np.asarray(scan_ZYX, np.float32))])
    if _share_inside(marked, head) < _INSIDE:
        turns = [axes for n in (1, 2, 3) for axes in combinations(range(3), n)]
        best = max(turns, key=lambda axes: _share_inside(np.flip(marked, axes), head))
        why = f"only {_share_inside(marked, head):.0%} of what it marks is in the head"
        if _share_inside(np.flip(marked, best), head) >= _INSIDE:
            mirrored = " and ".join(_AXES[axis] for axis in best)
            why += f", but most of it would be if it were mirrored from {mirrored}"
        raise DataError(
            f"{silent} does not state its orientation. Matched to {one} voxel by voxel, {two} does not fit: {why}. "
            f"{remedy}"
        )
    return laid, (
        f"{silent} does not state its orientation; {two} was matched to {one} voxel by voxel, and lies in the head. "
        "Check that left and right are not swapped."
    )


def _share_inside(marked: NDArray[np.bool_], head: NDArray[np.bool_]) -> float:
    """Return the share of a mask that lies in the head; 1 for an empty mask."""
    voxels = np.count_nonzero(marked)
    return np.count_nonzero(marked & head) / voxels if voxels else 1.0
