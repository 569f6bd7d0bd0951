"""Results as layers. A second run replaces the first, but never what a person drew or reviewed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.anatomy import EXTRA_COLORS
from napari_braintumor.engine.tally import pack_slice, tally_slice, unpack_slice
from napari_braintumor.engine.volumes import Comparison, Segmentation
from napari_braintumor.layers.answers import answer_of
from napari_braintumor.layers.display import LayerData, make_label_layer, make_own_label_layer
from napari_braintumor.layers.editing import set_slices
from napari_braintumor.layers.figures import figures_of, follow_labels, is_result
from napari_braintumor.layers.placement import (
    KEY,
    Placement,
    default_placement,
    find_placement,
    level_0,
    unwrap_layer,
    world_matrix,
)
from napari_braintumor.layers.selection import Selection, case_name, case_of, is_same_scan, scans_in

if TYPE_CHECKING:
    from napari.components import ViewerModel

MadeFrom = Mapping[str, Mapping[str, str | None]]
"""The scans of a result: for each modality, the description from `describe_scan`."""


def labels_from_segmentation(
    segmentation: Segmentation,
    place: Placement | None = None,
    model: str | None = None,
    *,
    made_from: MadeFrom | None = None,
    model_path: Path | None = None,
    notes: Iterable[str] = (),
) -> LayerData:
    """Make the label layer for a result.

    Parameters
    ----------
    segmentation
        The result. The layer gets its own copy of the labels, to be corrected with the brush; labels of a streamed
        volume are shared with it.
    place
        The placement of the image layer that the result was made from; if left out, that of this plugin's readers.
    model
        The name of the model, if several models have layers.
    made_from
        The scans, see `Selection.made_from`.
    model_path
        The model's file.
    notes
        Notes shown to the user during the run; if left out, those in the segmentation's record.

    Returns
    -------
    tuple
        napari's layer data tuple: data, options, kind.
    """
    place = place or default_placement(segmentation.source)
    labels = place.to_layer(segmentation.labels)
    more: dict[str, Any] = {} if model is None else {"by": model}
    answer = answer_of(segmentation, notes)
    data, options, kind = make_label_layer(
        np.array(labels, order="C") if isinstance(labels, np.ndarray) else labels,
        place,
        f"Tumor [{segmentation.name}]" if model is None else f"Tumor [{segmentation.name}] by {model}",
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
        alignment=segmentation.alignment,
    )
    table = options["features"]
    hidden = {answer.regions[region][0] for region in answer.not_measurable}
    table["mL"] = [np.nan if n in hidden else ml for n, ml in zip(table["index"], table["mL"], strict=True)]
    return data, options, kind


def update_or_add_labels(
    viewer: ViewerModel,
    segmentation: Segmentation,
    place: Placement,
    model: str | None = None,
    *,
    made_from: MadeFrom | None = None,
    model_path: Path | None = None,
    notes: Iterable[str] = (),
) -> Labels:
    """Show a result in the layer of the last result from the same scans if it still exists, otherwise in a new layer.

    Slices that a person has since edited or marked as reviewed stay unchanged: `kept_slices` returns them, and
    `replace_kept` replaces them by the model's answer. napari's undo (Ctrl+Z) restores the previous labels.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    segmentation
        The result.
    place
        The placement of the image layer that it was made from.
    model
        The name of the model, if several are compared: each has its own layer.
    made_from
        The scans, see `Selection.made_from`.
    model_path
        The model's file.
    notes
        Notes shown to the user during the run.

    Returns
    -------
    Labels
        The layer, updated or new.
    """
    follow_labels(viewer)
    data, options, _ = labels_from_segmentation(
        segmentation, place, model, made_from=made_from, model_path=model_path, notes=notes
    )
    layer = find_result(viewer, Labels, segmentation.name, "tumor", data.shape, place, model, made_from)
    if layer is None:
        return viewer.add_labels(data, **options)
    _merge(layer, segmentation, options)
    return layer


def alignment_of(layer: Labels) -> Alignment | None:
    """Return how the scans of a result were brought onto its grid; None if they shared one."""
    alignment: Alignment | None = layer.metadata.get(KEY, {}).get("alignment")
    return alignment


def kept_slices(layer: Labels) -> tuple[int, ...]:
    """Return the slices along Z, from inferior, in which the last run kept what a person had done."""
    known = layer.metadata.get(KEY, {})
    return tuple(known.get("kept", {})) if figures_of(layer).answer is known.get("answer") else ()


def replace_kept(layer: Labels) -> None:
    """Replace the slices that the last run kept by the model's answer, and remove their marks. Can be undone."""
    known = layer.metadata[KEY]
    kept: dict[int, bytes] = known.get("kept", {})
    _, rows, columns = find_placement(layer).from_layer(level_0(layer)).shape
    new = {z: unpack_slice(packed, (rows, columns)) for z, packed in kept.items()}
    answer = known["answer"]
    slices = tuple(tally_slice(new[z]) if z in new else tally for z, tally in enumerate(answer.slices))
    reviewed = tuple(z for z in known.get("reviewed", ()) if z not in kept)
    packed = {**answer.packed, **kept}
    more = {"answer": replace(answer, slices=slices, packed=packed), "kept": {}, "reviewed": reviewed}
    layer.metadata = {**layer.metadata, KEY: {**known, **more}}
    set_slices(layer, new)


