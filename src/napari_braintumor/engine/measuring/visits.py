"""Two visits of a patient: who belongs together, how the heads lie to each other, and what has changed."""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.aligning import LEAST_GAIN
from napari_braintumor.engine.aligning.registration import Registration, prepare_scan, register
from napari_braintumor.engine.aligning.returning import move_labels
from napari_braintumor.engine.aligning.scans import Scan, lie_alike
from napari_braintumor.engine.anatomy import region_from_labels
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.calling import natural_sort_key
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.lesions import dilate, number_lesions
from napari_braintumor.engine.measuring.measurements import Measured, measure_regions
from napari_braintumor.engine.measuring.metrics import Mask
from napari_braintumor.engine.measuring.response import Assessment, assess, choose_region
from napari_braintumor.engine.measuring.sides import Midline
from napari_braintumor.engine.volumes import Reference, Volume

UNCHANGED, GROWN, SHRUNK, NEW, VANISHED = 1, 2, 3, 4, 5
CHANGES: Mapping[int, str] = {
    UNCHANGED: "unchanged",
    GROWN: "grown",
    SHRUNK: "shrunk",
    NEW: "new lesion",
    VANISHED: "vanished lesion",
}
"""What the numbers of a map of changes mean."""

CHANGE_COLORS: Mapping[int, str] = {
    UNCHANGED: "#9aa0a6",
    GROWN: "#e4572e",
    SHRUNK: "#4aa3df",
    NEW: "#ff2bd6",
    VANISHED: "#36c275",
}

_BEST_FIRST = ("T1ce", "T1", "T2", "FLAIR")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_BRATS_REG = re.compile(r"(?i)BraTSReg_\d+_\d\d_(\d{4})$")


def find_day(case: CaseFiles) -> int | None:
    """Return the day of a visit, by its headers or its name; see `find_named_day`."""
    dates = [image.series.date for image in case.images if image.series is not None and image.series.date]
    return find_named_day(min(dates, default=case.name))


def find_named_day(name: str) -> int | None:
    """Return the day that a name states, counted from any day that is the same for all visits of the patient.

    Returns
    -------
    int or None
        From a date, or from the days that BraTS-Reg puts there; None if the name has neither.
    """
    if match := _DATE.search(name):
        try:
            return datetime.date(*(int(part) for part in match.groups())).toordinal()
        except ValueError:
            return None
    days = _BRATS_REG.search(name)
    return int(days[1]) if days else None


def pair_visits(cases: Sequence[CaseFiles]) -> list[tuple[CaseFiles, CaseFiles]]:
    """Pair each visit of a patient with the one after it.

    Visits are ordered by date if all visits of the patient have one, else by the names of the cases.

    Returns
    -------
    list of tuple
        The earlier and the later visit.

    Raises
    ------
    DataError
        If no patient has two visits.
    """
    visits: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in cases:
        visits[case.patient].append(case)
    pairs = []
    for same in visits.values():
        days = {case.name: find_day(case) for case in same}
        dated = None not in days.values()
        ordered = sorted(same, key=lambda case: ((days[case.name] or 0) if dated else 0, natural_sort_key(case.name)))
        pairs += list(pairwise(ordered))
    if not pairs:
        names = ", ".join(case.name for case in cases[:4])
        raise DataError(
            f"No patient has two visits among {len(cases)} cases ({names}). Give the visits of a patient names that "
            "differ only in the time, such as p7_2024-03-01 and p7_2024-09-15, or give two folders with --same-patient."
        )
    return pairs


def find_interval(earlier: int | None, later: int | None) -> int | None:
    """Return the days between two days, or None if one is not known."""
    return later - earlier if earlier is not None and later is not None else None


def register_visits(
    earlier: Mapping[str, Scan], later: Mapping[str, Scan]
) -> Iterator[PhaseReached | NDArray[np.float64]]:
    """Find the rigid move that brings the head of the later visit onto that of the earlier one.

    Parameters
    ----------
    earlier, later
        The scans of each visit by modality, from `scans_of_volume`.

    Yields
    ------
    PhaseReached or array
        Last ``(4, 4)``: RAS mm of the later visit to RAS mm of the earlier one; the identity if registration finds no
        better place than the headers state.

    Raises
    ------
    DataError
        If they have no modality in common.
    """
    shared = [name for name in _BEST_FIRST if name in earlier and name in later]
    if not shared:
        raise DataError(
            f"The visits have no modality in common: {', '.join(earlier)} and "
            f"{', '.join(later)}. Registration needs one that both have."
        )
    yield PhaseReached(f"registering {shared[0]} of the visits", 0, 100)
    for event in register(prepare_scan(earlier[shared[0]]), prepare_scan(later[shared[0]])):
        if isinstance(event, Registration):
            better = event.after > event.before * (1 + LEAST_GAIN)
            yield event.to_reference if better else np.eye(4)
        else:
            yield PhaseReached(f"registering {shared[0]} of the visits", round(100 * event), 100)


