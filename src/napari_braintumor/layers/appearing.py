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


class Appearing:
    """What a run has found so far.

    Parameters
    ----------
    viewer
        Where it is shown.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._view_ZYX: NDArray[np.uint8] | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer that shows it; None if nothing was found yet, or the run has ended."""
        return self._layer

    def show(self, selection: Selection, labels: Mapping[int, NDArray[np.uint8]]) -> None:
        """Show the labels of some slices along Z, beside those shown before."""
        if not labels or int(np.prod(selection.shape)) > MOST_VOXELS:
            return
        if self._layer is None or self._layer not in self._viewer.layers:
            if self._view_ZYX is not None:  # a person has deleted it, and wants to see no more of this run
                return
            self._add(selection)
        assert self._layer is not None
        assert self._view_ZYX is not None
        for z, plane in labels.items():
            self._view_ZYX[z] = plane
        shown = section_shown(self._viewer, self._layer)
        if shown is None or shown[0] != 0 or shown[1] in labels:
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
            name=f"So far [{selection.name}]",
            colormap=make_colormap(LABEL_COLORS),
            opacity=0.5,
            metadata=place.remember(case=selection.name, role="preview"),
        )
        self._view_ZYX = place.from_layer(level_0(self._layer))
        add_unselected(self._viewer, self._layer)
