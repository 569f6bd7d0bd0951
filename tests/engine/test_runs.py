import json
import os
import platform
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.plan import TrainPlan
from napari_braintumor.engine.runs import Run, describe_event, follow, list_runs, read_plan
from napari_braintumor.engine.types import (
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
    Verified,
)

EVENTS = [
    Noted("data"),
    Verified(7_000_000, 150.0, 20.0, 0.4, 12.0, "CPU"),
    BatchDone(1, 10, 0.9, 1e-3),
    EpochDone(1, 5, 0.8, 1e-3, {"whole tumor": 0.5}, 0.5, True, 3.0),
    PreviewDone(1),
    Judged(True, "it is better.", 0.5, 0.6, 0.7, 0.71),
    Stopped("You asked for it."),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.start(TrainPlan(name="one", cases=(tmp_path / "cases",), output=tmp_path / "runs"))


def test_events_come_back_as_they_were_told(run: Run) -> None:
    events = [*EVENTS, Trained(Path("model.safetensors"), 0.5)]
    assert list(run.record(iter(events))) == events
    assert run.read_events() == events


def test_the_log_is_for_people(run: Run) -> None:
    list(run.record(iter(EVENTS)))
    log = run.log_path.read_text()
    assert "7,000,000 parameters on CPU" in log
    assert "epoch   1  loss 0.8000" in log
    assert "Accepted: it is better." in log
    assert "step 1" not in log


def test_every_event_can_be_told_in_a_line() -> None:
    others = [CaseLeftOut("a", "it is damaged."), PhaseReached("preparing 2 cases", 1, 2), PhaseReached("validating")]
    others += [Resumed(3), Trained(None, 0.2), Failed("no"), Judged(False, "no.", 0.5, 0.4)]
    for event in (*EVENTS, *others):
        assert "\n" not in describe_event(event)
        assert len(describe_event(event)) > 3


def test_a_line_torn_by_a_kill_is_passed_over_and_the_next_begins_anew(run: Run) -> None:
    list(run.record(iter([Noted("before")])))
    with run.events_path.open("ab") as file:
        file.write(b'{"event": "BatchDone", "st')
    list(run.record(iter([Noted("after")])))
    assert run.read_events() == [Noted("before"), Noted("after")]


def test_an_error_is_told_in_the_folder_and_raised_on(run: Run) -> None:
    def events():
        yield Noted("begun")
        raise DataError("The mask is empty.")

    with pytest.raises(DataError, match="The mask is empty"):
        list(run.record(events()))
    assert run.read_events()[-1] == Failed("The mask is empty.")
    assert "Traceback" not in run.log_path.read_text()


def test_a_bug_leaves_its_traceback_in_the_log(run: Run) -> None:
    def events():
        yield Noted("begun")
        raise KeyError("oops")

    with pytest.raises(KeyError):
        list(run.record(events()))
    assert "Traceback" in run.log_path.read_text()
    assert run.status == "failed"


def test_the_same_plan_reopens_its_run_and_another_is_refused(run: Run, tmp_path: Path) -> None:
    same = TrainPlan(name="one", cases=(tmp_path / "cases",), output=tmp_path / "runs")
    assert Run.start(same) == run
    with pytest.raises(SettingsError, match="holds a run with another plan"):
        Run.start(same.model_copy(update={"learning_rate": 0.5}))


def test_a_run_that_was_moved_finds_the_cases_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    (folder / "cases").mkdir(parents=True)
    run = Run.start(TrainPlan(name="mine", cases=(folder / "cases",), output=tmp_path / "runs"))
    assert json.loads(run.plan_path.read_text())["cases"] == ["cases"]
    moved = folder.rename(tmp_path / "elsewhere")
    assert Run.open(moved).plan.cases == (moved / "cases",)


def test_the_model_a_run_starts_from_is_copied_into_it(tmp_path: Path, toy_model: Path) -> None:
    run = Run.start(TrainPlan(name="b", cases=(tmp_path,), output=tmp_path / "runs", start_from=str(toy_model)))
    assert run.parent_path.read_bytes() == toy_model.read_bytes()


def test_how_a_run_stands_is_told_by_its_folder(run: Run) -> None:
    assert run.status == "new"
    list(run.record(iter(EVENTS[:4])))
    assert run.status == "broken off"
    with run.claimed():
        assert run.status == "running"
    list(run.record(iter([Stopped("You asked for it."), Trained(Path("m.safetensors"), 0.4)])))
    assert run.status == "stopped"
    list(run.record(iter([Resumed(4), Trained(Path("m.safetensors"), 0.5)])))
    assert run.status == "complete"


def test_two_processes_cannot_train_in_one_folder(run: Run) -> None:
    with run.claimed(), pytest.raises(SettingsError, match="Another process trains"), run.claimed():
        pass


def test_a_claim_of_a_process_that_is_gone_does_not_count(run: Run) -> None:
    gone = {"host": platform.node(), "pid": os.getpid(), "created": psutil.Process().create_time() - 1000}
    (run.folder / "process.json").write_text(json.dumps(gone))
    assert not run.is_running


def test_a_run_on_another_machine_is_running_as_long_as_it_tells_something(run: Run) -> None:
    (run.folder / "process.json").write_text(json.dumps({"host": "far away", "pid": 1, "created": 0}))
    list(run.record(iter([Noted("here")])))
    assert run.is_running
    os.utime(run.events_path, (time.time() - 3600,) * 2)
    assert not run.is_running


def test_a_request_to_stop_is_forgotten_when_the_run_goes_on(run: Run) -> None:
    run.request_stop()
    assert run.stop_requested
    with run.claimed():
        assert not run.stop_requested


def test_following_tells_the_past_then_the_present_and_ends_with_the_process(run: Run) -> None:
    list(run.record(iter(EVENTS[:2])))
    living = [True]

    def write() -> None:
        time.sleep(0.1)
        list(run.record(iter(EVENTS[2:])))
        living[0] = False

    thread = Thread(target=write)
    thread.start()
    seen = list(follow(run, lambda: living[0], 0.02))
    thread.join()
    assert seen[0] == EVENTS[:2]
    assert [event for some in seen for event in some] == EVENTS


def test_following_does_not_wait_for_a_process_that_has_told_its_end(run: Run) -> None:
    """But an end that was told before the following began may be that of an earlier session."""
    list(run.record(iter([Noted("x"), Trained(None, 0.1)])))
    seen = follow(run, lambda: True, 0.01)
    assert len(next(seen)) == 2
    assert next(seen) == []
    list(run.record(iter([Resumed(1)])))
    assert next(seen) == [Resumed(1)]
    list(run.record(iter([Trained(None, 0.2)])))
    assert next(seen) == [Trained(None, 0.2)]
    assert list(seen) == []


def test_runs_are_listed_the_latest_first(tmp_path: Path) -> None:
    runs = [Run.start(TrainPlan(name=name, cases=(tmp_path,), output=tmp_path / "runs")) for name in ("a", "b")]
    os.utime(runs[0].plan_path, (time.time() + 60,) * 2)
    assert list_runs(tmp_path / "runs") == runs
    assert list_runs(tmp_path / "nowhere") == []


def test_discarding_deletes_the_folder(run: Run) -> None:
    run.discard()
    assert not run.folder.exists()


def test_a_plan_with_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"name": "a", "cases": ["b"], "colour": "red"}')
    with pytest.raises(SettingsError, match="colour = 'red': Extra inputs"):
        read_plan(path)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(DataError, match="cannot be written"):
        Run.start(TrainPlan(name="a", cases=(tmp_path,), output=tmp_path / "runs"))


def test_a_full_disk_is_told_in_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device\. Make room"):
        list(run.record(iter([Noted("x")])))
