"""The command ``score``: two files, two folders, CSV and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from lesion_cases import draw_case
from napari_braintumor.cli import app
from napari_braintumor.engine.measuring.scores import list_scores

run = CliRunner().invoke


def write(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels.T, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for seed in range(3):
        prediction, reference = draw_case(seed)
        write(tmp_path / "ours" / f"p{seed}_tumor.nii.gz", prediction)
        write(tmp_path / "theirs" / f"p{seed}-seg.nii.gz", reference)
    write(tmp_path / "theirs" / "p7-seg.nii.gz", reference)
    return tmp_path / "ours", tmp_path / "theirs"


MEANING = ("--labels", "brats2024", "--reference-labels", "brats2024")


def test_two_folders_are_paired_by_the_names_of_cases(folders, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    result = run(app, ["score", *map(str, folders), *MEANING, "-o", str(table)])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["case", "region", *(each.name for each in list_scores())]
    assert [row["case"] for row in rows] == [name for name in ("p0", "p1", "p2") for _ in range(4)]
    assert "p7 is skipped: it is only in 'theirs'." in result.output
    assert "Means over cases" in result.output
    core = [float(row["dice"]) for row in rows if row["region"] == "tumor core"]
    assert f"{np.mean(core):.3f}" in result.output


def test_two_files_are_scored_as_json(folders) -> None:
    ours, theirs = folders
    one, two = ours / "p0_tumor.nii.gz", theirs / "p0-seg.nii.gz"
    result = run(app, ["score", str(one), str(two), *MEANING, "--json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["p0_tumor"]
    assert scores["resection cavity"]["lesion_dice_2023"] is None
    assert 0 < scores["whole tumor"]["dice"] < 1
    assert scores["whole tumor"]["difference_ml"] == pytest.approx(
        scores["whole tumor"]["predicted_ml"] - scores["whole tumor"]["reference_ml"]
    )


def test_a_file_and_a_folder_are_refused(folders) -> None:
    result = run(app, ["score", str(folders[0] / "p0_tumor.nii.gz"), str(folders[1])])
    assert result.exit_code == 1
    assert "One of 'p0_tumor.nii.gz' and 'theirs' is a folder, the other is not." in result.output


def test_folders_without_common_names_are_refused(folders, tmp_path: Path) -> None:
    write(tmp_path / "others" / "q1_seg.nii.gz", draw_case(0)[0])
    result = run(app, ["score", str(tmp_path / "others"), str(folders[1])])
    assert result.exit_code == 1
    assert "No file in 'others' has the name of one in 'theirs'" in result.output
    assert "Found q1 and p0, p1, p2." in result.output


def test_a_case_that_fails_does_not_stop_the_others(folders) -> None:
    write(folders[0] / "p1_tumor.nii.gz", draw_case(1)[0][:, :-1])
    result = run(app, ["score", *map(str, folders), *MEANING])
    assert result.exit_code == 1
    assert "1 of 3 cases failed" in result.output
