"""Cases and results as layers: their colors, names and volumes; a second result takes the place of the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_braintumor.engine.card import GLIOMA_REGIONS
from napari_braintumor.engine.types import LABELS, REGION_LABELS, Comparison, Reference, Segmentation, Volume
from napari_braintumor.layers.placement import (
    KEY,
    Placement,
    default_placement,
    find_placement,
    level_0,
    world_matrix,
)
from napari_braintumor.layers.selection import case_name, case_of, scans_in

if TYPE_CHECKING:
    from napari.components import ViewerModel

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return: data, arguments of the layer, kind of layer."""

_DISPUTED_COLORS = ("#38bdf8", "#a855f7", "#ec4899", "#ffffff")
_SHOWN_FIRST = ("FLAIR", "T1ce", "T2", "T1")


def layers_from_case(volume: Volume, reference: Reference | None = None) -> list[LayerData]:
    """Make an image layer of each modality, and a hidden label layer of the reference.

    Parameters
    ----------
    volume
        A case. The layers share its memory.
    reference
        The mask drawn by people, on the same grid.
    """
    place = default_placement(volume.source)
    shown = next((m for m in _SHOWN_FIRST if m in volume.modalities), volume.modalities[0])
    layers = [
        image_layer(channel, place, f"{modality} [{volume.name}]", volume.name, modality, visible=modality == shown)
        for modality, channel in zip(volume.modalities, volume.data, strict=True)
    ]
    if reference is not None:
        names = _reference_names(tuple(reference.regions))
        colors = {region.label: region.color for region in GLIOMA_REGIONS}
        layers.append(
            label_layer(
                reference.labels, place, f"Reference [{volume.name}]", names, colors,
                case=volume.name, role="reference", visible=False,
            )
        )  # fmt: skip
    return layers


def image_layer(
    array_ZYX: NDArray[Any],
    place: Placement,
    name: str,
    case: str,
    modality: str | None = None,
    visible: bool = True,
) -> LayerData:
    """Make an image layer of a scan with axes (Z, Y, X)."""
    low, high = _contrast_limits(array_ZYX)
    options = {
        **place.options,
        "name": name,
        "colormap": "gray",
        "contrast_limits": (low, high),
        "visible": visible,
        "metadata": place.remember(case=case, modality=modality),
    }
    return array_ZYX, options, "image"


def label_layer(
    array: NDArray[Any],
    place: Placement,
    name: str,
    names: Mapping[int, str],
    colors: Mapping[int, str],
    *,
    case: str,
    role: str,
    visible: bool = True,
    **more: Any,
) -> LayerData:
    """Make a label layer that knows what its labels are called and how many milliliters each has.

    Parameters
    ----------
    array
        In the order of the layer's own array.
    place
        Where it goes.
    name
        Of the layer.
    names, colors
        For each label; the background and all other labels are transparent.
    case
        Whose labels they are.
    role
        ``tumor`` for results of a model, ``reference`` for masks drawn by people.
    visible
        Whether it is shown.
    **more
        Kept in the layer's metadata.
    """
    counts = dict.fromkeys(names, 0)
    for index in range(array.shape[0]):  # one at a time: some arrays are larger than memory
        if (plane := np.asarray(array[index])).any():
            for label in counts:
                counts[label] += int(np.count_nonzero(plane == label))
    voxel_ml = place.grid.voxel_ml
    options = {
        **place.options,
        "name": name,
        "colormap": make_colormap({label: colors[label] for label in names}),
        "features": {  # napari's status bar shows the row whose index is the label under the mouse
            "index": [0, *sorted(names)],
            "name": ["background", *(names[label] for label in sorted(names))],
            "mL": [np.nan, *(round(counts[label] * voxel_ml, 2) for label in sorted(names))],
        },
        "opacity": 0.6,
        "visible": visible,
        "metadata": place.remember(case=case, role=role, **more),
    }
    return array, options, "labels"


