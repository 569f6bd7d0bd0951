"""A watched folder, and two processes that share the work."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from cohorts import move, write_cohort
from napari_braintumor.engine import segment_cohort
from napari_braintumor.engine.cohorts import watching
from napari_braintumor.engine.cohorts.cohort_events import CaseDone, CaseStarted, CohortDone, Waited
from napari_braintumor.engine.cohorts.plan import CohortConfig, CohortPlan
from napari_braintumor.engine.cohorts.watching import watch_cohort
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.settings import SegmentConfig
from toy_cases import make_case, write_case


def plan_of(cases: Path, output: Path, model: Path) -> CohortPlan:
    config = CohortConfig(segmentation=SegmentConfig(model=str(model), device="cpu"))
    return CohortPlan(find_cases(cases), output, config)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which only waiting lets pass."""
    now = [100.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_cases_are_done_as_they_arrive_and_settle(tmp_path, toy_model, clock) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    plan = CohortPlan((), tmp_path / "out", plan_of_nothing(toy_model))
    events = watch_cohort(lambda: find_cases(folder), plan, settle_s=25, poll_s=10)
    assert next(events) == Waited(0, 0)
    write_cohort(folder, 1)
    growing = folder / "p00" / "p00_t1.nii.gz"
    whole = growing.read_bytes()
    growing.write_bytes(whole[:2000])  # it is still being copied
    assert [next(events) for _ in range(2)] == [Waited(0, 1)] * 2
    growing.write_bytes(whole)
    assert [next(events) for _ in range(3)] == [Waited(0, 1)] * 3
    first = [next(events) for _ in range(2)][-1]
    assert isinstance(first, CaseStarted)
    assert next(event for event in events if isinstance(event, CohortDone)).segmented == 1
    assert next(events) == Waited(1, 0)
    write_case(folder, move(make_case(7)[0], 1))
    assert [next(events) for _ in range(3)] == [Waited(1, 1)] * 3
    last = next(event for event in events if isinstance(event, CohortDone))
    assert (last.segmented, last.reused) == (1, 1)
    assert next(events) == Waited(2, 0)
    events.close()
    assert len(list((tmp_path / "out").glob("*_tumor.nii.gz"))) == 2


def plan_of_nothing(model: Path) -> CohortConfig:
    return CohortConfig(segmentation=SegmentConfig(model=str(model), device="cpu"))


def test_a_case_that_another_process_is_at_work_on_is_left_to_it(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 3)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    claims = tmp_path / "out" / ".unfinished"
    claims.mkdir(parents=True)
    other = FileLock(claims / f"{hashlib.sha256(b'p00').hexdigest()[:24]}.lock", thread_local=False)
    other.acquire()
    threading.Timer(3, other.release).start()
    done = [event.case for event in segment_cohort(plan) if isinstance(event, CaseDone)]
    assert done == ["p01", "p02", "p00"]


def test_two_runs_at_once_share_the_cases(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 8)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    backward = replace(plan, cases=plan.cases[::-1])
    seen: list[list] = [[], []]
    threads = [
        threading.Thread(target=lambda n=n, p=p: seen[n].extend(segment_cohort(p)))
        for n, p in enumerate((plan, backward))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = [events[-1] for events in seen]
    assert all(isinstance(end, CohortDone) for end in ends)
    assert all(end.segmented + end.reused == 8 and not end.failed for end in ends)
    assert sum(end.segmented for end in ends) == 8
    assert {path.name for path in plan.output.glob("*.nii.gz")} == {f"p0{n}_tumor.nii.gz" for n in range(8)}
