"""A figure for print: labels on the three planes of a scan, with a scale bar and a legend, at 300 dots an inch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.grid import SourceGrid

DPI = 300
_BAR_MM = 20
_PANEL_INCHES = 2.3
_INK, _PAPER = "#111111", "#ffffff"


def save_plate(
    scan_ZYX: NDArray[np.floating],
    labels_ZYX: NDArray[np.integer],
    grid: SourceGrid,
    names: Mapping[int, str],
    colors: Mapping[int, str],
    path: Path,
    caption: str = "",
    dpi: int = DPI,
) -> tuple[int, int, int]:
    """Write the figure.

    The planes cross where the labels are widest: each shows their largest section. The patient's right is on the left
    in axial and coronal planes, as radiologists see it; the sagittal plane looks to the patient's left.

    Parameters
    ----------
    scan_ZYX, labels_ZYX
        A scan and its labels, on one grid.
    grid
        Their grid.
    names, colors
        The name and the color ``#rrggbb`` of each label.
    path
        A PNG, PDF or SVG file; replaced if it exists.
    caption
        A line below; nothing that names a patient.
    dpi
        Dots an inch: `DPI` for print, less for a screen.

    Returns
    -------
    tuple of int
        The slices shown, by index along Z, Y and X.
    """
    tumor = np.asarray(labels_ZYX) != 0
    at = tuple(
        int(tumor.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        if tumor.any()
        else tumor.shape[axis] // 2
        for axis in range(3)
    )
    z_mm, y_mm, x_mm = grid.spacing
    inside = scan_ZYX[scan_ZYX != 0]
    dark, bright = (float(value) for value in np.percentile(inside, (0.5, 99.5))) if inside.size else (0.0, 1.0)
    high_mm, deep_mm, wide_mm = (size * side for size, side in zip(tumor.shape, grid.spacing, strict=True))
    widths = [wide_mm, wide_mm, deep_mm]  # so that all panels have one scale
    height = 3 * _PANEL_INCHES * max(high_mm, deep_mm) / sum(widths)
    figure = Figure(figsize=(3 * _PANEL_INCHES, height + 0.9), facecolor=_PAPER, layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=widths)
    views = (
        ("axial", 0, y_mm, x_mm, ("R", "L"), False),
        ("coronal", 1, z_mm, x_mm, ("R", "L"), True),
        ("sagittal", 2, z_mm, y_mm, ("A", "P"), True),
    )
    for panel, (title, axis, down_mm, across_mm, sides, upward) in zip(panels, views, strict=True):
        image, drawn = (np.take(each, at[axis], axis=axis) for each in (scan_ZYX, labels_ZYX))
        if upward:  # z grows upward
            image, drawn = image[::-1], drawn[::-1]
        panel.imshow(image, cmap="gray", vmin=dark, vmax=bright, aspect=down_mm / across_mm)
        _tint(panel, drawn, colors, down_mm / across_mm)
        if axis == 0:
            _draw_bar(panel, image.shape, across_mm)
        if grid.orientation_known:
            for side, place in zip(sides, (0.03, 0.97), strict=True):
                panel.text(
                    place, 0.5, side, color="white", fontsize=7, ha="center", va="center", transform=panel.transAxes
                )
        panel.set_title(title, color=_INK, fontsize=8)
        panel.set_axis_off()
    shown = [label for label in names if (np.asarray(labels_ZYX) == label).any()]
    figure.legend(
        handles=[Patch(color=colors[label], label=names[label]) for label in shown if label in colors],
        loc="outside lower center",
        ncols=max(len(shown), 1),
        fontsize=7,
        labelcolor=_INK,
        frameon=False,
        title=caption or None,
        title_fontsize=7,
    )
    FigureCanvasAgg(figure)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=dpi)
    z, y, x = at
    return z, y, x


def _tint(panel: Axes, drawn: NDArray[np.integer], colors: Mapping[int, str], aspect: float) -> None:
    tint = np.zeros((*drawn.shape, 4))
    for label, color in colors.items():
        tint[drawn == label] = to_rgba(color, 0.45)
    panel.imshow(tint, aspect=aspect, interpolation="nearest")


def _draw_bar(panel: Axes, shape: tuple[int, ...], across_mm: float) -> None:
    """Draw a scale bar in the corner, and its length above it."""
    length = _BAR_MM / across_mm
    right, low = 0.96 * shape[1], 0.95 * shape[0]
    panel.plot([right - length, right], [low, low], color="white", linewidth=2, solid_capstyle="butt")
    panel.text(right - length / 2, low - 0.02 * shape[0], f"{_BAR_MM} mm", color="white", fontsize=6, ha="center")
