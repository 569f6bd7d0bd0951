"""Events that a cohort's run reports, and how they become JSON: one line each, the same fields for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_braintumor.engine.events import CaseFailed


@dataclass(frozen=True)
class CohortStarted:
    """The run begins with so many cases."""

    total: int
    output: Path


@dataclass(frozen=True)
class CaseStarted:
    """The network begins with a case, the `number`-th of the run, from 1."""

    case: str
    number: int


@dataclass(frozen=True)
class CaseProgressed:
    """The network has seen `done` of `total` slices of a case."""

    case: str
    done: int
    total: int


@dataclass(frozen=True)
class CaseDone:
    """A case has a result.

    Attributes
    ----------
    case
        Its name.
    reused
        The result was there already, of the same scans with the same model and settings.
    record
        The JSON file of the result.
    files
        The labels first, and what was written with them.
    content
        What the record says.
    """

    case: str
    reused: bool
    record: Path
    files: tuple[Path, ...]
    content: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class CohortProgressed:
    """`done` of `total` cases are over, failed ones among them; the estimate `left_s`, in seconds, is None at first."""

    done: int
    total: int
    left_s: float | None


@dataclass(frozen=True)
class CohortDone:
    """The run is over.

    Attributes
    ----------
    segmented, reused, failed
        How many cases were segmented now, had a result already, and failed.
    table, report
        What was written of all cases; None if it was not asked for.
    """

    segmented: int
    reused: int
    failed: int
    table: Path | None = None
    report: Path | None = None


@dataclass(frozen=True)
class Waited:
    """A watched folder has nothing new: `done` cases are over, and `arriving` ones are still being copied."""

    done: int
    arriving: int


CohortEvent = (
    CohortStarted | CaseStarted | CaseProgressed | CaseDone | CaseFailed | CohortProgressed | CohortDone | Waited
)


def describe_event(event: CohortEvent) -> dict[str, Any]:
    """Return an event as JSON values; see docs/cohorts.md for the fields.

    Returns
    -------
    dict
        Its name is in ``event``.
    """
    match event:
        case CohortStarted(total, output):
            return {"event": "started", "cases": total, "output": str(output)}
        case CaseStarted(case, number):
            return {"event": "case_started", "case": case, "number": number}
        case CaseProgressed(case, done, total):
            return {"event": "case_progress", "case": case, "slices_done": done, "slices": total}
        case CaseDone():
            return {
                "event": "case_done",
                "case": event.case,
                "reused": event.reused,
                "volumes_ml": event.content.get("volumes_ml", {}),
                "notes": event.content.get("notes", []),
                "record": str(event.record),
                "files": [str(path) for path in event.files],
            }
        case CaseFailed(case, reason):
            return {"event": "case_failed", "case": case, "reason": reason}
        case CohortProgressed(done, total, left_s):
            return {"event": "progress", "done": done, "cases": total, "left_s": left_s}
        case CohortDone():
            return {
                "event": "done",
                "segmented": event.segmented,
                "reused": event.reused,
                "failed": event.failed,
                "table": None if event.table is None else str(event.table),
                "report": None if event.report is None else str(event.report),
            }
        case Waited(done, arriving):
            return {"event": "waiting", "done": done, "arriving": arriving}


def describe_left(seconds: float) -> str:
    """Describe how long something will still take: ``12 s``, ``5 min``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
