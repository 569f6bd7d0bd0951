"""Edits of regions without a network: parts, holes, edges, and sections between corrected ones.

Labels are uint8 ``(Z, Y, X)``, or a section ``(rows, columns)`` of them; `spacing` is mm along each of their axes.
Every function returns a new array. Regions stay nested: what is added to a region becomes its own tissue, and lies in
the regions around it by that; what is taken from it becomes tissue of the region around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import REGION_LABELS, REGIONS, find_region, region_from_labels
from napari_braintumor.engine.errors import DataError, SettingsError

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MOST_MM = 50.0
"""By how much a region may grow or shrink at once."""


def change_region(labels: Labels, region: str, wanted: Mask) -> Labels:
    """Return labels in which a region covers other voxels than before.

    Parameters
    ----------
    labels
        Labels with the numbers of `LABELS`. Other numbers, and regions that do not nest, are not painted over.
    region
        A key of `REGION_LABELS`.
    wanted
        Where the region is to be.

    Returns
    -------
    array
        The new labels.
    """
    before = region_from_labels(labels, region)
    nested = [each for each in REGIONS if each.nested]
    names = [each.name for each in nested]
    own = find_region(region).label
    outer = nested[names.index(region) - 1].label if region in names[1:] else 0
    free = np.isin(labels, (0, *REGION_LABELS[names[0]])) if region in names else labels == 0
    changed = labels.copy()
    changed[wanted & ~before & free] = own
    changed[before & ~wanted] = outer
    return changed


def find_part(labels: Labels, region: str, at: Sequence[int]) -> Mask:
    """Return the connected part of a region that a voxel lies in; voxels that share a corner are connected.

    Returns
    -------
    array
        bool, of the shape of the labels.

    Raises
    ------
    DataError
        If the voxel is not in the region.
    """
    from scipy import ndimage

    mask = region_from_labels(labels, region)
    if not mask[tuple(at)]:
        raise DataError(f"There is no {region} where you clicked. Click inside a part of it.")
    numbered, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    part: Mask = numbered == numbered[tuple(at)]
    return part


def remove_part(labels: Labels, region: str, at: Sequence[int]) -> Labels:
    """Remove the part of a region that a voxel lies in; see `find_part`."""
    return change_region(labels, region, region_from_labels(labels, region) & ~find_part(labels, region, at))


def keep_part(labels: Labels, region: str, at: Sequence[int]) -> Labels:
    """Remove all of a region except the part that a voxel lies in; see `find_part`."""
    return change_region(labels, region, find_part(labels, region, at))


def fill_holes(labels: Labels, region: str) -> Labels:
    """Fill what a region encloses on all sides: in a section, within the plane."""
    from scipy import ndimage

    return _change_in_box(labels, region, 0, ndimage.binary_fill_holes)


def smooth(labels: Labels, region: str, spacing: Sequence[float], mm: float = 1.5) -> Labels:
    """Smooth the edge of a region over a distance, in a section within the plane.

    Parameters
    ----------
    labels, region, spacing
        As above.
    mm
        Standard deviation of the Gaussian that the region is blurred with, before it is cut at a half.

    Returns
    -------
    array
        The new labels.

    Raises
    ------
    SettingsError
        If the distance is not a size.
    """
    from scipy import ndimage

    check_distance(mm)
    sigma = [mm / side for side in spacing]

    def blur(mask: Mask) -> Mask:
        blurred: Mask = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest") > 0.5
        return blurred

    return _change_in_box(labels, region, [int(np.ceil(3 * each)) for each in sigma], blur)


def grow(labels: Labels, region: str, spacing: Sequence[float], mm: float) -> Labels:
    """Grow a region by a distance in all directions, or shrink it if the distance is negative.

    Parameters
    ----------
    labels, region, spacing
        As above.
    mm
        By how much, from voxel center to voxel center.

    Returns
    -------
    array
        The new labels.

    Raises
    ------
    SettingsError
        If the distance is not a size.
    """
    from scipy import ndimage

    check_distance(abs(mm))

    def move_edge(mask: Mask) -> Mask:
        away = ndimage.distance_transform_edt(~mask if mm > 0 else mask, spacing)
        moved: Mask = away <= mm if mm > 0 else away > -mm
        return moved

    return _change_in_box(labels, region, [int(np.ceil(abs(mm) / side)) + 1 for side in spacing], move_edge)


def interpolate(labels: Labels, axis: int, first: int, last: int, spacing: Sequence[float]) -> Labels:
    """Draw the sections between two others by moving each region's edge evenly from one to the other.

    Parameters
    ----------
    labels
        ``(Z, Y, X)``.
    axis
        Across which the sections lie.
    first, last
        The two sections, which stay as they are.
    spacing
        mm along Z, Y, X.

    Returns
    -------
    array
        The new labels.

    Raises
    ------
    DataError
        If there is no section between the two.

    References
    ----------
    Shape-based interpolation by signed distances: Raya and Udupa, IEEE Transactions on Medical Imaging 9 (1990).
    """
    if not 0 <= first < last - 1 < labels.shape[axis] - 1:
        raise DataError(
            f"There is no section between {first} and {last}. Expected two corrected sections with others between "
            "them. Correct one more, further away."
        )
    drawn = np.moveaxis(labels.copy(), axis, 0)
    sides = [side for number, side in enumerate(spacing) if number != axis]
    known = {label for labels_of in REGION_LABELS.values() for label in labels_of}
    between = drawn[first + 1 : last]
    between[np.isin(between, list(known))] = 0
    for region in REGIONS:
        ends = [region_from_labels(drawn[at], region.name) for at in (first, last)]
        if not any(end.any() for end in ends):
            continue
        one, two = (_signed_distance(end, sides) for end in ends)
        for number, section in enumerate(between, start=1):
            share = number / (last - first)
            inside = (1 - share) * one + share * two > 0
            section[inside & np.isin(section, (0, *known))] = region.label
    return np.moveaxis(drawn, 0, axis)


def check_distance(mm: float) -> None:
    """Raise an error for a distance that no edge is moved by.

    Raises
    ------
    SettingsError
        If it is not above 0 and at most `MOST_MM`.
    """
    if not 0 < mm <= MOST_MM:
        raise SettingsError(f"An edge cannot be moved by {mm:g} mm. Expected more than 0 and at most {MOST_MM:g} mm.")


def _signed_distance(mask: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return the distance to the edge in mm, positive inside; a section without the region lies far outside."""
    from scipy import ndimage

    if not mask.any():
        depth = ndimage.distance_transform_edt(np.ones_like(mask), spacing)
        return np.full(mask.shape, -float(np.max(depth, initial=1.0)) / 4)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), spacing)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, spacing)
    signed: NDArray[np.float64] = np.where(mask, inside - 0.5 * min(spacing), 0.5 * min(spacing) - outside)
    return signed


def _change_in_box(labels: Labels, region: str, margin: int | Sequence[int], change: object) -> Labels:
    """Change the mask of a region in the box around it, with a margin of voxels along each axis."""
    assert callable(change)
    mask = region_from_labels(labels, region)
    if not mask.any():
        return labels.copy()
    margins = [margin] * mask.ndim if isinstance(margin, int) else list(margin)
    box = []
    for axis, around in enumerate(margins):
        along = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(along[0]) - around), min(mask.shape[axis], int(along[-1]) + 1 + around)))
    changed = labels.copy()
    changed[tuple(box)] = change_region(labels[tuple(box)], region, change(mask[tuple(box)]))
    return changed
