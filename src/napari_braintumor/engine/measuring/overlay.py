"""Draw a picture of a segmentation on its scan, for reports and for a quick look without a viewer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.measuring.metrics import region_volume_ml
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume

_TELLING = ("FLAIR", "T1ce", "T2", "T1")  # edema shows best on FLAIR, the core on T1ce
_REFERENCE_STYLES: tuple[Literal["solid", "dashed", "dotted"], ...] = ("solid", "dashed", "dotted")
_REFERENCE_COLOR = "#35d0ff"  # far from the gray scan and from the labels
_PANEL_INCHES = 3.0
_INK, _PAPER = "#f2f2f2", "#111111"


def save_overlay(volume: Volume, segmentation: Segmentation, path: Path, reference: Reference | None = None) -> None:
    """Write a PNG of the axial slices with the most tumor, with the segmentation drawn over the scan.

    Columns are up to three slices, rows up to two modalities. Labels are tinted and outlined in their colors; regions
    of a reference are outlined in blue. Pixels have the aspect ratio of the voxels. pyplot is not used, so no display
    is needed and any thread may call this.

    Parameters
    ----------
    volume
        The scan.
    segmentation
        Its segmentation, on the same grid.
    path
        The file to write; its folder is created if needed, and an existing file is replaced.
    reference
        A mask drawn by people, on the same grid.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    tumor = segmentation.labels > 0
    for mask in reference.regions.values() if reference else ():
        tumor = tumor | mask
    slices = choose_slices(tumor)
    modalities = sorted(volume.modalities, key=lambda name: (*_TELLING, name).index(name))[:2]

    _, height_vox, width_vox = volume.shape
    _, y_mm, x_mm = volume.spacing
    panel_height = _PANEL_INCHES * float(np.clip(height_vox * y_mm / (width_vox * x_mm), 0.4, 2.5))
    size = (_PANEL_INCHES * max(len(slices), 2), panel_height * len(modalities) + 1.6)
    figure = Figure(figsize=size, facecolor=_PAPER, layout="constrained")
    panels = figure.subplots(len(modalities), len(slices), squeeze=False)
    for row, modality in zip(panels, modalities, strict=True):
        scan = volume.data[volume.modalities.index(modality)]
        dark, bright = _gray_window(scan)
        for panel, z in zip(row, slices, strict=True):
            panel.imshow(scan[z], cmap="gray", vmin=dark, vmax=bright, aspect=y_mm / x_mm)
            _draw_labels(panel, segmentation, z)
            _draw_reference(panel, reference, z)
            panel.set_title(f"{modality}, slice {z + 1} of {volume.shape[0]}", color=_INK, fontsize=8, parse_math=False)
            panel.set_axis_off()
    if volume.source.format == "nifti":  # only NIfTI states left and right
        for side, x in (("R", 0.02), ("L", 0.95)):
            panels[0, 0].text(x, 0.5, side, color=_INK, fontsize=8, transform=panels[0, 0].transAxes)

    figure.suptitle(
        f"{segmentation.name}\n{_describe_volumes(segmentation)}", color=_INK, fontsize=10, parse_math=False
    )
    legend = figure.legend(
        handles=_legend_entries(segmentation, reference),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        labelcolor=_INK,
        frameon=False,
        title="Research only. Not a medical device.",
        title_fontsize=7,
    )
    legend.get_title().set_color(_INK)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png", dpi=120)


def choose_slices(tumor: NDArray[np.bool_], count: int = 3) -> list[int]:
    """Choose the axial slices with the most tumor, far enough apart that they do not all look the same.

    Parameters
    ----------
    tumor
        bool ``(Z, Y, X)``.
    count
        The largest number of slices.

    Returns
    -------
    list of int
        Indices along Z, ascending; evenly spaced if there is no tumor.
    """
    area = np.count_nonzero(tumor, axis=(1, 2))
    filled = np.flatnonzero(area)
    if not len(filled):
        return sorted({len(area) * (k + 1) // (count + 1) for k in range(count)})
    gap = max(1, len(filled) // (2 * count))
    chosen: list[int] = []
    for z in filled[np.argsort(-area[filled], kind="stable")]:
        if len(chosen) < count and all(abs(int(z) - other) >= gap for other in chosen):
            chosen.append(int(z))
    return sorted(chosen)


def _gray_window(scan: NDArray[np.float32]) -> tuple[float, float]:
    """Return the gray levels shown as black and white, which cut off the extremes of the foreground."""
    inside = scan[scan != 0]
    if not inside.size:
        return 0.0, 1.0
    dark, bright = np.percentile(inside, (0.5, 99.5))
    return min(float(dark), 0.0), float(bright)


def _draw_labels(panel: Axes, segmentation: Segmentation, z: int) -> None:
    """Tint and outline every label of a slice."""
    labels = segmentation.labels[z]
    tint = np.zeros((*labels.shape, 4))
    for label, color in segmentation.label_colors.items():
        tint[labels == label] = to_rgba(color, 0.3)
        _outline(panel, labels == label, color)
    panel.imshow(tint, aspect=panel.get_aspect(), interpolation="nearest")


def _draw_reference(panel: Axes, reference: Reference | None, z: int) -> None:
    """Outline every region of a reference in a slice, each in its own line style."""
    if reference is not None:
        for mask, style in zip(reference.regions.values(), _REFERENCE_STYLES, strict=False):
            _outline(panel, mask[z], _REFERENCE_COLOR, style)


def _outline(panel: Axes, mask: NDArray[np.bool_], color: str, style: str = "solid") -> None:
    """Draw the border of a mask ``(Y, X)``."""
    # Padding closes the outline at the edge of the slice, and keeps contour() from warning about a full mask.
    height, width = mask.shape
    if mask.any():
        panel.contour(
            np.arange(-1, width + 1),
            np.arange(-1, height + 1),
            np.pad(mask, 1).astype(float),
            levels=[0.5],
            colors=[color],
            linewidths=0.9,
            linestyles=style,
        )


def _describe_volumes(segmentation: Segmentation) -> str:
    """Format the regions and their volumes in one line."""
    volumes = "  ·  ".join(f"{region} {ml:.1f} mL" for region, ml in segmentation.volumes_ml.items())
    return volumes if segmentation.source.spacing_known else f"{volumes}\n(guesses: the voxel size is not known)"


def _legend_entries(segmentation: Segmentation, reference: Reference | None) -> list[Artist]:
    """Make the entries of the legend: labels as patches, reference regions as lines with their volumes."""
    entries: list[Artist] = [
        Patch(color=segmentation.label_colors[label], label=name)
        for (label, name), region in zip(segmentation.label_names.items(), segmentation.regions, strict=True)
        if region not in segmentation.not_measurable
    ]
    if reference is not None:
        for (region, mask), style in zip(reference.regions.items(), _REFERENCE_STYLES, strict=False):
            text = f"reference: {region} {region_volume_ml(mask, segmentation.source):.1f} mL"
            entries.append(Line2D([], [], color=_REFERENCE_COLOR, linestyle=style, label=text))
    return entries
