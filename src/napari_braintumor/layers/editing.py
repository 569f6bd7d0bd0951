"""Edits of a label layer, each a single step that Ctrl+Z takes back. Slices that a person reviewed stay as they are.

napari's own brush may still change a reviewed slice: whoever paints there sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import REGION_LABELS, REGIONS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers.masks import reviewed_slices
from napari_braintumor.layers.placement import Placement, check_three_dimensional, find_placement, level_0


@dataclass(frozen=True)
class Edit:
    """What an edit did.

    Attributes
    ----------
    voxels
        How many voxels changed.
    slices
        The slices along Z in which something changed.
    locked
        The reviewed slices along Z that it would have changed, and left as they are.
    """

    voxels: int
    slices: tuple[int, ...]
    locked: tuple[int, ...]


def copy_labels(layer: Labels) -> NDArray[np.uint8]:
    """Return a copy of a layer's labels with axes (Z, Y, X), to be worked on in another thread.

    Returns
    -------
    array
        uint8 ``(Z, Y, X)``.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, is not in memory, or holds numbers above 255.
    """
    check_three_dimensional(layer)
    array = level_0(layer)
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"Labels '{layer.name}' are not in memory, so only the brush can change them. Expected a case that fits "
            "into memory. Cut the scans to the head first."
        )
    if array.dtype != np.uint8 and array.size and (int(array.min()) < 0 or int(array.max()) > 255):
        raise DataError(
            f"Labels '{layer.name}' hold numbers from {array.min()} to {array.max()}. Expected 0 to 255. "
            "Convert the layer first."
        )
    return np.array(find_placement(layer).from_layer(array), np.uint8, order="C")


def apply_labels(layer: Labels, labels_ZYX: NDArray[np.uint8], spare: Collection[int] = ()) -> Edit:
    """Replace a layer's labels where they differ, as a single step that can be undone, except in reviewed slices.

    Parameters
    ----------
    layer
        The layer, in memory.
    labels_ZYX
        ``(Z, Y, X)``, what it is to hold.
    spare
        More slices along Z that stay as they are.

    Returns
    -------
    Edit
        What changed.
    """
    now_ZYX = find_placement(layer).from_layer(level_0(layer))
    differs = (now_ZYX != labels_ZYX).reshape(len(labels_ZYX), -1)
    changed = np.flatnonzero(differs.any(1))
    reviewed = set(reviewed_slices(layer))
    wanted = [int(z) for z in changed if z not in reviewed and z not in spare]
    set_slices(layer, {z: labels_ZYX[z] for z in wanted})
    locked = tuple(int(z) for z in changed if z in reviewed)
    return Edit(int(np.count_nonzero(differs[wanted])), tuple(wanted), locked)


def copy_section(layer: Labels, axis: int, source: int, target: int) -> Edit:
    """Copy a section of a layer to another one of the same plane, as one step.

    Parameters
    ----------
    layer
        The layer, in memory.
    axis
        The axis, of (Z, Y, X), across which the plane lies.
    source, target
        Along this axis.

    Returns
    -------
    Edit
        What changed.

    Raises
    ------
    DataError
        If there is no such section.
    """
    wanted = copy_labels(layer)
    size = wanted.shape[axis]
    if not (0 <= source < size and 0 <= target < size):
        beyond = source if not 0 <= source < size else target
        raise DataError(f"There is no section {beyond} of {size}. Expected 0 to {size - 1}. Move the slider.")
    here: list[Any] = [slice(None)] * 3
    there = list(here)
    here[axis], there[axis] = source, target
    wanted[tuple(there)] = wanted[tuple(here)]
    return apply_labels(layer, wanted)


def keep_inside(layer: Labels, step: list[Any], label: int) -> int:
    """Take back what a stroke of the brush painted outside the region around a label's own, in the same step.

    Parameters
    ----------
    layer
        The layer.
    step
        The step that napari's paint event reports. What is taken back is added to it, so that one Ctrl+Z undoes both.
    label
        The label that was painted.

    Returns
    -------
    int
        How many voxels were taken back.
    """
    allowed = _labels_around(label)
    if allowed is None:
        return 0
    count = 0
    array = level_0(layer)
    for indices, before in list(read_step(step)):
        outside = ~np.isin(before, allowed) & (before != label)
        if not outside.any():
            continue
        there = tuple(axis[outside] for axis in indices)
        step.append((there, array[there].copy(), before[outside]))
        array[there] = before[outside]
        count += int(outside.sum())
    if count:
        layer.refresh()
    return count


def _labels_around(label: int) -> tuple[int, ...] | None:
    """Return the labels of the region just outside that of a label; None if there is none."""
    nested = [region for region in REGIONS if region.nested]
    for outer, inner in pairwise(nested):
        if inner.label == label:
            return REGION_LABELS[outer.name]
    return None


def read_label(step: Iterable[Any]) -> int:
    """Return the label that a step of napari's history painted last."""
    last = list(step)[-1]
    return int(np.max(getattr(last, "new_value", last[-1])))


