import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from napari_braintumor.engine.errors import DataError, SettingsError
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
    Verified,
)
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.run_log import describe_event
from napari_braintumor.engine.training.run_watching import follow, list_runs
from napari_braintumor.engine.training.runs import Run

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


def test_events_are_read_as_they_were_written(run: Run) -> None:
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


def test_every_event_has_a_line_of_text() -> None:
    others = [
        CaseLeftOut("a is left out: it is damaged.", "a"),
        PhaseReached("preparing 2 cases", 1, 2),
        PhaseReached("validating"),
        EpochDone(1, 5, 0.8, 1e-3, {}, None, False, 3.0),
        Trained(Path("m"), None),
    ]
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


def test_an_error_is_written_to_the_folder_and_raised_again(run: Run) -> None:
    def events():
        yield Noted("begun")
        raise DataError("The mask is empty.")

    with pytest.raises(DataError, match="The mask is empty"):
        list(run.record(events()))
    assert run.read_events()[-1] == Failed("The mask is empty.")
    assert "Traceback" not in run.log_path.read_text()


def test_a_bug_leaves_in_the_log_where_it_arose(run: Run) -> None:
    def events():
        yield Noted("begun")
        raise KeyError("oops")

    with pytest.raises(KeyError):
        list(run.record(events()))
    assert 'raise KeyError("oops")' in run.log_path.read_text()
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


def test_a_folder_shows_how_its_run_stands(run: Run) -> None:
    assert run.status == "new"
    list(run.record(iter(EVENTS[:4])))
    assert run.status == "broken off"
    with run.claim():
        assert run.status == "running"
    list(run.record(iter([Stopped("You asked for it."), Trained(Path("m.safetensors"), 0.4)])))
    assert run.status == "stopped"
    list(run.record(iter([Resumed(4), Trained(Path("m.safetensors"), 0.5)])))
    assert run.status == "complete"


def test_two_processes_cannot_train_in_one_folder(run: Run) -> None:
    with run.claim(), pytest.raises(SettingsError, match="Another process trains"), run.claim():
        pass


def test_a_claim_of_a_process_that_is_gone_does_not_count(run: Run) -> None:
    gone = {"host": platform.node(), "pid": os.getpid(), "created": psutil.Process().create_time() - 1000}
    (run.folder / "process.json").write_text(json.dumps(gone))
    assert not run.is_running


def test_a_run_on_another_machine_is_running_as_long_as_it_reports_something(run: Run) -> None:
    (run.folder / "process.json").write_text(json.dumps({"host": "far away", "pid": 1, "created": 0}))
    list(run.record(iter([Noted("here")])))
    assert run.is_running
    os.utime(run.events_path, (time.time() - 3600,) * 2)
    assert not run.is_running


def test_a_request_to_stop_is_forgotten_when_the_run_resumes(run: Run) -> None:
    run.request_stop()
    assert run.stop_requested
    with run.claim():
        assert not run.stop_requested


STOPPER = "import sys; from napari_braintumor.engine.training.runs import Run; Run.open(sys.argv[1]).request_stop()"


def test_a_stop_pressed_while_the_process_starts_is_honored_and_an_older_one_is_forgotten(run: Run) -> None:
    subprocess.run([sys.executable, "-c", STOPPER, str(run.folder)], check=True)
    with run.claim():
        assert run.stop_requested, "it came from another process, after this one began"
    assert not run.stop_requested
    subprocess.run([sys.executable, "-c", STOPPER, str(run.folder)], check=True)
    before = psutil.Process().create_time() - 10
    os.utime(run.folder / "stop", (before, before))
    with run.claim():
        assert not run.stop_requested


CLAIMER = """
import sys, time
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.runs import Run
folder, go, seed = sys.argv[1:]
from pathlib import Path
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.001)
try:
    run = Run.start(TrainPlan(name="one", cases=(Path("cases"),), output=Path(folder), seed=int(seed)))
    with run.claim():
        print("trains", run.plan.seed, flush=True)
        time.sleep(float(600))
except SettingsError as error:
    print(error, flush=True)
"""


def start_claimers(folder: Path, seeds: list[int]) -> list[subprocess.Popen]:
    go = folder / f"go-{time.monotonic_ns()}"
    command = [sys.executable, "-c", CLAIMER, str(folder / "runs"), str(go)]
    started = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) for seed in seeds]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    return started


