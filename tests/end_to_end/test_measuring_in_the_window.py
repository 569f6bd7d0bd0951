"""The Measure dock in a real window: every control is clicked, from an open case to a row, a figure and a paragraph."""

from __future__ import annotations

import csv
import shutil
import time
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels, Shapes
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QFileDialog, QLineEdit, QTableView

from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.widgets.measuring import working
from napari_braintumor.widgets.measuring.dock import NOTHING_YET, MeasureDock

WAIT_MS = 60_000


class Clicks:
    """Notes which controls of a dock were used, and says which were not."""

    def __init__(self, dock: MeasureDock) -> None:
        self.dock = dock
        self.used: set[str] = set()
        for name, control in self.list_controls().items():
            signal = control.clicked if isinstance(control, QAbstractButton | QTableView) else None
            signal = control.currentIndexChanged if isinstance(control, QComboBox) else signal
            signal = control.textChanged if isinstance(control, QLineEdit) else signal
            signal.connect(lambda *_, name=name: self.used.add(name))

    def list_controls(self) -> dict[str, Any]:
        """Return what can be used in the dock, by its name for screen readers, or else its text."""
        kinds = (QAbstractButton, QComboBox, QTableView, QLineEdit)
        found = {
            (each.accessibleName() or each.text()).strip("▸▾ "): each
            for kind in kinds
            for each in self.dock.findChildren(kind)
            if not isinstance(each, QLineEdit | QAbstractButton) or each.accessibleName() or each.text()
        }
        return {name: each for name, each in found.items() if name}

    def list_unused(self) -> set[str]:
        return set(self.list_controls()) - self.used


def open_dock(viewer: Any) -> MeasureDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Measure")
    assert isinstance(dock, MeasureDock)
    return dock


def wait_for_rows(qtbot: Any, dock: MeasureDock) -> None:
    qtbot.waitUntil(lambda: bool(dock.rows) and dock.measuring.idle, timeout=WAIT_MS)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    notification_manager.records.clear()
    return make_napari_viewer()


