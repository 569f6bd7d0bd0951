"""Label layers as masks: which can be used, what their numbers mean, and which slices a person has reviewed."""

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

_NOT_MASKS = ("preview", "disagreement", "outline", "strokes", "differences", "changes", "moved")
"""The roles of label layers that say something else than what is tumor."""


def masks_in(layers: Iterable[Layer]) -> list[Labels]:
    """Return the label layers that can be used as a mask, so not previews, disagreement, outlines or strokes."""
    return [
        layer
        for layer in layers
        if isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("role") not in _NOT_MASKS
    ]


def find_reference(layers: Iterable[Layer], case: str) -> Labels | None:
    """Return the topmost mask drawn by people and opened with a case."""
    of_case = {"case": case, "role": "reference"}.items()
    found = [layer for layer in masks_in(layers) if of_case <= _known_words(layer).items()]
    return found[-1] if found else None


def reference_from_labels(
    labels_ZYX: NDArray[np.integer[Any]], names: Mapping[int, str], source: SourceGrid, convention: str | None = None
) -> Reference:
    """Read the labels of a layer as regions that models can be compared with.

    Parameters
    ----------
    labels_ZYX
        From `labels_for`.
    names
        The label names of the layer, from `label_names`. A layer of this plugin uses the numbers of `LABELS`. For any
        other layer the convention is guessed from the numbers; a single number stands for the whole tumor.
    source
        The grid of the scans.
    convention
        The label convention chosen by the user, a key of `CONVENTIONS`.

    Returns
    -------
    Reference
        The regions, on the grid of the scans.

    Raises
    ------
    DataError
        If the labels fit no convention, or several and none is chosen.
    """
    if names and convention is None:
        drawn = [region.name for region in REGIONS if region.label in names]
        return Reference({region: region_from_labels(labels_ZYX, region) for region in drawn}, OWN_CONVENTION, source)
    values = find_label_values(labels_ZYX, source)
    convention = convention or guess_convention(values) or ("whole" if len(set(values) - {0}) == 1 else None)
    if convention is None:
        raise DataError(
            f"The reference contains the values {', '.join(map(str, values))}, which may mean different things: "
            "BraTS 2013, BraTS 2023 and the Decathlon number labels differently. Choose the convention below the "
            "reference, or put it into the mask's file name, as in 'seg_brats2023.nii.gz', and open it with its scan."
        )
    return reference_from_values(labels_ZYX, convention, source)


def label_names(layer: Labels) -> dict[int, str]:
    """Return the label names of a label layer of this plugin; empty for other layers."""
    if not layer.metadata.get(KEY, {}).get("role") or "name" not in layer.features:
        return {}
    table = layer.features
    return {int(n): str(name) for n, name in zip(table["index"], table["name"], strict=True) if n}


def _known_words(layer: Layer) -> dict[str, str]:
    """Return the text values of this plugin's metadata of a layer."""
    return {name: value for name, value in layer.metadata.get(KEY, {}).items() if isinstance(value, str)}


def labels_for(selection: Selection, layer: Labels) -> NDArray[np.integer[Any]]:
    """Return a label layer's array with axes (Z, Y, X), after checking that it lies on the scans.

    Returns
    -------
    array
        Integers ``(Z, Y, X)``; a view where possible.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, is known to belong to another case, or differs from the scans in
        position or shape.
    """
    check_three_dimensional(layer)
    check_same_case(selection, layer)
    place = find_placement(layer)
    shape = tuple(place.grid.shape[axis] for axis in place.grid.axes)
    # A layer drawn on a scan has the displayed position of the scan, whatever is known about the files.
    here, there = (np.asarray(each.matrix) for each in (selection.placement, place))
    if shape != selection.shape or (layer.data.ndim == 3 and not np.allclose(here, there, atol=1e-3)):
        raise DataError(
            f"Labels '{layer.name}' {shape} do not lie on the scans {selection.shape}, so they belong to another "
            "image. Choose the labels that were drawn on these scans."
        )
    return selection.placement.from_layer(np.asarray(level_0(layer)))


def check_same_case(selection: Selection, layer: Labels) -> None:
    """Raise an error for labels of another case. In many data sets all cases share shape and position.

    Labels know the scans they were made from, or the case they were opened with. Labels painted by the user know
    neither, and are taken to belong to the scans they lie on.

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
            f"Labels '{layer.name}' belong to the scans of case '{case}', not to those of '{selection.name}'. Labels "
            "and scans must belong to the same case, even if they share a position. Choose the labels of "
            f"'{selection.name}', or the scans that the labels were made from."
        )


def reviewed_slices(layer: Labels) -> tuple[int, ...]:
    """Return the slices along Z, from inferior, that the user marked as reviewed."""
    return tuple(layer.metadata.get(KEY, {}).get("reviewed", ()))


def mark_reviewed(layer: Labels, z: int, reviewed: bool = True) -> None:
    """Mark a slice along Z as reviewed by a person, or remove the mark."""
    marks = set(reviewed_slices(layer)) - {z} | ({z} if reviewed else set())
    layer.metadata = {**layer.metadata, KEY: {**layer.metadata.get(KEY, {}), "reviewed": tuple(sorted(marks))}}


def slice_at(layer: Layer, point: Iterable[float]) -> int | None:
    """Return the slice of a layer, along Z from inferior, that contains a point in world coordinates; None if outside.

    Returns
    -------
    int or None
        0 is the most inferior slice.

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
