"""A result in a viewer, and a stand-in for what its model sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor import engine
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, region_from_labels
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import default_placement, layers_from_case, scans_in, select_layers, update_or_add_labels
from napari_braintumor.widgets.correcting.dock import CorrectDock

SECONDS = 20


def make_features(segmentation: Segmentation) -> CaseFeatures:
    """What a model would see: sure of its answer, except of a tumor in slice 2 that it did not draw."""
    labels = segmentation.labels
    logits = np.stack(
        [np.where(region_from_labels(labels, region.name), 4.0, -6.0) for region in GLIOMA_REGIONS], -1
    ).astype(np.float32)
    logits[2, :5, :4, 0] = -1.0
    bright = np.zeros(labels.shape)
    bright[:3, :5, :4] = 2.0
    return CaseFeatures(
        regions=GLIOMA_REGIONS,
        shape=labels.shape,
        spacing=segmentation.source.spacing,
        grid=labels.shape,
        start=(0.0, 0.0, 0.0),
        step=(1.0, 1.0, 1.0),
        places=np.arange(labels.size),
        logits=logits.reshape(-1, 3),
        values=bright.reshape(-1, 1).astype(np.float16),
    )


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
        qtbot.waitUntil(lambda: dock.follower.idle, timeout=SECONDS * 1000)

    return wait
