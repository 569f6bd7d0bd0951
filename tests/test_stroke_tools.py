"""Ways to follow strokes that are measured for comparison reach as far as they should."""

from __future__ import annotations

import numpy as np
import pytest

import measure_strokes
from features_seen import make_features
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.fitting import fit_change


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