def _merge(layer: Labels, segmentation: Segmentation, options: Mapping[str, Any]) -> None:
    """Put a new answer into a layer, except for slices that a person has edited or reviewed."""
    figures = figures_of(layer)
    figures.settle()
    before = layer.metadata[KEY]
    last, edited = figures.answer, figures.edited
    kept = sorted({*edited, *before.get("reviewed", ())})
    answer = options["metadata"][KEY]["answer"]
    if last is not None:  # a reviewed slice without edits is still a model's answer, but of the earlier model
        stays = set(kept) - set(edited)
        slices = tuple(last.slices[z] if z in stays else tally for z, tally in enumerate(answer.slices))
        drawn = {z: last.packed[z] for z in stays if z in last.packed}
        packed = {z: each for z, each in answer.packed.items() if z not in stays}
        answer = replace(answer, slices=slices, packed={**packed, **drawn})
    packed = {z: pack_slice(np.asarray(segmentation.labels[z])) for z in kept}
    more = {"answer": answer, "earlier": last, "kept": packed, "reviewed": tuple(before.get("reviewed", ()))}
    more |= {name: before[name] for name in ("strokes", "followed") if name in before}
    layer.metadata = {**layer.metadata, KEY: {**options["metadata"][KEY], **more}}
    layer.colormap = options["colormap"]
    both = enumerate(zip(figures.slices, segmentation.tallies, strict=True))
    others = [z for z, (now, then) in both if z not in packed and now.digest != then.digest]
    set_slices(layer, {z: segmentation.labels[z] for z in others})
    figures.publish()


def update_or_add_probabilities(viewer: ViewerModel, segmentation: Segmentation, place: Placement) -> list[Image]:
    """Show the probability of each drawn region as a hidden image layer, if the result has probabilities."""
    layers: list[Image] = []
    if segmentation.probabilities is None:
        return layers
    for region, array_ZYX in zip(segmentation.regions, segmentation.probabilities, strict=True):
        if region in segmentation.not_measurable:
            continue
        role = f"probability of {region}"
        data = place.to_layer(array_ZYX).astype(np.float32)  # GPUs cannot display float16
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
            add_unselected(viewer, layer)
        layers.append(layer)
    return layers


def update_or_add_disagreement(viewer: ViewerModel, comparison: Comparison, place: Placement) -> Labels:
    """Show where models disagree: each label is the number of models that disagree with the majority.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    comparison
        The comparison of models on one case.
    place
        The placement of the image layer that their results were made from.

    Returns
    -------
    Labels
        The layer, updated or new.
    """
    many = len(comparison.models)
    names = {n: f"{n} of {many} models {'differs' if n == 1 else 'differ'}" for n in range(1, many // 2 + 1)}
    colors = {n: EXTRA_COLORS[min(n, len(EXTRA_COLORS)) - 1] for n in names}
    array, case = place.to_layer(comparison.disagreement), comparison.name
    data, options, _ = make_label_layer(
        array, place, f"Disagreement [{case}]", names, colors, case=case, role="disagreement"
    )
    layer = find_result(viewer, Labels, case, "disagreement", data.shape, place)
    if layer is None:
        return viewer.add_labels(data, **options)
    layer.data = data
    layer.colormap, layer.features = options["colormap"], options["features"]
    return layer


def update_or_add_preview(viewer: ViewerModel, case: str, z: int, labels_YX: NDArray[np.uint8]) -> Labels | None:
    """Show the prediction of a network in training for one slice of a case, if its scans are open.

    The selection does not change, so that the user can go on painting in another layer.

    Parameters
    ----------
    viewer
        The viewer, or its model.
    case
        The case's name.
    z
        The slice, from inferior.
    labels_YX
        The predicted labels, with the numbers of `LABELS`.

    Returns
    -------
    Labels or None
        The layer; None if no scan of that case and size is open.
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
        made, options, _ = make_own_label_layer(data, place, f"Preview [{case}]", case=case, role="preview")
        layer = Labels(made, **options)
        add_unselected(viewer, layer)
        return layer
    return None


def add_unselected(viewer: Any, layer: Layer) -> None:
    """Add a layer without changing the selection: napari selects new layers."""
    selection = viewer.layers.selection
    before, active = {unwrap_layer(each) for each in selection}, selection.active
    viewer.add_layer(layer)
    if active is not None:
        selection.active = unwrap_layer(active)
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
    model: str | None = None,
    made_from: MadeFrom | None = None,
) -> Any:
    """Find the layer of an earlier result for the same case and scans at the same position."""
    for layer in viewer.layers:
        known = layer.metadata.get(KEY, {})
        alike = isinstance(layer, kind) and tuple(map(known.get, ("case", "role", "by"))) == (case, role, model)
        if not alike or layer.data.shape != shape or not np.allclose(world_matrix(layer), place.matrix):
            continue
        if same_scans(known.get("made_from", {}), made_from or {}):
            return layer
    return None


def is_result_of(layer: Layer, selection: Selection) -> bool:
    """Whether a layer contains the tumor that a model drew in these scans."""
    known = layer.metadata.get(KEY, {})
    made_from = known.get("made_from", {})
    if not is_result(layer):
        return False
    return same_scans(made_from, selection.made_from) if made_from else known.get("case") == selection.name


def same_scans(before: MadeFrom, now: MadeFrom) -> bool:
    """Whether two results are from the same scans. Names and grids do not prove it, because many cases share both."""
    if not before or not now:
        return True
    return any(is_same_scan(one, two) for one in before.values() for two in now.values())
