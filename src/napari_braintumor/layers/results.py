"""Results as layers. A second run takes the place of the first, but never that of what a person drew or reviewed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import EXTRA_COLORS
from napari_braintumor.engine.tally import pack_slice, tally_slice, unpack_slice
from napari_braintumor.engine.volumes import Comparison, Segmentation
from napari_braintumor.layers.display import LayerData, label_layer, own_label_layer
from napari_braintumor.layers.figures import answer_of, figures_of, follow_labels, is_result
from napari_braintumor.layers.placement import (
    KEY,
    Placement,
    bare,
    default_placement,
    find_placement,
    level_0,
    world_matrix,
)
from napari_braintumor.layers.selection import Selection, case_name, case_of, is_same_scan, scans_in

if TYPE_CHECKING:
    from napari.components import ViewerModel

MadeFrom = Mapping[str, Mapping[str, str | None]]
"""The scans of a result: for each modality what `describe_scan` returns."""


def labels_from_segmentation(
    segmentation: Segmentation,
    place: Placement | None = None,
    by: str | None = None,
    *,
    made_from: MadeFrom | None = None,
    model_path: Path | None = None,
    notes: Iterable[str] = (),
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
    notes
        What the user was told during the run; left out, what the segmentation's own record says.
    """
    place = place or default_placement(segmentation.source)
    labels = place.to_layer(segmentation.labels)
    more: dict[str, Any] = {} if by is None else {"by": by}
    answer = answer_of(segmentation, notes)
    data, options, kind = label_layer(
        np.array(labels, order="C") if isinstance(labels, np.ndarray) else labels,
        place,
        f"Tumor [{segmentation.name}]" if by is None else f"Tumor [{segmentation.name}] by {by}",
        segmentation.label_names,
        segmentation.label_colors,
        case=segmentation.name,
        role="tumor",
        tallies=segmentation.tallies,
        **more,
        provenance=dict(segmentation.provenance),
        made_from={modality: dict(scan) for modality, scan in (made_from or {}).items()},
        model={
            "name": segmentation.provenance.get("model"),
            "version": segmentation.provenance.get("model_version"),
            "path": str(model_path) if model_path else None,
        },
        answer=answer,
    )
    table = options["features"]
    hidden = {answer.regions[region][0] for region in answer.not_measurable}
    table["mL"] = [np.nan if n in hidden else ml for n, ml in zip(table["index"], table["mL"], strict=True)]
    return data, options, kind


def update_or_add_labels(
    viewer: ViewerModel,
    segmentation: Segmentation,
    place: Placement,
    by: str | None = None,
    *,
    made_from: MadeFrom | None = None,
    model_path: Path | None = None,
    notes: Iterable[str] = (),
) -> Labels:
    """Show a result: in the layer of the last result of the same scans if that is still there, else in a new one.

    Slices that a person has changed or marked as reviewed since stay as they are: `kept_slices` tells which, and
    `replace_kept` takes the model's answer there too. napari's undo (Ctrl+Z) brings back what the layer held before.

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
    notes
        What the user was told during the run.
    """
    follow_labels(viewer)
    data, options, _ = labels_from_segmentation(
        segmentation, place, by, made_from=made_from, model_path=model_path, notes=notes
    )
    layer = find_result(viewer, Labels, segmentation.name, "tumor", data.shape, place, by, made_from)
    if layer is None:
        return viewer.add_labels(data, **options)
    _merge(layer, segmentation, options)
    return layer


def kept_slices(layer: Labels) -> tuple[int, ...]:
    """Return the slices along Z, from inferior, in which the last run did not replace what a person had done."""
    known = layer.metadata.get(KEY, {})
    return tuple(known.get("kept", {})) if figures_of(layer).answer is known.get("answer") else ()


def replace_kept(layer: Labels) -> None:
    """Replace, undoably, the slices that the last run kept by what the model gave there, and take their marks back."""
    known = layer.metadata[KEY]
    kept: dict[int, bytes] = known.get("kept", {})
    _, rows, columns = find_placement(layer).from_layer(level_0(layer)).shape
    new = {z: unpack_slice(packed, (rows, columns)) for z, packed in kept.items()}
    answer = known["answer"]
    slices = tuple(tally_slice(new[z]) if z in new else tally for z, tally in enumerate(answer.slices))
    reviewed = tuple(z for z in known.get("reviewed", ()) if z not in kept)
    more = {"answer": replace(answer, slices=slices), "kept": {}, "reviewed": reviewed}
    layer.metadata = {**layer.metadata, KEY: {**known, **more}}
    _set_slices(layer, new)


