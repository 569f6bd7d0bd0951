"""A whole session in a real napari window: whatever is done, the numbers on screen are those of the labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication, QLabel

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.training.dock import TrainDock
from toy_cases import make_case, write_case

VOXEL_ML = 3 * 1 * 1 / 1000
SOON_MS = 300
LABELS = {"necrotic / non-enhancing core": (1,), "edema": (2,), "enhancing tumor": (3,)}
REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (1, 3), "enhancing tumor": (3,)}


def counted(layer: Labels, values: tuple[int, ...]) -> float:
    return float(np.isin(np.asarray(layer.data), values).sum()) * VOXEL_ML


def shown(dock: SegmentDock) -> list[tuple[str, str]]:
    """Return the rows of the result card as a person reads them: a name and what stands behind it."""
    grid = dock.result_card.legend.layout()
    rows: dict[int, list[str]] = {}
    for index in range(grid.count()):
        row, *_ = grid.getItemPosition(index)
        widget = grid.itemAt(index).widget()
        if isinstance(widget, QLabel) and widget.text():
            rows.setdefault(row, []).append(widget.text())
    return [(name, value) for name, value in (rows[row] for row in sorted(rows))]


def correct(layer: Labels, labels: np.ndarray) -> None:
    """Give a layer other labels as an edit that can be undone."""
    where = np.nonzero(np.asarray(layer.data) != labels)
    layer.data_setitem(where, labels[where])


class Session:
    """A window with the Segment dock, and what must hold in it at every step."""

    def __init__(self, viewer: Any, dock: SegmentDock, qtbot: Any) -> None:
        self.viewer, self.dock, self.qtbot = viewer, dock, qtbot

    def segment(self) -> Labels:
        self.dock.segment_button.click()
        if not self.dock.doubts.isHidden():
            self.dock.doubts.button.click()
        self.qtbot.waitUntil(lambda: self.dock.footer.job is None, timeout=90_000)
        layer = self.dock.result_card.layer
        assert layer is not None, self.dock.message.text()
        self.hold(layer)
        return layer

    def hold(self, layer: Labels) -> None:
        """Hold the card, the status bar and the record against what is counted from the layer."""
        self.qtbot.wait(SOON_MS)
        assert f"[{layer.metadata['braintumor']['case']}]" in self.dock.result_card.headline.text()
        expected = [(name, f"{counted(layer, values):.1f} mL") for name, values in (*LABELS.items(), *REGIONS.items())]
        assert shown(self.dock) == expected
        in_status_bar = dict(zip(layer.features["name"], layer.features["mL"], strict=True))
        for name, values in LABELS.items():
            assert in_status_bar[name] == pytest.approx(counted(layer, values), abs=0.006)
        self.dock.result_card.copy_button.click()
        record = json.loads(QApplication.clipboard().text())
        assert record["case"] == layer.metadata["braintumor"]["case"]
        for name, values in REGIONS.items():
            assert record["volumes_ml"][name] == pytest.approx(counted(layer, values), abs=0.001)

    def paint(self, layer: Labels, z: int, label: int) -> None:
        """Draw one stroke of the brush."""
        self.viewer.dims.set_current_step(0, z)
        layer.brush_size, layer.mode = 9, "paint"
        with layer.block_history():
            for x in range(24, 40, 4):
                layer.paint((z, 36, x), label)
        self.hold(layer)


@pytest.fixture
def session(
    make_napari_viewer: Any, qtbot: Any, toy_model: Path, tmp_path: Path, models_folder: Path, monkeypatch: Any
) -> Session:
    notification_manager.records.clear()
    ModelStore().install(toy_model)
    viewer = make_napari_viewer(show=True)
    for seed in (20, 21):
        write_case(tmp_path / "cases", *make_case(seed))
    viewer.open(str(tmp_path / "cases" / "case20"), plugin="napari-braintumor")
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    assert isinstance(dock, SegmentDock)
    dock.choose_model(ModelStore().find("toy").path)
    return Session(viewer, dock, qtbot)


@pytest.mark.timeout(400)
def test_the_numbers_on_screen_are_those_of_the_labels_at_every_step_of_a_session(
    session: Session, qtbot: Any, tmp_path: Path
) -> None:
    viewer, dock = session.viewer, session.dock
    first = session.segment()
    given = np.array(first.data)
    assert counted(first, REGIONS["whole tumor"]) > 1, "the toy model found nothing to count"

    session.paint(first, 5, 3)
    painted = np.array(first.data)
    assert (painted != given).any()
    assert "by hand" in dock.result_card.hand_line.text()
    assert "5" in dock.result_card.hand_line.text()
    first.undo()
    session.hold(first)
    assert (first.data == given).all()
    first.redo()
    session.hold(first)

    session.paint(first, 8, 0)
    assert session.segment() is first
    assert re.search(r"\b2 .*slices kept", dock.result_card.kept_line.text())
    assert (first.data[5] == painted[5]).all()
    dock.result_card.replace_button.click()
    session.hold(first)
    assert (first.data == given).all()
    first.undo()
    session.hold(first)
    assert (first.data[5] == painted[5]).all()

    viewer.open(str(tmp_path / "cases" / "case21"), plugin="napari-braintumor")
    qtbot.wait(SOON_MS)
    assert dock.scans.case_bar.box.currentText() == "case21"
    assert dock.result_card.isHidden(), "the card shows another case than the one in work"
    second = session.segment()
    assert second is not first
    session.paint(second, 6, 1)
    viewer.layers.selection.active = first
    session.hold(first)
    viewer.layers.selection.active = second
    session.hold(second)

    correct(second, make_case(21)[1].labels)
    session.hold(second)
    dock.result_card.tune_button.click()
    train = next(widget for widget in QApplication.allWidgets() if isinstance(widget, TrainDock))
    assert train.data.layers_page.labels_layer is second
    assert [train.data.layers_page.slots[m].layer.name for m in MODALITIES] == [f"{m} [case21]" for m in MODALITIES]
    for z in range(2, 10):
        viewer.dims.set_current_step(0, z)
        train.data.layers_page.mark_button.click()
    train.run_page.everyday.set_values({"epochs": 4, "steps_per_epoch": 20, "batch_size": 4, "learning_rate": 3e-3})
    train.run_page.advanced.set_values({"threads": 1, "averaging": 0.5})
    train.train_button.click()
    qtbot.waitUntil(lambda: train.watch_page.run is not None, timeout=30_000)
    qtbot.waitUntil(lambda: train.watch_page.job is None, timeout=150_000)
    session.hold(second)
    train.watch_page.view.use_button.click()
    assert dock.model.name not in ("toy", DEFAULT_MODEL), train.watch_page.view.headline.text() + train.message.text()
    session.segment()
    assert (
        "8 reviewed slices kept" in dock.result_card.kept_line.text()
        or "slices kept" in dock.result_card.kept_line.text()
    )
    dock.result_card.replace_button.click()
    session.hold(second)
    viewer.layers.remove(second)
    qtbot.wait(SOON_MS)
    assert dock.result_card.isHidden()
