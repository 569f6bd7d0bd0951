"""See whether a case still shows the skull, from a few slices, so that it costs little for a case of any size."""

from __future__ import annotations

import numpy as np

from napari_braintumor.engine.inspecting.inspection import find_with_skull
from napari_braintumor.engine.volumes import AnyVolume

SAMPLED_SLICES = 5
"""Slices that are looked at, spread evenly: some show the middle of the head, however it lies in the scan."""

SIDE_VOX = 64
"""About as many voxels of a slice are looked at along each side."""


def see_skull(volume: AnyVolume) -> tuple[str, ...]:
    """Return the modalities of a case that show more than the brain, looking at a few of its slices.

    Returns
    -------
    tuple of str
        In the volume's order; empty if the case is skull-stripped.
    """
    depth, *sides = volume.shape
    slices = np.unique(((np.arange(SAMPLED_SLICES) + 0.5) * depth / SAMPLED_SLICES).astype(np.intp))
    rows, columns = (slice(None, None, max(1, side // SIDE_VOX)) for side in sides)
    few = {
        # One by one, because slices that are stored together are read together.
        name: np.concatenate([volume.read(index, slices[i : i + 1])[:, rows, columns] for i in range(len(slices))])
        for index, name in enumerate(volume.modalities)
    }
    planes_cm2 = None
    if volume.source.spacing_known:
        _, y_mm, x_mm = volume.spacing
        planes_cm2 = dict.fromkeys(few, sides[0] * y_mm * sides[1] * x_mm / 100)
    return find_with_skull(few, planes_cm2)
