"""A result in a viewer, and a stand-in for what its model sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from features_seen import make_features
from napari_braintumor import engine
from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import default_placement, layers_from_case, scans_in, select_layers, update_or_add_labels
from napari_braintumor.widgets.correcting.dock import CorrectDock

SECONDS = 20


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch, segmentation: Segmentation) -> list[Any]:
    """Stands in for `engine.gather_features`; lists the settings that it was asked with."""
    asked: list[Any] = []

    def gather(volume: Any, config: Any) -> Iterator[Any]:
        asked.append(config)
        yield SlicesDone(3, 6)
        yield make_features(segmentation)

    monkeypatch.setattr(engine, "gather_features", gather)
    return asked


@pytest.fixture
def viewer(volume: Volume) -> ViewerModel:
    viewer = ViewerModel()
    for data, options, _ in layers_from_case(volume):
        viewer.add_image(data, **options)
    return viewer


@pytest.fixture
def target(viewer: ViewerModel, volume: Volume, segmentation: Segmentation, tmp_path: Path) -> Labels:
    """A result of the viewer's scans, by a model whose file is there."""
    model = tmp_path / "fake.safetensors"
    model.touch()
    scans = {layer.metadata["braintumor"]["modality"]: layer for layer in scans_in(viewer.layers)}
    made_from = select_layers(scans).made_from
    return update_or_add_labels(
        viewer, segmentation, default_placement(volume.source), made_from=made_from, model_path=model
    )


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel, target: Labels, gathered: list[Any]) -> CorrectDock:
    dock = CorrectDock(viewer)
    qtbot.addWidget(dock)
    return dock


@pytest.fixture
def settle(qtbot: Any, dock: CorrectDock) -> Any:
    """Wait until nothing is under way any more."""

    def wait() -> None:
        qtbot.waitUntil(lambda: dock.footer.job is None and not dock.edits.busy, timeout=SECONDS * 1000)
        qtbot.waitUntil(lambda: not dock.follower.busy, timeout=SECONDS * 1000)

    return wait
