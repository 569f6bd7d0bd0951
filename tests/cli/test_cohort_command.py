"""``segment`` over many cases: JSON lines for scripts, exit codes, and what is left when it is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cohorts import read_outputs, write_cohort
from napari_braintumor.cli import app


def make_runner() -> CliRunner:
    """Return a runner that keeps standard output and errors apart: click before 8.2 must be asked to."""
    try:
        return CliRunner(mix_stderr=False)  # type: ignore[call-arg]
    except TypeError:
        return CliRunner()


run = make_runner().invoke


def command_of(cases: Path, output: Path, model: Path) -> list[str]:
    return ["segment", str(cases), "-o", str(output), "-m", str(model), "--device", "cpu", "--json"]


@contextmanager
def start(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, which does not outlive the block."""
    command = [sys.executable, "-m", "napari_braintumor", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_json_lines_alone_are_on_the_standard_output(tmp_path, toy_model) -> None:
    good, bad = write_cohort(tmp_path / "cases", 3, broken=1)
    result = run(app, command_of(tmp_path / "cases", tmp_path / "out", toy_model))
    assert result.exit_code == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["case"] for event in events if event["event"] == "case_done"] == good
    assert [event["case"] for event in events if event["event"] == "case_failed"] == bad
    assert events[-1] == {
        "event": "done",
        "segmented": 2,
        "reused": 0,
        "failed": 1,
        "table": str(tmp_path / "out" / "volumes.csv"),
        "report": str(tmp_path / "out" / "report.html"),
    }
    assert "1 of 3 cases failed" in result.stderr
    assert "p02" in result.stderr


def test_messages_are_on_the_standard_output_again_without_json(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 2)
    command = command_of(tmp_path / "cases", tmp_path / "out", toy_model)
    assert run(app, command).exit_code == 0
    again = run(app, command[:-1])
    assert again.exit_code == 0
    assert "2 cases had a result already" in again.stdout
    assert "was segmented before" in again.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}" in again.stdout
    assert again.stderr == ""


def test_a_report_can_be_asked_for_and_left_out(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 2)
    command = command_of(tmp_path / "cases", tmp_path / "out", toy_model)
    assert run(app, [*command, "--no-report"]).exit_code == 0
    assert not (tmp_path / "out" / "volumes.csv").exists()
    one = command_of(tmp_path / "cases" / "p00", tmp_path / "one", toy_model)
    assert run(app, one).exit_code == 0
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"p00_tumor.nii.gz", "p00_tumor.json"}
    assert run(app, [*one, "--report"]).exit_code == 0
    assert (tmp_path / "one" / "report.html").is_file()


def test_cases_are_read_from_a_table_beside_folders(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 3)
    table = tmp_path / "cases" / "some.csv"
    table.write_text("case,path\nfirst,p00\nlost,p77\n")
    command = command_of(table, tmp_path / "out", toy_model)
    result = run(app, command)
    assert result.exit_code == 1
    assert "lost: " in result.stderr
    assert (tmp_path / "out" / "first_tumor.nii.gz").is_file()
    both = run(app, [*command, str(tmp_path / "cases" / "p02")])
    assert json.loads(both.stdout.splitlines()[-1])["reused"] == 1
    assert (tmp_path / "out" / "p02_tumor.nii.gz").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "heap"], "There is no layout 'heap'"),
        (["--layout", "bids"], "has no valid dataset_description.json"),
    ],
)
def test_a_layout_that_cannot_be_written_ends_with_2(tmp_path, toy_model, options, message) -> None:
    write_cohort(tmp_path / "cases", 1)
    result = run(app, [*command_of(tmp_path / "cases", tmp_path / "out", toy_model), *options])
    assert result.exit_code == 2
    assert message in result.stderr


def kill_after_some_cases(arguments: list[str], cases: int) -> list[str]:
    """Run a command until so many cases are done, kill it, and return their names."""
    done: list[str] = []
    with start(arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "case_done" and not event["reused"]:
                done.append(event["case"])
            if len(done) == cases:
                process.send_signal(signal.SIGKILL)
                break
    return done


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_run_is_continued_and_leaves_what_one_run_leaves(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 5, broken=1)
    whole, parts = (command_of(tmp_path / "cases", tmp_path / name, toy_model) for name in ("whole", "parts"))
    assert run(app, whole).exit_code == 1
    done = kill_after_some_cases(parts, 2)
    assert done == ["p00", "p01"]
    rest = run(app, parts)
    reused = [event["case"] for event in map(json.loads, rest.stdout.splitlines()) if event.get("reused") is True]
    assert reused[:2] == done
    assert read_outputs(tmp_path / "parts") == read_outputs(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_forty_cases_killed_at_ten_random_moments_give_what_one_run_gives(tmp_path, toy_model) -> None:
    good, bad = write_cohort(tmp_path / "cases", 40, broken=4)
    whole, parts = (command_of(tmp_path / "cases", tmp_path / name, toy_model) for name in ("whole", "parts"))
    once = run(app, whole)
    assert once.exit_code == 1
    ends = [json.loads(line) for line in once.stdout.splitlines()]
    assert ends[-1]["segmented"] == 36
    assert {event["case"] for event in ends if event["event"] == "case_failed"} == set(bad)
    chance, done = random.Random(19), []
    for _ in range(10):
        with start(parts) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first
            time.sleep(chance.uniform(0, 4))
            process.send_signal(signal.SIGKILL)
            lines = [line for line in process.stdout.read().splitlines() if line.endswith("}")]
        events = [json.loads(line) for line in lines]
        done += [event["case"] for event in events if event["event"] == "case_done" and not event["reused"]]
    last = run(app, parts)
    events = [json.loads(line) for line in last.stdout.splitlines()]
    done += [event["case"] for event in events if event["event"] == "case_done" and not event["reused"]]
    assert len(done) == len(set(done))  # nothing that was reported done was done again
    assert events[-1]["segmented"] + events[-1]["reused"] == len(good)
    assert read_outputs(tmp_path / "parts") == read_outputs(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watch", "--workers", "2"], "A folder is watched without workers"),
        (["--workers", "2", "--scheduler", "tcp://here:1"], "Give one of the two"),
        (["--watch"], "--watch needs one folder"),
    ],
)
def test_ways_to_run_that_exclude_each_other_end_with_2(tmp_path, toy_model, options, message) -> None:
    write_cohort(tmp_path / "cases", 1)
    case = tmp_path / "cases" / "p00" / "p00_t1.nii.gz"
    result = run(app, [*command_of(case, tmp_path / "out", toy_model), *options])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "name"), [(["--watch"], "watch_cohort"), (["--workers", "2"], "segment_on_cluster")]
)
def test_the_way_to_run_is_chosen_by_options(tmp_path, toy_model, monkeypatch, options, name) -> None:
    from napari_braintumor import engine
    from napari_braintumor.engine.cohorts.cohort_events import CohortDone, CohortStarted, Waited

    def pretend(*_):
        yield CohortStarted(1, tmp_path / "out")
        yield CohortDone(1, 0, 0)
        yield Waited(1, 0)

    write_cohort(tmp_path / "cases", 1)
    monkeypatch.setattr(engine, name, pretend)
    result = run(app, [*command_of(tmp_path / "cases", tmp_path / "out", toy_model), *options])
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()] == ["started", "done", "waiting"]
