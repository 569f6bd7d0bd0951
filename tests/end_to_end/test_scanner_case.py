"""From the scanner to labels in a real window: drop a folder of DICOM series, click Segment, save. Needs a display."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QWidget

from dicom import Acquisition, Storage, write_pdf
from napari_braintumor.engine.files.labels import find_label_values
from napari_braintumor.layers import KEY, find_placement
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.save_form import DICOM_TITLE, SaveForm
from native_case import native_folder, write_native_case
from saving import wait_for_saving
from scanner_case import write_scanner_case

MOVED = re.compile(
    r"registered: moved \d+\.\d mm, turned \d+\.\d° \(similarity 0\.\d\d → 0\.\d\d\)(; resampled from .* mm)?$"
)
"""What is said of a scan that was registered."""

OWN_PAUSE_S = 0.2
"""How long the window may work on something itself while labels are saved."""

LONGEST_PAUSE_S = 4.0
"""How long the window may not react, on a machine that does other things too; aligning takes many times longer."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scanner_case(tmp_path_factory.mktemp("disc") / "scans")


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    notification_manager.records.clear()
    return make_napari_viewer()


@pytest.fixture
def dock(viewer: Any) -> SegmentDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    assert isinstance(dock, SegmentDock)
    return dock


class Pulse:
    """Watches how long the window does not react, and how much of that is its own work and not that of others."""

    def __init__(self) -> None:
        self.longest_s = self.longest_own_s = 0.0
        self._last_s, self._last_own_s = time.monotonic(), time.thread_time()
        self._timer = QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(10)

    def _beat(self) -> None:
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        own_s = time.thread_time()
        self.longest_own_s = max(self.longest_own_s, own_s - self._last_own_s)
        self._last_s, self._last_own_s = now_s, own_s

    def stop(self) -> float:
        self._timer.stop()
        return self.longest_s


