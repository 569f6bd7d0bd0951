"""A quick look at the scans that are chosen, in the window's thread."""

from __future__ import annotations

from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.inspection import (
    Inspection,
    find_with_skull,
    inspect_thumbnails,
    make_thumbnail,
)
from napari_braintumor.layers.placement import Placement
from napari_braintumor.layers.selection import Selection


class Inspector:
    """Checks each scan only once, however often layers change, because a check runs in the window's thread."""

    def __init__(self) -> None:
        self._thumbnails: dict[tuple[int, bool], tuple[ref[Any], NDArray[np.float32]]] = {}
        # What the last inspection was made of, by identity; and the images themselves, so that they stay the same.
        self._last: tuple[list[Any], list[NDArray[np.float32]], Inspection] | None = None

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
        few = {modality: self._thumbnail(data, place) for modality, (data, place) in selection.arrays.items()}
        planes_cm2 = {modality: _plane_cm2(place) for modality, (_, place) in selection.arrays.items()}
        made_of = [*map(id, few.values()), selection.reference, *planes_cm2.values()]
        if self._last is None or self._last[0] != made_of:
            if selection.reference is None:
                inspection = inspect_thumbnails(few, planes_cm2)
            else:
                inspection = Inspection(find_with_skull(few, planes_cm2), ())
            self._last = made_of, list(few.values()), inspection
        return self._last[2]

    def _thumbnail(self, data: NDArray[Any], place: Placement) -> NDArray[np.float32]:
        self._thumbnails = {key: kept for key, kept in self._thumbnails.items() if kept[0]() is not None}
        key = id(data), place.in_source_order
        if key not in self._thumbnails:
            self._thumbnails[key] = ref(data), make_thumbnail(place.from_layer(data))
        return self._thumbnails[key][1]


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
