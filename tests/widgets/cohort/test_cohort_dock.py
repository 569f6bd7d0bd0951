"""The Cohort dock without a window: what it finds, follows, shows and refuses; no process is started here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QElapsedTimer, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QImage, QShortcut
from qtpy.QtWidgets import QFileDialog, QMenu

from cohorts import write_cohort
from dicom import Acquisition, Storage, affine_of, write_series
from napari_braintumor.engine.cohorts.followed import FollowedRun, make_request
from napari_braintumor.engine.cohorts.marks import mark_case, read_marks
from napari_braintumor.widgets.cohort import run_bar
from napari_braintumor.widgets.cohort.dock import CohortDock
from napari_braintumor.widgets.cohort.table import CASE, SORT_ROLE, STATUS, TRUST

WAIT_MS = 20_000
MOST_SILENT_S = 0.2


@pytest.fixture
def dock(qtbot: Any) -> CohortDock:
    dock = CohortDock(ViewerModel())
    qtbot.addWidget(dock)
    return dock


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FollowedRun]:
    """The runs that were asked for; none is started."""
    asked: list[FollowedRun] = []

    def start(run: FollowedRun, _: Path) -> Any:
        asked.append(run)
        yield run

    monkeypatch.setattr(run_bar, "start_run", start)
    return asked


def look(qtbot: Any, dock: CohortDock, path: Path) -> None:
    dock.dataset_row.show_path(path)
    wait(qtbot, dock)


def wait(qtbot: Any, dock: CohortDock) -> None:
    qtbot.waitUntil(lambda: dock._looking is None and not dock.run_bar.running, timeout=WAIT_MS)


def make_record(output: Path, case: str, ml: float, **more: Any) -> dict[str, Any]:
    """Write a record with a picture, and return the event that reports it."""
    output.mkdir(parents=True, exist_ok=True)
    content = {
        "case": case,
        "volumes_ml": {"whole tumor": ml, "tumor core": ml / 2},
        "written": {"files": {f"{case}_tumor.nii.gz": "0", f"{case}_tumor.png": "1"}},
        **more,
    }
    (output / f"{case}_tumor.json").write_text(json.dumps(content))
    QImage(600, 260, QImage.Format.Format_RGB32).save(str(output / f"{case}_tumor.png"))
    return {"event": "case_done", "case": case, "record": str(output / f"{case}_tumor.json"), "reused": False}


def trust_of(word: str) -> dict[str, Any]:
    return {"trust": {"word": word, "expected_dice": {"whole tumor": [0.5, 0.7, 0.9]}, "reasons": ["it is small"]}}


def report(run: FollowedRun, *events: dict[str, Any]) -> None:
    with run.events_path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def ask(dataset: Path, output: Path) -> FollowedRun:
    run = FollowedRun(output)
    run.ask(make_request(dataset, "glioma-unet"), dataset)
    return run


def column(dock: CohortDock, title: str, role: int = Qt.ItemDataRole.DisplayRole) -> list[Any]:
    """Return what a column shows, from the top."""
    number = dock.table.columns.index(title)
    return [dock.cases.data(dock.cases.index(row, number), role) for row in range(dock.cases.rowCount())]


@pytest.fixture
def finished(qtbot: Any, dock: CohortDock, tmp_path: Path) -> CohortDock:
    """A dock that shows an earlier run of four cases: two are done, one failed, one was not reached."""
    write_cohort(tmp_path / "cases", 4)
    output = tmp_path / "out"
    run = ask(tmp_path / "cases", output)
    report(
        run,
        make_record(output, "p00", 30.0, **trust_of("high")),
        {"event": "case_failed", "case": "p01", "reason": "It is damaged."},
        {"event": "case_started", "case": "p02", "number": 3},
        {"event": "case_progress", "case": "p02", "slices_done": 3, "slices": 12},
        make_record(output, "p02", 4.0, **trust_of("low"), notes=["A note."]),
        {"event": "case_started", "case": "p03", "number": 4},
        {"event": "progress", "done": 3, "cases": 4, "left_s": 12.0},
    )
    mark_case(output, "p00", "accepted")
    dock.output_row.show_path(output)
    wait(qtbot, dock)
    return dock


def test_a_folder_becomes_a_table_and_its_results_go_beside_it(qtbot, dock, tmp_path) -> None:
    write_cohort(tmp_path / "cases", 2)
    assert not dock.run_bar.run_button.isEnabled()
    look(qtbot, dock, tmp_path / "cases")
    assert column(dock, CASE) == [row.name for row in dock.table.rows]
    assert column(dock, "Series")[0] == "T1, T1ce, T2, FLAIR"
    assert dock.found_line.text().startswith("2 cases")
    assert dock.run_bar.run_button.isEnabled()
    assert dock.output_row.path == tmp_path / "cases_tumors"
    look(qtbot, dock, tmp_path / "nowhere")
    assert "nowhere" in dock.message.text()
    assert not dock.run_bar.run_button.isEnabled()
    write_cohort(tmp_path / "others", 1)
    look(qtbot, dock, tmp_path / "others")
    assert dock.output_row.path == tmp_path / "others_tumors"  # it follows, as nobody has chosen another one
    dock.output_row.show_path(tmp_path / "mine")
    look(qtbot, dock, tmp_path / "cases")
    assert dock.output_row.path == tmp_path / "mine"


def test_unsure_series_are_marked_with_the_reason_and_no_path_of_dicom_is_kept(qtbot, dock, started, tmp_path) -> None:
    shape, spacing = (6, 20, 20), (6.0, 2.0, 2.0)
    values = np.random.default_rng(0).integers(0, 500, shape)
    for number, name in ((2, "AX T2"), (3, "AX T1")):
        said = Acquisition(name, number, echo_time=None, repetition_time=None, volumetric=False)
        write_series(tmp_path / "smith" / str(number), values, affine_of(spacing=spacing, shape=shape), said, Storage())
    look(qtbot, dock, tmp_path / "smith")
    (row,) = dock.table.rows
    doubted = [each for each in row.files.rows if each.used and not each.sure]
    assert row.series.count("?") == len(doubted)
    assert all(f"used as {each.modality}, which is not certain: {each.reason}" in row.described for each in doubted)
    assert ("unsure series" in row.flags) == bool(doubted)
    # Nothing is named after the folder, which may be named after the patient.
    assert dock.output_row.path == tmp_path / "cohort_tumors"
    dock.run_bar.run_button.click()
    qtbot.waitUntil(lambda: "ended before" in dock.run_bar.state_line.text(), timeout=WAIT_MS)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cohort_tumors").rglob("*") if path.is_file())
    assert b"smith" not in kept
    other = CohortDock(ViewerModel())
    qtbot.addWidget(other)
    other.output_row.show_path(tmp_path / "cohort_tumors")
    assert "Choose the folder of the cases too" in other.message.text()
    other.dataset_row.show_path(tmp_path / "smith")
    qtbot.waitUntil(lambda: other.run is not None and not other.run_bar.running, timeout=WAIT_MS)
    assert other.run_bar.run_button.text() == "Resume"


def test_a_table_of_paths_can_be_chosen_too(qtbot, dock, tmp_path, monkeypatch) -> None:
    write_cohort(tmp_path / "cases", 1)
    table = tmp_path / "list.csv"
    table.write_text("case,path\nanna,cases/p00\nbert,cases/p09\n")
    monkeypatch.setattr(QMenu, "exec", lambda menu, *_: menu.actions()[1])
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(table), ""))
    dock.dataset_row.button.click()
    wait(qtbot, dock)
    assert column(dock, CASE) == ["anna", "bert"]
    assert "does not exist" in dock.table.rows[1].problem
    assert dock.table.rows[1].flags == ("failed",)
    monkeypatch.setattr(QMenu, "exec", lambda menu, *_: menu.actions()[0])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "cases"))
    dock.dataset_row.button.click()
    wait(qtbot, dock)
    assert column(dock, CASE) == ["p00"]
    monkeypatch.setattr(QMenu, "exec", lambda *_: None)
    dock.dataset_row.button.click()
    assert column(dock, CASE) == ["p00"]


def test_only_one_dataset_is_taken_at_a_time(dock, tmp_path) -> None:
    dock._drops.dropped.emit([tmp_path / "a", tmp_path / "b"])
    assert dock.message.text() == "Drop one folder or one table: the cases of one dataset."


def test_an_earlier_run_is_shown_as_it_stands(finished, tmp_path) -> None:
    dock = finished
    assert dock.dataset_row.path == tmp_path / "cases"
    assert column(dock, STATUS) == ["done", "failed", "done", "waiting"]
    assert column(dock, TRUST) == ["high", "", "low", ""]
    assert column(dock, "Mark") == ["accepted", "", "", ""]
    assert column(dock, "whole tumor, mL") == ["30.0", "", "4.0", ""]
    assert column(dock, "Notes")[1:3] == ["It is damaged.", "A note."]
    pictures = column(dock, CASE, Qt.ItemDataRole.DecorationRole)
    assert [picture is not None for picture in pictures] == [True, False, True, False]
    assert dock.run_bar.run_button.text() == "Resume"
    assert (dock.run_bar.bar.value(), dock.run_bar.bar.maximum()) == (3, 4)
    assert "p02_tumor.png" in column(dock, CASE, Qt.ItemDataRole.ToolTipRole)[2]


@pytest.mark.parametrize(
    ("title", "order"),
    [
        (CASE, ["p00", "p01", "p02", "p03"]),
        (STATUS, ["p00", "p02", "p01", "p03"]),
        (TRUST, ["p01", "p03", "p02", "p00"]),
        ("tumor core, mL", ["p01", "p03", "p02", "p00"]),
    ],
)
def test_a_heading_sorts(finished, title, order) -> None:
    dock = finished
    dock.view.sortByColumn(dock.table.columns.index(title), Qt.SortOrder.AscendingOrder)
    assert column(dock, CASE) == order
    assert column(dock, title, SORT_ROLE) == sorted(column(dock, title, SORT_ROLE))


@pytest.mark.parametrize(
    ("kind", "text", "names"),
    [
        ("all cases", "", ["p00", "p01", "p02", "p03"]),
        ("done", "", ["p00", "p02"]),
        ("not marked", "", ["p02"]),
        ("accepted", "", ["p00"]),
        ("to correct", "", []),
        ("low trust", "", ["p02"]),
        ("notes", "", ["p02"]),
        ("failed", "", ["p01"]),
        ("waiting", "", ["p03"]),
        ("all cases", "DAMAGED ", ["p01"]),
        ("done", "p0", ["p00", "p02"]),
    ],
)
def test_the_table_can_be_filtered(finished, kind, text, names) -> None:
    dock = finished
    dock.filter_box.setCurrentText(kind)
    dock.search_edit.setText(text)
    assert column(dock, CASE) == names


def test_a_mark_is_kept_shown_and_taken_back(finished, tmp_path) -> None:
    dock = finished
    dock.view.setCurrentIndex(dock.cases.find("p02"))
    button = dock.case_box.mark_buttons["to correct"]
    assert "A note." in dock.case_box.line.text()
    button.click()
    assert read_marks(tmp_path / "out")["p02"].word == "to correct"
    assert column(dock, "Mark") == ["accepted", "", "to correct", ""]
    dock.case_box.mark_buttons["excluded"].click()
    assert not button.isChecked()
    dock.case_box.mark_buttons["excluded"].click()
    assert read_marks(tmp_path / "out")["p02"].word == ""
    (tmp_path / "out" / ".cohort" / "marks.json").write_text("damaged")
    button.click()
    assert "cannot be read" in dock.message.text()
    assert not button.isChecked()


def test_what_was_asked_for_is_the_dataset_with_the_chosen_model(finished, qtbot, started, tmp_path) -> None:
    dock = finished
    dock.run_bar.run_button.click()
    qtbot.waitUntil(lambda: "ended before" in dock.run_bar.state_line.text(), timeout=WAIT_MS)
    assert started == [FollowedRun(tmp_path / "out")]
    assert started[0].request == make_request(tmp_path / "cases", dock.model_choice.name)
    # No process: it has ended without a word, and what failed is tried again.
    assert dock.run_bar.state_line.text() == "The run ended before it was done."
    assert column(dock, STATUS) == ["done", "waiting", "done", "waiting"]


def test_why_a_run_could_not_start_is_said(finished, qtbot, monkeypatch) -> None:
    def start(run: FollowedRun, _: Path) -> Any:
        run.messages_path.write_text("The model 'x' does not exist.\n")
        yield run

    monkeypatch.setattr(run_bar, "start_run", start)
    finished.run_bar.run_button.click()
    qtbot.waitUntil(lambda: "does not exist" in finished.run_bar.state_line.text(), timeout=WAIT_MS)
    assert finished.run_bar.run_button.text() == "Resume"


def test_results_among_the_scans_are_refused(qtbot, dock, started, tmp_path) -> None:
    write_cohort(tmp_path / "cases", 1)
    look(qtbot, dock, tmp_path / "cases")
    dock.output_row.show_path(tmp_path / "cases" / "out")
    dock.run_bar.run_button.click()
    assert "lies among the cases" in dock.message.text()
    assert started == []


def test_enter_opens_a_case_without_labels_while_there_are_none(qtbot, dock, tmp_path) -> None:
    write_cohort(tmp_path / "cases", 1, broken=0)
    look(qtbot, dock, tmp_path / "cases")
    dock.view.setCurrentIndex(dock.cases.find("p00"))
    (enter,) = dock.view.findChildren(QShortcut)  # a key would need a window that is active
    assert enter.key().toString() == "Return"
    enter.activated.emit()
    qtbot.waitUntil(lambda: len(dock._viewer.layers) == 4 and dock.case_box.footer.job is None, timeout=WAIT_MS)
    assert not dock.case_box.save_button.isEnabled()
    assert dock.case_box.layer is None


def test_labels_that_are_gone_are_an_error_in_words(finished, qtbot) -> None:
    dock = finished
    dock.view.doubleClicked.emit(dock.cases.find("p00"))
    qtbot.waitUntil(lambda: "Not opened" in dock.message.text(), timeout=WAIT_MS)
    assert "p00_tumor.nii.gz" in dock.message.text()
    qtbot.waitUntil(lambda: dock.case_box.footer.job is None, timeout=WAIT_MS)


def test_the_report_opens_in_the_browser(finished, tmp_path, monkeypatch) -> None:
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    assert not finished.report_button.isEnabled()
    (tmp_path / "out" / "report.html").touch()
    finished._show_state()
    finished.report_button.click()
    assert [url.toLocalFile() for url in opened] == [str(tmp_path / "out" / "report.html")]


def test_a_table_that_cannot_be_written_is_an_error_in_words(finished, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "nowhere" / "all.csv"), ""))
    finished.export_button.click()
    assert "all.csv' cannot be written" in finished.message.text()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "all.csv"), ""))
    finished.export_button.click()
    assert (tmp_path / "all.csv").read_text().splitlines()[0].startswith("case,status,flags,mark,trust")


def test_a_run_that_goes_on_is_said_when_the_dock_is_closed(finished, qtbot, monkeypatch) -> None:
    assert finished.describe_closing() == ""
    monkeypatch.setattr(FollowedRun, "is_running", True)
    finished.run_bar.follow(finished.run)
    assert finished.describe_closing().startswith("The cohort goes on.")
    assert finished.run_bar.run_button.text() == "Pause"
    assert not finished.dataset_row.isEnabled()
    finished.run_bar.leave()


def test_two_hundred_cases_never_stop_the_window(dock, qtbot, tmp_path) -> None:
    output = tmp_path / "out"
    cases = [f"p{number:03d}" for number in range(200)]
    source = tmp_path / "source"
    write_cohort(source, 1)
    table = tmp_path / "list.csv"
    table.write_text("case,t1\n" + "".join(f"{case},source/p00/p00_t1.nii.gz\n" for case in cases))
    run = ask(table, output)
    report(run, *(make_record(output, case, float(n), **trust_of("high")) for n, case in enumerate(cases)))
    clock, silent_s = QElapsedTimer(), [0.0]
    clock.start()

    def tick() -> None:
        silent_s.append(clock.restart() / 1000)

    dock.show()
    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(5)
    begun = time.thread_time()
    dock.output_row.show_path(output)
    wait(qtbot, dock)
    assert column(dock, STATUS) == ["done"] * 200
    dock.view.sortByColumn(dock.table.columns.index("whole tumor, mL"), Qt.SortOrder.DescendingOrder)
    dock.filter_box.setCurrentText("done")
    qtbot.wait(50)
    timer.stop()
    print(f"200 cases: silent {max(silent_s):.3f} s at most; {time.thread_time() - begun:.2f} s of the window's thread")
    assert column(dock, CASE)[0] == "p199"
    assert sorted(silent_s)[-2] < 5 * MOST_SILENT_S  # on a machine that others use too
