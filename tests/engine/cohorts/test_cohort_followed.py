"""What is kept of a run that a window has started: what was asked for, its process, its events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from napari_braintumor.engine.cohorts.followed import CohortRequest, FollowedRun, make_request, suggest_output
from napari_braintumor.engine.errors import DataError, SettingsError

SLEEPS = (  # also where the tests are run in the background, and so ignore Ctrl+C
    "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "print('up', flush=True); time.sleep(60)"
)
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


@pytest.fixture
def run(tmp_path: Path) -> FollowedRun:
    (tmp_path / "cases").mkdir()
    return FollowedRun(tmp_path / "out")


@pytest.fixture
def request_of(tmp_path: Path) -> CohortRequest:
    return make_request(tmp_path / "cases", "toy")


def ask(run: FollowedRun, request: CohortRequest) -> None:
    assert request.dataset is not None
    run.ask(request, request.dataset)


def begin(run: FollowedRun, code: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout as said:
        assert said.readline() == "up\n"
    run.note_process(child.pid)
    return child


def report(run: FollowedRun, *events: dict[str, object]) -> None:
    with run.events_path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_where_nothing_was_asked_for_there_is_nothing_to_follow(run) -> None:
    assert (run.request, run.status, run.is_running) == (None, "new", False)
    assert run.read_events() == ([], 0)
    assert run.read_reason() == ""


def test_a_run_is_running_as_long_as_its_process_lives(run, request_of) -> None:
    ask(run, request_of)
    assert run.request == request_of
    assert request_of.is_of(run.output.parent / "cases")
    assert not request_of.is_of(run.output.parent)
    child = begin(run, SLEEPS)
    assert run.status == "running"
    child.kill()
    child.wait()
    assert run.status == "broken off"
    report(run, {"event": "done"})
    assert run.status == "done"


@pytest.mark.parametrize(
    ("end", "code"),
    [("pause", SLEEPS), ("stop", SLEEPS), ("stop", DEAF)],
    ids=["pause", "stop", "stop a deaf one"],
)
def test_a_run_that_is_paused_or_stopped_ends_and_goes_on_when_it_is_asked_for_again(
    run, request_of, monkeypatch, end, code
) -> None:
    monkeypatch.setattr("napari_braintumor.engine.cohorts.followed._PATIENCE_S", 0.5)
    ask(run, request_of)
    report(run, {"event": "case_done", "case": "p1"})
    child = begin(run, code)
    getattr(run, end)()
    child.wait(20)
    assert run.status == "paused"
    getattr(run, end)()  # nobody is there any more
    ask(run, request_of)
    assert run.status == "broken off"
    assert [event["event"] for event in run.read_events()[0]] == ["asked", "case_done", "asked"]


def test_another_request_begins_a_new_story(run, request_of) -> None:
    ask(run, request_of)
    report(run, {"event": "case_done", "case": "p1"})
    _, position = run.read_events()
    ask(run, request_of.model_copy(update={"model": "other"}))
    assert [event["event"] for event in run.read_events(position)[0]] == ["asked"]


def test_torn_lines_are_passed_over_and_read_once_they_are_whole(run, request_of) -> None:
    ask(run, request_of)
    _, position = run.read_events()
    with run.events_path.open("a", encoding="utf-8") as file:
        file.write('not json\n[1]\n{"event": "progress", "done": 1}\n{"event": "do')
    events, position = run.read_events(position)
    assert [event["event"] for event in events] == ["progress"]
    with run.events_path.open("a", encoding="utf-8") as file:
        file.write('ne"}\n')
    assert run.read_events(position)[0] == [{"event": "done"}]


def test_the_reason_is_the_last_line_that_was_printed_for_people(run, request_of) -> None:
    ask(run, request_of)
    run.messages_path.write_text("Error: first\n  The model is gone. Choose another one.  \n\n", encoding="utf-8")
    assert run.read_reason() == "The model is gone. Choose another one."
    ask(run, request_of)
    assert run.read_reason() == ""


@pytest.mark.parametrize("inside", ["", "results", "a/b"])
def test_results_never_go_among_the_scans(tmp_path, inside) -> None:
    (tmp_path / "cases").mkdir()
    with pytest.raises(SettingsError, match=r"lies among the cases. Choose one outside for the results"):
        ask(FollowedRun(tmp_path / "cases" / inside), make_request(tmp_path / "cases", "toy"))


def test_results_go_beside_a_folder_or_a_table_and_into_derivatives_in_bids(tmp_path) -> None:
    assert suggest_output(tmp_path / "cases") == tmp_path / "cases_tumors"
    table = tmp_path / "list.csv"
    table.write_text("case,path\n")
    assert suggest_output(table) == tmp_path / "list_tumors"
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    assert suggest_output(tmp_path) == tmp_path / "derivatives" / "napari-braintumor"
    ask(FollowedRun(suggest_output(tmp_path)), make_request(tmp_path, "toy"))


def test_a_folder_that_cannot_be_written_to_is_an_error(run, request_of) -> None:
    run.output.write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written to: .* Choose another folder"):
        ask(run, request_of)


def test_a_run_of_another_machine_is_left_to_it(run, request_of) -> None:
    ask(run, request_of)
    (run.folder / "process.json").write_text(json.dumps({"host": "elsewhere", "pid": 1, "created": 0}))
    assert run.status == "running"  # it has just reported
    for end in (run.pause, run.stop):
        with pytest.raises(DataError, match=r"The run is that of another machine. Pause or stop it there"):
            end()
