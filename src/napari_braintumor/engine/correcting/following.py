"""How logits change by strokes: tissue that looks alike moves with what was said, less so far away."""

# R region, C channel, S voxel under a stroke; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import CaseFeatures, find_box
from napari_braintumor.engine.correcting.fitting import fit_change, squeeze
from napari_braintumor.engine.correcting.strokes import Stroke

LEAST_CHANGE = 0.3
"""A voxel changes sides only if its squeezed logit is then larger than this."""

Fit = Callable[
    [CaseFeatures, NDArray[np.float32], NDArray[np.intp], NDArray[np.int8], NDArray[np.intp]], NDArray[np.float32]
]


@dataclass(frozen=True, eq=False)
class Change:
    """Logits before and after strokes, in a box of the grid of the features that holds all that changed.

    Attributes
    ----------
    box
        z, y, x.
    logits
        Before and after: float32 ``(R, z, y, x)`` each; positive is inside.
    """

    box: tuple[slice, slice, slice]
    logits: tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What strokes say on the grid of the features.

    Attributes
    ----------
    rows
        ``(S,)``: which of the kept voxels lie under a stroke.
    says
        int8 ``(S, R)``: 1 inside the region, -1 outside, 0 unknown.
    stroke
        ``(S,)``: the number of the stroke.
    """

    rows: NDArray[np.intp]
    says: NDArray[np.int8]
    stroke: NDArray[np.intp]


def gather_evidence(features: CaseFeatures, strokes: Sequence[Stroke]) -> Evidence:
    """Find the voxels under strokes; where strokes cross, the later one counts."""
    latest: dict[int, tuple[int, NDArray[np.int8]]] = {}
    for number, stroke in enumerate(strokes):
        said = what_it_says(stroke, features)
        voxels = stroke.find_voxels(features.shape, features.spacing)
        cells = np.rint((voxels - np.array(features.start)) / features.step).astype(np.intp)
        cells = np.clip(cells, 0, np.array(features.grid) - 1)
        flat = np.ravel_multi_index(tuple(cells.T), features.grid)
        for place in np.unique(flat):
            latest[int(place)] = number, said
    places = np.array(sorted(latest), np.int64)
    rows = np.searchsorted(features.places, places)
    kept = (rows < len(features.places)) & (features.places[np.minimum(rows, len(features.places) - 1)] == places)
    says = np.array([latest[int(place)][1] for place in places], np.int8).reshape(len(places), len(features.regions))
    stroke_of = np.array([latest[int(place)][0] for place in places], np.intp)
    return Evidence(rows[kept], says[kept], stroke_of[kept])


def what_it_says(stroke: Stroke, features: CaseFeatures) -> NDArray[np.int8]:
    """Return for each region whether a stroke lies inside (1) or outside (-1), or does not say (0)."""
    said = np.zeros(len(features.regions), np.int8)
    if stroke.region is None:
        said[:] = -1
        return said
    place = [region.name for region in features.regions].index(stroke.region)
    if place < features.nested:
        said[: place + 1] = 1
        said[place + 1 : features.nested] = -1 if stroke.innermost else 0
        said[features.nested :] = -1
    else:
        said[place] = 1
    return said


def follow_strokes(
    features: CaseFeatures, before_ZYX: NDArray[np.uint8], strokes: Sequence[Stroke], fit: Fit = fit_change
) -> Change:
    """Return the logits before and after strokes.

    Parameters
    ----------
    features
        Of the case.
    before_ZYX
        Region depth before the strokes.
    strokes
        In the order in which they were drawn.
    fit
        How logits follow from what strokes say, as `fit_change`.

    Returns
    -------
    Change
        In a box that holds all that changed.
    """
    z, y, x = features.find_indices()
    depth = before_ZYX[np.ix_(z, y, x)].reshape(-1)[features.places]
    base = agree(features, depth)
    evidence = gather_evidence(features, strokes)
    before = squeeze(base)
    after = fit(features, base, evidence.rows, evidence.says, evidence.stroke)
    settle(features, before, after, evidence)
    return crop(features, before, after)


def settle(features: CaseFeatures, before: NDArray[np.float32], after: NDArray[np.float32], evidence: Evidence) -> None:
    """Take back, in place, decisions that are not clear and those that do not hang together with a stroke."""
    from scipy import ndimage

    changed = ((before > 0) != (after > 0)) & (np.abs(after) > LEAST_CHANGE)
    for region in np.flatnonzero(changed.any(0)):
        said = evidence.says[:, region] != 0
        marked = changed[:, region].copy()
        marked[evidence.rows[said]] = True
        whole = np.zeros(features.grid, bool)
        whole.reshape(-1)[features.places] = marked
        box = find_box(whole)
        if box is None:
            continue
        parts = np.zeros(features.grid, np.int32)
        ndimage.label(whole[box], np.ones((3, 3, 3)), output=parts[box])
        part_of = parts.reshape(-1)[features.places]
        kept = np.zeros(int(parts[box].max()) + 1, bool)
        kept[part_of[evidence.rows[said]]] = True
        kept[0] = False
        changed[:, region] &= kept[part_of]
    np.copyto(after, before, where=~changed & ((before > 0) != (after > 0)))


def agree(features: CaseFeatures, depth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's logits, changed to small ones of the other sign where labels say otherwise: ``(n, R)``."""
    places = np.arange(1, len(features.regions) + 1)
    is_nested = places <= features.nested
    inside = np.where(
        is_nested, (depth[:, None] >= places) & (depth[:, None] <= features.nested), depth[:, None] == places
    )
    sign = np.where(inside, np.float32(1), np.float32(-1))
    agrees = features.logits * sign > 0
    based: NDArray[np.float32] = np.where(agrees, features.logits, sign * np.minimum(np.abs(features.logits), 1))
    return based


def crop(features: CaseFeatures, before: NDArray[np.float32], after: NDArray[np.float32]) -> Change:
    """Return the box in which decisions differ, with a margin of one voxel, and both logits in it."""
    differs = np.zeros(features.grid, bool)
    differs.reshape(-1)[features.places] = ((before > 0) != (after > 0)).any(1)
    box = []
    for axes, size in zip(((1, 2), (0, 2), (0, 1)), features.grid, strict=True):
        hit = np.flatnonzero(differs.any(axes))
        box.append(slice(max(0, int(hit[0]) - 1), min(size, int(hit[-1]) + 2)) if hit.size else slice(0, 0))
    z, y, x = box
    both = []
    for each in (before, after):
        whole = np.stack([features.spread(column, -12.0)[z, y, x] for column in each.T])
        both.append(whole)
    return Change((z, y, x), (both[0], both[1]))
