"""A watched folder: new cases are done as they arrive and settle."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from napari_braintumor.engine.cohorts.cohort_events import CohortEvent, Waited
from napari_braintumor.engine.cohorts.plan import CohortPlan
from napari_braintumor.engine.cohorts.running import segment_cohort
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.case_files import CaseFiles

SETTLE_S = 30.0
"""A case is complete if its files have not changed for so long."""

POLL_S = 10.0

_State = tuple[tuple[str, int, int], ...]


def watch_cohort(
    find: Callable[[], Sequence[CaseFiles]], plan: CohortPlan, settle_s: float = SETTLE_S, poll_s: float = POLL_S
) -> Generator[CohortEvent, None, None]:
    """Segment cases as they arrive, until iteration is stopped.

    A case that failed is tried again when its files change, and when the next case arrives. Several watchers of one
    folder may write to the same results: each case is done by one of them, and all list it.

    Parameters
    ----------
    find
        Finds the cases that are there now.
    plan
        What is to be done with them; its own cases do not matter.
    settle_s
        How long a case's files must stay as they are before it is read.
    poll_s
        How often to look.

    Yields
    ------
    CohortEvent
        As `segment_cohort`, once for each round with new cases, and `Waited` after each look without.

    Raises
    ------
    BrainTumorError
        As `segment_cohort`.
    """
    since: dict[str, tuple[_State, float]] = {}
    done: dict[str, _State] = {}
    while True:
        cases, now = _find_now(find), time.monotonic()
        states = {case.name: _look_at(case) for case in cases}
        for name, state in states.items():
            if name not in since or since[name][0] != state:
                since[name] = state, now
        settled = [case for case in cases if now - since[case.name][1] >= settle_s]
        if any(done.get(case.name) != states[case.name] for case in settled):
            # All that are settled, so that table and report list them; those with a result cost a look.
            yield from segment_cohort(replace(plan, cases=settled))
            done |= {case.name: states[case.name] for case in settled}
        else:
            yield Waited(len(settled), len(cases) - len(settled))
        time.sleep(poll_s)


def _find_now(find: Callable[[], Sequence[CaseFiles]]) -> Sequence[CaseFiles]:
    try:
        return find()
    except DataError:  # the folder is empty so far
        return []


def _look_at(case: CaseFiles) -> _State:
    """Return the sizes and times of a case's files, which change while they are copied."""
    paths = [*(path for image in case.images for path in image.paths), *case.reference]
    paths += [path for row in case.rows for path in row.series.paths]
    state = []
    for path in dict.fromkeys(paths):
        try:
            stat = path.stat()
        except OSError:
            continue
        state.append((str(path), stat.st_size, stat.st_mtime_ns))
    return (*state, (case.problem or "", 0, 0))
