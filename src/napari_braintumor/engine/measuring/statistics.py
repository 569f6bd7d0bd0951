"""How sure a mean over cases is, and whether two models differ on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.measuring.metrics import mean_interval

LEAST_PAIRS = 2


@dataclass(frozen=True)
class PairedTest:
    """The difference of two models on the same cases.

    Attributes
    ----------
    count
        Cases that both have.
    difference, low, high
        The mean of the first minus the second, and the 95 % interval of a bootstrap over cases.
    p_value
        Of Wilcoxon's signed-rank test, two-sided: how likely so consistent a difference is by chance.
    """

    count: int
    difference: float
    low: float
    high: float
    p_value: float


def compare_pairs(one: Sequence[float], other: Sequence[float]) -> PairedTest:
    """Compare the figures of two models, case by case.

    Parameters
    ----------
    one, other
        Figures of the same cases in the same order.

    Returns
    -------
    PairedTest
        The difference and how sure it is.

    Raises
    ------
    DataError
        If there are fewer than two cases.

    References
    ----------
    Wilcoxon 1945, Individual comparisons by ranking methods.
    """
    from scipy.stats import wilcoxon

    if len(one) < LEAST_PAIRS:
        raise DataError(
            f"{len(one)} case is in both tables. A paired test needs at least {LEAST_PAIRS}. Evaluate both models on "
            "the same cases."
        )
    differences = np.asarray(one, float) - np.asarray(other, float)
    low, high = mean_interval(differences.tolist())
    p_value = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return PairedTest(len(differences), float(differences.mean()), low, high, p_value)