def test_of_many_simultaneous_starts_exactly_one_trains_and_a_kill_frees_its_lock(tmp_path: Path) -> None:
    """Two rounds of new processes: with plans that differ into a new folder, then on with the one that was killed."""
    for seeds in ([0, 1, 0, 1, 0], [0, 1, 0]):
        started = start_claimers(tmp_path, seeds)
        try:
            output = [process.stdout.readline().strip() for process in started]
            winners = [line for line in output if line.startswith("trains")]
            assert len(winners) == 1, output
            refused = [line for line in output if "Another process trains" in line or "another plan" in line]
            assert len(refused) == len(seeds) - 1, output
            run = Run.open(tmp_path / "runs" / "one")
            assert run.is_running
            assert winners == [f"trains {run.plan.seed}"], "whoever trains does so by the plan in the folder"
        finally:
            for process in started:
                process.kill()
                process.communicate()
        assert not run.is_running


def test_a_request_to_stop_dies_with_a_process_that_is_ended_at_once(tmp_path: Path) -> None:
    (child,) = start_claimers(tmp_path, [0])
    assert child.stdout.readline().startswith("trains")
    run = Run.open(tmp_path / "runs" / "one")
    run.request_stop()
    Thread(target=child.wait, daemon=True).start()  # somebody must wait for it, or it stays as a zombie
    run.terminate()
    assert not run.is_running
    assert not run.stop_requested
    child.communicate()


def test_a_run_of_a_killed_process_on_another_machine_can_be_claimed_after_a_while(run: Run) -> None:
    (run.folder / "process.json").write_text(json.dumps({"host": "far away", "pid": 1, "created": 0}))
    list(run.record(iter([Noted("here")])))
    with pytest.raises(SettingsError, match=r"Another process on 'far away' trains .* wait 5 minutes"), run.claim():
        pass
    os.utime(run.events_path, (time.time() - 3600,) * 2)
    with run.claim():
        assert run.is_ours


def test_events_of_a_newer_version_lose_a_field_and_not_the_run(run: Run) -> None:
    list(run.record(iter(EVENTS)))
    newer = [{**json.loads(line), "humidity": {"a": [1]}} for line in run.events_path.read_text().splitlines()]
    unknown = [{"event": "MoonRisen", "phase": 1}, {"no": "event"}, [1], 5, None, "text"]
    lines = [json.dumps(line) for line in (*newer, *unknown)]
    run.events_path.write_text("\n".join([*lines, '{"event": "BatchDone", "step": 7']))
    assert run.read_events() == EVENTS
    assert next(follow(run, lambda: False)) == EVENTS
    assert run.status == "stopped"


def test_events_of_an_older_version_are_read(run: Run) -> None:
    run.events_path.write_text(
        '{"event": "BatchDone", "time": 1, "step": 1, "steps": 2, "loss": 0.5, "learning_rate": 0.1}\n'
        '{"event": "Trained", "time": 1, "path": "model.safetensors", "score": 0.5}\n'
    )
    assert run.read_events() == [BatchDone(1, 2, 0.5, 0.1), Trained(Path("model.safetensors"), 0.5)]


def test_a_run_that_takes_the_place_of_another_is_followed_from_its_beginning(run: Run) -> None:
    list(run.record(iter(EVENTS)))
    seen = follow(run, lambda: True, 0.01)
    assert next(seen) == EVENTS
    run.events_path.unlink()
    list(run.record(iter([Noted("new")])))
    assert next(seen) == [Noted("new")]


def test_following_gives_the_past_then_the_present_and_ends_with_the_process(run: Run) -> None:
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


def test_following_does_not_wait_for_a_process_that_has_reported_its_end(run: Run) -> None:
    """But an end that was reported before the following began may be that of an earlier session."""
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
    path.write_text('{"name": "a", "cases": ["b"], "color": "red"}')
    with pytest.raises(SettingsError, match="color = 'red': Extra inputs"):
        read_plan(path)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(DataError, match="cannot be written"):
        Run.start(TrainPlan(name="a", cases=(tmp_path,), output=tmp_path / "runs"))


def test_a_full_disk_is_reported_in_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device\. Make room"):
        list(run.record(iter([Noted("x")])))