def make_colormap(colors: Mapping[int, str], region: str | None = None) -> DirectLabelColormap:
    """Color labels each by its own color or, for a region, all that belong to it by the region's color.

    Parameters
    ----------
    colors
        ``#rrggbb`` for each label; the background and all other labels are transparent.
    region
        A key of `REGION_LABELS`; labels outside it are transparent.
    """
    of_region = {r.name: r.color for r in GLIOMA_REGIONS}
    palette: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    for label, color in colors.items():
        if region is None:
            palette[label] = color
        elif label in REGION_LABELS.get(region, ()):
            palette[label] = of_region.get(region, color)
    return DirectLabelColormap(color_dict=palette)


def labels_from_segmentation(
    segmentation: Segmentation,
    place: Placement | None = None,
    by: str | None = None,
    *,
    made_from: Mapping[str, Mapping[str, str | None]] | None = None,
    model_path: Path | None = None,
) -> LayerData:
    """Make the label layer of a result.

    Parameters
    ----------
    segmentation
        The result. The layer gets its own copy of the labels, to be corrected with the brush; labels of a streamed
        volume are shared with it.
    place
        Of the image layer that the result was made from; left out, where this plugin's readers put the case.
    by
        The model, where there are layers of several.
    made_from
        The scans, as `Selection` has them.
    model_path
        The model's file.
    """
    place = place or default_placement(segmentation.source)
    labels = place.to_layer(segmentation.labels)
    more: dict[str, Any] = {} if by is None else {"by": by}
    return label_layer(
        np.array(labels, order="C") if isinstance(labels, np.ndarray) else labels,
        place,
        f"Tumor [{segmentation.name}]" if by is None else f"Tumor [{segmentation.name}] by {by}",
        segmentation.label_names,
        segmentation.label_colors,
        case=segmentation.name,
        role="tumor",
        **more,
        volumes_ml=dict(segmentation.volumes_ml),
        provenance=dict(segmentation.provenance),
        made_from={modality: dict(scan) for modality, scan in (made_from or {}).items()},
        model={
            "name": segmentation.provenance.get("model"),
            "version": segmentation.provenance.get("model_version"),
            "path": str(model_path) if model_path else None,
        },
    )


def update_or_add_labels(
    viewer: ViewerModel,
    segmentation: Segmentation,
    place: Placement,
    by: str | None = None,
    *,
    made_from: Mapping[str, Mapping[str, str | None]] | None = None,
    model_path: Path | None = None,
) -> Labels:
    """Show a result: in the layer of the case's last result if that is still there, else in a new one.

    What the layer held before comes back with napari's undo (Ctrl+Z), unless the labels are a zarr array.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    segmentation
        The result.
    place
        Of the image layer that it was made from.
    by
        The model, where several are compared: each has a layer of its own.
    made_from
        The scans, as `Selection` has them.
    model_path
        The model's file.
    """
    data, options, _ = labels_from_segmentation(segmentation, place, by, made_from=made_from, model_path=model_path)
    layer = find_result(viewer, Labels, segmentation.name, "tumor", data.shape, place, by)
    if layer is None:
        return viewer.add_labels(data, **options)
    # What was reviewed were the labels before.
    layer.colormap, layer.metadata = options["colormap"], {**layer.metadata, **options["metadata"]}
    if isinstance(layer.data, np.ndarray) and isinstance(data, np.ndarray):
        changed = np.nonzero(layer.data != data)
        if changed[0].size:
            layer.data_setitem(changed, data[changed])
    else:
        layer.data = data
    layer.features = options["features"]
    return layer


def update_or_add_probabilities(viewer: ViewerModel, segmentation: Segmentation, place: Placement) -> list[Image]:
    """Show the probability of each region that is drawn as a hidden image layer, where the result has them."""
    layers: list[Image] = []
    if segmentation.probabilities is None:
        return layers
    for region, array_ZYX in zip(segmentation.regions, segmentation.probabilities, strict=True):
        if region in segmentation.not_measurable:
            continue
        role = f"probability of {region}"
        data = place.to_layer(array_ZYX).astype(np.float32)  # graphics cards have no use for float16
        layer = find_result(viewer, Image, segmentation.name, role, data.shape, place)
        if layer is not None:
            layer.data = data
        else:
            layer = viewer.add_image(
                data,
                **place.options,
                name=f"{role.capitalize()} [{segmentation.name}]",
                colormap="magma",
                blending="additive",
                contrast_limits=(0, 1),
                visible=False,
                metadata=place.remember(case=segmentation.name, role=role),
            )
        layers.append(layer)
    return layers


