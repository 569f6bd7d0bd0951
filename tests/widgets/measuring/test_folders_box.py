"""Many cases in the Measure dock: folders or a model, means, a paired test, a table and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.folders import CaseScored, read_scores
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.widgets.measuring.folders_box import FoldersBox, Summarized, score_all, score_model
from toy_cases import make_case, write_case

SHAPE = (6, 20, 20)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for number in range(3):
        for folder, shift, ending in (("ours", number, "tumor"), ("right", 0, "seg")):
            labels = np.zeros(SHAPE, np.uint8)
            labels[2:4, 5:11, 4 + shift : 14 + shift] = 2
            (tmp_path / folder).mkdir(exist_ok=True)
            write_labels(labels, default_grid(SHAPE), tmp_path / folder / f"p{number}_{ending}.nii.gz")
    return tmp_path / "ours", tmp_path / "right"


@pytest.fixture
def box(qtbot: Any) -> FoldersBox:
    box = FoldersBox()
    qtbot.addWidget(box)
    return box


def run(box: FoldersBox) -> None:
    """Do what the box asks for, here and now."""
    box.asked.connect(lambda generator, args: [box.take(event) for event in generator(*args)])
    box.score_button.click()


def choose_folders(box: FoldersBox, folders: tuple[Path, Path]) -> None:
    for row, folder in zip((box.labels_row, box.reference_row), folders, strict=True):
        row.edit.setText(str(folder))
    for meaning in (box.labels_meaning, box.reference_meaning):
        meaning.setCurrentIndex(meaning.findData("brats2023"))


def test_two_folders_are_scored_summed_up_and_saved(box, folders, tmp_path, monkeypatch) -> None:
    said: list[str] = []
    box.said.connect(said.append)
    choose_folders(box, folders)
    (folders[0] / "p9_tumor.nii.gz").write_bytes((folders[0] / "p0_tumor.nii.gz").read_bytes())
    assert not box.table_button.isEnabled()
    run(box)
    first = box.table.rows[0]
    assert first[:4] == ["whole tumor", "Dice", "3", f"{(1 + 0.9 + 0.8) / 3:.3f}"]
    assert " to " in first[4]
    assert first[5:] == ["", ""]
    assert "p9 is skipped" in box.notes_line.text()
    for button, name in ((box.table_button, "scores.csv"), (box.page_button, "page.png")):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (str(tmp_path / name), ""))
        box.set_busy(False)
        button.click()
        assert said.pop() == f"Saved as '{tmp_path / name}'."
    assert list(read_scores(tmp_path / "scores.csv")) == ["p0", "p1", "p2"]
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

    # Against the table that was just saved, nothing differs.
    box.against_row.edit.setText(str(tmp_path / "scores.csv"))
    box.score_button.click()
    assert box.table.rows[0][5:] == ["0.000", "1"]


def test_what_is_missing_is_said_before_anything_runs(box, folders, tmp_path) -> None:
    said: list[str] = []
    box.said.connect(said.append)
    box.score_button.click()
    assert said.pop() == "No folder of references is given. Choose it first."
    box.reference_row.edit.setText(str(folders[1]))
    box.score_button.click()
    assert said.pop() == "No folder of labels is given. Choose it, or score a model."
    choose_folders(box, folders)
    box.against_row.edit.setText(str(tmp_path / "none.csv"))
    box.score_button.click()
    assert "cannot be read as a table of scores" in said.pop()
    box.against_row.edit.setText("")
    with pytest.raises(DataError, match="does not exist"):
        list(score_all(score_model, (tmp_path / "nowhere", "toy", None), {}))


def test_folders_are_chosen_with_the_mouse(box, folders, monkeypatch) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folders[0]))
    box.labels_row.button.click()
    assert box.labels_row.path == folders[0]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    box.labels_row.button.click()
    assert box.labels_row.path == folders[0]  # canceled


def test_a_model_is_scored_on_a_folder_of_cases(box, tmp_path, toy_model, models_folder) -> None:
    ModelStore().install(toy_model)
    for seed in (20, 21):
        write_case(tmp_path / "cases", *make_case(seed))
    box.offer_models()
    box.source_box.setCurrentIndex(box.source_box.findData("toy"))
    assert box.labels_row.isHidden()
    box.reference_row.edit.setText(str(tmp_path / "cases"))
    asked: list[Any] = []
    box.asked.connect(lambda *given: asked.append(given))
    box.score_button.click()
    ((generator, args),) = asked
    events = list(generator(*args))
    assert [event.case for event in events if isinstance(event, CaseScored)] == ["case20", "case21"]
    for event in events:
        box.take(event)
    assert isinstance(events[-1], Summarized)
    scores = {(row[0], row[1]): float(row[3]) for row in box.table.rows}
    assert scores["whole tumor", "Dice"] > 0.5
    assert 0 <= scores["whole tumor", "BraTS 2024 Dice"] <= 1
