"""The command ``measure``: label files and cases, tables, CSV and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_braintumor.cli import app
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS

run = CliRunner().invoke


@pytest.fixture
def two_lesions(tmp_path: Path) -> Path:
    labels = np.zeros((60, 40, 30), np.uint8)
    labels[5:15, 10:20, 10:20] = 2
    labels[40:46, 10:16, 10:16] = 3
    path = tmp_path / "p1_seg_brats2023.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


def test_each_region_and_lesion_gets_a_row(two_lesions: Path, tmp_path: Path) -> None:
    table = tmp_path / "sizes.csv"
    result = run(app, ["measure", str(two_lesions), "-o", str(table)])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["case", "region", "lesion", *(each.name for each in MEASUREMENTS)]
    kept = [(row["region"], row["lesion"], row["volume_ml"], row["lesions"], row["side"]) for row in rows]
    assert kept == [
        ("whole tumor", "", "1.216", "2", "both"),
        ("whole tumor", "1", "1.000", "", "right"),
        ("whole tumor", "2", "0.216", "", "left"),
        ("tumor core", "", "0.216", "1", "left"),
        ("enhancing tumor", "", "0.216", "1", "left"),
    ]
    for text in ("product mm²", "1.2", "divided by the middle of the image"):
        assert text in result.output


def test_a_case_is_measured_with_its_head_as_json() -> None:
    result = run(app, ["measure", str(sample_folder()), "--json"])
    assert result.exit_code == 0, result.output
    (case,) = json.loads(result.stdout)
    whole = case["measured"][0]
    assert whole["region"] == "whole tumor"
    assert whole["lesion"] is None
    assert whole["side"] == "right"
    assert whole["axial_mm"] > whole["across_mm"] > 0


def test_a_bad_file_does_not_stop_the_others(two_lesions: Path, tmp_path: Path) -> None:
    unclear = tmp_path / "drawing.nii.gz"
    unclear.write_bytes(two_lesions.read_bytes())
    result = run(app, ["measure", str(unclear), str(two_lesions)])
    assert result.exit_code == 1
    assert "fit several label conventions" in result.output
    assert "1 of 2 cases failed" in result.output
    assert "product mm²" in result.output


def test_a_case_without_labels_says_so(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "p1_flair.nii.gz").write_bytes((sample_folder() / "sample_flair.nii.gz").read_bytes())
    result = run(app, ["measure", str(tmp_path / "p1")])
    assert result.exit_code == 1
    assert "The case has no labels. Segment it first, or give a file of labels." in result.output


def test_an_unknown_convention_is_refused(two_lesions: Path) -> None:
    result = run(app, ["measure", str(two_lesions), "--labels", "brats1999"])
    assert result.exit_code == 2
    assert "There is no label convention 'brats1999'" in result.output


def test_a_case_is_exported_for_a_paper(tmp_path: Path) -> None:
    result = run(app, ["measure", str(sample_folder()), "--export", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} >= {"row.csv", "lesions.csv", "figure.png", "methods.txt"}
    assert "Tumors were segmented by hand" in (folder / "methods.txt").read_text()
