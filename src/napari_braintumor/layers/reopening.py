"""A person's work on a result is saved with it, so that it can be opened again and go on.

The record beside the labels holds what only the layer knows: the strokes, and what the model had drawn in slices that
were edited since.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import REGIONS, Region, labels_by_region
from napari_braintumor.engine.correcting.strokes import Stroke, describe_strokes, read_strokes
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.measuring.record import read_record
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.tally import EMPTY, pack_slice, tally_slice, tally_slices
from napari_braintumor.layers.answers import Answer
from napari_braintumor.layers.display import LayerData, make_label_layer
from napari_braintumor.layers.figures import figures_of
from napari_braintumor.layers.placement import KEY, Placement, find_placement, level_0
from napari_braintumor.layers.selection import case_of, find_owner, modality_of, scans_in
from napari_braintumor.layers.stroke_layers import corrected_slices

_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, zlib.error, BrainTumorError)


def describe_work(layer: Labels) -> dict[str, Any]:
    """Return for the record what a person did to a result, if it is saved on the grid that it was drawn on.

    Returns
    -------
    dict
        ``strokes``; ``followed_z``, the slices along Z that only follow from them; and ``model_slices``, what the model
        drew in the edited slices, packed. JSON values only.
    """
    figures = figures_of(layer)
    answer = figures.answer
    packed = answer.packed if answer is not None else {}
    before = {str(z): b64encode(packed[z]).decode() if z in packed else "" for z in figures.edited}
    shape = find_placement(layer).from_layer(level_0(layer)).shape
    strokes = describe_strokes(layer.metadata.get(KEY, {}).get("strokes", ()))
    followed = sorted(set(figures.edited) - set(corrected_slices(layer)))
    sides = [int(side) for side in shape]
    return {"work": {"shape_zyx": sides, "strokes": strokes, "followed_z": followed, "model_slices": before}}


def reopen_result(labels_ZYX: NDArray[np.uint8], place: Placement, path: Path) -> LayerData | None:
    """Make the layer of a result that was saved, as it was when it was saved.

    Parameters
    ----------
    labels_ZYX
        As saved.
    place
        Where they lie.
    path
        The file that they were read from.

    Returns
    -------
    tuple or None
        napari's layer data tuple; None if the file has no record of this program beside it, or one that says nothing of
        labels like these.
    """
    record = read_record(path)
    try:
        return _make_layer(labels_ZYX, place, record) if record is not None else None
    except _UNREADABLE:
        return None


def find_scans(layers: Iterable[Layer], result: Labels) -> dict[str, Image]:
    """Return, for each modality that a reopened result was made from, the open scan of its case, if all are open."""
    used = result.metadata[KEY].get("provenance", {}).get("modalities_used", ())
    case = case_of(result)
    of_case = {modality_of(scan): scan for scan in scans_in(layers) if case and find_owner(scan) == case}
    return {name: of_case[name] for name in used} if used and set(used) <= set(of_case) else {}


def _make_layer(labels_ZYX: NDArray[np.uint8], place: Placement, record: Mapping[str, Any]) -> LayerData:
    model = _find_model(record)
    regions = _regions_of(record, model)
    work = _read_work(record, labels_ZYX.shape, [region.name for region in regions])
    tallies = tally_slices(labels_ZYX)
    packed = {z: pack_slice(labels_ZYX[z]) for z, tally in enumerate(tallies) if tally.voxels}
    drawn = list(tallies)
    for z, plane in work.model_slices.items():
        drawn[z] = tally_slice(plane) if plane is not None else EMPTY
        packed.pop(z, None)
        if plane is not None:
            packed[z] = pack_slice(plane)
    case = str(record["case"])
    volumes_ml = record.get("model_volumes_ml", record["volumes_ml"])
    answer = Answer(
        record={name: value for name, value in record.items() if name not in ("work", "written", "labels_file")},
        label_names={region.label: region.label_name for region in regions},
        label_colors={region.label: region.color for region in regions},
        regions=labels_by_region(regions),
        volumes_ml={region.name: float(volumes_ml[region.name]) for region in regions if region.name in volumes_ml},
        not_measurable={str(name): str(why) for name, why in record.get("not_measurable", {}).items()},
        notes=tuple(map(str, record.get("notes", ()))),
        voxel_ml=place.grid.voxel_ml,
        slices=tuple(drawn),
        packed=packed,
    )
    return make_label_layer(
        place.to_layer(labels_ZYX),
        place,
        f"Tumor [{case}]",
        answer.label_names,
        answer.label_colors,
        case=case,
        role="tumor",
        tallies=tallies,
        made_from={},
        model={
            "name": record.get("model"),
            "version": record.get("model_version"),
            "path": str(model.path) if model is not None else None,
        },
        provenance={name: value for name, value in answer.record.items() if name in ("settings", "modalities_used")},
        answer=answer,
        alignment=None,
        reviewed=tuple(int(z) for z in record.get("reviewed_slices_z", ()) if 0 <= int(z) < len(labels_ZYX)),
        strokes=work.strokes,
        followed={z: tallies[z].digest for z in work.followed},
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """What a person did: strokes, what followed, and what the model had drawn in edited slices, None if nothing."""

    strokes: tuple[Stroke, ...]
    followed: tuple[int, ...]
    model_slices: Mapping[int, NDArray[np.uint8] | None]


def _read_work(record: Mapping[str, Any], shape: tuple[int, ...], regions: list[str]) -> _Work:
    """Read what was done, if it was saved on the grid that it was drawn on."""
    work = record.get("work", {})
    if tuple(work.get("shape_zyx", ())) != tuple(shape):
        if record.get("edited_slices_z"):  # what the model drew there is not known, so it cannot be told apart
            raise ValueError(work)
        return _Work((), (), {})
    planes: dict[int, NDArray[np.uint8] | None] = {}
    for z, text in work.get("model_slices", {}).items():
        if not 0 <= int(z) < shape[0]:
            raise ValueError(z)
        planes[int(z)] = _unpack(b64decode(text, validate=True), (shape[1], shape[2])) if text else None
    strokes = read_strokes(work.get("strokes", ()))
    known = tuple(stroke for stroke in strokes if stroke.region is None or stroke.region in regions)
    return _Work(known, tuple(z for z in map(int, work.get("followed_z", ())) if z in planes), planes)


def _unpack(packed: bytes, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Unpack a slice from a file, which may hold anything: no more than a slice is unpacked."""
    size = shape[0] * shape[1]
    return np.frombuffer(zlib.decompressobj().decompress(packed, size), np.uint8, size).reshape(shape)


def _find_model(record: Mapping[str, Any]) -> StoredModel | None:
    """Return the very model that drew a result, if it is still there."""
    name, sha256 = record.get("model"), record.get("model_sha256")
    found = [model for model in ModelStore().list() if model.name == name and model.card is not None]
    return next((model for model in found if file_sha256(model.path) == sha256), None)


def _regions_of(record: Mapping[str, Any], model: StoredModel | None) -> list[Region]:
    """Return the regions of a result: those of its model, or else those of ours that its labels name."""
    if model is not None and model.card is not None:
        return list(model.card.regions)
    named = {int(label): str(name) for label, name in record["labels"].items()}
    regions = [region for region in REGIONS if named.get(region.label) == region.label_name]
    if len(regions) < len(named):
        raise ValueError(named)
    return regions
