"""Open the scans of a case as layers, each on its own grid, where it lies in the scanner."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_braintumor.engine.aligning.scans import Scan, choose_reference
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.looking import look_at_unsure
from napari_braintumor.engine.files.reading import join_scans, read_reference, read_scans
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.layers.display import LayerData, layers_from_scans, make_reference_layer
from napari_braintumor.layers.placement import placement_beside


@dataclass(frozen=True)
class CasesFound:
    """What a folder or files hold.

    Attributes
    ----------
    cases
        At least one.
    """

    cases: tuple[CaseFiles, ...]


@dataclass(frozen=True)
class CaseLookedAt:
    """The images of unsure series were looked at.

    Attributes
    ----------
    case
        The case, with what was seen in the reasons of its table.
    """

    case: CaseFiles


@dataclass(frozen=True, eq=False)
class CaseRead:
    """A case, ready to be shown.

    Attributes
    ----------
    case
        Its files.
    layers
        napari's layer data tuples: the scans, and a mask drawn by people if there is one.
    notes
        What the user should know, one sentence each.
    """

    case: CaseFiles
    layers: tuple[LayerData, ...]
    notes: tuple[str, ...]


OpeningEvent = PhaseReached | CasesFound | CaseLookedAt | CaseRead


def open_paths(paths: Sequence[Path]) -> Generator[OpeningEvent, None, None]:
    """Find the cases in folders or files, and read the first that can be read.

    Yields
    ------
    OpeningEvent
        `CasesFound`, then those of `open_case`.

    Raises
    ------
    DataError
        If there is no case, or none that can be read.
    """
    yield PhaseReached("looking for scans")
    cases = find_cases(paths, offer=True)
    yield CasesFound(tuple(cases))
    sound = next((case for case in cases if case.problem is None), None)
    if sound is None:
        raise DataError(cases[0].problem or f"'{cases[0].name}' cannot be read.")
    yield from open_case(sound)


def open_case(case: CaseFiles) -> Generator[OpeningEvent, None, None]:
    """Look at the series of a case that are unsure, and read its scans.

    Yields
    ------
    OpeningEvent
        `CaseLookedAt` if anything was seen, and `CaseRead` last.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    looked_at = case
    for event in look_at_unsure(case):
        if isinstance(event, PhaseReached):
            yield event
        else:
            looked_at = event
    if looked_at is not case:
        yield CaseLookedAt(looked_at)
    yield from read_layers_of(looked_at)


def read_layers_of(
    case: CaseFiles,
    wanted: Collection[str] | None = None,
    beside: SourceGrid | None = None,
    *,
    with_mask: bool = True,
) -> Generator[OpeningEvent, None, None]:
    """Read the scans of a case.

    Parameters
    ----------
    case
        Its files.
    wanted
        The modalities to read; all of them if left out.
    beside
        The grid beside which they are shown, see `layers_from_scans`.
    with_mask
        Read the mask drawn by people too, if there is one.

    Yields
    ------
    OpeningEvent
        `PhaseReached` for each file, and `CaseRead` last.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    scans: dict[str, Scan] = {}
    for event in read_scans(case, wanted):
        if isinstance(event, PhaseReached):
            yield event
        else:
            scans = dict(event)
    notes = list(case.notes)
    volume = join_scans(case, scans) if wanted is None else None
    if volume is not None:
        notes = list(volume.notes)
        channels = zip(volume.modalities, volume.data, strict=True)
        scans = {m: replace(scans[m], data=channel, grid=volume.source) for m, channel in channels}
    else:
        notes += [note for scan in scans.values() for note in scan.notes]
    if beside is None and scans:
        beside = scans[choose_reference({modality: scan.grid for modality, scan in scans.items()})].grid
    series = {image.modality: image.series.key for image in case.images if image.series is not None}
    layers = layers_from_scans(scans, case.name, beside, series)
    if with_mask and wanted is None and case.reference:
        try:
            reference = read_reference(case)
        except DataError as error:
            notes.append(f"The scan was opened without its mask. {error}")
        else:
            if reference is not None:
                place = placement_beside(reference.source, beside or reference.source)
                layers.append(make_reference_layer(reference, case.name, place))
                notes += reference.notes
    yield CaseRead(case, tuple(layers), tuple(notes))
