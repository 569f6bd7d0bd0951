from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_braintumor import engine
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import layers_from_scans, select_layers
from napari_braintumor.widgets.models.case_comparison import compare_selection


@pytest.mark.parametrize(("t1", "phases"), [((12, 40, 40), True), ((10, 30, 30), False)])
def test_models_are_compared_on_scans_that_were_brought_onto_one_grid(monkeypatch, t1, phases):
    volumes: list[Volume] = []

    def compare(volume: Volume, *_: Any) -> Iterator[Any]:
        volumes.append(volume)
        yield from ()

    monkeypatch.setattr(engine, "compare", compare)
    scans = {}
    for modality, shape in {"T1": t1, "FLAIR": (10, 30, 30)}.items():
        where = default_grid(shape, tuple(60 / side for side in shape), format="nifti")
        index = np.indices(shape).reshape(3, -1).T / np.array(shape) * 2 - 1
        inside = (np.linalg.norm(index, axis=1) < 0.8).reshape(shape)
        noise = np.random.default_rng(len(modality)).uniform(1, 9, shape)
        scans[modality] = Scan((inside * 100 + noise).astype(np.float32), where, modality, "frame")
    viewer = ViewerModel()
    layers = [viewer.add_layer(Layer.create(*data)) for data in layers_from_scans(scans, "p7")]
    selection = select_layers({layer.metadata["braintumor"]["modality"]: layer for layer in layers})
    events = list(compare_selection(selection, [SegmentConfig()], None))
    assert any(isinstance(event, PhaseReached) for event in events) is phases
    assert volumes[0].shape == (10, 30, 30)
    assert (volumes[0].alignment is not None) is phases
