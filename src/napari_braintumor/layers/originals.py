"""What a model drew, beside what became of it: shown as an outline, and restored."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.tally import unpack_slice
from napari_braintumor.layers.editing import Edit, apply_labels
from napari_braintumor.layers.figures import figures_of, is_result
from napari_braintumor.layers.placement import KEY, find_placement, level_0
from napari_braintumor.layers.results import add_unselected
from napari_braintumor.layers.selection import case_of
from napari_braintumor.layers.views import make_colormap


def model_labels(layer: Labels) -> NDArray[np.uint8] | None:
    """Return what a model drew in a result, with axes (Z, Y, X), whatever was corrected since; None if unknown."""
    answer = figures_of(layer).answer if is_result(layer) else None
    if answer is None:
        return None
    depth, rows, columns = find_placement(layer).from_layer(level_0(layer)).shape
    labels_ZYX = np.zeros((depth, rows, columns), np.uint8)
    for z, packed in answer.packed.items():
        labels_ZYX[z] = unpack_slice(packed, (rows, columns))
    return labels_ZYX


def restore_model(layer: Labels, z: int | None = None) -> Edit:
    """Replace a slice along Z, or if left out all slices, by what the model drew, as one step; not reviewed ones."""
    labels_ZYX = model_labels(layer)
    if labels_ZYX is None:
        return Edit(0, (), ())
    others = () if z is None else set(range(len(labels_ZYX))) - {z}
    return apply_labels(layer, labels_ZYX, others)


def update_or_add_outline(viewer: Any, layer: Labels) -> Labels | None:
    """Show what the model drew as an outline over its corrected layer; None if that is unknown."""
    labels_ZYX = model_labels(layer)
    if labels_ZYX is None:
        return None
    place, case = find_placement(layer), case_of(layer) or str(layer.name)
    known = layer.metadata[KEY]
    data = place.to_layer(labels_ZYX)
    outline = find_outline(viewer, layer)
    if outline is not None:
        outline.data = data
        outline.visible = True
        return outline
    outline = Labels(
        data,
        **place.options,
        name=f"Model [{case}]",
        colormap=make_colormap(figures_of(layer).label_colors),
        opacity=1,
        metadata=place.remember(
            case=case, role="outline", by=known.get("by"), made_from=known.get("made_from", {}), of=layer.unique_id
        ),
    )
    outline.contour = 1
    add_unselected(viewer, outline)
    return outline


def find_outline(viewer: Any, layer: Labels) -> Labels | None:
    """Return the outline of what the model drew in a layer, if there is one."""
    of = {"role": "outline", "of": layer.unique_id}.items()
    return next((each for each in viewer.layers if of <= _plain(each).items()), None)


def _plain(layer: Layer) -> dict[str, Any]:
    return {name: layer.metadata.get(KEY, {}).get(name) for name in ("role", "of")}
