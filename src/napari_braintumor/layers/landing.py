"""Find the grid to write labels on: the grid of the scan that they were drawn on.

Oblique scans are shown unrotated, so labels drawn on them are not where the window shows them. Labels without a file of
their own, like napari's new layers, take the grid of the scan whose voxels they share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.layers.placement import (
    Placement,
    check_three_dimensional,
    display_affine,
    find_placement,
    has_own_grid,
    known_scans,
    level_0,
)
from napari_braintumor.layers.selection import case_of

_SAME_VOXEL = 0.1
"""Largest distance, in voxels, between grids that count as the same."""


@dataclass(frozen=True, eq=False)
class Landing:
    """Labels ready to be written, with their grid.

    Attributes
    ----------
    labels_ZYX
        ``(Z, Y, X)``.
    grid
        The grid to write them on.
    note
        What the user should know about the choice of grid, in one sentence; empty if there is nothing to say.
    """

    labels_ZYX: NDArray[np.integer[Any]]
    grid: SourceGrid
    note: str = ""


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan whose voxels labels may share, and the offset of the labels in its voxels."""

    name: str
    case: str | None
    place: Placement
    offset: tuple[int, int, int] = (0, 0, 0)


def labels_from_layer(layer: Labels, others: Iterable[Layer] = ()) -> Landing:
    """Return a label layer's array with axes (Z, Y, X), and the grid to write it on.

    Parameters
    ----------
    layer
        A layer that was opened from a file, or made by a model, has the grid of that file or scan. Any other layer
        takes the grid of the scan whose voxels it shares, even if it is larger or smaller than the scan. If there is
        no such scan, it is written where it is shown.
    others
        The other open layers.

    Returns
    -------
    Landing
        The labels, the grid, and a note if the labels were cut or filled up.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, it lies on scans whose grids differ, labels lie outside the scan, or it
        overlaps an oblique scan without sharing its voxels.
    """
    check_three_dimensional(layer)
    place = find_placement(layer)
    array = np.asarray(level_0(layer))
    if has_own_grid(layer, place):
        return Landing(place.from_layer(array), place.grid)
    open_scans = [_Scan(str(each.name), case_of(each), find_placement(each)) for each in others if _is_scan(each)]
    if fitting := _fitting(place, array, open_scans):
        return _land(layer, array, _choose(layer, fitting))
    closed = _fitting(place, array, [_Scan("", None, each) for each in known_scans()])
    if closed and all(_is_same(closed[0], scan) for scan in closed):
        return _land(layer, array, closed[0])
    _refuse_oblique(layer, place, array.shape, open_scans)
    note = f"Labels '{layer.name}' do not match the voxels of any open scan, so they are written where they are shown."
    return Landing(place.from_layer(array), place.grid, note)


def _fitting(place: Placement, array: NDArray[Any], scans: Iterable[_Scan]) -> list[_Scan]:
    """Return the scans whose voxels labels share: those with the same frame if any, otherwise overlapping ones."""
    found = []
    for scan in scans:
        offset = _whole_offset(place, array.shape, scan.place)
        if offset is not None:
            found.append(_Scan(scan.name, scan.case, scan.place, offset))
    same = [scan for scan in found if not any(scan.offset) and _shape(scan.place) == array.shape]
    if same or not found:
        return same
    around = [scan for scan in found if not _count_outside(array, scan)]
    return around or [scan for scan in found if _overlap(array.shape, scan)]


def _whole_offset(place: Placement, shape: tuple[int, ...], scan: Placement) -> tuple[int, int, int] | None:
    """Return the offset of labels in voxels of a scan; None if they do not share its voxels."""
    to_scan = np.linalg.inv(scan.matrix) @ place.matrix
    corners = np.array([(*corner, 1.0) for corner in product(*((0, size - 1) for size in shape))])
    apart = (corners @ to_scan.T - corners)[:, :3]
    whole = np.rint(apart[0])
    if np.abs(apart - whole).max() > _SAME_VOXEL:
        return None
    z, y, x = (int(step) for step in whole)
    return z, y, x


