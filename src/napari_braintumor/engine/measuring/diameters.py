"""Diameters of a mask: the longest in an axial slice with the one across it, and the longest in space.

A mask's border is taken where the mask, slightly smoothed, falls to one half: the steps of voxels would make a round
lesion half a voxel too long. Parts too thin for that keep their steps, so that a row of n voxels is n voxels long.
Diameters are measured as with calipers, over the convex hull of each connected part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid

Points = NDArray[np.float64]

_KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16
_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class AxialDiameters:
    """The longest diameter in any axial slice, and the longest one across it in the same slice.

    Attributes
    ----------
    longest_mm, across_mm
        Their lengths; RANO multiplies the two.
    z
        The slice along Z, from inferior.
    longest_ends, across_ends
        Their ends: ``(2, 3)``, index (z, y, x), in fractions of a voxel.
    """

    longest_mm: float
    across_mm: float
    z: int
    longest_ends: Points
    across_ends: Points


def measure_axial_diameters(mask_ZYX: NDArray[Any], grid: SourceGrid) -> AxialDiameters | None:
    """Measure the longest diameter of a mask in an axial slice, and the longest one at right angles to it.

    Each part of the mask that is connected within its slice, over corners too, is measured by itself.

    Parameters
    ----------
    mask_ZYX
        ``(Z, Y, X)``; everything but 0 is inside.
    grid
        The grid of the mask; slices are those along Z, which are closest to axial.

    Returns
    -------
    AxialDiameters or None
        None for an empty mask.

    Notes
    -----
    Bidimensional measurement as in RANO (Wen et al. 2010, 2023), without its limits on what counts as measurable.
    """
    frame = _plane_frame(grid.affine_ZYX[:3, :3])
    back = np.linalg.inv(frame)
    best: AxialDiameters | None = None
    for z in np.flatnonzero(np.any(mask_ZYX, axis=(1, 2))):
        for hull in _hulls_by_part(np.asarray(mask_ZYX[z]) != 0, frame, best.longest_mm if best else 0.0):
            ends, length = _find_longest(hull)
            if best is None or length > best.longest_mm:
                across = _find_longest_across(hull, hull[ends[1]] - hull[ends[0]])
                best = AxialDiameters(
                    longest_mm=length,
                    across_mm=float(np.linalg.norm(across[1] - across[0])),
                    z=int(z),
                    longest_ends=np.insert(hull[list(ends)] @ back.T, 0, z, axis=1),
                    across_ends=np.insert(across @ back.T, 0, z, axis=1),
                )
    return best


def measure_longest_diameter(mask_ZYX: NDArray[Any], grid: SourceGrid) -> float:
    """Return the longest diameter in space of any connected part of a mask, in mm; 0 for an empty mask.

    Parameters
    ----------
    mask_ZYX
        ``(Z, Y, X)``; everything but 0 is inside. Voxels that touch at a corner are connected.
    grid
        The grid of the mask.

    Returns
    -------
    float
        In mm.
    """
    longest = 0.0
    for hull in _hulls_by_part(np.asarray(mask_ZYX) != 0, grid.affine_ZYX[:3, :3]):
        longest = max(longest, _find_longest(hull)[1])
    return longest


def _plane_frame(to_mm: Points) -> Points:
    """Return the matrix ``(2, 2)`` that brings (y, x) of a slice to mm along two directions at right angles."""
    down, right = to_mm[:, 1], to_mm[:, 2]
    first = right / np.linalg.norm(right)
    second = down - (down @ first) * first
    second /= np.linalg.norm(second)
    return np.array([[down @ first, right @ first], [down @ second, right @ second]])


def _hulls_by_part(mask: NDArray[np.bool_], to_mm: Points, longer_than: float = 0.0) -> Iterator[Points]:
    """Yield the corners of the convex hull of each connected part that may be longer than a length, in mm."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    steps_mm = np.linalg.norm(to_mm, axis=0)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        if np.array([side.stop - side.start for side in box]) @ steps_mm <= longer_than:
            continue
        part = parts[box] == number
        corner = np.array([side.start for side in box], np.float64)
        stepped = _find_hull((_find_steps(part) + corner) @ to_mm.T)
        ends, length = _find_longest(stepped)
        along = np.linalg.solve(to_mm / steps_mm, stepped[ends[1]] - stepped[ends[0]]) / length
        voxel_mm = float(np.abs(along) @ steps_mm)
        smooth = (_find_smooth_border(part) + corner) @ to_mm.T
        if len(smooth) and np.linalg.norm(np.ptp(smooth, axis=0)) > length - voxel_mm:
            smooth = _find_hull(smooth)
            if _find_longest(smooth)[1] > length - voxel_mm:
                yield smooth
                continue
        yield stepped


