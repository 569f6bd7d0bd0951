"""Labels appear while a run is under way, in a layer that goes when the run ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import LABEL_COLORS
from napari_braintumor.layers.editing import section_shown
from napari_braintumor.layers.placement import level_0
from napari_braintumor.layers.results import add_unselected
from napari_braintumor.layers.selection import Selection
from napari_braintumor.layers.views import make_colormap

MOST_VOXELS = 50_000_000
"""Larger cases are shown when they are done: an array for the meantime would fill memory."""


def slice_of(selection: Selection, viewer: Any) -> int | None:
    """Return the axial slice of a case, along Z, that a viewer shows; None if it shows another plane or none of it."""
    dims = viewer.dims
    place = selection.placement
    axis = place.grid.axes[0] if place.in_source_order else 0
    if dims.ndim < 3 or dims.ndisplay != 2 or dims.order[-3] != dims.ndim - 3 + axis:
        return None
    index = np.linalg.inv(place.matrix) @ [*dims.point[-3:], 1.0]
    at, size = round(float(index[axis])), selection.shape[0]
    if not 0 <= at < size:
        return None
    return size - 1 - at if place.in_source_order and place.grid.flips[0] else at


class Appearing:
    """What a run has found so far.

    Parameters
    ----------
    viewer
        Where it is shown.
    title
        What the layer is called, before the case.
    """

    def __init__(self, viewer: Any, title: str = "So far") -> None:
        self._viewer = viewer
        self._title = title
        self._layer: Labels | None = None
        self._view_ZYX: NDArray[np.uint8] | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer that shows it; None if nothing was found yet, or the run has ended."""
        return self._layer

    def show(self, selection: Selection, labels: Mapping[int, NDArray[np.uint8]]) -> None:
        """Show the labels of slices along Z, beside those shown before."""
        if not labels or int(np.prod(selection.shape)) > MOST_VOXELS:
            return
        if self._layer is None or self._layer not in self._viewer.layers:
            if self._view_ZYX is not None:  # a person has deleted it, and wants to see no more of this run
                return
            self._add(selection)
        assert self._layer is not None
        assert self._view_ZYX is not None
        view_ZYX = self._view_ZYX
        new = {z: plane for z, plane in labels.items() if not np.array_equal(view_ZYX[z], plane)}
        for z, plane in new.items():
            view_ZYX[z] = plane
        shown = section_shown(self._viewer, self._layer)
        if new and (shown is None or shown[0] != 0 or shown[1] in new):
            self._layer.refresh()

    def clear(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = self._view_ZYX = None

    def _add(self, selection: Selection) -> None:
        place = selection.placement
        empty = place.to_layer(np.zeros(selection.shape, np.uint8))
        self._layer = Labels(
            np.array(empty, order="C"),
            **place.options,
            name=f"{self._title} [{selection.name}]",
            colormap=make_colormap(LABEL_COLORS),
            opacity=0.5,
            metadata=place.remember(case=selection.name, role="preview"),
        )
        self._view_ZYX = place.from_layer(level_0(self._layer))
        add_unselected(self._viewer, self._layer)
