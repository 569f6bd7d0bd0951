"""Region depth: one number a voxel, the place of its innermost region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import Region

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
