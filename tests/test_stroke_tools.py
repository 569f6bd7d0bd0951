"""Ways to follow strokes that are measured for comparison reach as far as they should."""

from __future__ import annotations

import numpy as np
import pytest

import measure_strokes
import train_stroke_network
from features_seen import make_features
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.fitting import fit_change
from napari_braintumor.engine.correcting.learned import StrokeNetwork


@pytest.mark.parametrize("way", [measure_strokes.fit_head(1.0, 0.0), measure_strokes.fit_head(0.3, 1.0)])
def test_a_last_layer_fitted_again_moves_what_is_under_a_stroke(segmentation, way):
    features = make_features(segmentation)
    rows, says = np.arange(9), np.tile(np.array([1, 0, 0], np.int8), (9, 1))
    before = fit_change(features, features.logits, Evidence(rows[:0], says[:0], rows[:0]))
    after = way(features, features.logits, Evidence(rows, -says, np.zeros(9, np.intp)))
    assert (after[:9, 0] < before[:9, 0]).any()
    assert np.array_equal(after[:, 1:], before[:, 1:])


def test_without_a_share_of_the_last_layer_nothing_but_what_is_shipped_is_left(segmentation):
    features = make_features(segmentation)
    rows, says = np.arange(9), np.tile(np.array([-1, 0, 0], np.int8), (9, 1))
    asked = features, features.logits, Evidence(rows, says, np.zeros(9, np.intp))
    np.testing.assert_array_equal(measure_strokes.fit_head(0.0, 1.0)(*asked), fit_change(*asked))


def test_a_stroke_network_learns_what_its_clues_tell_and_takes_them_as_they_are(monkeypatch):
    monkeypatch.setattr(train_stroke_network, "STEPS", 150)
    random = np.random.default_rng(0)
    clues = random.normal(3, 5, (4000, 6)).astype(np.float16)
    truth = clues[:, 2] > 3
    kept = train_stroke_network.Kept("one", clues, np.zeros(4000, np.float16), truth, np.ones(4000, np.float32))
    tensors = train_stroke_network.train([kept])
    network = StrokeNetwork(tuple((tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in range(len(tensors) // 2)))
    assert ((network.run(clues.astype(np.float32)) > 0) == truth).mean() > 0.95


def test_a_disturbed_answer_of_a_model_is_another_with_labels_of_its_own(segmentation):
    features = make_features(segmentation)
    worse, labels = train_stroke_network.disturb(features, np.random.default_rng(0))
    z, y, x = worse.find_indices()
    inside = worse.spread(worse.logits[:, 0], -9) > 0
    assert not np.array_equal(worse.logits, features.logits)
    assert np.array_equal(labels[np.ix_(z, y, x)] > 0, inside)
    assert (np.diff(worse.logits, axis=1) <= 0).all()
