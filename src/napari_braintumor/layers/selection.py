"""Layers that make up a case: found by metadata and name, checked against each other, and read as a `Volume`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer

from napari_braintumor.engine.aligning.aligning import align
from napari_braintumor.engine.aligning.scans import Scan, choose_reference, fit_as_stored
from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.assembling import check_scan, same_image_error, volume_from_modalities
from napari_braintumor.engine.files.formats import strip_suffix
from napari_braintumor.engine.files.naming import find_modality, read_owner, read_words
from napari_braintumor.engine.inspecting.witness import find_suspect_modalities
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import AnyVolume, StreamedVolume, Volume
from napari_braintumor.layers.placement import (
    KEY,
    Placement,
    check_three_dimensional,
    find_placement,
    level_0,
)


@dataclass(frozen=True, eq=False)
class Selection:
    """Layers that make up a case, checked against each other; their voxels are not read yet.

    Attributes
    ----------
    arrays
        For each modality, the layer's array, NumPy or lazy, and the placement that reorders it to (Z, Y, X).
    placement
        The placement of the first layer, or of the reference if grids differ; labels made from the case get the same.
    name
        The case's name.
    shape
        Voxels along Z, Y, X.
    notes
        What was guessed about the position and size of the voxels, one sentence each.
    made_from
        For each modality, its layer as described by `describe_scan`; a result stores this.
    names
        For each modality, its layer's name in messages.
    reference
        The modality whose grid the others are brought onto, which is that of `placement`; None if all share one.
    alignment
        How the scans were brought onto one grid when they were opened, if they were.
    """

    arrays: Mapping[str, tuple[Any, Placement]]
    placement: Placement
    name: str
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    made_from: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    alignment: Alignment | None = None


def modality_of(layer: Layer) -> str | None:
    """Return a layer's modality, from its reader, its name or its file's name, in this order."""
    known = layer.metadata.get(KEY, {}).get("modality")
    if known:
        return str(known)
    path = layer.source.path
    return find_modality(layer.name) or (find_modality(Path(path).name) if path else None)


def scans_in(layers: Iterable[Layer]) -> list[Image]:
    """Return the layers that may be scans: image layers that this plugin did not make from a result."""
    return [
        layer
        for layer in layers
        if isinstance(layer, Image) and not layer.metadata.get(KEY, {}).get("role") and not layer.rgb
    ]


def select_layers(layers: Mapping[str, Layer], config: AlignConfig | None = None) -> Selection:
    """Check that layers make up a case, without reading their voxels.

    Layers on different grids are brought onto one when their voxels are read.

    Parameters
    ----------
    layers
        For each modality its image layer.
    config
        Which of them gives the grid, if theirs differ; the defaults if left out.

    Returns
    -------
    Selection
        The case, its voxels not read yet.

    Raises
    ------
    DataError
        If there are no layers, a layer is not a three-dimensional gray image, a layer was chosen twice, or layers
        differ in shape and do not all have a known voxel size.
    """
    if not layers:
        raise DataError("No image is chosen. At least one modality is needed. Open a scan and choose its layer.")
    chosen: dict[str, tuple[Any, Placement]] = {}
    names: dict[str, str] = {}
    for modality, layer in layers.items():
        twin = next((other for other in names if layers[other] == layer), None)
        if twin:
            raise DataError(
                f"Layer '{layer.name}' is chosen as {twin} and as {modality}. A layer is one modality. "
                "Set one of the two to none."
            )
        chosen[modality], names[modality] = (level_0(layer), _find_scan_placement(layer)), layer.name
    first = next(iter(chosen))
    quoted = {modality: f"layer '{name}'" for modality, name in names.items()}
    grids = {modality: place.grid for modality, (_, place) in chosen.items()}
    fits, notes = fit_as_stored(grids, quoted, first)
    reference = None if fits else choose_reference(grids, (config or AlignConfig()).reference)
    place = chosen[reference or first][1]
    return Selection(
        arrays=chosen,
        placement=place,
        name=case_name(list(layers.values())),
        shape=place.grid.shape_ZYX,
        notes=(*place.grid.notes, *notes),
        made_from={modality: describe_scan(layer) for modality, layer in layers.items()},
        names=quoted,
        reference=reference,
        alignment=_find_alignment(layers),
    )


def _find_alignment(layers: Mapping[str, Layer]) -> Alignment | None:
    """Return how layers were aligned when their case was opened; None if they were not, or not together."""
    known = [layer.metadata.get(KEY, {}).get("alignment") for layer in layers.values()]
    alignment = known[0]
    same = isinstance(alignment, Alignment) and all(each is alignment for each in known)
    return alignment if same and alignment.scans.keys() >= layers.keys() else None


def describe_scan(layer: Layer) -> dict[str, str | None]:
    """Describe a scan to recognize it by: ``unique_id`` (while it is open), ``path``, ``name``, ``case`` and more."""
    path = find_placement(layer).grid.path or layer.source.path  # napari knows only the folder, if one was opened
    return {
        "unique_id": str(layer.unique_id),
        "name": str(layer.name),
        "path": str(path) if path else None,
        "case": find_owner(layer),
        "frame_of_reference": layer.metadata.get(KEY, {}).get("frame_of_reference"),
    }


def is_same_scan(one: Mapping[str, str | None], two: Mapping[str, str | None]) -> bool:
    """Whether two descriptions are of the same layer, or of files of the same case that were opened twice."""
    if one["unique_id"] == two["unique_id"]:
        return True
    if not one["path"] or not two["path"]:
        return False
    first, second = Path(one["path"]), Path(two["path"])
    cases = [(scan.get("case") or "").casefold() for scan in (one, two)]
    if not all(cases):
        return first == second
    beside = first == second or first.parent in (second, second.parent) or second.parent == first
    return beside and cases[0] == cases[1]  # a folder may contain several cases


def scans_of(layers: Iterable[Layer], result: Layer) -> dict[str, Image]:
    """Return, for each modality, the scan that a result was made from, if it is still open."""
    made_from = result.metadata.get(KEY, {}).get("made_from", {})
    open_now = {str(scan.unique_id): scan for scan in scans_in(layers)}
    found = {modality: open_now.get(str(scan["unique_id"])) for modality, scan in made_from.items()}
    return {modality: scan for modality, scan in found.items() if scan is not None}


def stream_selection(selection: Selection) -> AnyVolume:
    """Return a selection as a case to segment; layers that are not in memory are read as needed.

    Returns
    -------
    Volume or StreamedVolume
        A `StreamedVolume` if a layer is not in memory.

    Raises
    ------
    DataError
        See `volume_from_selection` for layers in memory; for other layers, if two modalities are the same image.
    """
    if selection.reference is not None or all(_is_in_memory(data) for data, _ in selection.arrays.values()):
        return volume_from_selection(selection)
    images = [place.from_layer(_make_lazy(data)) for data, place in selection.arrays.values()]
    together = max(max(getattr(image, "chunks", ((1,),))[0]) for image in images)
    names = tuple(selection.arrays)
    middle = {name: np.asarray(image[len(image) // 2]) for name, image in zip(names, images, strict=True)}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if np.ptp(middle[first]) and np.array_equal(middle[first], middle[second]):
                raise same_image_error(first, second)
    return StreamedVolume(
        tuple(images), names, selection.placement.grid, selection.name, together, notes=selection.notes
    )


def volume_from_selection(selection: Selection) -> Volume:
    """Read the voxels of a selection, and bring them onto one grid; see `align_selection`.

    This may take seconds if layers are lazy or their grids differ, so do it in a worker thread.

    Returns
    -------
    Volume
        The case, with the notes of the selection.

    Raises
    ------
    DataError
        If an image contains NaN, infinity or only one value, or two modalities are the same image.
    """
    *_, last = align_selection(selection)
    assert isinstance(last, Volume)
    return last


def align_selection(selection: Selection, config: AlignConfig | None = None) -> Iterator[PhaseReached | Volume]:
    """Read the voxels of a selection, and bring them onto one grid if its layers have different ones.

    Parameters
    ----------
    selection
        The layers.
    config
        How; the reference is that of the selection.

    Yields
    ------
    PhaseReached or Volume
        The volume last.

    Raises
    ------
    DataError
        If an image contains NaN, infinity or only one value, two modalities are the same image, or a layer shows
        nothing of the head in the others.
    """
    arrays = {modality: place.from_layer(np.asarray(data)) for modality, (data, place) in selection.arrays.items()}
    notes, alignment = selection.notes, selection.alignment
    if selection.reference is not None:
        for modality, array in arrays.items():
            check_scan(modality, array)
        frames = {modality: scan["frame_of_reference"] or "" for modality, scan in selection.made_from.items()}
        scans = {
            modality: Scan(arrays[modality], place.grid, selection.names[modality], frames[modality])
            for modality, (_, place) in selection.arrays.items()
        }
        config = (config or AlignConfig()).model_copy(update={"reference": selection.reference})
        for event in align(scans, config):
            if isinstance(event, PhaseReached):
                yield event
            else:
                arrays, alignment, notes = dict(event.images), event.alignment, (*notes, *event.notes)
    volume = volume_from_modalities(arrays, selection.placement.grid, selection.name)
    doubts = find_suspect_modalities(dict(zip(volume.modalities, volume.data, strict=True)))
    yield replace(volume, notes=(*notes, *doubts), alignment=alignment)


def _is_in_memory(data: Any) -> bool:
    return isinstance(data, np.ndarray) and not isinstance(data, np.memmap)


def _make_lazy(data: Any) -> Any:
    """Return an array whose axes can be reordered without reading it: a NumPy array, or else a dask array."""
    if isinstance(data, np.ndarray):
        return data
    import dask.array

    if isinstance(data, dask.array.Array):
        return data
    return dask.array.from_array(data, chunks=getattr(data, "chunks", None) or "auto")


def volume_from_layers(layers: Mapping[str, Layer]) -> Volume:
    """Make a volume from image layers, whichever plugin opened them.

    Parameters
    ----------
    layers
        For each modality its image layer. The first gives the grid.

    Returns
    -------
    Volume
        The case.

    Raises
    ------
    DataError
        See `select_layers` and `volume_from_selection`.
    """
    return volume_from_selection(select_layers(layers))


def _find_scan_placement(layer: Layer) -> Placement:
    """Return where a scan lies; raises an error if the layer is not a scan."""
    if not isinstance(layer, Image):
        raise DataError(f"Layer '{layer.name}' is not an image layer. A scan is needed. Choose an image layer.")
    if layer.rgb:
        raise DataError(
            f"Layer '{layer.name}' is a color picture. A gray scan is needed. "
            "Right-click the layer and choose Split RGB."
        )
    check_three_dimensional(layer)
    return find_placement(layer)


def case_of(layer: Layer) -> str | None:
    """Return the case that a layer was opened from; None if another plugin opened it."""
    case: str | None = layer.metadata.get(KEY, {}).get("case")
    return case


def find_owner(layer: Layer) -> str | None:
    """Return whose scan a layer is: the case that its reader noted, or else the layer's name without the modality.

    Returns
    -------
    str or None
        Empty if the name contains only the modality; None if it contains no modality, and so says nothing.
    """
    case = case_of(layer)
    if case:
        return case
    path = layer.source.path
    names = (str(layer.name), Path(path).name if path else "")
    return next((_owner_in(name) for name in names if find_modality(name)), None)


def _owner_in(name: str) -> str:
    stem = strip_suffix(Path(name.replace("/", "_")))
    return "_".join(read_words(stem).rest) if read_owner(stem) else ""


def case_name(layers: list[Layer]) -> str:
    """Name a case after the case its readers noted, or else after the common part of the layers' names."""
    owners = {find_owner(layer) for layer in layers}
    if case := case_of(layers[0]) or (owners.pop() if len(owners) == 1 else None):
        return case
    names = [str(layer.name) for layer in layers]
    same = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)
    shared = names[0][:same].strip(" _-.[(")
    return shared if len(shared) > 2 else names[0]
