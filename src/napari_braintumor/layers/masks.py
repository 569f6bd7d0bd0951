"""Label layers as masks: which of them serve, what their numbers mean, and which slices a person has reviewed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import OWN_CONVENTION, REGIONS, guess_convention, region_from_labels
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import find_label_values, reference_from_values
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Reference
from napari_braintumor.layers.placement import KEY, check_three_dimensional, find_placement, level_0
from napari_braintumor.layers.selection import Selection, is_same_scan


def masks_in(layers: Iterable[Layer]) -> list[Labels]:
    """Return the label layers that may serve as a mask: not the preview of a training, nor where models disagree."""
    return [
        layer
        for layer in layers
        if isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("role") not in ("preview", "disagreement")
    ]


def find_reference(layers: Iterable[Layer], case: str) -> Labels | None:
    """Return the topmost mask drawn by people that was opened with a case."""
    of_case = {"case": case, "role": "reference"}.items()
    found = [layer for layer in masks_in(layers) if of_case <= _known_words(layer).items()]
    return found[-1] if found else None


def reference_from_labels(
    labels_ZYX: NDArray[np.integer[Any]], names: Mapping[int, str], source: SourceGrid, convention: str | None = None
) -> Reference:
    """Read the labels of a layer as regions that models can be held against.

    Parameters
    ----------
    labels_ZYX
        As `labels_for` returns them.
    names
        What the layer calls its labels, as `label_names` returns them. A layer of this plugin has its own numbers. Of
        any other the numbers tell the convention; a single number stands for the whole tumor.
    source
        The grid of the scans.
    convention
        What the user says that the numbers mean, a key of `CONVENTIONS`.

    Raises
    ------
    DataError
        If the labels fit no convention, or several and nobody says which.
    """
    if names and convention is None:
        drawn = [region.name for region in REGIONS if region.label in names]
        return Reference({region: region_from_labels(labels_ZYX, region) for region in drawn}, OWN_CONVENTION, source)
    values = find_label_values(labels_ZYX, source)
    convention = convention or guess_convention(values) or ("whole" if len(set(values) - {0}) == 1 else None)
    if convention is None:
        raise DataError(
            f"The reference holds the values {', '.join(map(str, values))}, which may mean different things: "
            "BraTS 2013, BraTS 2023 and the Decathlon number them differently. Choose what they mean below the "
            "reference, or open the mask with its scan and say it in its file name, as in 'seg_brats2023.nii.gz'."
        )
    return reference_from_values(labels_ZYX, convention, source)


def label_names(layer: Labels) -> dict[int, str]:
    """Return what a label layer of this plugin calls its labels; nothing for a layer of another origin."""
    if not layer.metadata.get(KEY, {}).get("role") or "name" not in layer.features:
        return {}
    table = layer.features
    return {int(n): str(name) for n, name in zip(table["index"], table["name"], strict=True) if n}


def _known_words(layer: Layer) -> dict[str, str]:
    """Return what this plugin noted of a layer, as far as it is text."""
    return {name: value for name, value in layer.metadata.get(KEY, {}).items() if isinstance(value, str)}


def labels_for(selection: Selection, layer: Labels) -> NDArray[np.integer[Any]]:
    """Return a label layer's array with axes (Z, Y, X), checked to lie where the scans lie.

    Raises
    ------
    DataError
        If it is not a three-dimensional layer, if it is known to belong to another case, or if it lies elsewhere or
        has another shape: then it belongs to another scan.
    """
    check_three_dimensional(layer)
    check_same_case(selection, layer)
    place = find_placement(layer)
    shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
    # A layer that was drawn on a scan lies where napari shows the scan, whatever either knows of its file.
    here, there = (np.asarray(each.matrix) for each in (selection.placement, place))
    if shape != selection.shape or (layer.data.ndim == 3 and not np.allclose(here, there, atol=1e-3)):
        raise DataError(
            f"Labels '{layer.name}' {shape} do not lie on the scans {selection.shape}: they belong to another image. "
            "Choose the labels that were drawn on these scans."
        )
    return selection.placement.from_layer(np.asarray(level_0(layer)))


def check_same_case(selection: Selection, layer: Labels) -> None:
    """Refuse labels that are known to belong to another case: in many data sets all cases share shape and place.

    Labels know the scans that they were made from, or the case that they were opened with. Those that a user has
    painted know neither, and are taken for what they lie on.

    Raises
    ------
    DataError
        Naming both cases.
    """
    known = layer.metadata.get(KEY, {})
    case, made_from = known.get("case"), known.get("made_from", {})
    common = made_from.keys() & selection.made_from.keys()
    owners = {(scan.get("case") or "").casefold() for scan in selection.made_from.values()} - {""}
    if common:
        belongs = all(is_same_scan(made_from[name], selection.made_from[name]) for name in common)
    else:
        belongs = not case or not owners or case.casefold() in owners
    if not belongs:
        raise DataError(
            f"Labels '{layer.name}' belong to other scans, of case '{case}', than those of '{selection.name}'. Labels "
            "and scans must be of one case, even where they lie in the same place. Choose the labels of "
            f"'{selection.name}', or the scans that the labels were made from."
        )


def reviewed_slices(layer: Labels) -> tuple[int, ...]:
    """Return the slices along Z, from inferior, that the user marked as reviewed."""
    return tuple(layer.metadata.get(KEY, {}).get("reviewed", ()))


def mark_reviewed(layer: Labels, z: int, reviewed: bool = True) -> None:
    """Mark a slice along Z as looked through by a person, or take the mark back."""
    marks = set(reviewed_slices(layer)) - {z} | ({z} if reviewed else set())
    layer.metadata = {**layer.metadata, KEY: {**layer.metadata.get(KEY, {}), "reviewed": tuple(sorted(marks))}}


def slice_at(layer: Layer, point: Iterable[float]) -> int | None:
    """Return which slice of a layer, along Z from inferior, a point of the world lies in; None outside of it.

    Raises
    ------
    DataError
        If the layer is not three-dimensional.
    """
    check_three_dimensional(layer)
    place = find_placement(layer)
    index = np.asarray(layer.world_to_data(tuple(point)[-3:]), float)
    axis = place.grid.axes[0] if place.in_source_order else 0
    size = layer.data.shape[axis]
    at = round(float(index[axis]))
    if not 0 <= at < size:
        return None
    return size - 1 - at if place.in_source_order and place.grid.flips[0] else at
