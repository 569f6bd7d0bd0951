from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_braintumor.engine.alignment import AlignedScan, Alignment
from napari_braintumor.engine.files.formats import FORMATS, check_writable, strip_suffix
from napari_braintumor.engine.grid import SourceGrid, default_grid
from napari_braintumor.widgets.shared.save_form import DICOM_TITLE, SaveForm, Wish, list_grids

FLAIR = default_grid((24, 40, 40), (5, 1, 1), format="dicom", path=Path("/scans/4/a.dcm"))
T1 = default_grid((40, 44, 48), (2, 2, 2), format="dicom", path=Path("/scans/2/a.dcm"))
T2 = default_grid((24, 40, 40), (5, 1, 1), format="dicom", path=Path("/scans/3/a.dcm"))
ALIGNMENT = Alignment(
    "FLAIR",
    {
        "T1": AlignedScan(T1, np.eye(4), "scanner coordinates"),
        "T2": AlignedScan(T2, np.eye(4), "same grid"),
        "FLAIR": AlignedScan(FLAIR, np.eye(4), "same grid"),
    },
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the file dialog was opened with; it answers with what was proposed."""
    asked: list[str] = []

    def answer(_: Any, __: str, proposed: str, kinds: str) -> tuple[str, str]:
        asked.extend([proposed, kinds])
        return proposed, kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    return asked


def make_form(qtbot: Any, source: SourceGrid = FLAIR, alignment: Alignment | None = ALIGNMENT) -> SaveForm:
    form = SaveForm(None, "p7", source, alignment)
    qtbot.addWidget(form)
    return form


def formats(form: SaveForm) -> list[str]:
    return [form.format_box.itemText(index) for index in range(form.format_box.count())]


def test_each_different_grid_is_offered_once_that_of_the_labels_first():
    listed = list_grids(FLAIR, ALIGNMENT)
    assert [(on, grid) for _, on, grid in listed] == [(None, FLAIR), ("T1", T1)]
    assert listed[0][0] == "FLAIR, 24 x 40 x 40 voxels of 5 x 1 x 1 mm"


def test_labels_are_saved_on_the_grid_and_in_the_format_that_are_chosen(qtbot, asked):
    form = make_form(qtbot)
    form.grid_box.setCurrentIndex(1)
    form.format_box.setCurrentText("NRRD")
    form.save_button.click()
    assert form.wish == Wish(Path("/scans/2/p7_T1_tumor.nrrd"), "T1", ())
    assert asked[1].startswith("NRRD (*.nrrd")


def test_dicom_comes_with_what_is_asked_for(qtbot, asked):
    form = make_form(qtbot)
    assert not form.extra_boxes["report"].isEnabled()
    form.format_box.setCurrentText(DICOM_TITLE)
    form.extra_boxes["report"].setChecked(True)
    form.save_button.click()
    assert form.wish == Wish(Path("/scans/4/p7_tumor.dcm"), None, ("report",))
    form.format_box.setCurrentText("NIfTI")
    form.save_button.click()
    assert form.wish.also == ()  # its box is still checked, but nothing of it can be written


def test_dicom_is_not_offered_for_scans_of_other_formats(qtbot):
    form = make_form(qtbot, replace(FLAIR, format="nifti"), None)
    assert DICOM_TITLE not in formats(form)
    assert all(box.isHidden() for box in form.extra_boxes.values())


@pytest.mark.parametrize("row", [row for row in FORMATS if row.written_suffixes], ids=lambda row: row.name)
@pytest.mark.parametrize("name", ["mine", "mine.v2", "mine.nii.gz", "mine.tif"])
def test_every_format_gets_a_name_that_it_is_written_by(qtbot, monkeypatch, row, name):
    form = make_form(qtbot)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (f"/out/{name}", ""))
    form.format_box.setCurrentText(DICOM_TITLE if row.name == "dicom" else row.title)
    form.save_button.click()
    assert check_writable(form.wish.path) is row
    assert form.wish.path.name.startswith("mine.v2." if name == "mine.v2" else "mine.")


def test_a_scan_keeps_its_own_format_unless_another_is_chosen(qtbot):
    form = make_form(qtbot, replace(FLAIR, format="tiff"), None)
    assert form.format_box.currentText() == "TIFF"


def test_nothing_is_wished_for_if_the_file_dialog_is_closed(qtbot, monkeypatch):
    form = make_form(qtbot)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    form.save_button.click()
    assert form.wish is None


def test_labels_on_another_grid_are_not_taken_for_a_scan_of_its_modality(qtbot, asked):
    form = make_form(qtbot)
    for index in range(form.grid_box.count()):
        form.grid_box.setCurrentIndex(index)
        form.save_button.click()
        assert strip_suffix(form.wish.path).endswith("_tumor")  # by which results are told from scans
