"""A quick look at the scans that are chosen, in the window's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.inspection import (
    Inspection,
    choose_sample,
    find_misplaced,
    find_with_skull,
    make_thumbnail,
)
from napari_braintumor.layers.placement import Placement
from napari_braintumor.layers.selection import Selection


@dataclass(frozen=True, eq=False)
class _Few:
    """A few voxels of a scan: from everywhere, and of whole slices."""

    thumbnail: NDArray[np.float32]
    sample: NDArray[np.float32]


class Inspector:
    """Checks each scan only once, however often layers change, because a check runs in the window's thread."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, bool], tuple[ref[Any], _Few]] = {}
        # What the last inspection was made of, by identity; and the images themselves, so that they stay the same.
        self._last: tuple[list[Any], list[_Few], Inspection] | None = None

    def inspect(self, selection: Selection) -> Inspection | None:
        """Check the images of a selection quickly.

        Returns
        -------
        Inspection or None
            None if a layer is lazy, which would take long. Where grids differ there are no findings, because heads are
            compared only after they were aligned.
        """
        if not all(isinstance(data, np.ndarray) for data, _ in selection.arrays.values()):
            return None
        few = {modality: self._look_at(data, place) for modality, (data, place) in selection.arrays.items()}
        planes_cm2 = {modality: _plane_cm2(place) for modality, (_, place) in selection.arrays.items()}
        made_of = [*map(id, few.values()), selection.reference, *planes_cm2.values()]
        if self._last is None or self._last[0] != made_of:
            with_skull = find_with_skull({modality: each.sample for modality, each in few.items()}, planes_cm2)
            on_one_grid = selection.reference is None
            thumbnails = {modality: each.thumbnail for modality, each in few.items()}
            findings = find_misplaced(thumbnails) if on_one_grid else ()
            self._last = made_of, list(few.values()), Inspection(with_skull, findings)
        return self._last[2]

    def _look_at(self, data: NDArray[Any], place: Placement) -> _Few:
        self._seen = {key: kept for key, kept in self._seen.items() if kept[0]() is not None}
        key = id(data), place.in_source_order
        if key not in self._seen:
            image = place.from_layer(data)
            slices, rows, columns = choose_sample(image.shape)
            sample = np.asarray(image[slices][:, rows, columns], np.float32)
            self._seen[key] = ref(data), _Few(make_thumbnail(image), sample)
        return self._seen[key][1]


def inspect_selection(selection: Selection) -> Inspection | None:
    """Check the images of a selection quickly; None if a layer is lazy, which would take long."""
    return Inspector().inspect(selection)


def _plane_cm2(place: Placement) -> float:
    """Return the area of a slice; 0 if the voxel size is not known."""
    if not place.grid.spacing_known:
        return 0.0
    _, rows, columns = place.grid.shape_ZYX
    _, y_mm, x_mm = place.grid.spacing
    return rows * y_mm * columns * x_mm / 100
