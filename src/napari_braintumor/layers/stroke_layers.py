"""The layer of the strokes on a result, and what strokes say about its slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_braintumor.layers.editing import spacing_of
from napari_braintumor.layers.figures import figures_of
from napari_braintumor.layers.placement import KEY, Placement, find_placement, level_0, unwrap_layer
from napari_braintumor.layers.results import add_unselected
from napari_braintumor.layers.selection import case_of
from napari_braintumor.layers.views import make_colormap

NOTHING = 255
"""The number, in a layer of strokes, of what belongs to no tumor: 0 is where nobody drew."""

NOTHING_COLOR = "#e6e6e6"


def corrected_slices(target: Labels) -> tuple[int, ...]:
    """Return the slices along Z that a person corrected: not those that only follow from strokes in other slices."""
    figures = figures_of(target)
    followed = target.metadata.get(KEY, {}).get("followed", {})
    return tuple(z for z in figures.edited if followed.get(z) != figures.slices[z].digest)


def find_stroke_layer(viewer: Any, target: Labels) -> Labels | None:
    """Return the layer of the strokes on a label layer, if there is one."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        if known.get("role") == "strokes" and known.get("of") == target.unique_id:
            return unwrap_layer(layer)
    return None


def regions_by_label(target: Labels) -> dict[int, str]:
    """Return, for each label of a result, the region that it is the innermost part of."""
    answer = figures_of(target).answer
    return {} if answer is None else {labels[0]: name for name, labels in answer.regions.items()}


def add_stroke_layer(viewer: Any, target: Labels) -> Labels:
    """Add a layer for strokes on a result; those that were saved with the result are drawn in it."""
    place = find_placement(target)
    colors: Mapping[int, str] = {**figures_of(target).label_colors, NOTHING: NOTHING_COLOR}
    layer = Labels(
        place.to_layer(_paint_strokes(target, place)),
        **place.options,
        name=f"Strokes [{case_of(target) or target.name}]",
        colormap=make_colormap(colors),
        opacity=0.9,
        metadata=place.remember(case=case_of(target), role="strokes", of=target.unique_id),
    )
    add_unselected(viewer, layer)
    return layer


def _paint_strokes(target: Labels, place: Placement) -> NDArray[np.uint8]:
    """Paint the strokes that are known of labels, such as those saved with them: uint8 ``(Z, Y, X)``."""
    z, y, x = place.from_layer(level_0(target)).shape
    painted_ZYX = np.zeros((z, y, x), np.uint8)
    labels = {name: label for label, name in regions_by_label(target).items()}
    spacing = spacing_of(target)
    for stroke in target.metadata[KEY].get("strokes", ()):
        under = tuple(stroke.find_voxels((z, y, x), spacing).T)
        painted_ZYX[under] = NOTHING if stroke.region is None else labels[stroke.region]
    return painted_ZYX


def to_ZYX(place: Placement, point: tuple[float, ...]) -> tuple[float, float, float]:
    """Convert an index of a layer's array, with fractions, to axes (Z, Y, X)."""
    if not place.in_source_order:
        z, y, x = (float(each) for each in point[-3:])
        return z, y, x
    grid = place.grid
    z, y, x = (
        float(grid.shape[axis] - 1 - point[axis] if flip else point[axis])
        for axis, flip in zip(grid.axes, grid.flips, strict=True)
    )
    return z, y, x


def radius_of(layer: Labels) -> float:
    """Return half the width of the brush as napari draws it."""
    shown = layer._slice_input.displayed
    return float((np.floor(layer.brush_size / 2) + 0.5) * min(abs(layer.scale[axis]) for axis in shown))