def _choose(layer: Labels, fitting: list[_Scan]) -> _Scan:
    """Return the scan that labels belong to. If several scans have different grids, case or name decides."""
    case = case_of(layer)
    for candidates in (
        fitting,
        [scan for scan in fitting if case and scan.case == case],
        [scan for scan in fitting if scan.name and scan.name in layer.name],
        [scan for scan in fitting if scan.case and scan.case in layer.name],
    ):
        if candidates and all(_is_same(candidates[0], other) for other in candidates[1:]):
            return candidates[0]
    names = ", ".join(f"'{scan.name}'" for scan in fitting)
    raise DataError(
        f"Labels '{layer.name}' lie on {names}, whose files have different positions. Labels are written onto one "
        "scan. Close the other scans, or put the scan's name into the name of the labels."
    )


def _is_same(one: _Scan, two: _Scan) -> bool:
    return (
        one.offset == two.offset
        and one.place.grid.shape == two.place.grid.shape
        and np.allclose(one.place.grid.affine, two.place.grid.affine, atol=1e-3)
    )


def _land(layer: Labels, array: NDArray[Any], scan: _Scan) -> Landing:
    """Copy labels into the frame of a scan."""
    shape = _shape(scan.place)
    if shape == array.shape and not any(scan.offset):
        return Landing(scan.place.from_layer(array), scan.place.grid)
    if outside := _count_outside(array, scan):
        called = f"scan '{scan.name}'" if scan.name else "scan they lie on"
        raise DataError(
            f"{outside} voxels of labels '{layer.name}' lie outside the {called}. Labels are written onto the grid of "
            "one scan. Erase what lies outside, or draw each scan's labels in a layer of its own."
        )
    landed = np.zeros(shape, array.dtype)
    inside, there = _common(array.shape, scan)
    landed[there] = array[inside]
    called = f"'{scan.name}'" if scan.name else "the scan they lie on"
    note = f"Labels '{layer.name}' {array.shape} are written in the frame of {called} {shape}."
    return Landing(scan.place.from_layer(landed), scan.place.grid, note)


def _common(shape: tuple[int, ...], scan: _Scan) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the overlap of labels and a scan: as slices of the labels, and of the scan."""
    spans = [
        (max(0, -step), min(size, frame - step))
        for size, frame, step in zip(shape, _shape(scan.place), scan.offset, strict=True)
    ]
    inside = tuple(slice(first, max(first, last)) for first, last in spans)
    there = tuple(slice(s.start + step, s.stop + step) for s, step in zip(inside, scan.offset, strict=True))
    return inside, there


def _overlap(shape: tuple[int, ...], scan: _Scan) -> bool:
    return all(span.stop > span.start for span in _common(shape, scan)[0])


def _count_outside(array: NDArray[Any], scan: _Scan) -> int:
    inside = array[_common(array.shape, scan)[0]] if _overlap(array.shape, scan) else array[:0]
    return int(np.count_nonzero(array) - np.count_nonzero(inside))


def _refuse_oblique(layer: Labels, place: Placement, shape: tuple[int, ...], scans: Iterable[_Scan]) -> None:
    """Raise an error for labels over a scan that is not shown at its true position: it is unclear what they mark."""
    low, high = _box(place, shape)
    for scan in scans:
        scan_low, scan_high = _box(scan.place, _shape(scan.place))
        if _is_shown_elsewhere(scan.place) and np.all(low <= scan_high) and np.all(scan_low <= high):
            raise DataError(
                f"Labels '{layer.name}' {shape} do not match the voxels of the oblique scan '{scan.name}' "
                f"{_shape(scan.place)}, so they cannot be written where they are shown. Select the scan, press New "
                "labels layer, and draw there."
            )


def _is_shown_elsewhere(place: Placement) -> bool:
    truth = place.grid.affine if place.in_source_order else place.grid.affine_ZYX
    corners = np.array([(*corner, 1.0) for corner in product(*((0, size - 1) for size in _shape(place)))])
    apart_mm = np.linalg.norm((corners @ (truth - display_affine(place)).T)[:, :3], axis=1).max()
    return bool(apart_mm > _SAME_VOXEL * min(place.grid.spacing))


def _box(place: Placement, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = np.array([(*corner, 1.0) for corner in product(*((0, size - 1) for size in shape))])
    world = (corners @ place.matrix.T)[:, :3]
    return world.min(0), world.max(0)


def _shape(place: Placement) -> tuple[int, int, int]:
    """Return the array shape of the layer with this placement."""
    return place.grid.shape if place.in_source_order else place.grid.shape_ZYX


def _is_scan(layer: Layer) -> bool:
    return isinstance(layer, Image) and not layer.rgb and np.ndim(level_0(layer)) == 3