def _merge(layer: Labels, segmentation: Segmentation, options: Mapping[str, Any]) -> None:
    """Put a new answer into a layer, but for the slices that a person has changed or reviewed."""
    figures = figures_of(layer)
    figures.settle()
    before = layer.metadata[KEY]
    last, edited = figures.answer, figures.edited
    kept = sorted({*edited, *before.get("reviewed", ())})
    answer = options["metadata"][KEY]["answer"]
    if last is not None:  # a reviewed slice that nobody changed is still a model's, though another's
        stays = set(kept) - set(edited)
        slices = tuple(last.slices[z] if z in stays else tally for z, tally in enumerate(answer.slices))
        answer = replace(answer, slices=slices)
    packed = {z: pack_slice(np.asarray(segmentation.labels[z])) for z in kept}
    more = {"answer": answer, "earlier": last, "kept": packed, "reviewed": tuple(before.get("reviewed", ()))}
    layer.metadata = {**layer.metadata, KEY: {**options["metadata"][KEY], **more}}
    layer.colormap = options["colormap"]
    both = enumerate(zip(figures.slices, segmentation.tallies, strict=True))
    others = [z for z, (now, then) in both if z not in packed and now.digest != then.digest]
    _set_slices(layer, {z: segmentation.labels[z] for z in others})
    figures.publish()


def _set_slices(layer: Labels, slices_YX: Mapping[int, NDArray[np.uint8]]) -> None:
    """Set slices along Z of a layer, as one step that can be undone."""
    place = find_placement(layer)
    in_order = place.grid.is_in_order or not place.in_source_order
    with layer.block_history():
        for z, wanted_YX in slices_YX.items():
            now_YX = np.asarray(place.from_layer(level_0(layer))[z])
            rows, columns = np.nonzero(now_YX != wanted_YX)
            if rows.size:
                at_ZYX = (np.full(rows.size, z), rows, columns)
                at = at_ZYX if in_order else _in_source_order(place, at_ZYX)
                layer.data_setitem(at, np.asarray(wanted_YX)[rows, columns], refresh=False)
    layer.refresh()


def _in_source_order(place: Placement, at_ZYX: tuple[NDArray[np.intp], ...]) -> tuple[NDArray[np.intp], ...]:
    """Turn indices along Z, Y, X into those of the source's own axes."""
    grid = place.grid
    turned = [
        grid.shape[axis] - 1 - index if flip else index
        for index, axis, flip in zip(at_ZYX, grid.axes, grid.flips, strict=True)
    ]
    return tuple(turned[grid.axes.index(axis)] for axis in range(3))


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
            layer = Image(
                data,
                **place.options,
                name=f"{role.capitalize()} [{segmentation.name}]",
                colormap="magma",
                blending="additive",
                contrast_limits=(0, 1),
                visible=False,
                metadata=place.remember(case=segmentation.name, role=role),
            )
            _add_unselected(viewer, layer)
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
    colors = {n: EXTRA_COLORS[min(n, len(EXTRA_COLORS)) - 1] for n in names}
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

    What is selected stays selected: whoever is painting goes on in their own layer.

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
        made, options, _ = own_label_layer(data, place, f"Preview [{case}]", case=case, role="preview")
        layer = Labels(made, **options)
        _add_unselected(viewer, layer)
        return layer
    return None


def _add_unselected(viewer: Any, layer: Layer) -> None:
    """Add a layer and leave selected what was: napari selects what is new."""
    selection = viewer.layers.selection
    before, active = {bare(each) for each in selection}, selection.active
    viewer.add_layer(layer)
    if active is not None:
        selection.active = bare(active)
    else:
        selection.clear()
        selection.update(before)


def find_result(
    viewer: Any,
    kind: Any,
    case: str,
    role: str,
    shape: tuple[int, ...],
    place: Placement,
    by: str | None = None,
    made_from: MadeFrom | None = None,
) -> Any:
    """Find the layer of an earlier result of the same case and scans in the same place."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        alike = isinstance(layer, kind) and tuple(map(known.get, ("case", "role", "by"))) == (case, role, by)
        if not alike or layer.data.shape != shape or not np.allclose(world_matrix(layer), place.matrix):
            continue
        if same_scans(known.get("made_from", {}), made_from or {}):
            return layer
    return None


def is_result_of(layer: Layer, selection: Selection) -> bool:
    """Whether a layer holds the tumor that a model drew in these scans."""
    known = layer.metadata.get(KEY, {})
    made_from = known.get("made_from", {})
    if not is_result(layer):
        return False
    return same_scans(made_from, selection.made_from) if made_from else known.get("case") == selection.name


def same_scans(before: MadeFrom, now: MadeFrom) -> bool:
    """Whether two results are of the same scans: equal names and grids are no proof, many cases share both."""
    if not before or not now:
        return True
    return any(is_same_scan(one, two) for one in before.values() for two in now.values())
