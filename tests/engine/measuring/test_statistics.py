"""Whether two models differ on the same cases."""

from __future__ import annotations

import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.measuring.statistics import compare_pairs


def test_a_consistent_difference_is_unlikely_by_chance() -> None:
    other = np.random.default_rng(0).uniform(0.6, 0.9, 12)
    found = compare_pairs(other + np.linspace(0.01, 0.03, 12), other)
    assert found.count == 12
    assert found.difference == pytest.approx(0.02)
    assert 0.01 < found.low < found.difference < found.high < 0.03
    assert found.p_value == pytest.approx(2 / 2**12)  # all 12 signs alike, two-sided


def test_no_difference_is_no_surprise() -> None:
    assert compare_pairs([0.5, 0.7, 0.8], [0.5, 0.7, 0.8]).p_value == 1
    found = compare_pairs([0.5, 0.7, 0.8, 0.6], [0.6, 0.6, 0.9, 0.5])
    assert found.low < 0 < found.high
    assert found.p_value > 0.5


def test_one_case_is_too_few() -> None:
    with pytest.raises(DataError, match=r"1 case is in both tables\. A paired test needs at least 2"):
        compare_pairs([0.5], [0.6])
