"""Commands that take cases have the same options for them, with the same meaning."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from napari_braintumor.cli import app

run = CliRunner().invoke

OF_CASES = {"series", "keep_names"}
OF_SCANS = {"onto", "registration"}
OF_NETWORKS = {"model", "device", "runtime", "mirroring", "min_volume_ml", "skull"}


def options_of(command: str) -> dict[str, tuple[object, ...]]:
    """Each option of a command: how it is written, what it is by default, and what its help says."""
    (found,) = (each for each in typer.main.get_command(app).commands.values() if each.name == command)
    return {each.name: (tuple(each.opts), each.default, each.help) for each in found.params if hasattr(each, "help")}


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("inspect", OF_CASES),
        ("prepare", OF_CASES | OF_SCANS),
        ("segment", OF_CASES | OF_SCANS | OF_NETWORKS),
        ("evaluate", OF_CASES | OF_SCANS | OF_NETWORKS),
    ],
)
def test_commands_that_take_cases_have_the_same_options_for_them(command: str, needed: set[str]):
    known, own = options_of("evaluate"), options_of(command)
    assert {name: own.get(name) for name in needed} == {name: known[name] for name in needed}


@pytest.fixture
def doubtful(case_folder: Path, tmp_path: Path) -> Path:
    """A case with a FLAIR whose name says nothing, beside the others and the mask."""
    folder = tmp_path / "cohort" / "case7"
    shutil.copytree(case_folder / "case7", folder)
    (folder / "case7_flair.nii.gz").rename(folder / "case7_extra.nii.gz")
    return folder


def measured(table: Path) -> dict[str, float]:
    with table.open() as file:
        return {row["region"]: float(row["dice"]) for row in csv.DictReader(file)}


def test_a_model_is_measured_on_the_series_that_were_chosen_and_they_are_remembered(
    doubtful: Path, case_folder: Path, toy_model: Path, tmp_path: Path
):
    def evaluate(folder: Path, name: str, *options: str) -> dict[str, float]:
        result = run(app, ["evaluate", str(folder), "-m", str(toy_model), "-o", str(tmp_path / name), *options])
        assert result.exit_code == 0, result.output
        return measured(tmp_path / name)

    whole = evaluate(case_folder / "case7", "whole.csv")
    assert evaluate(doubtful, "without.csv") != whole
    assert evaluate(doubtful, "chosen.csv", "--series", "FLAIR=case7_extra") == whole
    assert evaluate(doubtful, "again.csv") == whole
    segmented = run(app, ["segment", str(doubtful), "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert segmented.exit_code == 0, segmented.output
    assert "FLAIR" in json.loads((tmp_path / "out" / "case7_tumor.json").read_text())["modalities_used"]


def test_a_result_is_measured_on_the_grid_of_the_mask_whatever_the_others_were_brought_onto(
    doubtful: Path, toy_model: Path, tmp_path: Path
):
    (doubtful / "case7_extra.nii.gz").rename(doubtful / "case7_flair.nii.gz")
    flair = nib.load(doubtful / "case7_flair.nii.gz")
    halved = nib.Nifti1Image(np.asarray(flair.dataobj)[::2, ::2], flair.affine @ np.diag([2, 2, 1, 1]))
    nib.save(halved, doubtful / "case7_flair.nii.gz")
    for reference in ("auto", "FLAIR", "T1"):
        command = ["evaluate", str(doubtful), "-m", str(toy_model), "--registration", "never"]
        result = run(app, [*command, "--reference", reference, "-o", str(tmp_path / f"{reference}.csv")])
        assert result.exit_code == 0, result.output
    auto, coarse, fine = (measured(tmp_path / f"{name}.csv") for name in ("auto", "FLAIR", "T1"))
    assert auto == fine
    assert fine["whole tumor"] - 0.25 < coarse["whole tumor"] < fine["whole tumor"]


def test_evaluate_refuses_options_that_mean_nothing(doubtful: Path):
    result = run(app, ["evaluate", str(doubtful), "--registration", "maybe"])
    assert result.exit_code == 2
    assert "registration = 'maybe'" in result.output
