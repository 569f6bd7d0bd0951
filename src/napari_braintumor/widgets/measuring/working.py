"""What the Measure dock does in worker threads: generators for jobs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.resampling import resample
from napari_braintumor.engine.aligning.returning import move_labels
from napari_braintumor.engine.anatomy import LABEL_COLORS, name_labels
from napari_braintumor.engine.errors import BrainTumorError, DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.formats import join_words
from napari_braintumor.engine.inspecting.inspection import find_foreground
from napari_braintumor.engine.measuring.export import CaseReport, export_case
from napari_braintumor.engine.measuring.measurements import Measured, measure_regions
from napari_braintumor.engine.measuring.scores import score_labels
from napari_braintumor.engine.measuring.sides import Midline, find_midline
from napari_braintumor.engine.measuring.visits import (
    VisitComparison,
    compare_visits,
    find_interval,
    find_named_day,
    register_visits,
)
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.layers.measuring import FALSE, MISSED, RIGHT, DrawnLabels
from napari_braintumor.layers.visits import MovedVisit

_SHOWN_FIRST = ("T1ce", "FLAIR", "T2", "T1")


@dataclass(frozen=True, eq=False)
class MeasuredNow:
    """The measurements of labels, and how left and right were divided."""

    rows: tuple[Measured, ...]
    divided_by: str


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of labels by region, and for each region where the two differ, ``(Z, Y, X)``."""

    scores: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Compared:
    """What has changed between two visits, and the later one on the grid of the earlier one."""

    comparison: VisitComparison
    moved: MovedVisit


@dataclass(frozen=True)
class Exported:
    """The folder that was written."""

    folder: Path


def measure_drawn(drawn: DrawnLabels) -> Generator[PhaseReached | MeasuredNow, None, None]:
    """Measure labels as they are now."""
    yield PhaseReached("measuring")
    reference = drawn.read()
    midline = _find_midline(drawn)
    rows = measure_regions(reference.regions, reference.source, midline)
    yield MeasuredNow(rows, midline.how if midline is not None else "the middle of the image")


def score_drawn(drawn: DrawnLabels, other: DrawnLabels) -> Generator[PhaseReached | Scored, None, None]:
    """Score labels against others."""
    yield PhaseReached("scoring")
    labels, reference = drawn.read(), other.read()
    scores = score_labels(labels, reference)
    differences = {}
    for region in scores:
        ours, theirs = labels.regions[region], reference.regions[region]
        differences[region] = np.where(ours & theirs, RIGHT, np.where(ours, FALSE, np.where(theirs, MISSED, 0)))
    yield Scored(scores, {region: each.astype(np.uint8) for region, each in differences.items()})


def compare_drawn(
    earlier: DrawnLabels, later: DrawnLabels, show_first: Sequence[str] = ()
) -> Generator[PhaseReached | Compared, None, None]:
    """Register two visits and compare their labels.

    Parameters
    ----------
    earlier, later
        The labels of each visit, whose scans are open.
    show_first
        Modalities; the first that the later visit has is brought onto the grid of the earlier one to be seen.

    Yields
    ------
    PhaseReached or Compared
        Last what has changed.

    Raises
    ------
    DataError
        If the scans of a visit are not open, or as `register_visits` and `compare_visits`.
    """
    yield PhaseReached("reading the visits")
    for visit in (earlier, later):
        if not visit.scans:
            raise DataError(
                f"No scan of '{visit.name}' is open. The scans of both visits show how the heads lie to each other. "
                "Open the folder of that visit too."
            )
    labels = earlier.read(), later.read()
    scans = earlier.read_scans(), later.read_scans()
    move = np.eye(4)
    for event in register_visits(*scans):
        if isinstance(event, PhaseReached):
            yield event
        else:
            move = event
    yield PhaseReached("comparing the visits")
    midlines = _find_midline(earlier), _find_midline(later)
    days = find_interval(find_named_day(earlier.case), find_named_day(later.case))
    comparison = compare_visits(*labels, move, days, midlines)
    shown = next(name for name in (*show_first, *scans[1]) if name in scans[1])
    scan = scans[1][shown]
    moved = MovedVisit(
        shown,
        resample(scan.data, scan.grid, labels[0].source, move, outside=float(scan.data.min())),
        move_labels(labels[1].labels, labels[1].source, labels[0].source, move),
        name_labels(labels[1].regions),
        LABEL_COLORS,
    )
    yield Compared(comparison, moved)


def export_drawn(drawn: DrawnLabels, folder: Path) -> Generator[PhaseReached | Exported, None, None]:
    """Measure labels and write what a paper needs."""
    yield PhaseReached("measuring")
    reference, midline = drawn.read(), _find_midline(drawn)
    rows = measure_regions(reference.regions, reference.source, midline)
    yield PhaseReached("drawing the figure")
    labels = np.asarray(drawn.place.from_layer(np.asarray(drawn.array)))
    names = drawn.names or {int(label): f"label {label}" for label in np.unique(labels) if label}
    shown = next((name for name in _SHOWN_FIRST if name in drawn.scans), "")
    scan = drawn.read_scans()[shown].data if shown else None
    if scan is not None and scan.shape != labels.shape:
        scan, shown = None, ""
    yield Exported(
        export_case(
            CaseReport(
                drawn.case,
                rows,
                labels,
                drawn.place.grid,
                names,
                drawn.colors,
                scan,
                shown,
                drawn.record,
                _find_card(drawn.record),
            ),
            folder,
        )
    )


def _find_midline(drawn: DrawnLabels) -> Midline | None:
    """Return the midline of the head that labels were drawn on; None if no scan of theirs is open."""
    shape = drawn.place.grid.shape_ZYX
    for array, place in drawn.scans.values():
        scan = np.asarray(place.from_layer(np.asarray(array)), np.float32)
        if scan.shape == shape:
            return find_midline(find_foreground(scan))
    return None


def _find_card(record: Mapping[str, Any]) -> ModelCard | None:
    """Return the card of the model of a result, if it is still installed in that version."""
    try:
        card = ModelStore().find(str(record.get("model", ""))).card
    except BrainTumorError:
        return None
    return card if card is not None and card.version == record.get("model_version") else None


def describe_comparison(compared: VisitComparison) -> str:
    """Return in words what has changed between two visits."""
    lines = [
        f"{region}: {before:.1f} to {after:.1f} mL ({after - before:+.1f} mL"
        + (f", {after / before - 1:+.0%})" if before else ")")
        for region, before, after in compared.list_volumes()
    ]
    if compared.interval_days is not None:
        lines.insert(0, f"{compared.interval_days} days apart.")
    found = compared.assessment
    lines.append(f"{found.region}: {found.category or 'no category'} by diameters, {found.reason}.")
    lines.append(f"{found.region}: {found.by_volume or 'no category'} by volume.")
    counts = [
        f"{n} {word} lesion{'s' * (n != 1)}" for n, word in ((compared.new, "new"), (compared.vanished, "vanished"))
    ]
    lines.append(f"{join_words(counts, 'and')}.")
    return "\n".join(lines)
