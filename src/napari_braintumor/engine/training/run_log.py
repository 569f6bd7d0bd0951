"""What a run reports: events as lines of JSON, and in words for people. No torch here, as docks read runs with it."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_braintumor.engine.events import (
    BatchDone,
    CaseLeftOut,
    EpochDone,
    Failed,
    Judged,
    Noted,
    PhaseReached,
    PreviewDone,
    Resumed,
    Stopped,
    Trained,
    TrainingEvent,
    Verified,
)

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Noted, CaseLeftOut, PhaseReached, Verified, Resumed, BatchDone, EpochDone),
        *(PreviewDone, Judged, Stopped, Trained, Failed),
    )
}


def append_event(path: Path, event: TrainingEvent) -> None:
    """Append an event with the time to a file, as a line of JSON; after a torn line it begins a new one."""
    line = json.dumps({"event": type(event).__name__, "time": round(time.time(), 3), **_plain(event)})
    torn = path.exists() and not _ends_a_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + line + "\n")


def append_to_log(path: Path, event: TrainingEvent, details: str) -> None:
    """Append an event to a log for people, with details below it."""
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{now}  {describe_event(event)}\n{details}")


def parse_events(raw: bytes) -> tuple[list[TrainingEvent], int]:
    """Read whole lines; return the events and how many bytes they took.

    Torn lines, and events and fields that only another version knows, are passed over.

    Returns
    -------
    tuple
        The events in the order written, and a number of bytes to go on from.
    """
    used = raw.rfind(b"\n") + 1
    events: list[TrainingEvent] = []
    for line in raw[:used].splitlines():
        try:
            fields = json.loads(line)
            kind = KINDS[fields.pop("event")]
            if fields.get("path"):
                fields["path"] = Path(fields["path"])
            names = {field.name for field in dataclasses.fields(kind)}
            events.append(kind(**{name: value for name, value in fields.items() if name in names}))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return events, used


def describe_event(event: TrainingEvent) -> str:
    """Return an event in one line, for a log, a terminal or a dock."""
    match event:
        case Noted(text):
            return text
        case PhaseReached(phase, done, total):
            return f"{phase}, {done} done" if total and done else phase
        case Verified():
            length = "under a minute" if event.minutes < 1 else f"about {event.minutes:.0f} min"
            return (
                f"The settings work: {event.parameters:,} parameters on {event.device}, about "
                f"{event.memory_mb:,.0f} MB beside {event.data_mb:,.0f} MB of data, "
                f"{event.seconds_per_step:.2f} s a batch, {length} in all."
            )
        case Resumed(step):
            return f"Resumed after step {step}."
        case BatchDone(step, steps, loss):
            return f"step {step} of {steps}, loss {loss:.3f}"
        case EpochDone():
            dice = "  ".join(f"{name} {value:.3f}" for name, value in event.dice.items())
            return (
                f"epoch {event.epoch:3d}  loss {event.loss:.4f}  rate {event.learning_rate:.2e}  {dice}  "
                f"{'' if event.replay is None else f'replay {event.replay:.3f}  '}"
                f"{'best  ' if event.best else ''}{event.seconds / 60:.1f} min"
            )
        case PreviewDone(epoch):
            return f"Preview of epoch {epoch}."
        case Judged(accepted, reason):
            return f"{'Accepted' if accepted else 'Not accepted'}: {reason}"
        case Stopped(reason):
            return f"Stopped: {reason}"
        case Trained(path, score):
            result = "Not validated. " if score is None else f"Score {score:.3f}. "
            return result + (f"The model is in '{path}'." if path else "The parent stays as it was.")
        case Failed(reason):
            return f"Failed: {reason}"


def _ends_a_line(path: Path) -> bool:
    """Whether a file ends with a whole line, or is empty: a process that is killed may tear the last one."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _plain(event: TrainingEvent) -> dict[str, Any]:
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    # A run may be moved or seen from another machine, so a file is known by its name.
    return {
        name: value.name if isinstance(value, Path) else dict(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
