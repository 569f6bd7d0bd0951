"""More or less of a region from what was kept of a run."""

import numpy as np
import pytest

from napari_braintumor.engine.correcting.shifting import measure_doubt, shift_region
from napari_braintumor.engine.errors import SettingsError


def test_more_of_a_region_takes_in_what_the_model_was_less_sure_of(half_found):
    features, labels, ball = half_found()
    shifted = shift_region(features, labels, "whole tumor", 3.0)
    dice = [2 * ((each > 0) & ball).sum() / ((each > 0).sum() + ball.sum()) for each in (labels, shifted.labels)]
    assert dice[0] < 0.75 < 0.9 < dice[1]
    assert (shifted.labels[labels > 0] > 0).all()
    box = shifted.changed
    outside = np.ones(labels.shape, bool)
    outside[box] = False
    np.testing.assert_array_equal(shifted.labels[outside], labels[outside])


def test_less_of_a_region_only_takes_away(half_found):
    features, labels, _ = half_found()
    features.logits[::2, 0] -= 1.5
    shifted = shift_region(features, labels, "whole tumor", -3.0).labels
    assert 0 < np.count_nonzero(shifted) < np.count_nonzero(labels)
    assert not (shifted > 0)[labels == 0].any()


def test_a_shift_of_nothing_changes_nothing(half_found):
    features, labels, _ = half_found()
    shifted = shift_region(features, labels, "whole tumor", 0.0)
    np.testing.assert_array_equal(shifted.labels, labels)
    assert shifted.changed is None


def test_an_inner_region_stays_within_the_one_around_it(half_found):
    features, labels, _ = half_found()
    features.logits[:, 1] = -1
    shifted = shift_region(features, labels, "tumor core", 4.0).labels
    np.testing.assert_array_equal(shifted > 0, labels > 0)
    assert (shifted == 1).any()


def test_what_a_person_drew_elsewhere_stays(half_found):
    features, labels, _ = half_found()
    labels[0, :4, :4] = 3
    shifted = shift_region(features, labels, "whole tumor", 3.0).labels
    assert (shifted[0, :4, :4] == 3).all()


@pytest.mark.parametrize(
    ("region", "shift", "match"),
    [
        ("resection cavity", 1.0, "does not know 'resection cavity'. Expected one of: whole tumor"),
        ("whole tumor", 9.0, "cannot be moved by 9. Expected -4 to 4"),
        ("whole tumor", float("nan"), "cannot be moved by nan"),
    ],
)
def test_a_shift_that_is_not_possible_is_refused(half_found, region, shift, match):
    features, labels, _ = half_found()
    with pytest.raises(SettingsError, match=match):
        shift_region(features, labels, region, shift)


def test_the_slice_of_which_the_model_is_least_sure_is_the_most_doubtful(half_found):
    features, _, _ = half_found()
    features.logits[:] = -9
    per_slice = features.grid[1] * features.grid[2]
    features.logits[4 * per_slice : 5 * per_slice, 0] = -0.5
    doubt = measure_doubt(features)
    assert doubt.shape == (features.shape[0],)
    assert doubt.argmax() == 4
    assert doubt.max() == pytest.approx(per_slice * 0.9566, rel=1e-2)
