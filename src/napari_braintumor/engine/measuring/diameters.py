"""Diameters of a mask: the longest in an axial slice with the one across it, and the longest in space.

A mask's border passes halfway between the voxels inside and those outside. Steps of voxels would make a round lesion
too long, averaging the mask would make it too short, so the border itself is smoothed, by parabolas that keep its
curvature. Between slices, and from the last slice to the tip, the cross-section is that of its slice, larger or
smaller: areas follow a parabola and centers a straight line, as they do in an ellipsoid. Parts too thin for that keep
their steps, so that a row of n voxels is n voxels long. Diameters are measured as with calipers, over the convex hull
of each connected part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid

Points = NDArray[np.float64]

_AT_ONCE = 500

_SMOOTHED_SHARE = 0.08
"""The share of a border, to either side, that the parabola through one of its points follows."""

_SMOOTHED_MOST = 10
"""The most points to either side."""

_APART_MM = 1.0
"""The distance of cross-sections that are put between slices."""

_FLAT = 1.5
"""A part whose areas would only shrink to nothing beyond so many slices ends flat, halfway to the next slice."""

_GROWTH = 1.1
"""The most that a cross-section is enlarged; where it grows faster, the next slice shows it better."""


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

    @property
    def product_mm2(self) -> float:
        """The bidimensional product of RANO."""
        return self.longest_mm * self.across_mm


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
        for hull in _hulls_in_slice(np.asarray(mask_ZYX[z]) != 0, frame, best.longest_mm if best else 0.0):
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
    to_mm = grid.affine_ZYX[:3, :3]
    longest = 0.0
    for part, corner in _parts_of(np.asarray(mask_ZYX) != 0, to_mm):
        if _reach_mm(part, to_mm) > longest:
            hull = _find_hull((_find_body(part, grid.spacing[0]) + corner) @ to_mm.T)
            longest = max(longest, _find_longest(hull)[1])
    return longest


def _plane_frame(to_mm: Points) -> Points:
    """Return the matrix ``(2, 2)`` that brings (y, x) of a slice to mm along two directions at right angles."""
    down, right = to_mm[:, 1], to_mm[:, 2]
    first = right / np.linalg.norm(right)
    second = down - (down @ first) * first
    second /= np.linalg.norm(second)
    return np.array([[down @ first, right @ first], [down @ second, right @ second]])


def _parts_of(mask: NDArray[np.bool_], to_mm: Points) -> Iterator[tuple[NDArray[np.bool_], Points]]:
    """Yield each connected part, cut out, with the index of its corner; those that reach far come first."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    boxes = list(enumerate(ndimage.find_objects(parts), start=1))
    steps_mm = np.linalg.norm(to_mm, axis=0)
    boxes.sort(key=lambda item: -float(np.array([side.stop - side.start for side in item[1]]) @ steps_mm))
    for number, box in boxes:
        yield parts[box] == number, np.array([side.start for side in box], np.float64)


def _reach_mm(part: NDArray[np.bool_], to_mm: Points) -> float:
    """Return a length that no diameter of a part exceeds."""
    return float((np.array(part.shape) + 1) @ np.linalg.norm(to_mm, axis=0))


def _hulls_in_slice(mask_YX: NDArray[np.bool_], to_mm: Points, longer_than: float) -> Iterator[Points]:
    """Yield the corners of the convex hull of each connected part that may be longer than a length, in mm."""
    for part, corner in _parts_of(mask_YX, to_mm):
        if _reach_mm(part, to_mm) > longer_than:
            yield _find_hull((_find_border(part) + corner) @ to_mm.T)


def _find_hull(points: Points) -> Points:
    """Return the corners of the convex hull, in order around it if they lie in a plane."""
    from scipy.spatial import ConvexHull

    corners: Points = points[ConvexHull(points).vertices]
    return corners


def _find_border(part_YX: NDArray[np.bool_]) -> Points:
    """Return points on the border of a mask: ``(N, 2)``, index (y, x); smoothed unless it is thin."""
    from contourpy import contour_generator
    from scipy import ndimage
    from scipy.signal import savgol_coeffs

    padded = np.pad(part_YX, 1)
    lines = contour_generator(z=padded.astype(np.float32)).lines(0.5)
    found: list[Points] = [np.asarray(line)[:-1, ::-1] - 1 for line in lines]  # closed, and (x, y)
    if ndimage.binary_erosion(padded).any():
        for i, line in enumerate(found):
            beside = min(_SMOOTHED_MOST, int(len(line) * _SMOOTHED_SHARE))
            if beside > 1:
                found[i] = ndimage.convolve1d(line, savgol_coeffs(2 * beside + 1, 2), axis=0, mode="wrap")
    return np.concatenate(found)


def _find_body(part_ZYX: NDArray[np.bool_], slice_mm: float) -> Points:
    """Return points all over the border of a connected part, and between its slices: ``(N, 3)``, index (z, y, x)."""
    filled = [np.argwhere(each).astype(np.float64) for each in part_ZYX]
    last = len(filled) - 1
    areas, centers = np.array([len(each) for each in filled]), np.array([each.mean(axis=0) for each in filled])
    count = int(np.ceil(slice_mm / _APART_MM))
    found = []
    for z, plane in enumerate(part_ZYX):
        border = _find_hull(_find_border(plane))
        found.append(np.insert(border, 0, z, axis=1))
        if last > 1:
            near = np.clip(z, 1, last - 1) + np.arange(-1, 2)
            curve, drift = np.polyfit(near - z, areas[near], 2), np.polyfit(near - z, centers[near], 1)[0]
        for side, end in ((-1, 0), (1, last)):
            reach = 0.5 if z != end else _find_tip(curve, side) if last > 1 else None
            if reach is None:
                found.append(np.insert(filled[z], 0, z + side / 2, axis=1))
            elif last > 1:
                for step in side * reach * np.arange(1, count + 1) / count:
                    scale = np.sqrt(max(float(np.polyval(curve, step)), 0.0) / areas[z])
                    copy = (border - centers[z]) * min(scale, _GROWTH) + centers[z] + drift * step
                    found.append(np.insert(copy, 0, z + step, axis=1))
    return np.concatenate(found)


def _find_tip(curve: Points, side: int) -> float | None:
    """Return how many slices beyond the last one a part ends, at most 1; None if it ends flat."""
    roots = np.roots(curve)
    ahead = roots[np.isreal(roots)].real * side
    ahead = ahead[(ahead > 0) & (ahead <= _FLAT)]
    return min(float(ahead.min()), 1.0) if len(ahead) else None


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
