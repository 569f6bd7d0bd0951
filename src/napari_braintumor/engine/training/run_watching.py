"""Watching runs: where they lie, which there are, and what happens in one, whoever trains it.

No torch here: a dock watches runs with this module.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from platformdirs import user_data_path

from napari_braintumor.engine.events import Failed, Trained, TrainingEvent
from napari_braintumor.engine.training.run_log import parse_events
from napari_braintumor.engine.training.runs import Run


def find_runs_folder() -> Path:
    """Return the folder of the user's runs; ``BRAINTUMOR_RUNS`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_RUNS")
    return Path(chosen) if chosen else user_data_path("napari-braintumor", appauthor=False) / "runs"


def list_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, the latest first."""
    if not folder.is_dir():
        return []
    found = [Run(path.parent) for path in folder.glob("*/plan.json")]
    return sorted(found, key=lambda run: _last_change(run), reverse=True)


def follow(run: Run, alive: Callable[[], bool] | None = None, interval_s: float = 0.2) -> Iterator[list[TrainingEvent]]:
    """Report what happens in a run, from its beginning, until it reports its end or its process is gone.

    Parameters
    ----------
    run
        Any run, also one that another machine trains.
    alive
        Whether there is still a process to wait for; left out, `Run.is_running`.
    interval_s
        How often to look.

    Yields
    ------
    list of TrainingEvent
        New events since the last look; empty lists too, so that the caller can stop.
    """
    alive = alive or (lambda: run.is_running)
    position, is_past = 0, True  # an end that lies in the past may be that of a session before this one
    while True:
        living = alive()  # asked before reading, so that the last words of a process are not missed
        events: list[TrainingEvent] = []
        if run.events_path.exists():
            with run.events_path.open("rb") as file:
                if file.seek(0, 2) < position:  # another run took its place
                    position = 0
                file.seek(position)
                events, used = parse_events(file.read())
                position += used
        yield events
        if not living or (events and not is_past and isinstance(events[-1], Trained | Failed)):
            return
        is_past = False
        time.sleep(interval_s)


def _last_change(run: Run) -> float:
    path = run.events_path if run.events_path.exists() else run.plan_path
    return path.stat().st_mtime
