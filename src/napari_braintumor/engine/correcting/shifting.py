"""More or less of a region without a new run: its threshold is moved over the logits that are kept."""

# R region; Z, Y, X on the scan's grid

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.correcting import Correction, apply_change
from napari_braintumor.engine.correcting.features import CaseFeatures, bound_cells
from napari_braintumor.engine.correcting.following import Change
from napari_braintumor.engine.correcting.spreading import find_flipped
from napari_braintumor.engine.errors import SettingsError

MOST_SHIFT = 4.0
"""By how much a threshold is moved at most, in logits: from 0.5 to 0.02 or 0.98."""


def shift_region(features: CaseFeatures, labels_ZYX: NDArray[np.uint8], region: str, shift: float) -> Correction:
    """Draw more or less of a region: a voxel belongs to it if its logit, moved by a shift, is positive.

    Only voxels change for which the shift decides otherwise than the model did. What people drew elsewhere stays. A
    region does not grow beyond the one around it.

    Parameters
    ----------
    features
        Of the case, from `gather_features`.
    labels_ZYX
        ``(Z, Y, X)``, the labels before.
    region
        The region's name.
    shift
        Above 0 for more, below 0 for less; in logits, at most `MOST_SHIFT`.

    Returns
    -------
    Correction
        The new labels.

    Raises
    ------
    SettingsError
        If the model does not know the region, or the shift is too large.
    """
    names = [each.name for each in features.regions]
    if region not in names:
        raise SettingsError(f"This model does not know '{region}'. Expected one of: {', '.join(names)}.")
    if not abs(shift) <= MOST_SHIFT:
        raise SettingsError(f"A threshold cannot be moved by {shift:g}. Expected -{MOST_SHIFT:g} to {MOST_SHIFT:g}.")
    column = names.index(region)
    own = features.logits[:, column]
    flipped = find_flipped(own, own + np.float32(shift))
    box = bound_cells(features.find_cells(flipped), features.grid, 1)
    before = features.take(features.logits, box)
    after = before.copy()
    after[column][features.rows[box] >= 0] += np.float32(shift)
    return apply_change(features, labels_ZYX, Change(box, (before, after)))


def measure_doubt(features: CaseFeatures) -> NDArray[np.float64]:
    """Return how doubtful each slice is: the entropy of the outermost region, summed over the slice, in bits.

    Returns
    -------
    array
        ``(Z,)``.
    """
    inside = 1 / (1 + np.exp(-features.logits[:, 0].astype(np.float64)))
    either = np.stack([inside, 1 - inside])
    bits = -(either * np.log2(np.maximum(either, 1e-12))).sum(0)
    per_slice = np.bincount(features.places // (features.grid[1] * features.grid[2]), bits, features.grid[0])
    own = np.interp(
        np.arange(features.shape[0]), features.start[0] + features.step[0] * np.arange(features.grid[0]), per_slice
    )
    doubt: NDArray[np.float64] = own
    return doubt
