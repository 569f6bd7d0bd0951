"""The command line's table of series, and choosing from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom import Acquisition, affine_of, write_capture, write_pdf, write_series
from napari_braintumor.cli import app
from napari_braintumor.cli._console import console

run = CliRunner().invoke
SHAPE = (6, 24, 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = affine_of(spacing=(5.0, 2.0, 2.0), shape=SHAPE)
    for number, description in enumerate(("localizer", "ax t1", "ax flair", "strange one"), start=1):
        values = np.random.default_rng(number).integers(1, 99, SHAPE)
        times = {} if number < 4 else {"echo_time": None, "repetition_time": None}
        write_series(tmp_path / "P7" / str(number), values, place, Acquisition(description, number, **times))
    write_pdf(tmp_path / "P7", Acquisition("Report", 9))
    write_capture(tmp_path / "P7", Acquisition("Key images", 11))
    return tmp_path / "P7"


def listed(*arguments: str) -> list[dict]:
    result = run(app, ["inspect", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_table_says_what_each_series_is_and_what_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "width", 200)  # COLUMNS is read once, at import, if the environment has it
    result = run(app, ["inspect", str(folder)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert lines[0].split() == ["P7", "patient", "1", "2024-02-29"]
    cells = {
        line.split()[1]: [cell.strip() for cell in line.split("│")[2:-1]] for line in lines if line.startswith("│")
    }
    assert cells["1"] == ["localizer", "", "no", "axial", "5 x 2 x 2", "a scout"]
    assert cells["2"][:5] == ["ax t1", "T1", "yes", "axial", "5 x 2 x 2"]
    assert cells["2"][5].startswith("the description says T1")
    assert cells["4"][1:3] == ["?", "no"]
    assert cells["9"][-1] == "a document"
    assert cells["11"][1:3] == ["", "no"]
    assert result.output.count("Series 11 'Key images'") == 1  # what the table says is not said again
    assert "SECRET" not in result.output


def test_the_same_table_is_there_as_json(folder: Path):
    (case,) = listed(str(folder))
    assert (case["case"], case["patient"], case["date"], case["problem"]) == ("P7", "patient 1", "2024-02-29", None)
    assert {row["label"]: (row["modality"], row["used"]) for row in case["series"]} == {
        "1": (None, False), "2": ("T1", True), "3": ("FLAIR", True), "4": (None, False), "9": (None, False),
        "11": (None, False),
    }  # fmt: skip
    assert case["series"][1]["spacing_zyx_mm"] == [5, 2, 2]
    assert case["series"][1]["slices"] == 6


def test_a_choice_is_made_and_remembered_until_it_is_dropped(folder: Path):
    (case,) = listed(str(folder), "--series", "T2=4", "--series", "FLAIR=none")
    chosen = {row["modality"]: row["label"] for row in case["series"] if row["used"]}
    assert chosen == {"T1": "2", "T2": "4"}
    (again,) = listed(str(folder))
    assert {row["modality"]: row["label"] for row in again["series"] if row["used"]} == chosen
    (case,) = listed(str(folder), "--series", "auto")
    assert {row["modality"]: row["label"] for row in case["series"] if row["used"]} == {"T1": "2", "FLAIR": "3"}


def test_a_series_that_is_not_there_is_a_failure_of_the_case(folder: Path):
    result = run(app, ["inspect", str(folder), "--series", "T1=77"])
    assert result.exit_code == 1
    assert "Case 'P7' has no series '77'. It has 1 'localizer', 2 'ax t1'" in result.output


@pytest.mark.parametrize("command", [["inspect"], ["prepare", "-o", "out"], ["segment", "-o", "out"]])
def test_where_no_series_fits_the_command_line_says_how_to_choose(tmp_path: Path, command: list[str]):
    place = affine_of(spacing=(5.0, 2.0, 2.0), shape=SHAPE)
    values = np.random.default_rng(0).integers(1, 99, SHAPE)
    write_series(tmp_path / "P7", values, place, Acquisition("localizer", 3))
    out = [str(tmp_path / word) if word == "out" else word for word in command[1:]]
    result = run(app, [command[0], str(tmp_path / "P7"), *out])
    assert result.exit_code == 1
    assert "Choose one with --series T1=NUMBER; 'napari-braintumor inspect' lists the numbers." in result.output


def test_files_whose_names_say_nothing_have_a_table_too(case_folder: Path, tmp_path: Path):
    (tmp_path / "x").mkdir()
    for number, path in enumerate(sorted((case_folder / "case7").glob("case7_*.nii.gz"))[:2]):
        (tmp_path / "x" / f"scan{number}.nii.gz").write_bytes(path.read_bytes())
    result = run(app, ["inspect", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert "does not say which modality" in result.output
    (case,) = listed(str(tmp_path / "x"), "--series", "T1=scan0")
    assert [row["modality"] for row in case["series"] if row["used"]] == ["T1"]
