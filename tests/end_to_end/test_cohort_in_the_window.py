"""The Cohort dock in a real window: dropped, run, paused, closed, resumed, corrected, marked, exported."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from cohorts import write_cohort
from napari_braintumor.engine.cohorts.followed import FollowedRun
from napari_braintumor.engine.cohorts.marks import Mark, read_marks
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.widgets.cohort.dock import CohortDock
from napari_braintumor.widgets.correcting.dock import CorrectDock
from napari_braintumor.widgets.measuring.dock import MeasureDock
from napari_braintumor.widgets.shared.dock import find_dock, open_dock
from napari_braintumor.widgets.training.dock import TrainDock

WAIT_MS = 60_000


def open_cohort(make_napari_viewer: Any, model: str = "toy") -> tuple[Any, CohortDock]:
    viewer = make_napari_viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Cohort")
    assert isinstance(dock, CohortDock)
    (path,) = (each.path for each in dock.model_choice._models if each.name == model)
    dock.model_choice.choose(path)
    return viewer, dock


def drop(dock: CohortDock, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    action, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QApplication.sendEvent(dock, QDragEnterEvent(QPoint(5, 5), action, data, left, none))
    QApplication.sendEvent(dock, QDropEvent(QPointF(5, 5), action, data, left, none))


def statuses(dock: CohortDock) -> dict[str, str]:
    return {row.name: row.status for row in dock.table.rows}


def wait_for_cases(qtbot: Any, dock: CohortDock, count: int) -> None:
    qtbot.waitUntil(lambda: len(dock.table.rows) == count and dock._looking is None, timeout=WAIT_MS)


def choose(dock: CohortDock, case: str) -> None:
    dock.view.setCurrentIndex(dock.cases.find(case))


def open_case(qtbot: Any, dock: CohortDock, case: str) -> Labels:
    dock.view.doubleClicked.emit(dock.cases.find(case))
    qtbot.waitUntil(lambda: dock.case_box.footer.job is None, timeout=WAIT_MS)
    layer = dock.case_box.layer
    assert layer is not None, dock.message.text()
    return layer


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cohort_is_dropped_run_paused_resumed_corrected_and_exported(
    make_napari_viewer, qtbot, tmp_path, toy_model, models_folder
) -> None:
    models_folder.mkdir(exist_ok=True)
    shutil.copy(toy_model, models_folder / "toy.safetensors")
    cases, output = tmp_path / "cases", tmp_path / "cases_tumors"
    write_cohort(cases, 4, broken=1)
    viewer, dock = open_cohort(make_napari_viewer)

    # Dropped: a table of what was found.
    assert not dock.run_bar.run_button.isEnabled()
    drop(dock, cases)
    wait_for_cases(qtbot, dock, 4)
    assert set(statuses(dock).values()) == {"waiting"}
    assert dock.table.rows[0].series == "T1, T1ce, T2, FLAIR"
    assert dock.output_row.path == output

    # Run, and paused as soon as the first case has a result; napari is closed meanwhile.
    dock.run_bar.run_button.click()
    qtbot.waitUntil(lambda: "done" in statuses(dock).values(), timeout=WAIT_MS)
    paused = dock.run_bar.running
    if paused:
        dock.run_bar.run_button.click()
        qtbot.waitUntil(lambda: not dock.run_bar.running, timeout=WAIT_MS)
        assert FollowedRun(output).status in ("paused", "done")
    viewer.close()

    # Opened again: the same results are followed, and the run goes on.
    viewer, dock = open_cohort(make_napari_viewer)
    drop(dock, output)
    wait_for_cases(qtbot, dock, 4)
    assert dock.dataset_row.path == cases
    qtbot.waitUntil(lambda: not dock.run_bar.running and "done" in statuses(dock).values(), timeout=WAIT_MS)
    dock.run_bar.run_button.click()
    qtbot.waitUntil(lambda: dock.run_bar.running, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not dock.run_bar.running, timeout=WAIT_MS)
    assert statuses(dock) == {"p00": "done", "p01": "done", "p02": "done", "p03": "failed"}
    assert dock.run_bar.run_button.text() == "Run"
    assert FollowedRun(output).request.model == str(models_folder / "toy.safetensors")
    assert "p03" in dock.table.find("p03").problem
    whole = dock.table.find("p00").row.content["volumes_ml"]["whole tumor"]
    assert whole > 0
    assert dock.table.find("p00").picture is not None

    # A double click opens scans and labels; these are corrected, measured and saved beside the model's.
    before = {path: path.read_bytes() for path in output.glob("*_tumor.*")}
    layer = open_case(qtbot, dock, "p00")
    assert len([each for each in viewer.layers if isinstance(each, Image)]) == 4
    assert viewer.layers.selection.active is layer
    measure = open_dock(viewer, MeasureDock)
    qtbot.waitUntil(lambda: bool(measure.rows) and measure.measuring.idle, timeout=WAIT_MS)
    assert measure.rows[0].values["volume_ml"] == pytest.approx(whole, abs=0.05)
    correct = open_dock(viewer, CorrectDock)
    assert correct.target is layer
    z = viewer.dims.current_step[0]
    layer.data_setitem(tuple(np.indices((1, 4, 4)).reshape(3, -1) + np.array([[z], [2], [2]])), 2)
    choose(dock, "p00")
    dock.case_box.save_button.click()
    qtbot.waitUntil(lambda: dock.table.find("p00").mark.corrected != "", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: dock.case_box.footer.job is None, timeout=WAIT_MS)
    assert {path: path.read_bytes() for path in before} == before
    now = dock.table.find("p00").row.content["volumes_ml"]["whole tumor"]
    assert now == pytest.approx(whole + 16 * 0.003, abs=0.002)

    # The second one: corrections that are not saved are never lost.
    layer = open_case(qtbot, dock, "p01")
    assert len([each for each in viewer.layers if isinstance(each, Labels)]) == 1
    layer.data_setitem(tuple(np.indices((1, 4, 4)).reshape(3, -1) + np.array([[z], [2], [2]])), 2)
    dock.view.doubleClicked.emit(dock.cases.find("p01"))
    assert "not saved" in dock.message.text()
    other = open_case(qtbot, dock, "p02")
    assert "'p01' stays open" in dock.message.text()
    assert layer in viewer.layers
    assert other in viewer.layers
    viewer.layers.clear()
    layer = open_case(qtbot, dock, "p01")
    layer.data_setitem(tuple(np.indices((1, 4, 4)).reshape(3, -1) + np.array([[z], [2], [2]])), 2)
    dock.case_box.save_button.click()
    qtbot.waitUntil(lambda: dock.table.find("p01").mark.corrected != "", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: dock.case_box.footer.job is None, timeout=WAIT_MS)

    # Marks, a filter, and the table.
    for case, word in (("p00", "accepted"), ("p01", "to correct"), ("p03", "excluded")):
        choose(dock, case)
        dock.case_box.mark_buttons[word].click()
        assert dock.case_box.mark_buttons[word].isChecked()
    assert read_marks(output)["p00"] == Mark("accepted", "p00_tumor_corrected.nii.gz")
    dock.filter_box.setCurrentText("to correct")
    assert [dock.cases.row_at(dock.cases.index(n, 0)).name for n in range(dock.cases.rowCount())] == ["p01"]
    dock.filter_box.setCurrentIndex(0)
    dock.export_to(tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [row["mark"] for row in rows] == ["accepted, corrected", "to correct, corrected", "", "excluded"]
    assert float(rows[0]["whole_tumor_volume_ml"]) == pytest.approx(now, abs=0.002)
    assert rows[0]["labels"] == os.path.relpath(output / "p00_tumor_corrected.nii.gz", tmp_path)

    # The corrected cases are there to learn from.
    assert [case.name for case in find_cases(output / ".cohort" / "corrected")] == ["p00", "p01"]
    dock.learn_button.click()
    train = find_dock(viewer, TrainDock)
    page = train.data.folder_page
    qtbot.waitUntil(lambda: len(page.cases.usable) == 2 and page._job is None, timeout=WAIT_MS)
    assert train.model.parent_model.name == "toy"
    assert train.build_plan().cases == (output / ".cohort" / "corrected",)

    # What another run makes of it: nothing is segmented again, and report and table have the marks.
    dock.run_bar.run_button.click()
    qtbot.waitUntil(lambda: dock.run_bar.running, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not dock.run_bar.running, timeout=WAIT_MS)
    assert {path: path.read_bytes() for path in before if path.suffix != ".csv"} == before
    assert "accepted, corrected" in (output / "report.html").read_text(encoding="utf-8")
    last = json.loads((output / ".cohort" / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["segmented"], last["reused"], last["failed"]) == ("done", 0, 3, 1)
    # Nothing is written beside the scans.
    assert {path.suffix for path in cases.rglob("*") if path.is_file()} == {".gz"}