def test_from_an_open_case_to_a_row_a_figure_and_a_paragraph_in_under_a_minute(
    viewer, qtbot, tmp_path, monkeypatch
) -> None:
    viewer.open_sample("napari-braintumor", "sample-case")
    begun_s = time.monotonic()
    dock = open_dock(viewer)
    wait_for_rows(qtbot, dock)
    dock.copy_button.click()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    dock.export_button.click()
    qtbot.waitUntil(lambda: "methods and record are in" in dock.message.text(), timeout=WAIT_MS)
    took_s = time.monotonic() - begun_s
    print(f"From an open case to a row, a figure and a paragraph: {took_s:.1f} s and two clicks.")
    assert took_s < 60
    (folder,) = tmp_path.iterdir()
    assert all((folder / name).stat().st_size for name in ("row.csv", "figure.png", "methods.txt"))
    # Read by somebody else, so that a row is a row.
    assert QApplication.clipboard().text().splitlines()[0] in (folder / "row.csv").read_text().splitlines()[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_control_does_what_it_says(viewer, qtbot, tmp_path, monkeypatch) -> None:
    dock = open_dock(viewer)
    clicks = Clicks(dock)
    assert dock.target_line.text() == NOTHING_YET
    assert not dock.export_button.isEnabled()
    viewer.open_sample("napari-braintumor", "sample-case")
    wait_for_rows(qtbot, dock)
    reference = dock.target
    assert isinstance(reference, Labels)
    whole = dock.table.rows[0]
    assert whole[0] == "whole tumor"
    assert float(whole[1]) == pytest.approx(54.9, abs=0.1)
    assert "the middle of the head" in dock.divided_line.text()

    # A click on a row goes to the slice of its diameters, which are drawn.
    dock.view.clicked.emit(dock.table.index(1, 0))
    assert viewer.dims.current_step[0] == dock.rows[1].diameters.z
    dock.diameters_box.click()
    (lines,) = (layer for layer in viewer.layers if isinstance(layer, Shapes))
    assert viewer.dims.current_step[0] == dock.rows[1].diameters.z
    assert lines.nshapes == 2 * len(dock.rows)
    ends = lines.data[0]
    assert np.linalg.norm((ends[1] - ends[0]) * lines.scale) == pytest.approx(dock.rows[0].values["axial_mm"], rel=1e-4)
    dock.diameters_box.click()
    assert lines not in viewer.layers

    # A row for the clipboard.
    dock.copy_button.click()
    header, values = QApplication.clipboard().text().splitlines()
    assert dict(zip(header.split(","), values.split(","), strict=True))["whole_tumor_volume_ml"].startswith("54.9")

    # Painting is measured.
    viewer.layers.selection.active = reference
    before = dock.rows
    reference.data_setitem(tuple(np.array(index) for index in ([20] * 50, range(50), [30] * 50)), 2)
    qtbot.waitUntil(lambda: dock.rows is not before, timeout=WAIT_MS)
    wait_for_rows(qtbot, dock)
    assert dock.rows[0].values["volume_ml"] != before[0].values["volume_ml"]
    reference.undo()

    # Scores against other labels, and where the two differ.
    other = reference.data.copy()
    other[:, :, :60] = 0
    place = {"scale": reference.scale, "translate": reference.translate, "units": reference.units}
    drawn = viewer.add_labels(other, name="mine", axis_labels=reference.axis_labels, **place)
    assert dock.target is drawn
    qtbot.waitUntil(lambda: "Choose the convention" in dock.message.text(), timeout=WAIT_MS)
    assert not dock.rows
    dock.meaning_box.setCurrentIndex(dock.meaning_box.findData("brats2023"))
    wait_for_rows(qtbot, dock)
    dock.scores_part.toggleButton().click()
    dock.scores_box.reference_slot.setCurrentIndex(dock.scores_box.reference_slot.findText(reference.name))
    qtbot.waitUntil(lambda: bool(dock.scores_box.table.rows), timeout=WAIT_MS)
    assert dock.scores_box.table.rows[0][0] == "Dice"
    assert 0 < float(dock.scores_box.table.rows[0][1]) < 1
    dock.scores_box.differences_button.click()
    (shown,) = (layer for layer in viewer.layers if layer.name == "Differences [mine]")
    assert set(np.unique(shown.data)) <= {0, 1, 3}
    assert "whole tumor" in dock.message.text()
    dock.scores_box.view.clicked.emit(dock.scores_box.table.index(0, 2))
    assert "tumor core" in dock.message.text()

    # Scores and differences follow the brush, on the labels and on the reference.
    dock.scores_box.differences_button.click()
    corner = tuple(
        np.array(each) for each in ([20] * 400, [5 + n // 20 for n in range(400)], [5 + n % 20 for n in range(400)])
    )
    assert not shown.data[corner].any()
    reference.visible = True  # napari says nothing of Ctrl+Z in a layer that is hidden, until it is shown
    for painted, number in ((drawn, 2), (reference, 3)):
        before = dock.scores_box.table.rows[0]
        painted.data_setitem(corner, 2)
        qtbot.waitUntil(lambda before=before: dock.scores_box.table.rows[0] != before, timeout=WAIT_MS)
        assert set(shown.data[corner].tolist()) == {number}
        painted.undo()
        qtbot.waitUntil(lambda before=before: dock.scores_box.table.rows[0] == before, timeout=WAIT_MS)
        assert not shown.data[corner].any()

    # The export.
    viewer.layers.selection.active = reference
    wait_for_rows(qtbot, dock)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    dock.export_button.click()
    qtbot.waitUntil(lambda: "methods and record are in" in dock.message.text(), timeout=WAIT_MS)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "row.csv",
        "lesions.csv",
        "figure.png",
        "methods.txt",
        "record.json",
    }
    (row,) = csv.DictReader((folder / "row.csv").read_text().splitlines())
    assert row["whole_tumor_side"] == "right"

    # Labels in the numbers of another data set.
    dock.convert_part.toggleButton().click()
    dock.convert_box.to_box.setCurrentIndex(dock.convert_box.to_box.findData("brats2013"))
    qtbot.waitUntil(dock.convert_box.convert_button.isEnabled, timeout=WAIT_MS)
    dock.convert_box.convert_button.click()
    qtbot.waitUntil(lambda: "The converted labels are" in dock.message.text(), timeout=WAIT_MS)
    converted = viewer.layers[f"{reference.name} brats2013"]
    assert np.array_equal(converted.data == 4, reference.data == 3)
    viewer.layers.remove(converted)

    # Many cases: two folders, then a table to compare with, saved as a table and as a page.
    for name in ("mine", "right"):
        (tmp_path / name).mkdir()
        for number in range(2):
            target = tmp_path / name / f"p{number}_seg_brats2023.nii.gz"
            shutil.copy(sample_folder() / "sample_seg.nii.gz", target)
    box = dock.folders_box
    dock.folders_part.toggleButton().click()
    box.source_box.setCurrentIndex(1)
    box.source_box.setCurrentIndex(0)
    for row, name in ((box.labels_row, "mine"), (box.reference_row, "right")):
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, name=name: str(tmp_path / name))
        row.button.click()
    for meaning in (box.labels_meaning, box.reference_meaning):
        meaning.setCurrentIndex(meaning.findData("brats2023"))
    for button, name in ((None, ""), (box.table_button, "scores.csv"), (box.page_button, "page.png")):
        if button is None:
            qtbot.waitUntil(box.score_button.isEnabled, timeout=WAIT_MS)
            box.score_button.click()
            qtbot.waitUntil(lambda: dock.footer.job is None and bool(box.table.rows), timeout=WAIT_MS)
            continue
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (str(tmp_path / name), ""))
        button.click()
        assert (tmp_path / name).is_file()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "scores.csv"), ""))
    box.against_row.button.click()
    box.score_button.click()
    qtbot.waitUntil(lambda: dock.footer.job is None and bool(box.table.rows), timeout=WAIT_MS)
    assert box.table.rows[0] == ["whole tumor", "Dice", "2", "1.000", "1.000 to 1.000", "0.000", "1"]
    box.view.clicked.emit(box.table.index(0, 0))
    box.score_button.click()
    dock.footer.cancel_button.click()
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=WAIT_MS)
    assert dock.message.text() == "Canceled. Nothing was changed."

    # Two visits.
    viewer.layers.clear()
    for day in ("2024-01-10", "2024-04-09"):
        folder = tmp_path / f"p7_{day}"
        folder.mkdir()
        for name in ("t1ce", "seg"):
            ending = "seg_brats2023" if name == "seg" else name
            shutil.copy(sample_folder() / f"sample_{name}.nii.gz", folder / f"p7_{day}_{ending}.nii.gz")
    for day in ("2024-01-10", "2024-04-09"):
        viewer.open(str(tmp_path / f"p7_{day}"), plugin="napari-braintumor")
    first, second = (layer for layer in viewer.layers if isinstance(layer, Labels))
    second.data[second.data == 3] = 1
    second.refresh()
    viewer.layers.selection.active = second
    wait_for_rows(qtbot, dock)
    dock.visits_part.toggleButton().click()
    assert dock.visits_box.earlier_slot.layer is first  # of the same patient, at an earlier day
    dock.visits_box.earlier_slot.setCurrentIndex(0)
    assert not dock.visits_box.compare_button.isEnabled()
    dock.visits_box.earlier_slot.setCurrentIndex(dock.visits_box.earlier_slot.findText(first.name))
    qtbot.waitUntil(dock.visits_box.compare_button.isEnabled, timeout=WAIT_MS)
    dock.visits_box.compare_button.click()
    assert dock.footer.job is not None
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=WAIT_MS)
    assert "enhancing tumor: CR by diameters, no enhancing tumor is left." in dock.visits_box.changes_line.text()
    assert dock.visits_box.changes_line.text().startswith("90 days apart.")
    assert "RANO" in dock.visits_box.rule_line.text()
    (shown,) = (layer for layer in viewer.layers if layer.name.startswith("Changes ["))
    assert set(np.unique(shown.data)) == {0, 5}

    # Both are seen side by side, where most has changed, or in turn; then everything is as before.
    def seen() -> set[str]:
        return {layer.name for layer in viewer.layers if layer.visible}

    buttons = dock.visits_box.view_buttons
    assert buttons["side by side"].isChecked()
    assert viewer.canvas.grid.enabled
    assert viewer.dims.current_step[0] == (shown.data > 1).sum(axis=(1, 2)).argmax()
    earlier = {"T1ce [p7_2024_01_10]", first.name}
    later = {f"T1ce, later visit moved [{first.name}]", f"Later visit moved [{first.name}]"}
    assert seen() == earlier | later
    np.testing.assert_array_equal(viewer.layers[f"Later visit moved [{first.name}]"].data, second.data)
    for name, layers in (("earlier", earlier), ("later", later), ("changes", {min(later, key=len), shown.name})):
        buttons[name].click()
        assert not viewer.canvas.grid.enabled
        if name != "changes":
            assert seen() == layers
    assert shown.name in seen()
    buttons["side by side"].click()
    assert seen() == earlier | later
    buttons["side by side"].click()
    assert not any(button.isChecked() for button in buttons.values())
    assert not any(layer.name in later for layer in viewer.layers)

    # A visit whose scans are closed cannot be compared, and the dock says what to do.
    viewer.layers.remove("T1ce [p7_2024_01_10]")
    viewer.layers.selection.active = second
    wait_for_rows(qtbot, dock)
    dock.visits_box.compare_button.click()
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=WAIT_MS)
    assert "No scan of" in dock.message.text()
    assert "Open the folder of that visit too." in dock.message.text()

    # A fault is shown with details for a report.
    viewer.open_sample("napari-braintumor", "sample-case")
    viewer.layers.selection.active = viewer.layers[-1]
    wait_for_rows(qtbot, dock)
    monkeypatch.setattr(working, "export_case", lambda *_: 1 / 0)
    dock.export_button.click()
    qtbot.waitUntil(lambda: "Something went wrong" in dock.message.text(), timeout=WAIT_MS)
    dock.message.details_button.click()
    assert "export_drawn" in QApplication.clipboard().text()

    assert not clicks.list_unused()
    shown_as_errors = [record.message.split(" ")[0] for record in notification_manager.records]
    assert shown_as_errors == ["No", "Something"]  # the two failures above, nothing else
