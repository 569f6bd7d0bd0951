"""The folder for a paper: row, lesions, figure, paragraph and record."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_braintumor.engine.anatomy import LABEL_COLORS, LABELS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.export import CaseReport, export_case
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS, measure_regions
from napari_braintumor.engine.measuring.methods import describe_methods
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL

RECORD = {
    "model": DEFAULT_MODEL,
    "model_version": "7",
    "model_sha256": "abcdef0123456789",
    "modalities_used": ["T1ce", "FLAIR"],
    "edited_slices_z": [3, 4],
    "by_hand_ml": {"whole tumor": 1.25, "tumor core": 0.0},
    "reviewed_slices_z": [],
}


@pytest.fixture
def report() -> CaseReport:
    labels = np.zeros((30, 60, 50), np.uint8)
    labels[10:20, 20:40, 10:25] = 2
    labels[12:18, 25:35, 14:20] = 3
    grid = default_grid(labels.shape, (3.0, 1.0, 1.0))
    measured = measure_regions({"whole tumor": labels > 0, "enhancing tumor": labels == 3}, grid)
    scan = np.random.default_rng(0).normal(100, 10, labels.shape).astype(np.float32)
    card = ModelStore().find(DEFAULT_MODEL).card
    return CaseReport("p7", measured, labels, grid, LABELS, LABEL_COLORS, scan, "FLAIR", RECORD, card)


def test_a_folder_has_all_that_a_paper_needs(report: CaseReport, tmp_path: Path) -> None:
    made = export_case(report, tmp_path)
    assert made.name == "p7_tumor_export"
    assert sorted(path.name for path in made.iterdir()) == [
        "figure.png",
        "lesions.csv",
        "methods.txt",
        "record.json",
        "row.csv",
    ]
    (row,) = csv.DictReader((made / "row.csv").read_text().splitlines())
    assert row["case"] == "p7"
    assert row["whole_tumor_volume_ml"] == "9.000"
    assert len(row) == 1 + 2 * len(MEASUREMENTS)
    lesions = list(csv.DictReader((made / "lesions.csv").read_text().splitlines()))
    assert [each["region"] for each in lesions] == ["whole tumor", "enhancing tumor"]
    record = json.loads((made / "record.json").read_text())
    assert record["by_hand_ml"]["whole tumor"] == 1.25
    assert record["measured"][0]["volume_ml"] == pytest.approx(9)
    assert export_case(report, tmp_path).name == "p7_tumor_export_2"


def test_the_figure_is_fit_for_print(report: CaseReport, tmp_path: Path) -> None:
    picture = Image.open(export_case(report, tmp_path) / "figure.png")
    assert picture.info["dpi"] == pytest.approx((300, 300), abs=1)
    assert picture.width >= 2000
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == 255).all(axis=1).mean() > 0.1  # a white page
    edema = np.array([int(LABEL_COLORS[2][i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(pixels.astype(int) - edema).max(axis=1) < 3).any()  # the legend


def test_without_a_scan_there_is_no_figure(report: CaseReport, tmp_path: Path) -> None:
    from dataclasses import replace

    made = export_case(replace(report, scan_ZYX=None), tmp_path)
    assert not (made / "figure.png").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(report: CaseReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        export_case(report, tmp_path / "file")


def test_the_paragraph_says_what_model_and_hand_did_and_cites(report: CaseReport) -> None:
    text = describe_methods(RECORD, report.card)
    for part in (
        f"its model {DEFAULT_MODEL} (version 7, SHA-256 abcdef012345",
        "on T1ce and FLAIR images",
        "The model was trained on ",
        "Then 2 slices were corrected by hand (whole tumor +1.2 mL)",
        "[network] ",
        "doi:10.1200/JCO.23.01059",
    ):
        assert part in text
    assert "not changed by hand" in describe_methods({**RECORD, "edited_slices_z": []})
    by_hand = describe_methods({"spacing_known": False})
    assert by_hand.startswith("Tumors were segmented by hand")
    assert "sizes in mm and mL are guesses" in by_hand
