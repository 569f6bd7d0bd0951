"""A real napari window, and its real buttons. Needs a display: run under Xvfb where there is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QLabel

from napari_braintumor import engine
from napari_braintumor.engine.events import Segmented, SegmentEvent, SlicesDone
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from saving import save_to

SECONDS = 8


class SlowEngine:
    """Stands in for `engine.segment`: stops after each slice until the test goes on, so that a test can step in."""

    def __init__(self, make_result: Callable[[Volume], Segmentation]) -> None:
        self.make_result = make_result
        self.slices = 10
        self.go_on = threading.Event()
        self.left = threading.Event()

    def __call__(self, volume: Volume, config: SegmentConfig) -> Iterator[SegmentEvent]:
        try:
            for done in range(1, self.slices + 1):
                yield SlicesDone(done, self.slices)
                if done == 4:
                    assert self.go_on.wait(SECONDS)
            yield Segmented(self.make_result(volume))
        finally:
            self.left.set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, synthetic_segmentation: Any) -> Iterator[SlowEngine]:
    """A slow engine and a model that needs no file."""
    slow = SlowEngine(synthetic_segmentation)
    measured = Metric(data="a set", region="whole tumor", modalities=("FLAIR",), mean=0.8, n=9, held_out=True)
    card = ModelCard(name=DEFAULT_MODEL, architecture="unet", accepts_missing=True, metrics=(measured,))
    monkeypatch.setattr(engine, "segment", slow)
    monkeypatch.setattr(ModelStore, "list", lambda self: [StoredModel(DEFAULT_MODEL, Path("fake"), card)])
    yield slow
    slow.go_on.set()


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    notification_manager.records.clear()
    return make_napari_viewer()


def open_sample_and_dock(viewer: Any) -> SegmentDock:
    viewer.open_sample("napari-braintumor", "sample-case")
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    assert isinstance(dock, SegmentDock)
    return dock


def start(qtbot: Any, dock: SegmentDock) -> None:
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_bar.value() == 4, timeout=SECONDS * 1000)


def finish(qtbot: Any, dock: SegmentDock) -> None:
    qtbot.waitUntil(lambda: not dock.segment_button.isHidden(), timeout=SECONDS * 1000)


def results(viewer: Any) -> list[Labels]:
    return [layer for layer in viewer.layers if layer.metadata.get("braintumor", {}).get("role") == "tumor"]


def test_the_sample_case_is_segmented_with_one_click(viewer, qtbot, slow):
    dock = open_sample_and_dock(viewer)
    assert dock.check_line.text().startswith("Ready: ")
    slow.go_on.set()
    dock.segment_button.click()
    finish(qtbot, dock)
    (layer,) = results(viewer)
    scan = next(iter(dock.chosen.values()))
    assert layer.data.shape == scan.data.shape
    np.testing.assert_array_equal(layer.scale, scan.scale)
    np.testing.assert_array_equal(layer.translate, scan.translate)
    assert dock.result_card.isVisibleTo(dock)
    assert not notification_manager.records


def test_canceling_halfway_leaves_the_viewer_as_it_was(viewer, qtbot, slow):
    dock = open_sample_and_dock(viewer)
    start(qtbot, dock)
    dock.footer.cancel_button.click()
    slow.go_on.set()
    finish(qtbot, dock)
    assert results(viewer) == []
    assert dock.message.text() == "Canceled. No layer was changed."
    assert slow.left.wait(SECONDS)


def test_layers_may_be_deleted_during_a_run(viewer, qtbot, slow):
    dock = open_sample_and_dock(viewer)
    start(qtbot, dock)
    viewer.layers.clear()
    slow.go_on.set()
    finish(qtbot, dock)
    assert len(results(viewer)) == 1


def test_the_dock_may_be_closed_during_a_run(viewer, qtbot, slow):
    viewer.open_sample("napari-braintumor", "sample-case")
    window_dock, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    start(qtbot, dock)
    with qtbot.waitSignal(dock.destroyed, timeout=SECONDS * 1000):
        window_dock.destroyOnClose()
    slow.go_on.set()
    assert slow.left.wait(SECONDS)
    viewer.layers.clear()
    assert [str(record.severity) for record in notification_manager.records] == ["info"]
    assert "The segmentation was canceled" in notification_manager.records[0].message


def test_the_viewer_may_be_closed_during_a_run(viewer, qtbot, slow):
    dock = open_sample_and_dock(viewer)
    start(qtbot, dock)
    worker = dock.footer.job._worker
    threading.Timer(0.5, slow.go_on.set).start()
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=SECONDS * 1000)
    assert not notification_manager.records


def test_the_shipped_model_finds_the_tumor_of_the_sample_case(viewer, qtbot):
    dock = open_sample_and_dock(viewer)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: not dock.segment_button.isHidden(), timeout=240_000)
    assert dock.message.isHidden(), dock.message.text()
    (layer,) = results(viewer)
    (reference,) = (other for other in viewer.layers if other.metadata["braintumor"].get("role") == "reference")
    found, drawn = layer.data > 0, reference.data > 0
    assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.7


@pytest.mark.slow
def test_the_shipped_models_are_compared_on_the_sample_case(viewer, qtbot):
    viewer.open_sample("napari-braintumor", "sample-case")
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Models")
    dock.table.tick([model.path for model in dock.table.models])
    assert len(dock.table.ticked) == 3
    dock.compare_button.click()
    qtbot.waitUntil(lambda: not dock.compare_button.isHidden(), timeout=270_000)
    found = {layer.metadata["braintumor"]["by"]: layer.data for layer in results(viewer)}
    assert set(found) == {model.name for model in dock.table.ticked}
    disputed = viewer.layers["Disagreement [sample]"].data > 0
    differs = np.ptp(list(found.values()), axis=0) > 0
    np.testing.assert_array_equal(disputed, differs)
    comparison = dock.comparison.figures.comparison
    assert all(
        dice["whole tumor"] > 0.8
        for dice in (*comparison.dice.values(), *(each["dice"] for each in comparison.against_reference))
    )
    assert len(dock.comparison.figures.table.rows) == 12
    assert not notification_manager.records


def numbers_on_screen(dock: SegmentDock) -> dict[str, str]:
    """What the card says, as a person reads it: each name, and what stands right of it."""
    grid = dock.result_card.legend.layout()
    texts = {}
    for row in range(grid.rowCount()):
        name, value = (grid.itemAtPosition(row, column) for column in (1, 2))
        if name is not None and value is not None and isinstance(name.widget(), QLabel):
            texts[name.widget().text()] = value.widget().text()
    return texts


def counted(layer: Labels) -> dict[str, str]:
    """The same, counted from the layer."""
    voxel_ml = float(np.prod(layer.scale)) / 1000
    data = np.asarray(layer.data)
    values = {
        "necrotic / non-enhancing core": [1], "edema": [2], "whole tumor": [1, 2, 3], "tumor core": [1, 3],
        "enhancing tumor": [3], **{f"label {n}": [n] for n in np.unique(data) if n > 3},
    }  # fmt: skip
    return {name: f"{np.isin(data, labels).sum() * voxel_ml:.1f} mL" for name, labels in values.items()}


def test_the_numbers_on_screen_are_those_of_the_layer_at_every_step(viewer, qtbot, slow, tmp_path):
    dock = open_sample_and_dock(viewer)
    slow.go_on.set()

    def segment() -> None:
        dock.segment_button.click()
        finish(qtbot, dock)

    segment()
    (layer,) = results(viewer)
    layer.brush_size = 20
    middle = (layer.data.shape[0] // 2, 70, 70)
    steps: list[Callable[[], Any]] = [
        lambda: layer.paint(middle, 3),
        lambda: layer.paint((middle[0] + 1, 60, 60), 4),
        layer.undo,
        layer.redo,
        lambda: layer.fill(middle, 1),
        segment,
        layer.undo,
        layer.redo,
    ]
    assert numbers_on_screen(dock) == counted(layer)
    for step in steps:
        step()
        assert numbers_on_screen(dock) == counted(layer)
    assert dock.result_card.kept_line.text().startswith("2 reviewed slices kept")
    save_to(qtbot, dock.result_card, tmp_path / "tumor.nii.gz")
    saved = json.loads((tmp_path / "tumor.json").read_text())
    voxel_ml = float(np.prod(layer.scale)) / 1000
    now_ml = np.isin(layer.data, (1, 2, 3)).sum() * voxel_ml
    assert saved["volumes_ml"]["whole tumor"] == pytest.approx(now_ml, abs=1e-3)
    assert saved["edited_slices_z"] == [middle[0], middle[0] + 1]

    scans = [layer for layer in viewer.layers if isinstance(layer, Image)]
    for scan in scans:  # a second case, by another plugin
        viewer.add_image(np.asarray(scan.data) + 1, name=f"bert {scan.metadata['braintumor']['modality']}")
    assert dock.check_line.text().startswith("Ready: bert")
    assert numbers_on_screen(dock) == {}
    segment()
    one, two = results(viewer)
    assert numbers_on_screen(dock) == counted(two)
    viewer.layers.selection.active = one
    assert numbers_on_screen(dock) == counted(one)
    viewer.layers.remove(one)
    assert numbers_on_screen(dock) == {}
