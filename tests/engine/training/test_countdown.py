from itertools import pairwise

import numpy as np
import pytest

from napari_braintumor.engine.training.countdown import Countdown


def shown(shares: list[tuple[float, float]]) -> list[float]:
    countdown = Countdown()
    events = [countdown.estimate(share, now_s) for now_s, share in shares]
    return [left for left in events if left is not None]


def test_nothing_is_estimated_before_something_is_known() -> None:
    countdown = Countdown()
    assert countdown.estimate(0.0, 100.0) is None
    assert countdown.estimate(0.0, 110.0) is None
    assert countdown.estimate(0.001, 110.5) == pytest.approx(10.5 * 999)


@pytest.mark.parametrize("from_share", [0.0, 0.4])
def test_at_an_even_pace_it_is_exact(from_share: float) -> None:
    length_s = 600.0
    times = np.arange(0, length_s * (1 - from_share), 0.5)
    left = shown([(now, from_share + now / length_s) for now in times])
    expected = length_s * (1 - from_share) - times[-len(left) :]
    assert left == pytest.approx(expected.tolist(), abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_with_pauses_for_validation_and_an_uneven_pace_it_never_rises_and_ends_near_zero(seed: int) -> None:
    """100 batches an epoch, each of a random length, then a validation; ten epochs."""
    random = np.random.default_rng(seed)
    now, events = 0.0, []
    for step in range(1, 1001):
        now += random.uniform(0.5, 1.5) + (20.0 if step % 100 == 1 and step > 1 else 0.0)
        events.append((now, step / 1000))
    left = shown(events)
    assert all(later <= before for before, later in pairwise(left))
    assert left[-1] == 0
    late = [each for (when, _), each in zip(events[-len(left) :], left, strict=True) if now - when > 60]
    true = [now - when for when, _ in events[-len(left) :] if now - when > 60]
    assert np.abs(np.array(late) / np.array(true) - 1)[len(late) // 2 :].max() < 0.3


def test_an_estimate_that_was_far_too_short_is_raised_only_a_few_times() -> None:
    left = shown([(now, now / 100) for now in range(50)] + [(50 + 10 * n, 0.5 + n / 1000) for n in range(1, 400)])
    rises = [later for before, later in pairwise(left) if later > before]
    assert 1 <= len(rises) <= 10
