"""How logits change by strokes: tissue that looks alike moves with what was said, less so far away."""

# R region, C channel, S voxel under a stroke; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.depth import depth_of_labels
from napari_braintumor.engine.correcting.evidence import Evidence, gather_evidence
from napari_braintumor.engine.correcting.features import CaseFeatures, bound_cells
from napari_braintumor.engine.correcting.fitting import squeeze
from napari_braintumor.engine.correcting.spreading import LEAST_CHANGE, find_flipped
from napari_braintumor.engine.correcting.strokes import Stroke

Fit = Callable[[CaseFeatures, NDArray[np.float32], Evidence], NDArray[np.float32]]


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


def follow_strokes(
    features: CaseFeatures, labels_ZYX: NDArray[np.uint8], strokes: Sequence[Stroke], fit: Fit
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
        How logits follow from what strokes say, as `fit_learned`.

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
    after = fit(features, base, evidence)
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