def scans_of_volume(volume: Volume) -> dict[str, Scan]:
    """Return the scans of a case by modality, for `register_visits`."""
    return {
        name: Scan(data, volume.source, volume.name) for name, data in zip(volume.modalities, volume.data, strict=True)
    }


@dataclass(frozen=True, eq=False)
class VisitComparison:
    """What has changed between two visits.

    Attributes
    ----------
    earlier, later
        The measurements of each visit, on its own grid.
    interval_days
        The days between them; None if not known.
    assessment
        The change of the assessed region by RANO's thresholds.
    changes
        uint8 ``(Z, Y, X)`` with the numbers of `CHANGES` for the assessed region, on the grid of the earlier visit.
    grid
        That grid.
    changes_ml
        The volume of each of them in mL, by number.
    new, vanished
        How many lesions of the assessed region are new, and how many have vanished.
    """

    earlier: tuple[Measured, ...]
    later: tuple[Measured, ...]
    interval_days: int | None
    assessment: Assessment
    changes: NDArray[np.uint8]
    grid: SourceGrid
    changes_ml: Mapping[int, float]
    new: int
    vanished: int

    def list_volumes(self) -> list[tuple[str, float, float]]:
        """Return each region with its mL at both visits."""
        later = {row.region: float(row.values["volume_ml"]) for row in self.later if not row.lesion}
        return [
            (row.region, float(row.values["volume_ml"]), later[row.region])
            for row in self.earlier
            if not row.lesion and row.region in later
        ]


def compare_visits(
    earlier: Reference,
    later: Reference,
    to_earlier: NDArray[np.float64],
    interval_days: int | None = None,
    midlines: tuple[Midline | None, Midline | None] = (None, None),
    region: str | None = None,
) -> VisitComparison:
    """Compare the labels of two visits.

    Parameters
    ----------
    earlier, later
        The labels of each visit, on its own grid.
    to_earlier
        ``(4, 4)``, rigid: RAS mm of the later visit to RAS mm of the earlier one, from `register_visits`.
    interval_days
        The days between them.
    midlines
        The midline of each head, for sides.
    region
        The region whose change is assessed and mapped; if left out, enhancing tumor if there is any, else the whole
        tumor.

    Returns
    -------
    VisitComparison
        Measurements of both, the assessment and the map.

    Raises
    ------
    DataError
        If the labels have no region in common, or not the one asked for.
    """
    shared = [name for name in earlier.regions if name in later.regions]
    if not shared or (region is not None and region not in shared):
        raise DataError(
            f"The labels of the visits have {', '.join(earlier.regions)} and {', '.join(later.regions)}. Expected "
            f"{region or 'a region'} in both. Segment both visits with the same model."
        )
    before, after = (
        measure_regions({name: each.regions[name] for name in shared}, each.source, line)
        for each, line in zip((earlier, later), midlines, strict=True)
    )
    region = region or choose_region(before, after)
    first, second = earlier.regions[region], _bring(later, region, earlier.source, to_earlier)
    changes, new, vanished = map_changes(first, second, earlier.source)
    counts = np.bincount(changes.ravel(), minlength=len(CHANGES) + 1)
    added = measure_regions({region: changes == NEW}, earlier.source)
    return VisitComparison(
        before,
        after,
        interval_days,
        assess(region, before, after, added),
        changes,
        earlier.source,
        {number: int(counts[number]) * earlier.source.voxel_ml for number in CHANGES},
        new,
        vanished,
    )


def map_changes(earlier: Mask, later: Mask, grid: SourceGrid) -> tuple[NDArray[np.uint8], int, int]:
    """Map what has changed between two masks on one grid.

    A lesion of the later mask is new if nothing of the earlier one lies within its dilation; a lesion of the earlier
    mask has vanished in the same way (`lesions.REACH_MM`).

    Parameters
    ----------
    earlier, later
        bool ``(Z, Y, X)``.
    grid
        Their grid.

    Returns
    -------
    tuple
        uint8 ``(Z, Y, X)`` with the numbers of `CHANGES`; how many lesions are new; how many have vanished.
    """
    changes = np.zeros(earlier.shape, np.uint8)
    changes[earlier & later] = UNCHANGED
    changes[later & ~earlier] = GROWN
    changes[earlier & ~later] = SHRUNK
    counts = []
    for mine, other, number in ((later, earlier, NEW), (earlier, later, VANISHED)):
        lesions, count = number_lesions(mine, grid)
        met = set(np.unique(lesions[dilate(other, grid)]).tolist()) if other.any() else set()
        alone = [lesion for lesion in range(1, count + 1) if lesion not in met]
        changes[np.isin(lesions, alone)] = number
        counts.append(len(alone))
    return changes, counts[0], counts[1]


def _bring(later: Reference, region: str, onto: SourceGrid, to_earlier: NDArray[np.float64]) -> Mask:
    if np.allclose(to_earlier, np.eye(4)) and lie_alike(onto, later.source):
        return later.regions[region]
    return region_from_labels(move_labels(later.labels, later.source, onto, to_earlier), region)
