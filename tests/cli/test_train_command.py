"""The `train` command: what it prints, how it ends, and how it is stopped."""

import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from napari_braintumor import engine
from napari_braintumor.cli import app
from napari_braintumor.cli.train import _stop_gently
from napari_braintumor.engine.events import BatchDone, Stopped, Trained
from napari_braintumor.engine.training.runs import Run

run = CliRunner().invoke


def write_plan(plan, folder) -> str:
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json())
    return str(path)


def test_a_damaged_case_is_listed_at_the_end_and_sets_the_exit_status(toy_plan, case_folder, tmp_path) -> None:
    cases = tmp_path / "cases"
    for number in (0, 1, 6):
        shutil.copytree(case_folder / f"case{number}", cases / f"case{number}")
    next((cases / "case1").glob("*flair*")).write_bytes(b"nonsense")
    update = {"cases": (cases,), "output": tmp_path / "runs", "epochs": 1, "steps_per_epoch": 1, "held_out": ()}
    result = run(app, ["train", write_plan(toy_plan.model_copy(update=update), tmp_path)])
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    assert lines[-2] == "Left out because their files cannot be used:"
    assert lines[-1].startswith("  case1 is left out: ")
    assert (tmp_path / "runs" / "toy" / "model.safetensors").exists()
    checked = run(app, ["train", write_plan(toy_plan.model_copy(update=update), tmp_path), "--check"])
    assert checked.exit_code == 0, checked.output
    assert "case1 is left out: " in checked.output


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "napari_braintumor", "train", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["stop pressed", "signal"])
def test_a_stop_is_honored_while_the_process_starts_and_while_it_reads_cases(toy_plan, tmp_path, how: str) -> None:
    run_folder = Run.start(toy_plan.model_copy(update={"output": tmp_path, "epochs": 5000}))
    child = start(run_folder.folder)
    if how == "stop pressed":
        run_folder.request_stop()  # long before it has read its plan
    else:
        wait_until(lambda: (run_folder.folder / "process.json").exists())
        child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0, output
    assert "Stopped: You asked for it." in output
    events = run_folder.read_events()
    assert any(isinstance(event, Stopped) for event in events)
    assert not any(isinstance(event, BatchDone) for event in events)
    assert run_folder.status == "stopped"
    assert not run_folder.stop_requested


def test_ctrl_c_of_a_process_that_came_too_late_does_not_stop_the_one_that_trains(toy_plan, tmp_path) -> None:
    run_folder = Run.start(toy_plan.model_copy(update={"output": tmp_path}))
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        them = {"host": platform.node(), "pid": other.pid, "created": psutil.Process(other.pid).create_time()}
        (run_folder.folder / "process.json").write_text(json.dumps(them))

        def press_ctrl_c() -> None:
            with _stop_gently(run_folder):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(typer.Exit) as ended:
            press_ctrl_c()
        assert ended.value.exit_code == 130
        assert not run_folder.stop_requested
        late = run(app, ["train", str(run_folder.folder)])
        assert late.exit_code == 1
        assert "Another process trains in" in late.output
    finally:
        other.kill()
        other.wait()


def test_a_stop_ends_a_cross_validation_and_not_only_its_part(toy_plan, tmp_path, monkeypatch) -> None:
    begun = []

    def train(what):
        begun.append(what.name)
        yield Stopped("You asked for it." if len(begun) == 2 else "No better score in 3 epochs.")
        yield Trained(None, None)

    monkeypatch.setattr(engine, "train", train)
    result = run(app, ["train", write_plan(toy_plan.model_copy(update={"output": tmp_path}), tmp_path), "--folds", "4"])
    assert result.exit_code == 0, result.output
    assert begun == ["toy-fold1", "toy-fold2"]
