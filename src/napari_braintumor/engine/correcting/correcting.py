"""Follow strokes: from features, the labels before and what a person drew, new labels for the whole case."""

# R region, C channel; Z, Y, X on the scan's grid; z, y, x on the grid of the features

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import Region
from napari_braintumor.engine.correcting.depth import depth_of_labels, labels_of_depth
from napari_braintumor.engine.correcting.features import Box, CaseFeatures, bound_cells, find_box
from napari_braintumor.engine.correcting.following import Change, Fit, follow_strokes
from napari_braintumor.engine.correcting.learned import fit_learned
from napari_braintumor.engine.correcting.painting import enforce, find_range, repaint
from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.errors import DataError, SettingsError


@dataclass(frozen=True, eq=False)
class Correction:
    """What strokes made of labels.

    Attributes
    ----------
    labels
        uint8 ``(Z, Y, X)``, a new array.
    changed
        The box Z, Y, X that holds all voxels that differ from the labels before; None if none does.
    """

    labels: NDArray[np.uint8]
    changed: tuple[slice, slice, slice] | None


def correct(
    features: CaseFeatures,
    labels_ZYX: NDArray[np.uint8],
    strokes: Sequence[Stroke],
    locked: Collection[int] = (),
    fit: Fit = fit_learned,
) -> Correction:
    """Follow strokes through the whole case.

    What a stroke says holds at the stroke; a later stroke wins over an earlier one. Elsewhere the answer of the model
    moves as far as tissue looks like that under the strokes, and less with distance. Regions stay nested. The result
    depends only on what is given here, so without a stroke it is what it was before that stroke.

    Parameters
    ----------
    features
        Of the case, from `gather_features`.
    labels_ZYX
        ``(Z, Y, X)``, the labels before the first of the strokes. Numbers that the model does not paint stay.
    strokes
        All strokes since then, in the order in which they were drawn.
    locked
        Slices along Z that stay as they are.
    fit
        How logits follow from what strokes say; other ways are for comparison.

    Returns
    -------
    Correction
        The labels that follow.

    Raises
    ------
    DataError
        If the labels do not lie on the grid of the features.
    SettingsError
        If a stroke belongs to a region that the model does not know.
    """
    if labels_ZYX.shape != features.shape:
        raise DataError(
            f"The labels {labels_ZYX.shape} and the scan {features.shape} differ in shape. Strokes correct labels on "
            "the grid of the scan. Choose the labels of this scan."
        )
    check_regions(strokes, features.regions)
    if not strokes:
        return Correction(labels_ZYX.astype(np.uint8), None)
    change = follow_strokes(features, labels_ZYX, strokes, fit)
    return apply_change(features, labels_ZYX, change, strokes, locked)


def apply_change(
    features: CaseFeatures,
    labels_ZYX: NDArray[np.uint8],
    change: Change,
    strokes: Sequence[Stroke] = (),
    locked: Collection[int] = (),
) -> Correction:
    """Paint what changed logits and strokes say, and look only at the box around both.

    Parameters
    ----------
    features
        Of the case.
    labels_ZYX
        ``(Z, Y, X)``, the labels before.
    change
        The logits before and after.
    strokes, locked
        As for `correct`.

    Returns
    -------
    Correction
        The new labels.
    """
    box = _find_box_to_paint(features, change, strokes)
    corner = (box[0].start, box[1].start, box[2].start)
    painted = labels_ZYX.astype(np.uint8)
    before = depth_of_labels(painted[box], features.regions)
    after = before.copy()
    repaint(after, features, change, corner)
    enforce(after, features, strokes, corner)
    for own in locked:
        if box[0].start <= own < box[0].stop:
            after[own - corner[0]] = before[own - corner[0]]
    differs = after != before
    painted[box][differs] = labels_of_depth(after[differs], features.regions)
    found = find_box(differs)
    if found is None:
        return Correction(painted, None)
    z, y, x = (slice(side.start + at, side.stop + at) for side, at in zip(found, corner, strict=True))
    return Correction(painted, (z, y, x))


def _find_box_to_paint(features: CaseFeatures, change: Change, strokes: Sequence[Stroke]) -> Box:
    """Return the box of the scan that holds a change of logits and the strokes."""
    corners = [stroke.find_voxels(features.shape, features.spacing) for stroke in strokes]
    if change.box[0].stop > change.box[0].start:
        ranges = [find_range(features, change.box, axis) for axis in range(3)]
        corners.append(np.array([[first for first, _ in ranges], [stop - 1 for _, stop in ranges]]))
    return bound_cells(np.concatenate([np.empty((0, 3), np.intp), *corners]), features.shape, 0)


def check_regions(strokes: Sequence[Stroke], regions: Sequence[Region]) -> None:
    """Raise an error for a stroke of a region that is not among a model's.

    Raises
    ------
    SettingsError
        If there is one.
    """
    known = [region.name for region in regions]
    for stroke in strokes:
        if stroke.region is not None and stroke.region not in known:
            raise SettingsError(
                f"A stroke says '{stroke.region}', which this model does not know. Expected one of: "
                f"{', '.join(known)}. Choose one of these, or a model that knows the region."
            )
