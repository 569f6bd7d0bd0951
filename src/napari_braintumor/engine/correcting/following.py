"""How logits change by strokes: tissue that looks alike moves with what was said, less so far away."""

# R region, C channel, S voxel under a stroke; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.depth import depth_of_labels
from napari_braintumor.engine.correcting.features import CaseFeatures, bound_cells
from napari_braintumor.engine.correcting.fitting import LEAST_CHANGE, find_flipped, fit_change, squeeze
from napari_braintumor.engine.correcting.strokes import Stroke

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
    features: CaseFeatures, labels_ZYX: NDArray[np.uint8], strokes: Sequence[Stroke], fit: Fit = fit_change
) -> Change:
    """Return the logits before and after strokes.

    Parameters
    ----------
    features
        Of the case.
    labels_ZYX
        The labels before the strokes.
    strokes
        In the order in which they were drawn.
    fit
        How logits follow from what strokes say, as `fit_change`.

    Returns
    -------
    Change
        In a box that holds all that changed.
    """
    labels = labels_ZYX[np.ix_(*features.find_indices())].reshape(-1)[features.places]
    depth = depth_of_labels(labels, features.regions)
    base = agree(features, depth)
    evidence = gather_evidence(features, strokes)
    before = squeeze(base)
    after = fit(features, base, evidence.rows, evidence.says, evidence.stroke)
    settle(features, before, after, evidence)
    return crop(features, before, after)


def settle(features: CaseFeatures, before: NDArray[np.float32], after: NDArray[np.float32], evidence: Evidence) -> None:
    """Take back, in place, decisions that are not clear and those that do not hang together with a stroke."""
    from scipy import ndimage

    for region in range(before.shape[1]):
        flipped = find_flipped(before[:, region], after[:, region])
        if not flipped.size:
            continue
        clear = flipped[np.abs(after[flipped, region]) > LEAST_CHANGE]
        strokes = evidence.rows[evidence.says[:, region] != 0]
        cells = features.find_cells(np.concatenate([clear, strokes]))
        box = bound_cells(cells, features.grid, 0)
        at = tuple((cells - [side.start for side in box]).T)
        marked = np.zeros([side.stop - side.start for side in box], bool)
        marked[at] = True
        parts, count = ndimage.label(marked, np.ones((3, 3, 3)))
        part_of = parts[at]
        kept = np.zeros(count + 1, bool)
        kept[part_of[len(clear) :]] = True
        stays = np.isin(flipped, clear[kept[part_of[: len(clear)]]], kind="sort")
        after[flipped[~stays], region] = before[flipped[~stays], region]


def agree(features: CaseFeatures, depth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's logits, changed to small ones of the other sign where labels say otherwise: ``(n, R)``."""
    based = features.logits.copy()
    for column, place in enumerate(range(1, len(features.regions) + 1)):
        is_nested = place <= features.nested
        inside = (depth >= place) & (depth <= features.nested) if is_nested else depth == place
        own = features.logits[:, column]
        differs = np.flatnonzero(np.where(inside, own <= 0, own >= 0))
        small = np.minimum(np.abs(own[differs]), np.float32(1))
        based[differs, column] = np.where(inside[differs], small, -small)
    return based


def crop(features: CaseFeatures, before: NDArray[np.float32], after: NDArray[np.float32]) -> Change:
    """Return the box in which decisions differ, with a margin of one voxel, and both logits in it."""
    flipped = [find_flipped(one, other) for one, other in zip(before.T, after.T, strict=True)]
    box = bound_cells(features.find_cells(np.concatenate(flipped)), features.grid, 1)
    return Change(box, (features.take(before, box), features.take(after, box)))
