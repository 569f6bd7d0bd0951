"""Laying a mask that does not say where it lies on its scan, where that can be checked."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.inspecting.inspection import foreground

_INSIDE = 0.9
"""At least so much of a mask lies in the head, where it lies right."""

_AXES = {0: "feet to head", 1: "front to back", 2: "right to left"}


def lay_on_scan(
    mask_ZYX: NDArray[Any], grid: SourceGrid, scan: SourceGrid, scan_ZYX: NDArray[Any], one: str, two: str
) -> tuple[NDArray[Any], str]:
    """Put a mask on its scan, voxel by voxel as stored, if what it marks is in the head then.

    Parameters
    ----------
    mask_ZYX, grid
        The mask, and what its file says of where it lies.
    scan, scan_ZYX
        The scan's grid and one of its images. One of mask and scan does not say how the head lies in it.
    one, two
        What to call the scan and the mask.

    Returns
    -------
    tuple
        The mask on the scan's grid, and a note that says so.

    Raises
    ------
    DataError
        If their shapes differ, or the mask lies outside the head: then it may be mirrored, or another patient's.
    """
    remedy = "Save the mask with the scan's orientation (its affine), or draw it anew on the scan."
    silent = two if not grid.orientation_known else one
    laid = mask_ZYX
    if grid.format == scan.format or grid.shape_ZYX != scan.shape_ZYX:
        stored = grid.to_source(mask_ZYX)
        if stored.shape != scan.shape:
            raise DataError(
                f"{one} {scan.shape} and {two} {stored.shape}, as stored, differ in shape, and {silent} does not say "
                f"how the head lies in it. {remedy}"
            )
        laid = scan.from_source(stored)
    marked = laid != 0
    head = np.stack([binary_fill_holes(plane) for plane in foreground(np.asarray(scan_ZYX, np.float32))])
    if _share_inside(marked, head) < _INSIDE:
        turns = [axes for n in (1, 2, 3) for axes in combinations(range(3), n)]
        best = max(turns, key=lambda axes: _share_inside(np.flip(marked, axes), head))
        why = f"only {_share_inside(marked, head):.0%} of what it marks is in the head"
        if _share_inside(np.flip(marked, best), head) >= _INSIDE:
            mirrored = " and ".join(_AXES[axis] for axis in best)
            why += f", but most of it would be if it were mirrored from {mirrored}"
        raise DataError(
            f"{silent} does not say how the head lies in it. Laid on {one}, {two} does not fit: {why}. {remedy}"
        )
    return laid, (
        f"{silent} does not say how the head lies in it; {two} was laid on {one} voxel by voxel, where what it marks "
        "is in the head. Check that left and right are not swapped."
    )


def _share_inside(marked: NDArray[np.bool_], head: NDArray[np.bool_]) -> float:
    """Return how much of a mask lies in the head; all of it if it marks nothing."""
    voxels = np.count_nonzero(marked)
    return np.count_nonzero(marked & head) / voxels if voxels else 1.0
