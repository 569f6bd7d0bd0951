"""From changed logits on the grid of the features to region depth on the scan's grid, and from there to labels."""

# R region; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.depth import OTHER
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.following import Change
from napari_braintumor.engine.correcting.strokes import Stroke


def repaint(
    depth_ZYX: NDArray[np.uint8], features: CaseFeatures, change: Change, corner: tuple[int, int, int] = (0, 0, 0)
) -> None:
    """Paint, in place, the voxels in which changed logits decide otherwise than the logits before.

    All other voxels stay, so that what people drew and what was cleaned away is not undone far from any stroke.

    Parameters
    ----------
    depth_ZYX
        Region depth before, of the scan or of a box that holds what changed.
    features
        Of the case.
    change
        The logits before and after, on the grid of the features.
    corner
        The scan's voxel at which the region depth begins.
    """
    both = zip(*change.logits, strict=True)
    moved = [region for region, (one, other) in enumerate(both) if not np.array_equal(one, other)]
    if not moved:
        return
    before, after = (logits[moved] for logits in change.logits)
    turning = _find_turning(before, after)
    along_y, along_x = (Between.along(features, change.box, axis) for axis in (1, 2))
    for z in range(*find_range(features, change.box, 0)):
        nearest = round((z - features.start[0]) / features.step[0])
        here = int(np.clip(nearest, change.box[0].start, change.box[0].stop - 1)) - change.box[0].start
        rows, columns = along_y.cover(turning[here].any(1)), along_x.cover(turning[here].any(0))
        was, now = (_enlarge(logits[:, here], rows, columns) > 0 for logits in (before, after))
        plane = depth_ZYX[z - corner[0], rows.wanted[:, None] - corner[1], columns.wanted - corner[2]]
        differs = (was != now).any(0) & (plane != OTHER)
        if not differs.any():
            continue
        y, x = np.nonzero(differs)
        decided = {region: (one[differs], other[differs]) for region, one, other in zip(moved, was, now, strict=True)}
        new = _decide(plane[differs], decided, features)
        depth_ZYX[z - corner[0], rows.wanted[y] - corner[1], columns.wanted[x] - corner[2]] = new


def _decide(
    depth: NDArray[np.uint8], decided: Mapping[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]], features: CaseFeatures
) -> NDArray[np.uint8]:
    """Return the region depth of voxels after regions were decided, before and after: only differences count."""
    nested = features.nested
    places = np.arange(1, len(features.regions) + 1, dtype=np.uint8)[:, None]
    inside = np.where(places <= nested, (depth >= places) & (depth <= nested), depth == places)
    for region, (was, now) in decided.items():
        inside[region] = np.where(was != now, now, inside[region])
    new: NDArray[np.uint8] = np.logical_and.accumulate(inside[:nested], axis=0).sum(0, dtype=np.uint8)
    for place in range(nested + 1, len(features.regions) + 1):
        new[inside[place - 1]] = place
    return new


def enforce(
    depth_ZYX: NDArray[np.uint8],
    features: CaseFeatures,
    strokes: Sequence[Stroke],
    corner: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Paint, in place, what strokes say at the voxels under them, in the order of the strokes; see `repaint`."""
    places = {region.name: place for place, region in enumerate(features.regions, start=1)}
    for stroke in strokes:
        under = tuple((stroke.find_voxels(features.shape, features.spacing) - corner).T)
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


@dataclass(frozen=True, eq=False)
class Between:
    """Voxels of the scan along an axis, and between which voxels of a box on the grid of the features they lie.

    Attributes
    ----------
    wanted
        ``(n,)``: the scan's voxels.
    low, high, share
        ``(n,)`` each: the two voxels of the box, and how near the second is: 0 to 1.
    """

    wanted: NDArray[np.intp]
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: NDArray[np.float32]

    @classmethod
    def along(cls, features: CaseFeatures, box: tuple[slice, slice, slice], axis: int) -> Between:
        """Find the voxels that lie within a box, along an axis."""
        wanted = np.arange(*find_range(features, box, axis))
        last = box[axis].stop - box[axis].start - 1
        where = (wanted - features.start[axis]) / features.step[axis] - box[axis].start
        where = np.clip(where, 0, max(0, last))
        low = np.minimum(where.astype(np.intp), max(0, last - 1))
        return cls(wanted, low, np.minimum(low + 1, last), (where - low).astype(np.float32))

    def cover(self, is_between: NDArray[np.bool_]) -> Between:
        """Return the fewest of the voxels, without a gap, that cover marked gaps: each after the voxel `low`."""
        hits = np.flatnonzero(is_between[self.low])
        some = slice(hits[0], hits[-1] + 1) if hits.size else slice(0, 0)
        return Between(self.wanted[some], self.low[some], self.high[some], self.share[some])


def _find_turning(before_Rzyx: NDArray[np.float32], after_Rzyx: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return between which neighbors in-plane a decision may differ: ``(z, y - 1, x - 1)``, or 1 where y or x is 1."""
    # What is interpolated between voxels of one sign has that sign.
    some, every = [], []
    for logits in (before_Rzyx, after_Rzyx):
        inside = logits > 0
        any_of, all_of = inside, inside
        for axis in (2, 3):
            if inside.shape[axis] > 1:
                one, other = ([np.s_[:]] * axis + [side] for side in (np.s_[1:], np.s_[:-1]))
                any_of = any_of[tuple(one)] | any_of[tuple(other)]
                all_of = all_of[tuple(one)] & all_of[tuple(other)]
        some.append(any_of)
        every.append(all_of)
    return np.asarray(((some[1] & ~every[0]) | (some[0] & ~every[1])).any(0))


def _enlarge(logits_Ryx: NDArray[np.float32], rows: Between, columns: Between) -> NDArray[np.float32]:
    """Interpolate a slice in a box of the grid of the features at some voxels of the scan: ``(R, Y, X)``."""
    along, down = columns.share, rows.share[:, None]
    plane: NDArray[np.float32] = logits_Ryx[:, :, columns.low] * (1 - along) + logits_Ryx[:, :, columns.high] * along
    interpolated: NDArray[np.float32] = plane[:, rows.low] * (1 - down) + plane[:, rows.high] * down
    return interpolated
