"""Scores of many cases: files paired by name, means, two sets compared, tables that come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseFailed, Noted, PhaseReached
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.folders import (
    CaseScored,
    compare_scored,
    pair_files,
    read_scores,
    score_files,
    summarize,
    write_scores,
)
from napari_braintumor.engine.measuring.scores import list_scores
from napari_braintumor.engine.measuring.summary_page import save_summary_page

SHAPE = (8, 24, 24)


def write(path: Path, shift: int, thick: int = 3) -> Path:
    """Write a block of tumor, shifted to the side."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2 : 2 + thick, 6:14, 5 + shift : 15 + shift] = 2
    labels[3, 8:11, 8 + shift : 11 + shift] = 3
    path.parent.mkdir(exist_ok=True)
    write_labels(labels, default_grid(SHAPE, (2.0, 1.0, 1.0)), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Labels that are each a little more off, better ones, and the reference."""
    for number in range(4):
        write(tmp_path / "one" / f"p{number}_tumor.nii.gz", shift=number + 1)
        write(tmp_path / "two" / f"p{number}_pred.nii.gz", shift=number // 2)
        write(tmp_path / "right" / f"p{number}-seg.nii.gz", shift=0)
    write(tmp_path / "one" / "only_tumor.nii.gz", shift=0)
    return tmp_path / "one", tmp_path / "two", tmp_path / "right"


def score(labels: Path, reference: Path) -> dict[str, dict[str, dict[str, float]]]:
    events = score_files(labels, reference, "brats2023", "brats2023")
    return {event.case: event.scores for event in events if isinstance(event, CaseScored)}


def test_files_of_two_folders_are_scored_one_after_the_other(folders) -> None:
    events = list(score_files(folders[0], folders[2], "brats2023", "brats2023"))
    assert [event.text for event in events if isinstance(event, Noted)] == ["only is skipped: it is only in 'one'."]
    assert [(event.done, event.total) for event in events if isinstance(event, PhaseReached)] == [
        (number, 4) for number in range(4)
    ]
    scored = [event for event in events if isinstance(event, CaseScored)]
    assert [event.case for event in scored] == ["p0", "p1", "p2", "p3"]
    expected = [2 * (10 - shift) / 20 for shift in range(1, 5)]
    assert [event.scores["whole tumor"]["dice"] for event in scored] == pytest.approx(expected)


def test_a_damaged_file_costs_only_its_case(folders) -> None:
    (folders[0] / "p1_tumor.nii.gz").write_bytes(b"nothing")
    events = list(score_files(folders[0], folders[2], "brats2023", "brats2023"))
    (failed,) = (event for event in events if isinstance(event, CaseFailed))
    assert failed.case == "p1"
    assert not failed.details  # a user can mend it
    assert sum(isinstance(event, CaseScored) for event in events) == 3


def test_means_and_intervals_are_over_the_cases_that_have_a_score(folders) -> None:
    scored = score(folders[0], folders[2])
    del scored["p3"]["enhancing tumor"]
    found = {(each.region, each.score.name): each for each in summarize(scored)}
    whole = found["whole tumor", "dice"]
    assert (whole.count, whole.mean) == (4, pytest.approx(0.75))
    assert 0.6 <= whole.low < whole.mean < whole.high <= 0.9
    assert found["enhancing tumor", "dice"].count == 3


def test_two_sets_are_compared_on_the_cases_that_both_have(folders) -> None:
    one, two = score(folders[0], folders[2]), score(folders[1], folders[2])
    del two["p0"]
    found = {(each.region, each.score.name): each.test for each in compare_scored(one, two)}
    dice = found["whole tumor", "dice"]
    assert dice.count == 3
    assert dice.difference == pytest.approx(np.mean([0.8 - 1.0, 0.7 - 0.9, 0.6 - 0.9]))
    assert ("whole tumor", "reference_ml") not in found
    assert compare_scored(one, {}) == []


def test_a_table_of_scores_comes_back_as_it_was_written(folders, tmp_path: Path) -> None:
    scored = score(folders[0], folders[2])
    write_scores(tmp_path / "scores.csv", scored)
    back = read_scores(tmp_path / "scores.csv")
    assert list(back) == list(scored)
    for case, regions in scored.items():
        for region, values in regions.items():
            for each in list_scores():
                written = each.write(values[each.name])
                assert back[case][region].get(each.name) == (float(written) if written else None)
    with pytest.raises(DataError, match="cannot be read as a table of scores"):
        read_scores(tmp_path / "one" / "none.csv")


def test_what_cannot_be_paired_is_said(folders, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        pair_files(tmp_path / "nowhere", folders[2])
    with pytest.raises(DataError, match="is a folder, the other is not"):
        pair_files(folders[0] / "p0_tumor.nii.gz", folders[2])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Found no labels and p0, p1, p2"):
        pair_files(tmp_path / "empty", folders[2])


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_page_shows_every_case_and_names_none(folders, tmp_path: Path, sets: int, ending: str) -> None:
    scored = {"ours": score(folders[0], folders[2]), "theirs": score(folders[1], folders[2])}
    page = tmp_path / f"page.{ending}"
    save_summary_page(dict(list(scored.items())[:sets]), page)
    if ending == "svg":
        text = page.read_text()
        assert "<!-- ours: 4 cases" in text
        assert ("<!-- difference -->" in text) == (sets == 2)
        assert not any(f"<!-- p{number}" in text for number in range(4))
    else:
        assert page.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="There are no scores to draw"):
        save_summary_page({"ours": {}}, page)