def update_or_add_disagreement(viewer: ViewerModel, comparison: Comparison, place: Placement) -> Labels:
    """Show where models disagree: each label tells how many of them do not go with the majority.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    comparison
        Of models on one case.
    place
        Of the image layer that their results were made from.
    """
    many = len(comparison.models)
    names = {n: f"{n} of {many} models {'differs' if n == 1 else 'differ'}" for n in range(1, many // 2 + 1)}
    colors = {n: _DISPUTED_COLORS[min(n, len(_DISPUTED_COLORS)) - 1] for n in names}
    array, case = place.to_layer(comparison.disagreement), comparison.name
    data, options, _ = label_layer(
        array, place, f"Disagreement [{case}]", names, colors, case=case, role="disagreement"
    )
    layer = find_result(viewer, Labels, case, "disagreement", data.shape, place)
    if layer is None:
        return viewer.add_labels(data, **options)
    layer.data = data
    layer.colormap, layer.features = options["colormap"], options["features"]
    return layer


def update_or_add_preview(viewer: ViewerModel, case: str, z: int, labels_YX: NDArray[np.uint8]) -> Labels | None:
    """Show what a network in training predicts in one slice of a case, where its scans are open.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    case
        The case's name.
    z
        The slice, from inferior.
    labels_YX
        With the numbers of `LABELS`.

    Returns
    -------
    Labels or None
        The layer; None where no scan of that case and size is open.
    """
    for scan in scans_in(viewer.layers):
        if np.ndim(level_0(scan)) != 3 or case not in (case_of(scan), case_name([scan])):
            continue
        place = find_placement(scan)
        shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
        if shape[1:] != labels_YX.shape or not 0 <= z < shape[0]:
            continue
        array_ZYX = np.zeros(shape, np.uint8)
        array_ZYX[z] = labels_YX
        data = place.to_layer(array_ZYX)
        layer = find_result(viewer, Labels, case, "preview", data.shape, place)
        if layer is not None:
            layer.data = data
            return layer
        colors = {region.label: region.color for region in GLIOMA_REGIONS}
        made, options, _ = label_layer(data, place, f"Preview [{case}]", LABELS, colors, case=case, role="preview")
        return viewer.add_labels(made, **options)
    return None


def find_result(
    viewer: Any, kind: Any, case: str, role: str, shape: tuple[int, ...], place: Placement, by: str | None = None
) -> Any:
    """Find the layer of an earlier result of the same case in the same place."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        alike = isinstance(layer, kind) and tuple(map(known.get, ("case", "role", "by"))) == (case, role, by)
        if alike and layer.data.shape == shape and np.allclose(world_matrix(layer), place.matrix):
            return layer
    return None


def _reference_names(regions: tuple[str, ...]) -> dict[int, str]:
    """Name the labels that regions are painted with: edema is edema only where the core inside is known too."""
    names = {}
    for region, label, inner in (("whole tumor", 2, "tumor core"), ("tumor core", 1, "enhancing tumor")):
        if region in regions:
            names[label] = LABELS[label] if inner in regions else region
    return {**names, 3: LABELS[3]} if "enhancing tumor" in regions else names


def _contrast_limits(array_ZYX: NDArray[Any]) -> tuple[float, float]:
    """Return a gray range that shows the brain: percentiles over what is not background, from a part of the voxels."""
    some = np.asarray(array_ZYX[::2, ::3, ::3], np.float32)
    inside = some[some > some.min()]
    if not inside.size:
        return float(some.min()), float(some.min()) + 1
    low = float(some.min())
    return low, max(float(np.percentile(inside, 99.8)), low + 1e-6)