def read_step(step: Iterable[Any]) -> Iterable[tuple[tuple[NDArray[np.intp], ...], NDArray[Any]]]:
    """Return indices and values before, for each part of a step of napari's history, the last part first."""
    for atom in reversed(list(step)):
        key = getattr(atom, "slice_key", None)
        if key is None:
            indices, before, _ = atom
            count = np.shape(indices[0])
            yield tuple(np.asarray(axis) for axis in indices), np.broadcast_to(before, count)
            continue
        ranges = [np.arange(part.start, part.stop) if isinstance(part, slice) else np.array([part]) for part in key]
        shape = tuple(len(each) for each in ranges)
        mask = np.ones(shape, bool) if atom.mask is None else np.reshape(atom.mask, shape)
        inside = np.nonzero(mask)
        values = np.reshape(np.broadcast_to(atom.old_values, shape if atom.mask is None else (len(inside[0]),)), -1)
        yield tuple(each[index] for each, index in zip(ranges, inside, strict=True)), values


def set_slices(layer: Labels, slices_YX: Mapping[int, NDArray[np.uint8]]) -> None:
    """Set slices along Z of a layer as a single step that can be undone."""
    place = find_placement(layer)
    in_order = place.grid.is_in_order or not place.in_source_order
    if not layer.visible:  # napari edits its picture of the layer too, which is of another plane than the one shown
        layer.set_view_slice()
    with layer.block_history():
        for z, wanted_YX in slices_YX.items():
            now_YX = np.asarray(place.from_layer(level_0(layer))[z])
            rows, columns = np.nonzero(now_YX != wanted_YX)
            if rows.size:
                at_ZYX = (np.full(rows.size, z), rows, columns)
                at = at_ZYX if in_order else _in_source_order(place, at_ZYX)
                layer.data_setitem(at, np.asarray(wanted_YX)[rows, columns], refresh=False)
    layer.refresh()


def _in_source_order(place: Placement, at_ZYX: tuple[NDArray[np.intp], ...]) -> tuple[NDArray[np.intp], ...]:
    """Convert indices along Z, Y, X to indices along the source's own axes."""
    grid = place.grid
    turned = [
        grid.shape[axis] - 1 - index if flip else index
        for index, axis, flip in zip(at_ZYX, grid.axes, grid.flips, strict=True)
    ]
    return tuple(turned[grid.axes.index(axis)] for axis in range(3))


def section_shown(viewer: Any, layer: Labels) -> tuple[int, int] | None:
    """Return which section of a layer's labels is shown: the axis of (Z, Y, X), and the index; None if none is."""
    ahead = viewer.dims.ndim - 3
    if ahead < 0 or viewer.dims.ndisplay != 2 or viewer.dims.order[-3] < ahead:
        return None
    shown = viewer.dims.order[-3] - ahead
    at = round(float(layer.world_to_data(viewer.dims.point)[shown - 3]))
    place = find_placement(layer)
    if not 0 <= at < layer.data.shape[shown]:
        return None
    if not place.in_source_order:
        return shown, at
    axis = place.grid.axes.index(shown)
    return axis, place.grid.shape[shown] - 1 - at if place.grid.flips[axis] else at


def voxel_at(layer: Labels, position: Iterable[float]) -> tuple[int, int, int] | None:
    """Return the voxel (Z, Y, X) of a layer's labels at a place in napari's world; None outside."""
    place = find_placement(layer)
    index = [round(float(each)) for each in layer.world_to_data(tuple(position))[-3:]]
    if not all(0 <= at < size for at, size in zip(index, layer.data.shape, strict=True)):
        return None
    if not place.in_source_order:
        return index[0], index[1], index[2]
    grid = place.grid
    z, y, x = (
        grid.shape[axis] - 1 - index[axis] if flip else index[axis]
        for axis, flip in zip(grid.axes, grid.flips, strict=True)
    )
    return z, y, x


def spacing_of(layer: Labels) -> tuple[float, float, float]:
    """Return the voxel size along Z, Y, X in mm; one for each that is unknown."""
    z, y, x = find_placement(layer).grid.spacing
    return z, y, x


def last_step(layer: Labels) -> Any | None:
    """Return the step of a layer's history that Ctrl+Z would undo, to recognize it by; None if there is none."""
    history = getattr(layer, "_undo_history", [])
    return history[-1] if history else None
