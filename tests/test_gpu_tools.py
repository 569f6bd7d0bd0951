"""A quarter of an hour on a GPU: what is packed, run there, and brought in."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import packing
import running
import slimming
import taking
from napari_braintumor.engine import train
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.prepared import find_archived
from napari_braintumor.engine.training.runs import Run

ROOT = Path(__file__).parents[1]
THERE = (
    *("torch", "numpy", "scipy", "matplotlib", "typer", "tifffile", "psutil", "PyYAML", "einops", "safetensors"),
    *("requests", "packaging", "pytest", "pytest-timeout"),
)
"""What a machine with a GPU has; in the rehearsal it comes from an index, and all else from the pack."""


@pytest.fixture(scope="module")
def plan(toy_plan, tmp_path_factory):
    update = {"epochs": 2, "steps_per_epoch": 4, "output": tmp_path_factory.mktemp("runs"), "preview_every": 0}
    return toy_plan.model_copy(update=update)


@pytest.fixture(scope="module")
def trained_run(plan) -> Run:
    list(train(plan))
    return Run(plan.output.resolve() / plan.name)


@pytest.fixture
def finished(trained_run, tmp_path) -> Run:
    """A run that is complete, in a folder that a test may change."""
    return Run(Path(shutil.copytree(trained_run.folder, tmp_path / "runs" / trained_run.folder.name)))


def test_held_out_patients_are_packed_only_when_asked_for_and_then_apart(plan, tmp_path, capsys) -> None:
    packing.pack_cases([plan], Path("/"), tmp_path, held_out_too=False)
    names = {path.name: [case.name for case in find_archived(path)] for path in tmp_path.glob("*.zip")}
    assert names == {"training.cases.zip": [f"case{n}" for n in range(6)], "validation.cases.zip": ["case6"]}
    packing.pack_cases([plan], Path("/"), tmp_path, held_out_too=True)
    assert [case.name for case in find_archived(tmp_path / "held_out.cases.zip")] == ["case7"]


def test_a_twin_goes_with_the_patient_that_it_is(plan, tmp_path) -> None:
    twins = plan.model_copy(update={"patients": {"case2": "case7", "case3": "case6"}})
    packing.pack_cases([twins], Path("/"), tmp_path, held_out_too=True)
    sides = {path.name: {case.name for case in find_archived(path)} for path in tmp_path.glob("*.zip")}
    assert sides["held_out.cases.zip"] == {"case2", "case7"}
    assert sides["validation.cases.zip"] == {"case3", "case6"}
    assert not sides["training.cases.zip"] & {"case2", "case3", "case6", "case7"}


def test_a_packed_plan_needs_no_case_of_those_held_out_to_know_their_names(tmp_path) -> None:
    packing.pack_plans(list(packing.PLANS), tmp_path)
    for path in (tmp_path / "plans").iterdir():
        plan = json.loads(path.read_text(encoding="utf-8"))
        assert set(plan["held_out"]) <= set(plan["patients"])
        assert plan["patients"]["BraTS2021_01482"] == "TCGA_CS_6188"
        assert ModelStore().find(plan["start_from"]).card is not None


def test_plans_with_other_cases_are_not_packed_together(plan, tmp_path) -> None:
    other = plan.model_copy(update={"held_out": ()})
    with pytest.raises(SystemExit, match="pack them one by one"):
        packing.pack_cases([plan, other], Path("/"), tmp_path, held_out_too=False)


def test_a_pack_that_is_too_large_is_reported(tmp_path, monkeypatch) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "a").write_bytes(bytes(2000))
    packing.report(tmp_path)
    monkeypatch.setattr(packing, "MAX_MB", 0.001)
    with pytest.raises(SystemExit, match="too large"):
        packing.report(tmp_path)


def test_every_packed_wheel_has_a_pinned_version() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(f"\n{name}==" in text for name in packing.MISSING)


def test_a_training_resumes_from_a_slim_checkpoint(plan, finished, tmp_path) -> None:
    small, back = tmp_path / "small.safetensors", finished.checkpoint_path
    before = back.stat().st_size
    slimming.slim(back, small)
    assert small.stat().st_size < 0.6 * before  # of a network this small much is vectors, which stay as they are
    network = build_network("unet", in_channels=4, out_channels=3, options=plan.options)
    fit = Fit(network, plan, torch.device("cpu"))
    fit.load(finished.checkpoint_path)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    slimming.restore(small, back)
    fit.load(finished.checkpoint_path)
    assert fit.state.step == 8
    for name, value in network.state_dict().items():
        assert torch.allclose(value.float(), weights[name].float(), rtol=1e-3, atol=1e-6)
    image, regions = torch.zeros(2, 4, 64, 64), torch.zeros(2, 3, 64, 64)
    assert np.isfinite(fit.take_step([image, regions, torch.ones(2, 3, dtype=torch.bool)])[0])


@pytest.fixture
def results(finished, tmp_path) -> Path:
    """What a run on a GPU leaves, in parts."""
    folder = tmp_path / "results"
    folder.mkdir()
    slimming.slim(finished.checkpoint_path, tmp_path / "slim.safetensors")
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        for name in ("plan.json", "split.json", "events.jsonl", "log.txt", "model.safetensors"):
            archive.write(finished.folder / name, f"{finished.folder.name}/{name}")
        archive.write(tmp_path / "slim.safetensors", f"{finished.folder.name}/checkpoint.slim.safetensors")
    raw = (tmp_path / "runs.zip").read_bytes()
    for number, start in enumerate(range(0, len(raw), 20_000)):
        (folder / f"runs.zip.{number}").write_bytes(raw[start : start + 20_000])
    return folder


@pytest.fixture
def own_plan(plan, monkeypatch, tmp_path):
    """The plan as it stands in tools/plans, with cases relative to a data folder."""
    folder = tmp_path / "root" / "tools" / "plans"
    folder.mkdir(parents=True)
    own = plan.model_copy(update={"cases": (Path("cases"),), "output": Path("runs/v2")})
    (folder / "toy_long.json").write_text(own.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(taking, "ROOT", tmp_path / "root")
    return own


def take(results: Path, data: Path, target: Path, replace: bool = False) -> None:
    folder = results.parent / f"unpacked{len(list(results.parent.iterdir()))}"
    for run in taking.unpack(results, folder):
        taking.place(run, data, target, replace)


def test_a_run_that_is_brought_in_resumes_with_its_own_cases(results, own_plan, case_folder, tmp_path, capsys) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "cases").symlink_to(case_folder)
    take(results, data, tmp_path / "taken")
    run = Run.open(tmp_path / "taken" / "toy")
    assert "8 of 8 steps, complete" in capsys.readouterr().out
    assert run.plan.cases == (case_folder.resolve(),)
    assert taking.count_steps(run.folder) == 8
    assert list(train(run))[-1].path == run.model_path


def test_a_run_that_is_further_on_stays_as_it_is(results, own_plan, tmp_path, capsys) -> None:
    target = tmp_path / "taken"
    take(results, tmp_path, target)
    (target / "toy" / "note").touch()
    take(results, tmp_path, target)
    assert "stays as it is" in capsys.readouterr().out
    assert (target / "toy" / "note").exists()
    take(results, tmp_path, target, replace=True)
    assert not (target / "toy" / "note").exists()


def test_results_with_a_missing_part_or_a_strange_file_are_refused(results, tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"holds no runs\.zip\.0"):
        taking.unpack(tmp_path, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "runs.zip.0", "w") as archive:
        archive.writestr("../evil.py", "")
    with pytest.raises(SystemExit, match="does not belong"):
        taking.unpack(tmp_path, tmp_path / "a")
    max(results.iterdir(), key=lambda part: int(part.suffix[1:])).unlink()
    with pytest.raises(SystemExit, match="do not make an archive"):
        taking.unpack(results, tmp_path / "a")


def test_the_pace_of_a_run_is_read_from_its_events(finished) -> None:
    text = running.describe_pace(finished.folder, 6)
    assert text.startswith("8 steps of 6: ")
    assert "slices/s by the median step" in text
    assert running.describe_pace(finished.folder / "absent", 6) == "0 steps"


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(3600)
def test_the_whole_quarter_of_an_hour_is_rehearsed_in_an_empty_environment(real_data, tmp_path) -> None:
    pack, out, environment = tmp_path / "pack", tmp_path / "out", tmp_path / "environment"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    tools = ROOT / "tools" / "gpu"
    subprocess.run([sys.executable, tools / "pack", real_data, "--python", here, "--output", pack], check=True)
    assert sum(file.stat().st_size for file in pack.rglob("*") if file.is_file()) <= 40 * 2**20
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *THERE]
    subprocess.run(pip, check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OUT")}
    command = [python, tools / "run", "--minutes", "2", "--device", "cpu", "--pack", pack, "--out", out]
    done = subprocess.run(command, env=clean, check=False)
    report = (out / "report.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, report
    assert len(list(out.iterdir())) <= 8
    assert all(file.stat().st_size <= 16 * 2**20 for file in out.iterdir())
    assert json.loads((out / "gpu.json").read_text())["result"]["training"]
    take(out, real_data, tmp_path / "taken")
    assert {path.name for path in (tmp_path / "taken").iterdir()} == {
        *("glioma-u2net", "glioma-u2net-mixed", "glioma-res-unet", "glioma-unet")
    }