def drop(target: QWidget, *paths: Path) -> None:
    """Drag files over a widget and let go, as the mouse does."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    left, none, copy = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.DropAction.CopyAction
    enter = QDragEnterEvent(QPoint(9, 9), copy, data, left, none)
    QApplication.sendEvent(target, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(target, QDropEvent(QPointF(9, 9), copy, data, left, none))


def wait(qtbot: Any, dock: SegmentDock, seconds: float = 60) -> None:
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=round(seconds * 1000))


def open_scans(qtbot: Any, dock: SegmentDock, *paths: Path) -> None:
    drop(dock, *paths)
    wait(qtbot, dock)


def save(qtbot: Any, monkeypatch: Any, dock: SegmentDock, path: Path, fill: Callable[[SaveForm], None]) -> None:
    """Press the button, fill the form in, and name the file, as a person does."""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))

    def fill_in() -> None:
        form = QApplication.activeModalWidget()
        assert isinstance(form, SaveForm)
        fill(form)
        form.save_button.click()

    QTimer.singleShot(200, fill_in)
    dock.result_card.save_button.click()
    wait_for_saving(qtbot, dock.result_card)


def images(viewer: Any) -> dict[str, Image]:
    return {layer.metadata[KEY]["modality"]: layer for layer in viewer.layers if isinstance(layer, Image)}


def test_a_dropped_folder_is_shown_as_a_table_and_as_scans_at_their_places(viewer, qtbot, dock, scans):
    open_scans(qtbot, dock, scans)
    assert dock.message.isHidden(), dock.message.text()
    rows = dock.opener.case.rows
    assert {row.modality: (row.plane, row.used) for row in rows} == {
        "T1": ("sagittal", True),
        "T2": ("axial", True),
        "FLAIR": ("axial", True),
        "T1ce": ("axial", True),
    }
    assert dock.opener.series.table.rowCount() == 4
    layers = images(viewer)
    assert set(dock.chosen) == set(layers) == {"T1", "T1ce", "T2", "FLAIR"}
    middles = [np.mean(layer.extent.world, axis=0) for layer in layers.values()]
    assert np.ptp(middles, axis=0).max() < 4  # mm; they were cut out of one head
    assert dock.segment_button.isEnabled()
    assert not notification_manager.records


def test_cancelling_while_scans_are_aligned_leaves_the_viewer_as_it_was(viewer, qtbot, dock, scans):
    open_scans(qtbot, dock, scans)
    before = list(viewer.layers)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_line.text().startswith("Registering "), timeout=30_000)
    pressed_s = time.monotonic()
    dock.footer.cancel_button.click()
    wait(qtbot, dock, 20)
    assert time.monotonic() - pressed_s < 10
    assert dock.message.text() == "Canceled. No layer was changed."
    assert list(viewer.layers) == before
    assert dock.segment_button.isEnabled()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: folder.mkdir(), "No case was found"),
        (lambda folder: write_pdf(folder, Acquisition("report", 8)), "a document"),
        (lambda folder: (folder.mkdir(), (folder / "notes.txt").write_text("hello")), "No case was found"),
    ],
    ids=["empty", "pdf", "text"],
)
def test_a_wrong_folder_is_one_sentence(viewer, qtbot, dock, tmp_path, make, expected):
    make(tmp_path / "wrong")
    open_scans(qtbot, dock, tmp_path / "wrong")
    text = dock.message.text()
    assert text.startswith("Not opened: ")
    assert expected in text
    assert not viewer.layers
    assert "SECRET" not in text


def test_a_series_that_lacks_a_slice_is_named_and_the_others_open(viewer, qtbot, dock, tmp_path):
    folder = write_scanner_case(tmp_path / "scans", ("T2", "FLAIR"), T2=Storage(left_out=(9,)))
    open_scans(qtbot, dock, folder)
    assert "series 3" in dock.message.text().lower()
    assert "missing" in dock.message.text()
    assert "FLAIR" in images(viewer)


def test_nothing_of_the_patient_is_to_be_seen(viewer, qtbot, dock, scans, caplog):
    caplog.set_level("DEBUG")
    open_scans(qtbot, dock, scans)
    viewer.layers.selection.active = images(viewer)["FLAIR"]
    window = dock.window()
    words = [window.windowTitle(), viewer.title, str(viewer.status), caplog.text]
    words += [
        f"{widget.toolTip()} {widget.accessibleName()} {widget.windowTitle()}"
        for widget in window.findChildren(QWidget)
    ]
    words += [label.text() for label in window.findChildren(QLabel)]
    words += [repr((layer.name, layer.metadata, layer.source)) for layer in viewer.layers]
    words += [record.message for record in notification_manager.records]
    for text in words:
        assert "SECRET" not in text
        assert "19010203" not in text


@pytest.mark.slow
def test_from_the_scanner_to_a_dicom_segmentation(viewer, qtbot, dock, scans, tmp_path, monkeypatch):
    open_scans(qtbot, dock, scans)
    pulse = Pulse()
    dock.segment_button.click()
    wait(qtbot, dock, 240)
    paused_s = pulse.stop()
    assert dock.message.isHidden(), dock.message.text()
    (tumor,) = (layer for layer in viewer.layers if isinstance(layer, Labels))
    assert tumor.data.shape == images(viewer)["FLAIR"].data.shape
    assert find_placement(tumor).grid is find_placement(images(viewer)["FLAIR"]).grid
    assert len(find_label_values(tumor.data, find_placement(tumor).grid)) >= 2
    assert set(dock.alignment.texts) == {"T1", "T1ce", "T2"}
    assert paused_s < LONGEST_PAUSE_S, paused_s

    def as_dicom(form: SaveForm) -> None:
        form.format_box.setCurrentText(DICOM_TITLE)
        form.extra_boxes["report"].setChecked(True)

    pulse = Pulse()
    save(qtbot, monkeypatch, dock, tmp_path / "tumor.dcm", as_dicom)
    assert pulse.stop() < LONGEST_PAUSE_S
    assert pulse.longest_own_s < OWN_PAUSE_S  # it is written in a thread of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tumor.dcm", "tumor.json", "tumor_report.dcm"]
    (again,) = viewer.open(tmp_path / "tumor.dcm", plugin="napari-braintumor")
    np.testing.assert_array_equal(again.data, tumor.data)
    np.testing.assert_allclose(find_placement(again).grid.affine_ZYX, find_placement(tumor).grid.affine_ZYX, atol=1e-3)

    def on_t1(form: SaveForm) -> None:
        index = next(i for i in range(form.grid_box.count()) if form.grid_box.itemText(i).startswith("T1,"))
        form.grid_box.setCurrentIndex(index)

    save(qtbot, monkeypatch, dock, tmp_path / "scans_T1_tumor.nii.gz", on_t1)
    (there,) = viewer.open(tmp_path / "scans_T1_tumor.nii.gz", plugin="napari-braintumor")
    assert isinstance(there, Labels)
    assert there.data.shape == images(viewer)["T1"].data.shape
    volumes = [np.count_nonzero(layer.data) * find_placement(layer).grid.voxel_ml for layer in (tumor, there)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.15)

    def on_t1_as_dicom(form: SaveForm) -> None:
        on_t1(form)
        form.format_box.setCurrentText(DICOM_TITLE)

    viewer.layers.selection.active = tumor  # labels that are opened again are a result too, and were selected
    save(qtbot, monkeypatch, dock, tmp_path / "scans_T1_tumor.dcm", on_t1_as_dicom)
    (same,) = viewer.open(tmp_path / "scans_T1_tumor.dcm", plugin="napari-braintumor")
    np.testing.assert_array_equal(same.data, there.data)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_a_real_case_is_segmented_with_one_click_and_saved_on_each_of_its_four_grids(
    viewer, qtbot, dock, real_data, tmp_path, monkeypatch, form
):
    folder = native_folder(real_data)
    if form == "dicom":
        folder = write_native_case(real_data, tmp_path / "scans")
    open_scans(qtbot, dock, folder)
    scans = images(viewer)
    assert len({layer.data.shape for layer in scans.values()}) > 1
    if form == "dicom":
        assert {row.modality: row.used for row in dock.opener.case.rows} == dict.fromkeys(scans, True)
    dock.segment_button.click()
    wait(qtbot, dock, 500)
    assert dock.message.isHidden(), dock.message.text()
    (tumor,) = (layer for layer in viewer.layers if isinstance(layer, Labels))
    assert tumor.data.any()
    assert set(dock.alignment.texts) == {"T1", "T1ce", "T2"}
    for text in dock.alignment.texts.values():
        assert MOVED.match(text), text

    (tmp_path / "out").mkdir()
    ending = ".dcm" if form == "dicom" else ".nii.gz"
    found_ml = {}
    for modality, scan in scans.items():
        path = tmp_path / "out" / f"{modality}_tumor{ending}"
        save(qtbot, monkeypatch, dock, path, partial(fill_in_form, modality=modality, dicom=form == "dicom"))
        assert dock.message.text().startswith(f"Saved {path}"), dock.message.text()
        (again,) = viewer.open(path, plugin="napari-braintumor")
        assert again.data.shape == scan.data.shape
        np.testing.assert_allclose(find_placement(again).matrix, find_placement(scan).matrix, atol=1e-3)
        assert set(np.unique(again.data)) == set(np.unique(tumor.data))
        found_ml[modality] = np.count_nonzero(again.data) * find_placement(again).grid.voxel_ml
        if modality == "FLAIR":
            np.testing.assert_array_equal(again.data, tumor.data)
        viewer.layers.remove(again)
    print({modality: round(ml, 2) for modality, ml in found_ml.items()})
    assert list(found_ml.values()) == pytest.approx([found_ml["FLAIR"]] * 4, rel=0.02)
    others = [".json", *(["_report.dcm", "_rtstruct.dcm"] if form == "dicom" else [])]
    names = {f"{m}_tumor{other}" for m in scans for other in (ending, *others)}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}

    dock.alignment.check.buttons["board"].click()
    assert dock.alignment.check.layer in viewer.layers
    dock.alignment.check.buttons["board"].click()


def fill_in_form(form: SaveForm, modality: str, *, dicom: bool) -> None:
    """Choose the grid of a scan, and where that is possible everything that is written in DICOM."""
    texts = [form.grid_box.itemText(index) for index in range(form.grid_box.count())]
    form.grid_box.setCurrentIndex(next(i for i, text in enumerate(texts) if text.startswith(f"{modality},")))
    if dicom:
        form.format_box.setCurrentText(DICOM_TITLE)
        for box in form.extra_boxes.values():
            box.setChecked(True)
