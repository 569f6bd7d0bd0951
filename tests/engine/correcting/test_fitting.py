"""Which voxels stand for strokes, and how far what they say reaches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_braintumor.engine.correcting import fitting
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.fitting import MOST_CERTAIN, choose_samples, fit_change, squeeze
from napari_braintumor.engine.correcting.strokes import Stroke

IN_THE_MISSED_HALF = Stroke("whole tumor", ((6, 14, 20), (6, 18, 20)), 1.0)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_squeezed_logits_keep_their_order_and_sign_within_the_limit(logits):
    squeezed = squeeze(np.array(sorted(logits), np.float32))
    assert (np.abs(squeezed) <= MOST_CERTAIN).all()
    assert (np.diff(squeezed) >= 0).all()
    assert np.array_equal(np.sign(squeezed), np.sign(sorted(np.float32(logits))))


def test_few_voxels_stand_for_a_stroke_and_others_around_hold_the_answer(half_found):
    features, _, _ = half_found()
    rows = np.arange(1000, 1100)
    sampled = choose_samples(features, rows, np.ones((100, 3), np.int8), np.repeat([0, 1], 50))
    assert (~sampled.holds).sum() == 2 * fitting.SAMPLES
    assert not sampled.says[sampled.holds].any()
    assert not np.isin(sampled.rows[sampled.holds], rows).any()


def test_strokes_that_say_nothing_change_nothing(half_found):
    features, _, _ = half_found()
    nothing = np.empty(0, np.intp)
    after = fit_change(features, features.logits, Evidence(nothing, np.empty((0, 3), np.int8), nothing))
    assert np.array_equal(after, squeeze(features.logits))


@pytest.mark.parametrize("adapts", [True, False])
def test_only_regions_of_which_something_is_said_move(half_found, adapts):
    features, _, _ = half_found(adapts=adapts)
    says = np.tile(np.array([1, 0, 0], np.int8), (9, 1))
    after = fit_change(features, features.logits, Evidence(np.arange(2000, 2009), says, np.zeros(9, np.intp)))
    assert (after[2000:2009, 0] > squeeze(features.logits)[2000:2009, 0] + 1).all()
    assert np.array_equal(after[:, 1:], squeeze(features.logits)[:, 1:])


def test_a_model_that_does_not_show_its_layers_is_corrected_near_a_stroke(half_found):
    features, labels, ball = half_found(adapts=False)
    corrected = correct(features, labels, [IN_THE_MISSED_HALF]).labels > 0
    assert (corrected & ball).sum() > (labels > 0).sum() + 20


def test_what_does_not_hang_together_with_a_stroke_stays(half_found):
    features, labels, ball = half_found(second=True)
    corrected = correct(features, labels, [IN_THE_MISSED_HALF]).labels
    far = np.zeros(labels.shape, bool)
    far[:, :4, :4] = True
    assert (ball & far).any()
    assert np.array_equal(corrected[far], labels[far])
