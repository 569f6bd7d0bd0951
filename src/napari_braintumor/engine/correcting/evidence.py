"""What strokes say of the voxels under them, on the grid of the features."""

# R region, S voxel under a stroke

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.strokes import Stroke


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
