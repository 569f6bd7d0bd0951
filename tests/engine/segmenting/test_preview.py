"""A slice alone is segmented as it is in a run, before small components are removed."""

from __future__ import annotations

import numpy as np
import pytest

from napari_braintumor.engine import prepare_preview
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.segmenting import preview
from napari_braintumor.engine.settings import SegmentConfig
from segmenting import result_of


def test_a_slice_is_what_a_run_finds_there(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    settings = {"model": str(toy_model), "min_volume_ml": 0}
    labels = np.asarray(result_of(volume, **settings).labels)
    ready = prepare_preview(volume, SegmentConfig(device="cpu", **settings))
    with_tumor = np.flatnonzero(labels.any((1, 2)))
    for z in (0, int(with_tumor[0]), int(with_tumor[len(with_tumor) // 2]), len(labels) - 1):
        assert (ready.labels_of(z) == labels[z]).mean() > 0.995, z
    assert ready.labels_of(int(with_tumor[len(with_tumor) // 2])).any()


def test_a_model_that_sees_many_slices_at_once_has_no_preview(make_volume, toy_model, monkeypatch) -> None:
    class Task:
        card = type("Card", (), {"spatial_dims": 3, "name": "solid"})

    monkeypatch.setattr(preview, "resolve", lambda volume, config: Task)
    with pytest.raises(ModelError, match=r"'solid' looks at many slices at once, so it has no preview .* 2-D model"):
        prepare_preview(make_volume(7)[0], SegmentConfig(model=str(toy_model)))
