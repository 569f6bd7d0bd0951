"""What is looked for in a head: modalities, regions and labels, and how labels make regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
"""The MRI sequences known by name, in the order in which they are offered."""

REGIONS = ("whole tumor", "tumor core", "enhancing tumor")
"""The nested regions, outermost first."""

LABELS: Mapping[int, str] = {1: "necrotic / non-enhancing core", 2: "edema", 3: "enhancing tumor"}
"""What an integer in a label layer means (BraTS 2023 numbers)."""

REGION_LABELS: Mapping[str, tuple[int, ...]] = {
    "whole tumor": (1, 2, 3),
    "tumor core": (1, 3),
    "enhancing tumor": (3,),
}
"""The labels that together make each region."""


def labels_from_regions(regions: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Paint nested regions into one label array, outermost first: 2 edema, 1 core, 3 enhancing."""
    shape = next(iter(regions.values())).shape
    labels = np.zeros(shape, np.uint8)
    for name, label in (("whole tumor", 2), ("tumor core", 1), ("enhancing tumor", 3)):
        if name in regions:
            labels[regions[name]] = label
    return labels


def region_from_labels(labels: NDArray[np.integer[Any]], region: str) -> NDArray[np.bool_]:
    """Return where labels belong to a region, a key of `REGION_LABELS`; the way back from `labels_from_regions`."""
    return np.isin(labels, REGION_LABELS[region])
