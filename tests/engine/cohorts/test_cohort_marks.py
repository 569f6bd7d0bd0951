"""Marks of cases, and where corrected labels go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_braintumor.engine.cohorts.marks import (
    MARKS,
    Mark,
    mark_case,
    name_correction,
    note_correction,
    read_correction,
    read_marks,
)
from napari_braintumor.engine.cohorts.results import Result, read_result
from napari_braintumor.engine.errors import DataError, SettingsError


def make_result(folder: Path, name: str, suffix: str = ".nii.gz") -> Result:
    content = {"case": "p1", "written": {"files": {f"{name}{suffix}": "0", f"{name}.png": "1"}}, "volumes_ml": {}}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return read_result(folder / f"{name}.json")


@pytest.mark.parametrize("word", MARKS)
def test_a_mark_is_kept_and_can_be_taken_back(tmp_path, word) -> None:
    assert read_marks(tmp_path) == {}
    assert mark_case(tmp_path, "p1", word) == Mark(word)
    note_correction(tmp_path, "p2", tmp_path / "sub" / "p2_tumor_corrected.nii")
    assert read_marks(tmp_path) == {"p1": Mark(word), "p2": Mark("", "sub/p2_tumor_corrected.nii")}
    mark_case(tmp_path, "p2", word)
    assert str(read_marks(tmp_path)["p2"]) == f"{word}, corrected"
    assert mark_case(tmp_path, "p1", "") == Mark()


def test_there_are_no_other_marks(tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"There is no mark 'fine'. Choose one of: accepted, to correct, excluded"):
        mark_case(tmp_path, "p1", "fine")


@pytest.mark.parametrize("text", ["", "[]", '{"p1": 3}', '{"p1": {"word": "accepted"}}', "\x00"])
def test_damaged_marks_are_never_written_over(tmp_path, text) -> None:
    mark_case(tmp_path, "p1", "accepted")
    path = tmp_path / ".cohort" / "marks.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"marks.json' cannot be read. Restore the file, or delete it"):
        mark_case(tmp_path, "p2", "accepted")
    assert path.read_text() == text


def test_marks_that_cannot_be_written_are_an_error(tmp_path) -> None:
    (tmp_path / ".cohort").write_text("in the way")
    with pytest.raises(DataError, match=r"The marks? .*cannot be"):
        mark_case(tmp_path, "p1", "accepted")


@pytest.mark.parametrize(
    ("name", "suffix", "corrected"),
    [
        ("p1_tumor", ".nii.gz", "p1_tumor_corrected.nii.gz"),
        ("p1_tumor_2", ".tif", "p1_tumor_2_corrected.tif"),
        ("sub-1_ses-2_desc-tumor_dseg", ".nii.gz", "sub-1_ses-2_desc-tumorcorrected_dseg.nii.gz"),
    ],
)
def test_corrected_labels_go_beside_the_models(tmp_path, name, suffix, corrected) -> None:
    result = make_result(tmp_path, name, suffix)
    labels = name_correction(result)
    assert labels == tmp_path / corrected
    # What is corrected once more takes the same place.
    labels.touch()
    record = {"labels_file": labels.name, "volumes_ml": {"whole tumor": 1.0}}
    labels.with_name(corrected.removesuffix(suffix) + ".json").write_text(json.dumps(record))
    now = read_correction(result, labels)
    assert now.files[0] == labels
    assert now.content["volumes_ml"] == {"whole tumor": 1.0}
    assert now.picture == result.picture
    assert name_correction(now) == labels


def test_a_correction_that_is_gone_leaves_the_models_result(tmp_path) -> None:
    result = make_result(tmp_path, "p1_tumor")
    assert read_correction(result, tmp_path / "p1_tumor_corrected.nii.gz") is result


@pytest.mark.parametrize("text", [None, "", "[]", "{}"])
def test_a_result_whose_record_is_damaged_is_an_error(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / "p1_tumor.json").write_text(text)
    with pytest.raises(DataError, match=r"The record '.*p1_tumor.json' is gone or damaged. Segment the case again"):
        read_result(tmp_path / "p1_tumor.json")
