"""What the Cohort dock shows of a dataset and a run, prepared in a worker thread; of Qt only pictures."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage

from napari_braintumor.engine.cohorts.followed import FollowedRun
from napari_braintumor.engine.cohorts.listed import find_cohort
from napari_braintumor.engine.cohorts.marks import Mark, read_correction, read_marks
from napari_braintumor.engine.cohorts.results import read_result
from napari_braintumor.engine.cohorts.rows import CaseRow
from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers import CasesFound
from napari_braintumor.widgets.shared.child import start_child

LOOK_S = 0.5
"""Between two looks at the events of a run."""

AT_ONCE = 10
"""Cases that the window is shown at once, so that it never waits long."""

PICTURE_PX = 40
"""The height of a picture in the table."""

_PANEL_EDGE_PX, _DARK = 6, 60

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True, eq=False)
class CaseNews:
    """How a case stands.

    Attributes
    ----------
    case
        Its name.
    status
        One of `WAITING`, `RUNNING`, `DONE` and `FAILED`.
    row
        What came of it.
    picture
        Its three planes, small.
    slices
        How many slices the network has seen, of how many.
    """

    case: str
    status: str
    row: CaseRow | None = None
    picture: QImage | None = None
    slices: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class CohortNews:
    """What has changed in a run; empty if nothing has.

    Attributes
    ----------
    cases
        How the cases stand of which there is news.
    begun
        A process has begun: what was not done waits again.
    overall
        How many cases are over, of how many, and the seconds left, None if not known.
    """

    cases: tuple[CaseNews, ...] = ()
    begun: bool = False
    overall: tuple[int, int, float | None] | None = None


def look_for_cases(dataset: Path) -> Generator[CasesFound, None, None]:
    """Find the cases of a dataset."""
    yield CasesFound(tuple(find_cohort(dataset)))


def start_run(run: FollowedRun, dataset: Path) -> Generator[FollowedRun, None, None]:
    """Start the process of what was asked for with a dataset."""
    request = run.request
    assert request is not None
    with run.events_path.open("ab") as events, run.messages_path.open("ab") as messages:
        process = start_child(
            *("segment", str(dataset.absolute()), "--output", str(run.output), "--model", request.model),
            *("--report", "--json"),
            output=events,
            errors=messages,
        )
    run.note_process(process.pid)
    yield run


def stop_run(run: FollowedRun) -> Generator[FollowedRun, None, None]:
    """End the process of a run at once."""
    run.stop()
    yield run


def follow_run(run: FollowedRun) -> Generator[CohortNews, None, None]:
    """Report what happens in a run, from its beginning, until its process is gone."""
    position = 0
    while True:
        living = run.is_running  # asked before reading, so that the last words of a process are not missed
        events, position = run.read_events(position)
        latest: dict[str, Mapping[str, Any]] = {}
        overall, begun = None, False
        for event in events:
            kind = event["event"]
            if kind == "asked":
                begun, overall = True, None
                latest = {case: each for case, each in latest.items() if each["event"] == "case_done"}
            elif "case" in event:
                latest[str(event["case"])] = event
            elif kind == "progress":
                overall = event["done"], event["cases"], event["left_s"]
        yield CohortNews(begun=begun, overall=overall)
        marks = read_marks(run.output)
        changed = list(latest.values())
        for first in range(0, len(changed), AT_ONCE):
            some = changed[first : first + AT_ONCE]
            yield CohortNews(tuple(_read_news(each, run.output, marks.get(str(each["case"]), Mark())) for each in some))
        if not living:
            return
        time.sleep(LOOK_S)


def _read_news(event: Mapping[str, Any], output: Path, mark: Mark) -> CaseNews:
    case, kind = str(event["case"]), event["event"]
    if kind == "case_progress":
        return CaseNews(case, RUNNING, slices=(event["slices_done"], event["slices"]))
    if kind == "case_failed":
        return CaseNews(case, FAILED, CaseRow(case, reason=event["reason"]))
    if kind != "case_done":
        return CaseNews(case, RUNNING)
    try:
        result = read_result(Path(event["record"]))
        picture = _read_picture(result.picture)
        if mark.corrected:
            result = read_correction(result, output / mark.corrected)
    except DataError:
        return CaseNews(case, FAILED, CaseRow(case, reason="The record of its result is gone. Run the cohort again."))
    return CaseNews(case, DONE, CaseRow(case, result), picture)


def _read_picture(path: Path | None) -> QImage | None:
    """Return the three planes of a result's picture, without what is written around them."""
    image = QImage(str(path)) if path is not None else QImage()
    if image.isNull():
        return None
    edge = _PANEL_EDGE_PX  # inside the first plane, whose background is dark
    dark = [row for row in range(image.height()) if image.pixelColor(edge, row).lightness() < _DARK]
    if dark:
        image = image.copy(0, dark[0], image.width(), dark[-1] + 1 - dark[0])
    return image.scaledToHeight(PICTURE_PX, Qt.TransformationMode.SmoothTransformation)
