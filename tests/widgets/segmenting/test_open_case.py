from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer

from dicom import Acquisition, Storage, affine_of, write_case, write_dicomdir, write_pdf, write_series
from fluid_heads import brain
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.choosing_series.rows import NO_MODALITY
from napari_braintumor.layers import KEY
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.segmenting.series_table import WHY

SERIES = {
    "T1": ("AX T1", 2, (6, 20, 20), (6.0, 2.0, 2.0)),
    "FLAIR": ("AX FLAIR", 3, (8, 24, 24), (5.0, 1.5, 1.5)),
}


def head(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Noise in a bright ellipsoid on a dark ground."""
    index = np.indices(shape).reshape(3, -1).T / (np.array(shape) - 1) * 2 - 1
    inside = (np.linalg.norm(index, axis=1) < 0.9).reshape(shape)
    return inside * np.random.default_rng(seed).uniform(200, 400, shape)


def add(folder: Path, description: str, number: int, shape: Any, spacing: Any, **more: Any) -> None:
    storage = more.pop("storage", Storage())
    acquisition = Acquisition(description, number, echo_time=None, repetition_time=None, volumetric=False, **more)
    write_series(
        folder / f"{number}", head(shape, number), affine_of(spacing=spacing, shape=shape), acquisition, storage
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for series in SERIES.values():
        add(folder, *series)
    return folder


@pytest.fixture
def viewer() -> ViewerModel:
    notification_manager.records.clear()
    return ViewerModel()


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel) -> SegmentDock:
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    return dock


def open_and_wait(qtbot: Any, dock: SegmentDock, *paths: Path) -> None:
    dock.opener.open(list(paths))
    wait(qtbot, dock)


def wait(qtbot: Any, dock: SegmentDock) -> None:
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=60000)


def names(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers]


def choose(dock: SegmentDock, number: int, text: str) -> None:
    """Choose in the table as the mouse does."""
    row = next(row for row in dock.opener.case.rows if row.series.number == number)
    box = dock.opener.series.box_of(row.key)
    box.setCurrentText(text)
    box.activated.emit(box.currentIndex())


# ------------------------------------------------------------------------------------------------ opening


def test_a_folder_of_series_opens_as_a_case_each_scan_on_its_own_grid(qtbot, dock, viewer, folder):
    open_and_wait(qtbot, dock, folder)
    assert names(viewer) == ["T1 [scans]", "FLAIR [scans]"]
    assert [layer.data.shape for layer in viewer.layers] == [(6, 20, 20), (8, 24, 24)]
    assert {m: layer.name for m, layer in dock.chosen.items()} == {"T1": "T1 [scans]", "FLAIR": "FLAIR [scans]"}
    assert dock.segment_button.isEnabled()
    assert not dock.alignment.isHidden()
    assert "2 of 2 series are used: T1, FLAIR" in dock.opener.series.line.text()
    assert not dock.opener.series_part.isExpanded()  # nothing is to be decided


@pytest.mark.parametrize("kind", ["zip", "file", "files"])
def test_archives_and_files_of_series_open_too(qtbot, dock, viewer, folder, tmp_path, kind):
    if kind == "zip":
        paths = [Path(shutil.make_archive(str(tmp_path / "disc"), "zip", folder))]
    else:
        paths = sorted((folder / "3").iterdir())[: 1 if kind == "file" else None]
    open_and_wait(qtbot, dock, *paths)
    assert dock.message.isHidden(), dock.message.text()
    shapes = [layer.data.shape for layer in viewer.layers]
    assert shapes == ([(6, 20, 20), (8, 24, 24)] if kind == "zip" else [(8, 24, 24)])
    assert dock.segment_button.isEnabled()


def test_an_obvious_case_of_files_opens_without_a_table(qtbot, dock, viewer, tmp_path, volume):
    from napari_braintumor.engine.files.labels import write_labels

    for modality in ("t1", "flair"):
        import nibabel as nib

        image = volume.data[0] if modality == "t1" else volume.data[1]
        (tmp_path / "p7").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(image, volume.source.affine_ZYX), tmp_path / "p7" / f"p7_{modality}.nii.gz")
    write_labels((volume.data[0] == 300).astype(np.uint8), volume.source, tmp_path / "p7" / "p7_seg.nii.gz")
    open_and_wait(qtbot, dock, tmp_path / "p7")
    assert names(viewer)[:2] == ["T1 [p7]", "FLAIR [p7]"]
    assert dock.alignment.isHidden()


def test_what_is_left_out_is_in_the_table(qtbot, dock, viewer, folder):
    add(folder, "localizer", 1, (3, 16, 16), (10.0, 2.0, 2.0))
    add(folder, "AX T1 repeat", 7, (6, 20, 20), (6.0, 2.0, 2.0))
    open_and_wait(qtbot, dock, folder)
    assert "2 of 4 series are used" in dock.opener.series.line.text()
    assert dock.opener.series_part.isExpanded()
    assert len(names(viewer)) == 2
    assert "left out" not in dock.message.text()  # the table says so


def test_a_case_that_needs_no_table_has_none(qtbot, dock, folder):
    assert dock.opener.series_part.isHidden()
    assert dock.opener.case_box.isHidden()


@pytest.mark.parametrize("missing", [True, False])
def test_a_bad_folder_is_one_sentence_and_nothing_changes(qtbot, dock, viewer, tmp_path, missing):
    where = tmp_path / "nothing"
    if not missing:
        where.mkdir()
    open_and_wait(qtbot, dock, where)
    assert dock.message.text().startswith("Not opened: ")
    assert dock.message.details_button.isHidden()
    assert not viewer.layers
    assert dock.opener.isEnabled()


def test_a_document_in_place_of_scans_is_named(qtbot, dock, viewer, tmp_path):
    write_pdf(tmp_path / "papers", Acquisition("report", 9))
    open_and_wait(qtbot, dock, tmp_path / "papers")
    assert dock.message.text().startswith("Not opened: ")
    assert "a document" in dock.message.text()
    assert "SECRET" not in dock.message.text()


def test_a_series_with_a_missing_slice_is_named_and_the_others_open(qtbot, dock, viewer, tmp_path):
    add(tmp_path, *SERIES["T1"], storage=Storage(left_out=(2,)))
    add(tmp_path, *SERIES["FLAIR"])
    open_and_wait(qtbot, dock, tmp_path)
    assert any(name.startswith("FLAIR") for name in names(viewer))
    assert "eries 2" in dock.message.text()
    assert "missing" in dock.message.text()


def test_a_case_that_is_opened_again_is_not_shown_twice(qtbot, dock, viewer, folder):
    open_and_wait(qtbot, dock, folder)
    before = list(viewer.layers)
    open_and_wait(qtbot, dock, folder)
    assert list(viewer.layers) == before
    viewer.layers.remove("T1 [scans]")
    open_and_wait(qtbot, dock, folder)
    assert sorted(names(viewer)) == ["FLAIR [scans]", "T1 [scans]"]


def test_opening_can_be_cancelled(qtbot, dock, viewer, folder, monkeypatch):
    from napari_braintumor.widgets.segmenting import open_case

    def endless(paths: Any) -> Any:
        while True:
            yield PhaseReached("looking for scans")

    monkeypatch.setattr(open_case, "open_paths", endless)
    dock.opener.open([folder])
    assert dock.footer.progress_line.text() == "Looking for scans…"
    dock.footer.cancel_button.click()
    wait(qtbot, dock)
    assert dock.message.text() == "Canceled. No scan was opened."
    assert not viewer.layers
    assert dock.opener.isEnabled()


def test_layers_are_added_one_by_one_and_the_dock_is_busy_until_all_are_there(qtbot, dock, viewer, folder):
    turns: list[int] = []
    busy: list[bool] = []
    timer = QTimer(dock)
    timer.timeout.connect(lambda: turns.append(len(viewer.layers)))
    timer.start(0)
    viewer.layers.events.inserted.connect(lambda _: busy.append(dock.opener.is_busy))
    open_and_wait(qtbot, dock, folder)
    assert {0, 1, 2} <= set(turns)  # the window had its turn after each
    assert busy == [True, True]
    assert not dock.opener.is_busy
    assert dock.message.isHidden(), dock.message.text()
    assert not dock.footer.cancel_button.isVisible()


def test_a_layer_that_cannot_be_added_does_not_keep_the_dock_busy(qtbot, dock, viewer, folder):
    def refuse(event: Any) -> None:
        viewer.layers.events.inserted.disconnect(refuse)
        raise ValueError("no")

    viewer.layers.events.inserted.connect(refuse)
    with qtbot.capture_exceptions() as raised:
        open_and_wait(qtbot, dock, folder)
    assert len(raised) == 1
    assert not dock.opener.is_busy
    assert not dock.segment_button.isHidden()


def test_only_one_thing_is_done_at_a_time(qtbot, dock, folder):
    dock.opener.open([folder])
    dock.opener.open([folder])
    assert "when this is done" in dock.message.text()
    wait(qtbot, dock)


# ------------------------------------------------------------------------------------------------ what is unsure


@pytest.fixture
def unsure(tmp_path: Path) -> Path:
    """A FLAIR whose description says so, and a series that is T2 by its times alone."""
    folder, shape = tmp_path / "unsure", (30, 96, 96)
    for number, (name, acquisition) in enumerate(
        {
            "FLAIR": Acquisition("ax flair", 1, echo_time=None, repetition_time=None),
            "T2": Acquisition("kopf b", 2, echo_time=100.0, repetition_time=5000.0, volumetric=False),
        }.items()
    ):
        values = (brain(name, shape) * 3).clip(0)
        write_series(folder / str(number), values, affine_of(spacing=(4.0, 1.6, 1.6), shape=shape), acquisition)
    return folder


def test_the_images_of_unsure_series_are_looked_at_and_the_table_says_what_they_show(qtbot, dock, viewer, unsure):
    phases: list[str] = []
    dock.footer.show_phase = lambda event: phases.append(event.phase)
    open_and_wait(qtbot, dock, unsure)
    assert "looking at unsure" in phases
    table = dock.opener.series.table
    row = next(number for number, row in enumerate(table.rows) if row.series.number == 2)
    assert "fluid is bright in its image, as in T2" in table.data(table.index(row, WHY))
    assert "fluid is bright in its image" in dock.message.text()
    assert dock.opener.series_part.isExpanded()
    assert "Check the one with a question mark" in dock.opener.series.line.text()
    assert len(names(viewer)) == 2


def test_looking_can_be_cancelled(qtbot, dock, viewer, unsure):
    show = dock.footer.show_phase

    def cancel_there(event: PhaseReached) -> None:
        show(event)
        if event.phase.startswith("looking at"):
            dock.footer.cancel_button.click()

    dock.footer.show_phase = cancel_there
    open_and_wait(qtbot, dock, unsure)
    assert dock.message.text() == "Canceled. No scan was opened."
    assert not viewer.layers
    assert dock.opener.series_part.isHidden()


def test_where_no_series_fits_the_dock_says_how_to_choose_one_there(qtbot, dock, viewer, tmp_path):
    add(tmp_path / "odd", "strange", 4, (6, 20, 20), (6.0, 2.0, 2.0))
    open_and_wait(qtbot, dock, tmp_path / "odd")
    assert dock.message.text().startswith("Not opened: Case 'odd' has no series for T1, T1ce, T2 or FLAIR.")
    assert dock.message.text().endswith("Say what a series shows in the first column of the table.")
    assert "--" not in dock.message.text()
    assert dock.opener.series_part.isExpanded()
    choose(dock, 4, "T2")
    wait(qtbot, dock)
    assert names(viewer) == ["T2 [odd]"]
    assert dock.message.isHidden(), dock.message.text()


def test_of_two_cases_the_one_where_no_series_fits_shows_its_table(qtbot, dock, viewer, tmp_path):
    add(tmp_path / "one", *SERIES["T1"], patient="one")
    add(tmp_path / "two", "strange", 4, (6, 20, 20), (6.0, 2.0, 2.0), patient="two")
    open_and_wait(qtbot, dock, tmp_path)
    assert len(names(viewer)) == 1
    other = 1 - dock.opener.case_box.currentIndex()
    dock.opener.case_box.setCurrentIndex(other)
    dock.opener.case_box.activated.emit(other)
    assert dock.message.text().endswith("Say what a series shows in the first column of the table.")
    choose(dock, 4, "T2")
    wait(qtbot, dock)
    assert len(names(viewer)) == 2


# ------------------------------------------------------------------------------------------------ changing


def test_another_series_takes_the_place_of_the_one_that_was_used(qtbot, dock, viewer, folder):
    add(folder, "AX T1 repeat", 7, (7, 22, 22), (6.0, 1.8, 1.8))
    open_and_wait(qtbot, dock, folder)
    assert next(layer for layer in viewer.layers if layer.name == "T1 [scans]").data.shape == (7, 22, 22)
    flair = viewer.layers["FLAIR [scans]"]
    choose(dock, 2, "T1")
    wait(qtbot, dock)
    assert sorted(names(viewer)) == ["FLAIR [scans]", "T1 [scans]"]
    assert viewer.layers["T1 [scans]"].data.shape == (6, 20, 20)
    assert viewer.layers["FLAIR [scans]"] is flair  # it was not read again
    assert dock.chosen["T1"] is viewer.layers["T1 [scans]"]


def test_a_series_that_is_left_out_goes(qtbot, dock, viewer, folder):
    open_and_wait(qtbot, dock, folder)
    choose(dock, 2, "not used")
    wait(qtbot, dock)
    assert names(viewer) == ["FLAIR [scans]"]
    row = next(row for row in dock.opener.case.rows if row.series.number == 2)
    assert row.choice == NO_MODALITY


def test_a_series_may_be_another_modality_than_it_says(qtbot, dock, viewer, folder):
    open_and_wait(qtbot, dock, folder)
    choose(dock, 2, "T1ce")
    wait(qtbot, dock)
    assert sorted(names(viewer)) == ["FLAIR [scans]", "T1ce [scans]"]
    assert list(dock.chosen) == ["T1ce", "FLAIR"]


def test_a_choice_is_remembered_with_the_case(qtbot, dock, viewer, folder):
    open_and_wait(qtbot, dock, folder)
    choose(dock, 2, "T1ce")
    wait(qtbot, dock)
    viewer.layers.clear()
    open_and_wait(qtbot, dock, folder)
    assert names(viewer) == ["T1ce [scans]", "FLAIR [scans]"]


# ------------------------------------------------------------------------------------------------ several cases


def test_of_two_patients_one_is_opened_and_the_other_can_be_chosen(qtbot, dock, viewer, tmp_path):
    for patient in ("one", "two"):
        for description, number, shape, spacing in SERIES.values():
            add(tmp_path / patient, description, number, shape, spacing, patient=patient)
    open_and_wait(qtbot, dock, tmp_path)
    assert dock.opener.case_box.count() == 2
    assert not dock.opener.case_box.isHidden()
    assert len(names(viewer)) == 2
    other = 1 - dock.opener.case_box.currentIndex()
    dock.opener.case_box.setCurrentIndex(other)
    dock.opener.case_box.activated.emit(other)
    wait(qtbot, dock)
    assert len(names(viewer)) == 4
    assert len({layer.metadata[KEY]["case"] for layer in viewer.layers}) == 2
    assert dock.scans.case_bar.case.name == dock.opener.case.name


@pytest.mark.parametrize("by", ["folder", "DICOMDIR"])
def test_two_patients_in_one_folder_are_two_cases(qtbot, dock, viewer, tmp_path, by):
    paths = []
    for patient in ("one", "two"):
        for description, number, shape, spacing in SERIES.values():
            add(tmp_path / patient, description, number, shape, spacing, patient=patient)
        paths += sorted((tmp_path / patient).rglob("*.dcm"))
    if by == "DICOMDIR":
        given = write_dicomdir(tmp_path / "disc", paths)
    else:
        given = tmp_path / "together"
        given.mkdir()
        for number, path in enumerate(paths):
            path.rename(given / f"{number:03d}.dcm")
    open_and_wait(qtbot, dock, given)
    cases = dock.opener._cases
    assert [[row.series.description for row in case.rows] for case in cases] == [["AX T1", "AX FLAIR"]] * 2
    assert dock.opener.case_box.count() == 2
    assert sorted(name.split()[0] for name in names(viewer)) == ["FLAIR", "T1"]
    assert len({layer.metadata[KEY]["case"] for layer in viewer.layers}) == 1


# ------------------------------------------------------------------------------------------------ privacy


def test_nothing_of_the_patient_is_shown_or_kept_with_the_layers(qtbot, dock, viewer, folder):
    from qtpy.QtWidgets import QLabel, QWidget

    open_and_wait(qtbot, dock, folder)
    shown = " ".join(label.text() + label.toolTip() for label in dock.findChildren(QLabel))
    shown += " ".join(widget.toolTip() + widget.accessibleName() for widget in dock.findChildren(QWidget))
    table = dock.opener.series.table
    cells = [table.index(row, column) for row in range(table.rowCount()) for column in range(table.columnCount())]
    shown += " ".join(str(table.data(cell, role)) for cell in cells for role in (0, 3))
    kept = " ".join(repr((layer.name, layer.metadata, layer.source)) for layer in viewer.layers)
    for text in (shown, kept, " ".join(record.message for record in notification_manager.records)):
        assert "SECRET" not in text
        assert "19010203" not in text


def test_the_helper_writes_the_marks_that_are_looked_for(tmp_path):
    write_case(tmp_path, [(head((4, 8, 8), 0), affine_of(shape=(4, 8, 8)), Acquisition(), Storage())])
    assert b"SECRET" in b"".join(path.read_bytes() for path in tmp_path.rglob("*.dcm"))
