import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_braintumor.cli import app
from napari_braintumor.engine.events import Downloaded
from napari_braintumor.engine.models.model_file import read_weights_sha256, save_model
from trusting import calibrate

run = CliRunner().invoke


def test_segment_writes_labels_on_the_scan_s_grid_and_a_record(case_folder, toy_model, tmp_path) -> None:
    result = run(app, ["segment", str(case_folder / "case7"), "-o", str(tmp_path), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert "whole tumor" in result.output
    labels = nib.load(tmp_path / "case7_tumor.nii.gz")
    scan = nib.load(case_folder / "case7" / "case7_t1.nii.gz")
    assert labels.shape == scan.shape
    assert np.array_equal(labels.affine, scan.affine)
    record = json.loads((tmp_path / "case7_tumor.json").read_text())
    assert record["model"] == "toy"
    assert record["volumes_ml"]["whole tumor"] > 0


def test_segment_prints_how_far_a_result_can_be_trusted_if_the_model_was_calibrated(
    case_folder, toy_model, tmp_path
) -> None:
    model = Path(shutil.copy(toy_model, tmp_path / "model.safetensors"))
    calibrate(model, "whole tumor")
    result = run(app, ["segment", str(case_folder / "case7"), "-o", str(tmp_path / "out"), "-m", str(model)])
    assert "Trust: " in result.output
    assert "whole tumor: Dice 0." in result.output
    record = json.loads((tmp_path / "out" / "case7_tumor.json").read_text())
    assert record["trust"]["word"] in ("high", "medium", "low")


def test_a_broken_case_does_not_stop_the_others_and_sets_the_exit_code(case_folder, toy_model, tmp_path) -> None:
    broken = tmp_path / "broken" / "x_t1.nii.gz"
    broken.parent.mkdir()
    broken.write_bytes(b"not a scan")
    paths = [str(broken.parent), str(case_folder / "case7")]
    result = run(app, ["segment", *paths, "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert result.exit_code == 1
    assert "1 of 2 cases failed" in result.output
    assert (tmp_path / "out" / "case7_tumor.nii.gz").exists()


def test_demo_prints_volumes_and_writes_labels_record_and_picture(case_folder, toy_model, tmp_path) -> None:
    result = run(app, ["demo", str(case_folder / "case7"), "-o", str(tmp_path), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert "mL" in result.output
    assert "with the reference" in result.output
    assert {path.suffix for path in tmp_path.iterdir()} == {".gz", ".json", ".png"}


def test_false_findings_in_cases_without_a_tumor_are_printed_in_ml(case_folder, toy_model) -> None:
    result = run(app, ["evaluate", str(case_folder / "case7"), "-m", str(toy_model), "--no-tumor"])
    assert result.exit_code == 0, result.output
    assert "max mL" in result.output
    assert "all of them are false positives" in result.output


def test_demo_takes_one_case_only(case_folder, toy_model) -> None:
    result = run(app, ["demo", str(case_folder), "-m", str(toy_model)])
    assert result.exit_code == 1
    assert "holds 8 cases" in result.output


def test_evaluate_prints_means_and_writes_a_table(case_folder, toy_model, tmp_path) -> None:
    table = tmp_path / "table.csv"
    result = run(app, ["evaluate", str(case_folder), "-m", str(toy_model), "--held-out", "-o", str(table)])
    assert result.exit_code == 0, result.output
    assert "held out" in result.output
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["case"] for row in rows} == {"case7"}
    assert {row["region"] for row in rows} == {"whole tumor", "tumor core", "enhancing tumor"}


def test_train_follows_a_plan(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"epochs": 1, "steps_per_epoch": 2, "cases": (Path(case_folder.name),)})
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    result = run(app, ["train", str(path), "--data", str(case_folder.parent), "-o", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert "epoch   1" in result.output
    assert (tmp_path / "runs" / "toy" / "model.safetensors").exists()


def write_plan(plan, folder: Path) -> str:
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json())
    return str(path)


def test_train_resumes_a_run_by_its_folder(toy_plan, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"epochs": 1, "steps_per_epoch": 2, "output": tmp_path})
    assert run(app, ["train", write_plan(plan, tmp_path)]).exit_code == 0
    again = run(app, ["train", str(tmp_path / "toy")])
    assert again.exit_code == 0, again.output
    assert "This run is complete already" in again.output
    other = run(app, ["train", write_plan(plan.model_copy(update={"seed": 5}), tmp_path)])
    assert other.exit_code == 1
    assert "holds a run with another plan" in other.output


def test_a_check_prints_what_is_needed_and_trains_nothing(toy_plan, tmp_path) -> None:
    result = run(
        app, ["train", write_plan(toy_plan.model_copy(update={"output": tmp_path / "runs"}), tmp_path), "--check"]
    )
    assert result.exit_code == 0, result.output
    assert "The settings work: 122,507 parameters" in result.output
    assert not (tmp_path / "runs").exists()


def test_folds_train_one_run_for_each_part_of_the_patients(toy_plan, tmp_path) -> None:
    more = {"epochs": 1, "steps_per_epoch": 1, "validation": 0.2, "output": tmp_path / "runs"}
    result = run(app, ["train", write_plan(toy_plan.model_copy(update=more), tmp_path), "--folds", "2"])
    assert result.exit_code == 0, result.output
    sides = [json.loads((tmp_path / "runs" / f"toy-fold{n}" / "split.json").read_text()) for n in (1, 2)]
    assert sorted(sides[0]["validation_patients"] + sides[1]["validation_patients"]) == [f"case{n}" for n in range(7)]


def test_training_in_the_background_has_a_lower_priority(toy_plan, tmp_path, monkeypatch) -> None:
    import psutil

    lowered = []
    monkeypatch.setattr(psutil.Process, "nice", lambda self, value: lowered.append(value))
    plan = toy_plan.model_copy(update={"epochs": 1, "steps_per_epoch": 1, "output": tmp_path})
    assert run(app, ["train", write_plan(plan, tmp_path), "--background"]).exit_code == 0
    assert lowered == [10]


def test_a_signal_stops_a_training_gently(toy_plan, tmp_path) -> None:
    import signal
    import time

    plan = toy_plan.model_copy(update={"epochs": 500, "output": tmp_path})
    command = [sys.executable, "-m", "napari_braintumor", "train", write_plan(plan, tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events, until = tmp_path / "toy" / "events.jsonl", time.monotonic() + 60
    while not (events.exists() and "BatchDone" in events.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0, output
    assert "Stopped: You asked for it." in output
    assert (tmp_path / "toy" / "model.safetensors").exists()


def test_the_seed_s_row_and_the_honest_row_stand_side_by_side(trained, toy_plan, toy_model, case_folder) -> None:
    split = str(toy_plan.output / "toy" / "split.json")
    result = run(app, ["evaluate", str(case_folder), "-m", str(toy_model), "--convention", "seed", "--split", split])
    assert result.exit_code == 0, result.output
    assert "seed-style" in result.output
    assert "honest" in result.output
    assert "case6" in result.output
    assert "case5" not in result.output
    strange = run(app, ["evaluate", str(case_folder), "-m", str(toy_model), "--convention", "volumes"])
    assert "There is no convention 'volumes'" in strange.output
    wrong = run(app, ["evaluate", str(case_folder), "-m", str(toy_model), "--split", str(toy_model)])
    assert "is not the split.json of a run" in wrong.output


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"name": "a"}', "is not valid: cases"), ('{"name": "a", "cases": ["b"], "color": 1}', "is not valid: color")],
)
def test_a_plan_that_is_not_valid_is_explained(tmp_path, content, message) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    result = run(app, ["train", str(path)])
    assert result.exit_code == 1
    assert message in result.output


def test_a_missing_plan_is_reported_missing(tmp_path) -> None:
    result = run(app, ["train", str(tmp_path / "none.json")])
    assert result.exit_code == 1
    assert "cannot be read" in result.output


def test_models_lists_them_and_shows_a_card(toy_model, tmp_path, monkeypatch) -> None:
    import torch

    from napari_braintumor.engine.models.model_file import read_card

    save_model(tmp_path / "toy.safetensors", {"a": torch.zeros(1)}, read_card(toy_model))
    card = read_card(toy_model).model_copy(update={"name": "toy-with-a-name-that-is-long"})
    save_model(tmp_path / "long.safetensors", {"a": torch.zeros(1)}, card)
    monkeypatch.setenv("BRAINTUMOR_MODELS", str(tmp_path))
    assert "toy-with-a-name-that-is-long" in run(app, ["models", "list"]).output
    card = json.loads(run(app, ["models", "show", "toy", "--json"]).output)
    assert card["architecture"] == "unet"
    shown = run(app, ["models", "show", "toy"]).output
    assert "Intended use" in shown
    assert "parameters" in shown
    assert read_weights_sha256(tmp_path / "toy.safetensors") in shown  # long lines are wrapped, not cut


def test_an_unknown_model_and_an_impossible_setting_are_explained(case_folder) -> None:
    unknown = run(app, ["segment", str(case_folder / "case7"), "-m", "nothing"])
    assert unknown.exit_code == 1
    assert "no model 'nothing'" in unknown.output
    impossible = run(app, ["segment", str(case_folder / "case7"), "--device", "abacus"])
    assert impossible.exit_code == 2
    assert "device = 'abacus'" in impossible.output


def test_an_output_folder_that_cannot_be_written_to_is_named(case_folder, toy_model, tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file, not a folder")
    result = run(app, ["segment", str(case_folder / "case7"), "-m", str(toy_model), "-o", str(taken)])
    assert result.exit_code == 1
    assert "taken' cannot be written to" in result.output


def test_a_path_that_is_not_there_is_named(tmp_path) -> None:
    result = run(app, ["segment", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "nowhere" in result.output


@pytest.fixture
def catalogue(toy_model, tmp_path, monkeypatch) -> Path:
    """A folder with a catalogue and its one file."""
    folder = tmp_path / "catalogue"
    folder.mkdir()
    content = toy_model.read_bytes()
    (folder / "toy.safetensors").write_bytes(content)
    entry = {"name": "toy", "title": "A [red]toy", "file": "toy.safetensors", "bytes": len(content), "license": "CC0"}
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "catalogue.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("BRAINTUMOR_CATALOGUE", str(folder))
    return folder


def test_an_available_model_is_downloaded_by_its_name(catalogue, models_folder) -> None:
    listed = run(app, ["models", "available"])
    assert "A [red]toy" in listed.output
    assert "CC0" in listed.output
    result = run(app, ["models", "download", "toy"])
    assert result.exit_code == 0, result.output
    assert "toy: license CC0." in result.output
    assert "Installed as 'toy'" in result.output
    assert (models_folder / "toy.safetensors").exists()


def test_a_mirror_and_another_catalogue_can_be_named(catalogue, models_folder, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("BRAINTUMOR_CATALOGUE")
    assert "The catalogue is empty" in run(app, ["models", "available"]).output
    mirror = (catalogue / "toy.safetensors").rename(tmp_path / "toy.safetensors").parent
    said = ["models", "download", "toy", "--catalogue", str(catalogue)]
    without = run(app, said)
    assert without.exit_code == 1
    assert "'toy.safetensors' cannot be read in" in without.output
    assert run(app, [*said, "--from", str(mirror)]).exit_code == 0
    assert (models_folder / "toy.safetensors").exists()


def test_a_name_that_the_catalogue_lacks_is_reported(catalogue) -> None:
    result = run(app, ["models", "download", "toys"])
    assert result.exit_code == 1
    assert "no model 'toys'. It has: toy." in result.output


def test_ctrl_c_stops_a_download(catalogue, models_folder, monkeypatch) -> None:
    from napari_braintumor.cli import models as cli

    def interrupted(*_):
        yield Downloaded(1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "download", interrupted)
    result = run(app, ["models", "download", "toy"])
    assert result.exit_code == 130
    assert "Stopped. Nothing was installed." in result.output


@pytest.mark.parametrize(("kind", "suffix"), [("safetensors", ".safetensors"), ("bioimageio", ".zip")])
def test_an_exported_model_can_be_installed(toy_model, models_folder, tmp_path, kind, suffix) -> None:
    target = tmp_path / f"given{suffix}"
    written = run(app, ["models", "export", str(toy_model), str(target), "--kind", kind])
    assert written.exit_code == 0, written.output
    assert f"Written: {target}" in written.output
    installed = run(app, ["models", "install", str(target)])
    assert installed.exit_code == 0, installed.output
    assert "Installed as 'toy'" in installed.output
    assert [path.name for path in models_folder.iterdir()] == ["toy.safetensors"]


def test_a_model_cannot_be_written_as_anything(toy_model, tmp_path) -> None:
    result = run(app, ["models", "export", str(toy_model), str(tmp_path / "x"), "--kind", "pickle"])
    assert result.exit_code == 1
    assert "cannot be written as 'pickle'" in result.output


def test_weights_alone_need_a_card(toy_model, models_folder, tmp_path) -> None:
    import torch

    from napari_braintumor.engine.models.model_file import load_weights

    weights, card = tmp_path / "weights.pt", tmp_path / "card.json"
    torch.save(load_weights(toy_model), weights)
    without = run(app, ["models", "install", str(weights)])
    assert without.exit_code == 1
    assert "like those that 'models show NAME --json' prints, and pass it with --card" in without.output
    card.write_text(run(app, ["models", "show", str(toy_model), "--json"]).output)
    result = run(app, ["models", "install", str(weights), "--card", str(card)])
    assert result.exit_code == 0, result.output
    assert (models_folder / "toy.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"), [("{}", "is not a card: name: Field required"), (None, "cannot be read: No such file")]
)
def test_a_card_that_cannot_be_used_is_explained(toy_model, tmp_path, content, message) -> None:
    card = tmp_path / "card.json"
    if content is not None:
        card.write_text(content)
    result = run(app, ["models", "install", str(toy_model), "--card", str(card)])
    assert result.exit_code == 1
    assert message in result.output
