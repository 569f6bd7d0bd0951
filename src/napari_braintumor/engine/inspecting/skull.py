"""See whether a case still shows the skull, from a few slices, so that it costs little for a case of any size."""

from __future__ import annotations

import numpy as np

from napari_braintumor.engine.inspecting.inspection import choose_sample, find_with_skull
from napari_braintumor.engine.volumes import AnyVolume


def see_skull(volume: AnyVolume) -> tuple[str, ...]:
    """Return the modalities of a case that show more than the brain, looking at a few of its slices.

    Returns
    -------
    tuple of str
        In the volume's order; empty if the case is skull-stripped.
    """
    slices, rows, columns = choose_sample(volume.shape)
    few = {
        # One by one, because slices that are stored together are read together.
        name: np.concatenate([volume.read(index, slices[i : i + 1])[:, rows, columns] for i in range(len(slices))])
        for index, name in enumerate(volume.modalities)
    }
    planes_cm2 = None
    if volume.source.spacing_known:
        _, y_mm, x_mm = volume.spacing
        planes_cm2 = dict.fromkeys(few, volume.shape[1] * y_mm * volume.shape[2] * x_mm / 100)
    return find_with_skull(few, planes_cm2)
