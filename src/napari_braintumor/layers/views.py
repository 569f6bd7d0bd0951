"""Label colors: each label in its own color, or all labels of a region in one color, which locks the brush."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_info

from napari_braintumor.engine.anatomy import EXTRA_COLORS, REGION_LABELS, REGIONS
from napari_braintumor.layers.placement import KEY

_DRAWING = ("paint", "polygon", "fill", "erase")


def make_colormap(colors: Mapping[int, str], labels: Iterable[int] | None = None, region_color: str = "") -> Any:
    """Make a colormap with a color for each label, or with one color for all labels of a region.

    Parameters
    ----------
    colors
        ``#rrggbb`` for each label; the background and all other labels are transparent.
    labels
        The labels of the region; others are transparent. If left out, every label has its own color.
    region_color
        The region's color.

    Returns
    -------
    DirectLabelColormap
        napari's colormap of labels.
    """
    palette: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    for label in colors if labels is None else labels:
        palette[label] = colors[label] if labels is None else region_color
    return DirectLabelColormap(color_dict=palette)


def shown_region(layer: Labels) -> str | None:
    """Return the region that a result is shown as; None if its labels are shown."""
    region: str | None = layer.metadata.get(KEY, {}).get("shown")
    return region


def show_region(layer: Labels, region: str | None, colors: Mapping[int, str], labels: Iterable[int] = ()) -> None:
    """Show a result as one of its regions; None shows its labels. The labels themselves do not change.

    While a region is shown, the label of a voxel is not visible, so the brush is put away, also when it is selected
    again.

    Parameters
    ----------
    layer
        A result.
    region
        The region's name.
    colors
        The color of each label.
    labels
        The labels that make up the region.
    """
    layer.metadata = {**layer.metadata, KEY: {**layer.metadata.get(KEY, {}), "shown": region}}
    if region is None:
        layer.colormap = make_colormap(colors)
        return
    own = {r.name: r.color for r in REGIONS}
    labels = tuple(labels) or REGION_LABELS.get(region, ())
    fallback = next((colors[label] for label in labels if label in colors), EXTRA_COLORS[0])
    layer.colormap = make_colormap(colors, labels, own.get(region, fallback))
    layer.events.mode.connect(_put_brush_away, position="last")  # napari ignores callbacks that are already connected
    if str(layer.mode) in _DRAWING:
        layer.mode = "pan_zoom"


def explain_lock(region: str) -> str:
    """Explain why the brush is locked, and what to do."""
    return (
        f"The brush is locked while {region} is shown, because all its labels look alike. Choose Show labels to paint."
    )


def _put_brush_away(event: Any) -> None:
    layer = event.source
    region = shown_region(layer)
    if region is not None and str(layer.mode) in _DRAWING:
        layer.mode = "pan_zoom"
        show_info(explain_lock(region))