def _find_hull(points: Points) -> Points:
    """Return the corners of the convex hull, in order around it if they lie in a plane."""
    from scipy.spatial import ConvexHull

    corners: Points = points[ConvexHull(points).vertices]
    return corners


def _find_steps(mask: NDArray[np.bool_]) -> Points:
    """Return the points halfway between voxels inside and their neighbors outside: ``(N, axes)``, index."""
    padded = np.pad(mask, 1)
    found = []
    for axis in range(mask.ndim):
        steps = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64) - 1
        steps[:, axis] += 0.5
        found.append(steps)
    return np.concatenate(found)


def _find_smooth_border(mask: NDArray[np.bool_]) -> Points:
    """Return the points between neighboring voxels where the smoothed mask is one half: ``(N, axes)``, index."""
    from scipy import ndimage

    margin = len(_KERNEL) // 2
    smooth = np.pad(mask, margin).astype(np.float32)
    for axis in range(mask.ndim):
        smooth = ndimage.convolve1d(smooth, _KERNEL, axis=axis, mode="constant")
    inside = smooth >= 0.5
    found = []
    for axis in range(mask.ndim):
        places = np.argwhere(np.diff(inside, axis=axis))
        there = places.copy()
        there[:, axis] += 1
        low, high = smooth[tuple(places.T)], smooth[tuple(there.T)]
        points = places.astype(np.float64) - margin
        points[:, axis] += (0.5 - low) / (high - low)
        found.append(points)
    return np.concatenate(found)


def _find_longest(corners: Points) -> tuple[tuple[int, int], float]:
    """Return which two corners are farthest apart, and their distance."""
    centered = corners - corners.mean(0)
    squares = (centered**2).sum(1)
    best, pair = -1.0, (0, 0)
    for start in range(0, len(corners), _AT_ONCE):  # a round lesion has thousands of corners
        some = slice(start, start + _AT_ONCE)
        apart = squares[some, None] + squares - 2 * centered[some] @ centered.T
        first, second = np.unravel_index(int(apart.argmax()), apart.shape)
        if apart[first, second] > best:
            best, pair = float(apart[first, second]), (start + int(first), int(second))
    return pair, float(np.linalg.norm(corners[pair[0]] - corners[pair[1]]))


def _find_longest_across(hull: Points, along: Points) -> Points:
    """Return the ends of the longest chord of a convex polygon at right angles to a direction."""
    # Its length changes linearly between corners, so the longest one ends at a corner.
    along = along / np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    turned = np.stack([hull @ along, hull @ across], axis=1)
    places = np.unique(turned[:, 0])
    lower, upper = np.full(len(places), np.inf), np.full(len(places), -np.inf)
    for here, there in zip(turned, np.roll(turned, -1, axis=0), strict=True):
        left, right = (here, there) if here[0] <= there[0] else (there, here)
        span = slice(np.searchsorted(places, left[0]), np.searchsorted(places, right[0], "right"))
        heights = np.interp(places[span], (left[0], right[0]), (left[1], right[1]))
        lower[span] = np.minimum(lower[span], heights)
        upper[span] = np.maximum(upper[span], heights)
    # Corners themselves count too: both ends of an upright side have the same place.
    at = np.searchsorted(places, turned[:, 0])
    np.minimum.at(lower, at, turned[:, 1])
    np.maximum.at(upper, at, turned[:, 1])
    best = int((upper - lower).argmax())
    ends: Points = places[best] * along + np.array([[lower[best]], [upper[best]]]) * across
    return ends
