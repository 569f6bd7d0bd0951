"""A metric is a function and a row: evaluation, the CSV file, what is printed and the comparison follow the table."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_braintumor.cli import app
from napari_braintumor.cli._console import console
from napari_braintumor.engine.measuring.comparison import compare_segmentations
from napari_braintumor.engine.measuring.metrics import METRICS, Mask, Metric
from napari_braintumor.engine.measuring.scores import list_scores
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume


def count_false_voxels(prediction: Mask, reference: Mask, _: object) -> float:
    return float(np.count_nonzero(prediction & ~reference))


@pytest.fixture
def toy() -> Iterator[Metric]:
    metric = Metric("false_vox", "false", "voxels", count_false_voxels, decimals=(0, 0), averages=("mean",))
    METRICS.append(metric)
    yield metric
    METRICS.remove(metric)


def test_a_metric_is_measured_printed_and_written_once_it_has_a_row(
    toy, case_folder, toy_model, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(console, "width", 200)  # a narrow terminal wraps the headings
    table = tmp_path / "table.csv"
    arguments = ["evaluate", str(case_folder / "case7"), "-m", str(toy_model), "-o", str(table)]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert "mean false voxels" in printed.output
    header, first, *_ = (line.split(",") for line in table.read_text().splitlines())
    assert header == [
        *("case", "group", "region", "dice", "hd95_mm", "predicted_ml", "reference_ml"),
        *("false_vox", "held_out"),
    ]
    assert first[header.index("false_vox")].isdecimal()


def test_a_metric_of_two_masks_is_part_of_a_comparison(toy, volume: Volume, segmentation: Segmentation) -> None:
    reference = Reference({"whole tumor": np.zeros(volume.shape, bool)}, "whole", volume.source)
    compared = compare_segmentations(volume, ("a", "b"), [segmentation, segmentation], reference)
    assert compared.against_reference[0]["false_vox"] == {"whole tumor": np.count_nonzero(segmentation.labels)}


def test_a_model_is_tested_against_the_table_of_another_one(case_folder, toy_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    table = tmp_path / "table.csv"
    for name in ("case7", "case8"):
        shutil.copytree(case_folder / "case7", tmp_path / name)
    arguments = ["evaluate", str(tmp_path / "case7"), str(tmp_path / "case8"), "-m", str(toy_model)]
    assert CliRunner().invoke(app, [*arguments, "-o", str(table)]).exit_code == 0
    printed = CliRunner().invoke(app, [*arguments, "--against", str(table)])
    assert printed.exit_code == 0, printed.output
    assert "95 % interval" in printed.output
    row = next(line for line in printed.output.splitlines() if "Dice" in line and "│ 2 │" in line.replace("  ", " "))
    assert "0.000 to 0.000" in row
    table.write_text("something,else\n1,2\n")
    printed = CliRunner().invoke(app, [*arguments, "--against", str(table)])
    assert printed.exit_code == 1
    assert "'table.csv' cannot be read as a table of scores" in printed.output


def test_every_score_and_a_page_of_all_cases_are_written_if_asked_for(case_folder, toy_model, tmp_path) -> None:
    for name in ("case7", "case8"):
        shutil.copytree(case_folder / "case7", tmp_path / name)
    table, page = tmp_path / "table.csv", tmp_path / "page.pdf"
    arguments = ["evaluate", str(tmp_path / "case7"), str(tmp_path / "case8"), "-m", str(toy_model), "--every-score"]
    printed = CliRunner().invoke(app, [*arguments, "-o", str(table), "--figure", str(page)])
    assert printed.exit_code == 0, printed.output
    header, *rows = (line.split(",") for line in table.read_text().splitlines())
    assert header == ["case", "group", "region", *(each.name for each in list_scores()), "held_out"]
    assert all(0 <= float(row[header.index("lesion_dice_2023")]) <= 1 for row in rows)
    assert page.read_bytes().startswith(b"%PDF")
