"""Strokes are followed through the case, and what they do not concern stays."""

import numpy as np
import pytest

from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.errors import DataError, SettingsError

IN_THE_MISSED_HALF = Stroke("whole tumor", ((6, 14, 20), (6, 18, 20)), 1.0)


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_a_stroke_finds_the_rest_of_the_tumor_beyond_the_slice_it_touched(half_found):
    features, labels, ball = half_found()
    corrected = correct(features, labels, [IN_THE_MISSED_HALF]).labels
    assert dice(corrected > 0, ball) > dice(labels > 0, ball) + 0.04
    others = np.delete(np.arange(len(labels)), 6)
    assert (corrected[others] != labels[others]).sum() > 50


def test_what_a_stroke_says_holds_under_it_and_a_later_stroke_wins(half_found):
    features, labels, _ = half_found()
    over_it = Stroke(None, ((6, 16, 20), (6, 16, 24)), 1.0)
    for strokes in ([IN_THE_MISSED_HALF, over_it], [over_it, IN_THE_MISSED_HALF]):
        corrected = correct(features, labels, strokes).labels
        expected = labels.copy()
        for stroke in strokes:
            under = tuple(stroke.find_voxels(features.shape, features.spacing).T)
            expected[under] = 2 if stroke.region else 0
            marked = np.zeros(labels.shape, bool)
            marked[under] = True
        assert np.array_equal(corrected[marked], expected[marked])


def test_without_a_stroke_labels_are_what_they_were(half_found):
    features, labels, _ = half_found()
    correction = correct(features, labels, [])
    assert np.array_equal(correction.labels, labels)
    assert correction.changed is None


def test_taking_a_stroke_back_gives_exactly_the_answer_without_it(half_found):
    features, labels, _ = half_found()
    one = correct(features, labels, [IN_THE_MISSED_HALF]).labels
    correct(features, labels, [IN_THE_MISSED_HALF, Stroke(None, ((3, 3, 3),))])
    assert np.array_equal(correct(features, labels, [IN_THE_MISSED_HALF]).labels, one)


def test_locked_slices_stay_even_under_a_stroke(half_found):
    features, labels, _ = half_found()
    corrected = correct(features, labels, [IN_THE_MISSED_HALF], locked=[5, 6]).labels
    assert np.array_equal(corrected[5:7], labels[5:7])
    assert not np.array_equal(corrected, labels)


def test_labels_that_the_model_does_not_know_stay(half_found):
    features, labels, _ = half_found()
    labels = labels.copy()
    labels[6, 10:22, 19:23] = 77
    corrected = correct(features, labels, [IN_THE_MISSED_HALF]).labels
    assert np.array_equal(corrected == 77, labels == 77)


def test_the_box_holds_all_that_changed(half_found):
    features, labels, _ = half_found()
    correction = correct(features, labels, [IN_THE_MISSED_HALF])
    inside = np.zeros(labels.shape, bool)
    inside[correction.changed] = True
    assert not (correction.labels != labels)[~inside].any()


def test_labels_of_another_grid_are_refused(half_found):
    features, labels, _ = half_found()
    with pytest.raises(DataError, match="differ in shape"):
        correct(features, labels[1:], [IN_THE_MISSED_HALF])


def test_a_region_that_the_model_does_not_know_is_refused(half_found):
    features, labels, _ = half_found()
    with pytest.raises(SettingsError, match="'cyst', which this model does not know"):
        correct(features, labels, [Stroke("cyst", ((0, 0, 0),))])
