from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_braintumor import engine
from napari_braintumor.engine.events import Compared, Segmented
from napari_braintumor.engine.measuring.comparison import compare_segmentations
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.layers import layers_from_case
from napari_braintumor.widgets.models.dock import ModelsDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.training.dock import TrainDock

PROVEN = Metric(data="BraTS", region="whole tumor", modalities=("FLAIR",), mean=0.8, n=3, held_out=True)


def make(name: str, **card: Any) -> StoredModel:
    made = ModelCard(name=name, architecture="unet", **{"accepts_missing": True, "metrics": (PROVEN,), **card})
    return StoredModel(name, Path(f"{name}.safetensors"), made)


MODELS = {
    "proven": make("proven"),
    "imported": make("imported", metrics=()),
    "half": make("half", stopped_at=0.3),
}
BADGES = {"proven": "", "imported": "not validated", "half": "stopped early"}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, synthetic_segmentation: Any) -> list[str]:
    """What the engine was asked to run; its results come at once."""
    runs: list[str] = []

    def segment(volume, config):
        runs.append(Path(config.model).stem)
        yield Segmented(synthetic_segmentation(volume))

    def compare(volume, configs, reference=None):
        names = [Path(config.model).stem for config in configs]
        runs.extend(names)
        found = [synthetic_segmentation(volume)] * len(names)
        yield Compared(compare_segmentations(volume, names, found, reference))

    monkeypatch.setattr(engine, "segment", segment)
    monkeypatch.setattr(engine, "compare", compare)
    monkeypatch.setattr(ModelStore, "list", lambda self: list(MODELS.values()))
    return runs


@pytest.fixture
def viewer(volume: Any) -> ViewerModel:
    viewer = ViewerModel()
    for layer in layers_from_case(volume):
        viewer.add_layer(Layer.create(*layer))
    return viewer


@pytest.fixture
def segment(qtbot: Any, viewer: ViewerModel, runs: list[str]) -> SegmentDock:
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    return dock


def choose(dock: SegmentDock, name: str) -> None:
    dock.choose_model(MODELS[name].path)


def click(qtbot: Any, dock: SegmentDock | ModelsDock, button: Any) -> None:
    button.click()
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=10_000)


@pytest.mark.parametrize("name", BADGES)
def test_a_model_in_doubt_says_so_in_every_list(name, qtbot, segment, viewer, runs):
    badge = BADGES[name]
    models, train = ModelsDock(viewer), TrainDock(viewer)
    for dock in (models, train):
        qtbot.addWidget(dock)
    at = list(MODELS).index(name)
    train.model.mode_box.setCurrentIndex(1)
    (row,) = (node for node in models.table.shown if node.model.name == name)
    click(qtbot, models, _ticked(models, list(MODELS)))
    click(qtbot, models, models.doubts.button)
    in_comparison = next(row[1] for row in models.comparison.figures.table.rows if row[1].split()[1] == name)
    choose(segment, name)
    lists = {
        "combo": segment.model_choice.box.itemText(at),
        "line under it": segment.model_choice.card_line.text(),
        "Models": row.texts[1],
        "start from": train.model.model_box.itemText(at),
        "Compare": in_comparison,
    }
    for where, text in lists.items():
        assert badge in text, where
        assert bool(badge) == any(other in text for other in ("not validated", "stopped early")), where


def _ticked(dock: ModelsDock, names: list[str]) -> Any:
    dock.table.tick([MODELS[name].path for name in names])
    return dock.compare_button


@pytest.mark.parametrize("name", ["imported", "half"])
def test_a_model_in_doubt_is_used_only_when_the_user_has_said_so_once(name, qtbot, segment, viewer, runs):
    choose(segment, name)
    assert segment.doubts.isHidden()
    click(qtbot, segment, segment.segment_button)
    assert runs == []
    assert not segment.doubts.isHidden()
    assert MODELS[name].card.doubts[0] in segment.doubts.line.text()
    choose(segment, "proven")  # another model, another question
    assert segment.doubts.isHidden()
    choose(segment, name)
    click(qtbot, segment, segment.segment_button)
    click(qtbot, segment, segment.doubts.button)
    assert runs == [name]
    assert segment.doubts.isHidden()
    click(qtbot, segment, segment.segment_button)
    again = SegmentDock(viewer)
    qtbot.addWidget(again)
    choose(again, name)
    click(qtbot, again, again.segment_button)
    assert runs == [name] * 3


def test_a_validated_model_is_not_asked_about(qtbot, segment, runs):
    choose(segment, "proven")
    click(qtbot, segment, segment.segment_button)
    assert runs == ["proven"]


def test_models_in_doubt_are_compared_only_when_the_user_has_said_so(qtbot, viewer, runs):
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    click(qtbot, dock, _ticked(dock, list(MODELS)))
    assert runs == []
    text = dock.doubts.line.text()
    assert "'imported': It was never validated" in text
    assert "'half': Its training was stopped early, after 30% of its plan." in text
    assert "'proven'" not in text
    _ticked(dock, ["proven"])
    assert dock.doubts.isHidden()
    click(qtbot, dock, _ticked(dock, list(MODELS)))
    click(qtbot, dock, dock.doubts.button)
    assert sorted(runs) == sorted(MODELS)
    assert "imported: not validated. half: stopped early." in dock.comparison.figures.headline.text()
    assert np.all([layer.data.any() for layer in viewer.layers if layer.name.startswith("Tumor")])
