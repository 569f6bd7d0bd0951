"""Cases as layers: scans in gray, and labels with their colors, names and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.scans import Scan, choose_reference
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_COLORS, LABELS, name_labels
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.tally import SliceTally, add_up, tally_slices
from napari_braintumor.engine.volumes import Reference, Volume
from napari_braintumor.layers.figures import follow_window
from napari_braintumor.layers.placement import Placement, default_placement, note_scan, placement_beside
from napari_braintumor.layers.views import make_colormap

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return: data, layer arguments, layer type."""

_SHOWN_FIRST = ("FLAIR", "T1ce", "T2", "T1")


def layers_from_case(volume: Volume, reference: Reference | None = None) -> list[LayerData]:
    """Make an image layer for each modality, and a hidden label layer for the reference.

    Parameters
    ----------
    volume
        A case. The layers share its memory.
    reference
        The mask drawn by people, on the same grid.

    Returns
    -------
    list of tuple
        napari's layer data tuples: data, options, kind.
    """
    place = default_placement(volume.source)
    shown = next((m for m in _SHOWN_FIRST if m in volume.modalities), volume.modalities[0])
    layers = [
        make_image_layer(
            channel,
            place,
            f"{modality} [{volume.name}]",
            volume.name,
            modality,
            visible=modality == shown,
            alignment=volume.alignment,
        )
        for modality, channel in zip(volume.modalities, volume.data, strict=True)
    ]
    if reference is not None:
        layers.append(make_reference_layer(reference, volume.name, place))
    return layers


def layers_from_scans(
    scans: Mapping[str, Scan], name: str, beside: SourceGrid | None = None, series: Mapping[str, str] | None = None
) -> list[LayerData]:
    """Make an image layer for each scan of a case, each on its own grid, where it lies beside the others.

    Parameters
    ----------
    scans
        For each modality its image.
    name
        The case's name.
    beside
        The grid that is shown along its own axes; left out, that of the scan whose grid is the reference for aligning.
    series
        The key of each modality's series, where it has one, by which its layer is recognized.

    Returns
    -------
    list of tuple
        napari's layer data tuples: data, options, kind.
    """
    if not scans:
        return []
    shown = next((m for m in _SHOWN_FIRST if m in scans), next(iter(scans)))
    if beside is None:
        beside = scans[choose_reference({modality: scan.grid for modality, scan in scans.items()})].grid
    return [
        make_image_layer(
            scan.data,
            placement_beside(scan.grid, beside),
            f"{modality} [{name}]",
            name,
            modality,
            visible=modality == shown,
            frame_of_reference=scan.frame_of_reference,
            beside=beside,
            series=(series or {}).get(modality, ""),
        )
        for modality, scan in scans.items()
    ]


def make_reference_layer(reference: Reference, name: str, place: Placement | None = None) -> LayerData:
    """Make a hidden label layer from a mask drawn by people.

    Parameters
    ----------
    reference
        The mask.
    name
        The case's name.
    place
        The placement of its scan; if left out, that of this plugin's readers.

    Returns
    -------
    tuple
        As `make_label_layer`.
    """
    return make_label_layer(
        reference.labels, place or default_placement(reference.source), f"Reference [{name}]",
        name_labels(reference.regions), LABEL_COLORS, case=name, role="reference", visible=False,
    )  # fmt: skip


def make_image_layer(
    array_ZYX: NDArray[Any],
    place: Placement,
    name: str,
    case: str,
    modality: str | None = None,
    visible: bool = True,
    **more: Any,
) -> LayerData:
    """Make an image layer from a scan with axes (Z, Y, X); `more` is stored in its metadata."""
    low, high = find_contrast_limits(array_ZYX)
    options = {
        **place.options,
        "name": name,
        "colormap": "gray",
        "contrast_limits": (low, high),
        "visible": visible,
        "metadata": place.remember(case=case, modality=modality, place=note_scan(place), **more),
    }
    return array_ZYX, options, "image"


def make_label_layer(
    array: NDArray[Any],
    place: Placement,
    name: str,
    names: Mapping[int, str],
    colors: Mapping[int, str],
    *,
    case: str,
    role: str,
    visible: bool = True,
    tallies: Iterable[SliceTally] | None = None,
    **more: Any,
) -> LayerData:
    """Make a label layer that knows the name and the volume in mL of each label.

    Parameters
    ----------
    array
        The labels, in the axis order of the layer.
    place
        The position of the layer.
    name
        The layer's name.
    names, colors
        The name and color of each label; the background and all other labels are transparent.
    case
        The case of the labels.
    role
        ``tumor`` for results of a model, ``reference`` for masks drawn by people.
    visible
        Whether the layer is shown.
    tallies
        The content of the array's slices, if already counted.
    **more
        Stored in the layer's metadata.

    Returns
    -------
    tuple
        napari's layer data tuple: data, options, kind.
    """
    follow_window()
    counts = add_up(tally_slices(array) if tallies is None else tallies)
    voxel_ml = place.grid.voxel_ml
    options = {
        **place.options,
        "name": name,
        "colormap": make_colormap({label: colors[label] for label in names}),
        "features": {  # napari's status bar shows the row whose index is the label under the mouse
            "index": [0, *sorted(names)],
            "name": ["background", *(names[label] for label in sorted(names))],
            "mL": [np.nan, *(round(counts.get(label, 0) * voxel_ml, 2) for label in sorted(names))],
        },
        "opacity": 0.6,
        "visible": visible,
        "metadata": place.remember(case=case, role=role, **more),
    }
    return array, options, "labels"


def make_own_label_layer(array: NDArray[np.uint8], place: Placement, name: str, *, case: str, role: str) -> LayerData:
    """Make a label layer from labels with the numbers of `LABELS`; labels of regions that do not nest only if present.

    Parameters
    ----------
    array, place, name, case, role
        As in `make_label_layer`.

    Returns
    -------
    tuple
        As `make_label_layer`.
    """
    tallies = tally_slices(array)
    shown = {*(region.label for region in GLIOMA_REGIONS), *add_up(tallies)}
    names = {label: text for label, text in LABELS.items() if label in shown}
    return make_label_layer(array, place, name, names, LABEL_COLORS, case=case, role=role, tallies=tallies)


def find_contrast_limits(array_ZYX: NDArray[Any]) -> tuple[float, float]:
    """Return contrast limits that show the brain: percentiles over the foreground, from some of the voxels."""
    some = np.asarray(array_ZYX[::2, ::3, ::3], np.float32)
    inside = some[some > some.min()]
    if not inside.size:
        return float(some.min()), float(some.min()) + 1
    low = float(some.min())
    return low, max(float(np.percentile(inside, 99.8)), low + 1e-6)
