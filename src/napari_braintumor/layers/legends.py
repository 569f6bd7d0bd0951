"""What the labels of a layer mean, for files that say so."""

from __future__ import annotations

from napari.layers import Labels

from napari_braintumor.engine.anatomy import LABELS, REGIONS, labels_by_region, name_labels
from napari_braintumor.engine.volumes import Legend
from napari_braintumor.layers.figures import figures_of, is_result
from napari_braintumor.layers.masks import label_names


def legend_of(layer: Labels) -> Legend:
    """Return what the labels of a layer mean as it is now.

    Parameters
    ----------
    layer
        A model's result, a mask of this plugin, or any other label layer.

    Returns
    -------
    Legend
        Of a result, with what a person changed. Of other layers, with the names in their features and the colors that
        they are shown in; with regions if the names are those of this plugin.
    """
    if is_result(layer):
        figures = figures_of(layer)
        figures.settle()
        answer = figures.answer
        assert answer is not None
        drawn = {name: labels for name, labels in answer.regions.items() if name not in answer.not_measurable}
        return Legend(figures.label_names, figures.label_colors, drawn, figures.describe())
    names = label_names(layer) or _named_in(layer)
    colors = {label: _color_of(layer, label) for label in names}
    painted = [region.name for region in REGIONS if region.label in names]
    if names not in (name_labels(painted), {label: LABELS[label] for label in names if label in LABELS}):
        return Legend(names, colors)
    return Legend(names, colors, labels_by_region([region for region in REGIONS if region.label in names]))


def _named_in(layer: Labels) -> dict[int, str]:
    table = layer.features
    if "index" not in table or "name" not in table or table[["index", "name"]].isna().any(axis=None):
        return {}
    return {int(label): str(name) for label, name in zip(table["index"], table["name"], strict=True) if label > 0}


def _color_of(layer: Labels, label: int) -> str:
    color = layer.get_color(label)
    if color is None:  # hidden, so it has none now
        return ""
    red, green, blue = (round(255 * float(part)) for part in color[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"
