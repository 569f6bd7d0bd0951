"""From changed logits on the grid of the features to region depth on the scan's grid, and from there to labels."""

# R region; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import Region
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.following import Change
from napari_braintumor.engine.correcting.strokes import Stroke

OTHER = 255
"""The depth of voxels whose label the model does not know."""


def depth_of_labels(labels_ZYX: NDArray[np.uint8], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Return the region depth of labels: the place of each voxel's innermost region, 0 outside, `OTHER` if unknown."""
    table = np.full(256, OTHER, np.uint8)
    table[0] = 0
    for place, region in enumerate(regions, start=1):
        table[region.label] = place
    return table[labels_ZYX]


def labels_of_depth(depth: NDArray[np.uint8], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Return the labels of region depth, without `OTHER`."""
    return np.array([0, *(region.label for region in regions)], np.uint8)[depth]


def repaint(depth_ZYX: NDArray[np.uint8], features: CaseFeatures, change: Change) -> None:
    """Paint, in place, the voxels in which changed logits decide otherwise than the logits before.

    All other voxels stay, so that what people drew and what was cleaned away is not undone far from any stroke.

    Parameters
    ----------
    depth_ZYX
        Region depth before.
    features
        Of the case.
    change
        The logits before and after, on the grid of the features.
    """
    nested = features.nested
    for z in range(*find_range(features, change.box, 0)):
        rows, columns = (slice(*find_range(features, change.box, axis)) for axis in (1, 2))
        before_RYX, after_RYX = (_enlarge(each, features, change.box, z, rows, columns) for each in change.logits)
        was, now = before_RYX > 0, after_RYX > 0
        plane = depth_ZYX[z, rows, columns]
        differs = (was != now).any(0) & (plane != OTHER)
        if not differs.any():
            continue
        places = np.arange(1, nested + 1, dtype=np.uint8)[:, None, None]
        held = (plane >= places) & (plane <= nested)
        inside = np.where(was[:nested] != now[:nested], now[:nested], held)
        new = np.logical_and.accumulate(inside, axis=0).sum(0, dtype=np.uint8)
        for place in range(nested + 1, len(features.regions) + 1):
            is_there = np.where(was[place - 1] != now[place - 1], now[place - 1], plane == place)
            new[is_there] = place
        plane[differs] = new[differs]


def enforce(depth_ZYX: NDArray[np.uint8], features: CaseFeatures, strokes: Sequence[Stroke]) -> None:
    """Paint, in place, what strokes say at the voxels under them, in the order of the strokes."""
    places = {region.name: place for place, region in enumerate(features.regions, start=1)}
    for stroke in strokes:
        under = tuple(stroke.find_voxels(features.shape, features.spacing).T)
        place = 0 if stroke.region is None else places[stroke.region]
        there = depth_ZYX[under]
        deeper = (there > place) & (there <= features.nested)
        keeps = deeper if not stroke.innermost and stroke.region is not None else np.zeros_like(deeper)
        depth_ZYX[under] = np.where(keeps | (there == OTHER), there, np.uint8(place))


def find_range(features: CaseFeatures, box: tuple[slice, slice, slice], axis: int) -> tuple[int, int]:
    """Return the scan's voxels, along an axis, that lie within a box of the grid of the features."""
    start, step, size = features.start[axis], features.step[axis], features.shape[axis]
    first = start + (box[axis].start - 0.5) * step
    last = start + (box[axis].stop - 0.5) * step
    return max(0, int(np.ceil(first))), min(size, int(np.floor(last)) + 1)


def _enlarge(
    logits_Rzyx: NDArray[np.float32],
    features: CaseFeatures,
    box: tuple[slice, slice, slice],
    z: int,
    rows: slice,
    columns: slice,
) -> NDArray[np.float32]:
    """Interpolate a slice of the scan in a box of the grid of the features: ``(R, Y, X)``."""
    plane = logits_Rzyx
    for axis, wanted in ((2, np.arange(columns.start, columns.stop)), (1, np.arange(rows.start, rows.stop))):
        if axis == 2:
            nearest = int(np.clip(round((z - features.start[0]) / features.step[0]), box[0].start, box[0].stop - 1))
            plane = plane[:, nearest - box[0].start]
        where = (wanted - features.start[axis]) / features.step[axis] - box[axis].start
        where = np.clip(where, 0, box[axis].stop - box[axis].start - 1)
        low = np.minimum(where.astype(np.intp), max(0, box[axis].stop - box[axis].start - 2))
        share = (where - low).astype(np.float32)
        high = np.minimum(low + 1, box[axis].stop - box[axis].start - 1)
        if axis == 2:
            plane = plane[:, :, low] * (1 - share) + plane[:, :, high] * share
        else:
            plane = plane[:, low] * (1 - share)[:, None] + plane[:, high] * share[:, None]
    return plane
