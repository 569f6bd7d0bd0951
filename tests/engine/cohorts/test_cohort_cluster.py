"""A cohort on several workers, of which one is lost."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cohorts import read_outputs, write_cohort
from napari_braintumor.engine import segment_cohort, segment_on_cluster
from napari_braintumor.engine.cohorts import cluster
from napari_braintumor.engine.cohorts.cohort_events import CaseDone, CohortDone
from napari_braintumor.engine.cohorts.plan import CohortConfig, CohortPlan
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.settings import SegmentConfig

pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def plan_of(cases: Path, output: Path, model: Path) -> CohortPlan:
    config = CohortConfig(segmentation=SegmentConfig(model=str(model), device="cpu"))
    return CohortPlan(find_cases(cases), output, config)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_with_two_workers_of_which_one_is_killed_all_cases_are_done(tmp_path, toy_model, monkeypatch) -> None:
    write_cohort(tmp_path / "cases", 10, broken=1)
    alone, together = (plan_of(tmp_path / "cases", tmp_path / name, toy_model) for name in ("alone", "together"))
    *_, once = segment_cohort(alone)
    found: list = []
    connect = cluster._connect

    def connect_and_keep(*arguments):
        found.append(connect(*arguments))
        return found[0]

    monkeypatch.setattr(cluster, "_connect", connect_and_keep)
    events = segment_on_cluster(together, workers=2)
    seen = [next(event for event in events if isinstance(event, CaseDone))]
    pids = found[0].run(os.getpid)
    assert len(set(pids.values())) == 2
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    seen += events
    assert isinstance(seen[-1], CohortDone)
    assert (seen[-1].segmented + seen[-1].reused, seen[-1].failed) == (9, 1) == (once.segmented, once.failed)
    assert len({event.case for event in seen if isinstance(event, CaseDone)}) == 9
    assert read_outputs(tmp_path / "together") == read_outputs(tmp_path / "alone")


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, toy_model, monkeypatch) -> None:
    from distributed import Client

    def refuse(*_, **__):
        raise OSError("nobody there")

    monkeypatch.setattr(Client, "__init__", refuse)
    write_cohort(tmp_path / "cases", 1)
    with pytest.raises(SettingsError, match=r"The scheduler 'tcp://nowhere:1' does not answer. Start it with"):
        [*segment_on_cluster(plan_of(tmp_path / "cases", tmp_path / "out", toy_model), scheduler="tcp://nowhere:1")]


def test_without_dask_the_message_says_what_to_install(tmp_path, toy_model, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    write_cohort(tmp_path / "cases", 1)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    with pytest.raises(SettingsError, match=r"Run 'pip install napari-braintumor\[cluster\]'"):
        next(segment_on_cluster(replace(plan)))


def test_what_a_worker_answers_is_a_result_or_words(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 2, broken=1)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    model = cluster.check_start(plan)
    good, again, bad = (cluster._segment(plan.cases[n], plan, model, None) for n in (0, 0, 1))
    assert good.result is not None
    assert good.seconds
    assert again.result == good.result
    assert again.seconds is None
    assert bad.result is None
    assert "p01_t1.nii.gz" in bad.reason
