"""Find which open layers belong to one case, and show the layers of one case only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.naming import read_owner
from napari_braintumor.layers.placement import KEY, find_placement, level_0, unwrap_layer, world_matrix
from napari_braintumor.layers.selection import case_of, find_owner, modality_of, scans_in

_SHOWN_FIRST = ("FLAIR", "T1ce", "T2", "T1")


@dataclass(frozen=True, eq=False)
class Case:
    """The open scans of one patient at one time point.

    Attributes
    ----------
    key
        Identifies the case.
    name
        Its name in the docks, unique even if two cases have the same name.
    scans
        In the viewer's order.
    """

    key: str
    name: str
    scans: tuple[Image, ...]


def cases_in(layers: Iterable[Layer]) -> list[Case]:
    """Return the open cases; the case of the topmost scan comes last.

    Scans belong together if their readers noted the same case or, if another plugin opened them, if their names are
    equal apart from the modality. If a modality occurs twice, as in two studies with equal patient names, the cases are
    distinguished by folder. Scans whose names say nothing belong to no case.

    Returns
    -------
    list of Case
        Each with its scans.
    """
    groups: dict[str, list[Image]] = {}
    for scan in scans_in(layers):
        name = find_owner(scan)
        if name is not None:
            groups.setdefault(name.casefold() if case_of(scan) else read_owner(name), []).append(scan)
    _join_nameless(groups)
    cases = [case for scans in groups.values() for case in _split_by_folder(scans)]
    order = {id(scan): number for number, scan in enumerate(scans_in(layers))}
    return sorted(cases, key=lambda case: max(order[id(scan)] for scan in case.scans))


def _join_nameless(groups: dict[str, list[Image]]) -> None:
    """Add scans named only by modality to the other case, if there is exactly one."""
    named = [name for name in groups if name]
    if "" in groups and len(named) == 1 and not any(case_of(scan) for scan in groups[named[0]]):
        theirs, ours = ({modality_of(scan) for scan in groups[name]} for name in (named[0], ""))
        if not theirs & ours:
            groups[named[0]] += groups.pop("")


def _split_by_folder(scans: list[Image]) -> list[Case]:
    modalities = [modality_of(scan) for scan in scans]
    name = next((found for scan in scans if (found := find_owner(scan))), None) or str(scans[0].name)
    by_folder: dict[str, list[Image]] = {}
    for scan in scans:
        by_folder.setdefault(_folder_of(scan), []).append(scan)
    if len(set(modalities)) == len(modalities) or len(by_folder) == 1:
        return [Case(name.casefold(), name, tuple(scans))]
    return [
        Case(f"{name.casefold()} {folder}", f"{name} ({Path(folder).name or 'no file'})", tuple(each))
        for folder, each in by_folder.items()
    ]


def _folder_of(scan: Layer) -> str:
    if not scan.source.path:
        return ""
    path = Path(scan.source.path)
    return str(path if path.is_dir() else path.parent)


def match_modalities(layers: Iterable[Layer], anchor: Layer | None = None) -> dict[str, Image]:
    """Find the layers of one case by metadata and name.

    Parameters
    ----------
    layers
        In the viewer's order.
    anchor
        A layer of the case; if left out, the case of the topmost scan with a known modality.

    Returns
    -------
    dict
        The layer of each modality, in the order of `MODALITIES`. If two layers fit, the upper one, and before that one
        with the anchor's shape. A layer of another shape is matched only if both say where they lie.
    """
    cases = cases_in(layers)
    case = find_case(cases, anchor) or next((case for case in reversed(cases) if _first_of(case) is not None), None)
    if case is None or (first := _first_of(case)) is None:
        return {}
    if anchor is None or anchor not in case.scans or modality_of(anchor) is None:
        anchor = first
    placed = _is_placed(anchor)
    found: dict[str, Image] = {}
    for alike in (False, True):
        for scan in case.scans:
            if not (modality := modality_of(scan)) or (scan.data.shape == anchor.data.shape) is not alike:
                continue
            if alike or (placed and _is_placed(scan)):
                found[modality] = scan
    found[modality_of(anchor) or ""] = anchor
    order = (*MODALITIES, *sorted(set(found) - set(MODALITIES)))
    return {modality: found[modality] for modality in order if modality in found}


def _is_placed(layer: Image) -> bool:
    """Whether a layer says where it lies, so that it can be brought onto the grid of another one."""
    if np.ndim(level_0(layer)) != 3:
        return False
    try:
        grid = find_placement(layer).grid
    except DataError:
        return False
    return grid.spacing_known and grid.orientation_known


def _first_of(case: Case) -> Image | None:
    """Return the topmost scan with a known modality."""
    return next((scan for scan in reversed(case.scans) if modality_of(scan)), None)


def find_case(cases: Iterable[Case], layer: Layer | None) -> Case | None:
    """Return the case of a layer, which may be a scan or made from one."""
    if layer is None:
        return None
    made_from = {scan["unique_id"] for scan in layer.metadata.get(KEY, {}).get("made_from", {}).values()}
    name = case_of(layer)
    for case in cases:
        if layer in case.scans or made_from & {str(scan.unique_id) for scan in case.scans}:
            return case
    if made_from or name is None or (isinstance(layer, Image) and layer in scans_in([layer])):
        return None
    return next((case for case in cases if name in map(find_owner, case.scans)), None)


def find_scan_of(layers: Iterable[Layer], layer: Layer | None) -> Layer | None:
    """Return the topmost scan of the case of a layer, or the layer itself if it is a scan."""
    if layer is None or layer in scans_in(layers):
        return layer
    case = find_case(cases_in(layers), layer)
    return case.scans[-1] if case is not None else None


def layers_on(layers: Iterable[Layer], scan: Layer) -> list[Layer]:
    """Return the layers with the same voxels as a scan, including the scan, that do not belong to another case."""
    everything = list(layers)
    cases = cases_in(everything)
    owner, matrix = find_case(cases, scan), world_matrix(scan)
    return [
        layer
        for layer in everything
        if isinstance(layer, Image | Labels)
        and np.shape(level_0(layer)) == np.shape(level_0(scan))
        and np.allclose(world_matrix(layer), matrix)
        and find_case(cases, layer) in (owner, None)
    ]


class CaseView:
    """Hides the layers of other cases, and shows them again as they were."""

    def __init__(self) -> None:
        self._hidden: WeakKeyDictionary[Layer, bool] = WeakKeyDictionary()

    def show_only(self, case: Case, layers: Iterable[Layer], touched: Iterable[Layer] | None = None) -> None:
        """Show the layers of a case that were hidden for another case, and hide the layers of other cases.

        Layers that belong to no case are not changed.

        Parameters
        ----------
        case
            The current case.
        layers
            All open layers.
        touched
            The layers that may be hidden or shown; if left out, all.
        """
        everything = list(layers)
        cases = cases_in(everything)
        for layer in everything if touched is None else touched:
            owner = find_case(cases, layer)
            if owner is not None and owner.key == case.key:
                self._show_again(layer)
            elif owner is not None and layer.visible:
                self._hidden[unwrap_layer(layer)] = True
                layer.visible = False

    def show_some(self, case: Case) -> None:
        """Show one scan of a case if the user has hidden them all."""
        of_modality = {modality_of(scan) or "": scan for scan in case.scans}
        if case.scans and not any(scan.visible for scan in case.scans):
            first = next((of_modality[m] for m in _SHOWN_FIRST if m in of_modality), case.scans[-1])
            first.visible = True

    def show_all(self, layers: Iterable[Layer]) -> None:
        """Show all layers again that were hidden here."""
        for layer in layers:
            self._show_again(layer)

    def _show_again(self, layer: Layer) -> None:
        if self._hidden.pop(unwrap_layer(layer), False):
            layer.visible = True
