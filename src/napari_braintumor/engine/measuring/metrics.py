"""How well a segmentation agrees with a reference: Dice, surface distance, volume.

To add a metric of a region, write a function and add a row to `METRICS`. Then `evaluate` and `compare` measure it, the
command line prints it and writes its column, and the comparison in the Models dock shows it.

Masks are bool ``(Z, Y, X)`` on one grid, which gives the position and size of the voxels and may be sheared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.lesions import find_box

Mask = NDArray[np.bool_]

HD95_OF_A_MISS_MM = 374.0
"""The distance if only one of two masks is empty: the penalty of BraTS 2023, about the diagonal of its grid."""


def volume_dice(prediction: Mask, reference: Mask) -> float:
    """Dice overlap of two masks over the whole volume, not averaged over slices.

    Parameters
    ----------
    prediction, reference
        bool ``(Z, Y, X)``, the same shape.

    Returns
    -------
    float
        ``2 |A ∩ B| / (|A| + |B|)``, 0 to 1. Two empty masks agree: 1. One empty mask: 0.

    References
    ----------
    Dice 1945, Measures of the amount of ecologic association between species.
    """
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(prediction & reference) / total if total else 1.0


def hd95_mm(prediction: Mask, reference: Mask, grid: SourceGrid) -> float:
    """95th percentile of the Hausdorff distance between the surfaces of two masks.

    A mask's surface consists of its voxels with a face neighbor outside the mask; voxels beyond the volume count as
    outside. For each surface, the 95th percentile (linearly interpolated) of the distances to the other surface is
    taken. The result is the **larger of the two directed percentiles**, as in MONAI. The percentile of both sets of
    distances pooled, which others use, is never larger.

    Parameters
    ----------
    prediction, reference
        bool ``(Z, Y, X)``, the same shape.
    grid
        The grid of the voxels; the masks may cover only a part of it.

    Returns
    -------
    float
        Millimeters. Two empty masks: 0. One empty mask: 374, as in BraTS 2023.

    References
    ----------
    Huttenlocher et al. 1993, Comparing images using the Hausdorff distance; Kazerooni et al. 2023, BraTS-PEDs, and the
    other 2023 challenges for the penalty.
    """
    from scipy.spatial import KDTree

    if not prediction.any() and not reference.any():
        return 0.0
    if not prediction.any() or not reference.any():
        return HD95_OF_A_MISS_MM
    box = find_box(prediction | reference)
    a, b = (_surface_points(mask[box], grid) for mask in (prediction, reference))
    # Surfaces are thin: a tree over their points is faster than a distance transform of the box, above all when a
    # stray voxel makes the box as large as the head.
    return max(float(np.percentile(KDTree(to).query(of)[0], 95)) for of, to in ((a, b), (b, a)))


SURFACE_TOLERANCE_MM = 1.0


def surface_dice(
    prediction: Mask, reference: Mask, grid: SourceGrid, tolerance_mm: float = SURFACE_TOLERANCE_MM
) -> float:
    """Share of two surfaces that lies within a tolerance of the other one (normalized surface distance).

    Surfaces are those of `hd95_mm`. Their voxels are counted, as in MONAI; others weigh them by area.

    Parameters
    ----------
    prediction, reference
        bool ``(Z, Y, X)``, the same shape.
    grid
        The grid of the voxels; the masks may cover only a part of it.
    tolerance_mm
        The largest distance that still counts as the same place.

    Returns
    -------
    float
        0 to 1. Two empty masks: 1. One empty mask: 0.

    References
    ----------
    Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head and neck anatomy.
    """
    from scipy.spatial import KDTree

    if not prediction.any() or not reference.any():
        return float(not prediction.any() and not reference.any())
    box = find_box(prediction | reference)
    a, b = (_surface_points(mask[box], grid) for mask in (prediction, reference))
    near = sum(np.count_nonzero(KDTree(to).query(of)[0] <= tolerance_mm + 1e-9) for of, to in ((a, b), (b, a)))
    return near / (len(a) + len(b))


def count_missed_lesions(prediction: Mask, reference: Mask) -> tuple[int, int]:
    """Return how many lesions of the reference the prediction does not touch, and how many there are.

    A lesion is a connected component (26-neighborhood: voxels that share a face, an edge or a corner).

    Returns
    -------
    tuple of int
        Missed lesions, and all lesions of the reference.
    """
    from scipy.ndimage import label

    lesions, count = label(reference, np.ones((3, 3, 3)))
    return count - len(set(np.unique(lesions[prediction])) - {0}), int(count)


def seed_sums(probability_ZYX: NDArray[np.floating], reference_ZYX: Mask) -> NDArray[np.float64]:
    """Return the sums that `seed_dice` needs for each slice.

    Overlap, predicted and reference sums of the foreground, then the same for the background, in voxels.

    Returns
    -------
    array
        float64 ``(Z, 6)``.
    """
    p = probability_ZYX.astype(np.float64)
    t = reference_ZYX.astype(np.float64)
    size = float(np.prod(p.shape[1:]))
    both, predicted, there = (p * t).sum((1, 2)), p.sum((1, 2)), t.sum((1, 2))
    return np.stack([both, predicted, there, size - predicted - there + both, size - predicted, size - there], axis=1)


def seed_dice(sums: NDArray[np.float64], batch_size: int = 16) -> float:
    """Soft Dice as the original project measured it. For comparison only: it is too optimistic.

    Probabilities are not thresholded, 16 slices are pooled, 1 is added to numerator and denominator, foreground and
    background are averaged, and the batches are averaged. An empty prediction scores about 0.5.

    Parameters
    ----------
    sums
        From `seed_sums`, ``(slices, 6)``.
    batch_size
        Number of slices that are pooled.

    Returns
    -------
    float
        0 to 1.
    """
    scores = []
    for start in range(0, len(sums), batch_size):
        pooled = sums[start : start + batch_size].sum(0).reshape(2, 3)
        scores.append(((2 * pooled[:, 0] + 1) / (pooled[:, 1] + pooled[:, 2] + 1)).mean())
    return float(np.mean(scores))


CALIBRATION_BINS = 10

UNDISPUTED = 0.01
"""Voxels with a lower probability are not counted: clear background would make any model look well calibrated. Tumor
missed there shows in the Dice; counting only that tumor would make the lowest bin look badly calibrated."""


def calibration_sums(probability_ZYX: NDArray[np.floating], reference_ZYX: Mask) -> NDArray[np.float64]:
    """Return the sums that `calibration_error` needs, for ten equal probability bins.

    Voxels, the sum of their probabilities, and how many are in the reference. Voxels below `UNDISPUTED` are left out.

    Returns
    -------
    array
        float64 ``(10, 3)``.
    """
    p = np.asarray(probability_ZYX, np.float64)
    counted = p >= UNDISPUTED
    p, t = p[counted], reference_ZYX[counted]
    bins = np.minimum((p * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    sums = [np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, p, t.astype(np.float64))]
    return np.stack(sums, axis=1).astype(np.float64)


def calibration_error(sums: NDArray[np.float64]) -> float:
    """Return the expected calibration error, 0 to 1: how far probabilities are from the share of voxels that are tumor.

    Parameters
    ----------
    sums
        From `calibration_sums`, added up over any number of cases.

    Returns
    -------
    float
        0 to 1; 0 if there are no voxels.

    References
    ----------
    Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning; here with equal bins.
    """
    voxels = sums[:, 0].sum()
    return float(np.abs(sums[:, 1] - sums[:, 2]).sum() / voxels) if voxels else 0.0


def mean_interval(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % confidence interval of a mean over cases: percentile bootstrap, reproducible by its seed.

    Returns
    -------
    tuple of float
        Lower and upper end, in the unit of the values.

    References
    ----------
    Efron 1979, Bootstrap methods: another look at the jackknife.
    """
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (draws, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def region_volume_ml(mask: Mask, grid: SourceGrid) -> float:
    """Volume of a mask in mL: its voxel count times the volume of a voxel."""
    return np.count_nonzero(mask) * grid.voxel_ml


def _surface_points(mask: Mask, grid: SourceGrid) -> NDArray[np.float64]:
    """Return the positions ``(N, 3)`` in mm, up to a shift, of the voxels of a mask with a face neighbor outside it."""
    from scipy.ndimage import binary_erosion

    return np.argwhere(mask & ~binary_erosion(mask)).astype(np.float64) @ grid.affine_ZYX[:3, :3].T


@dataclass(frozen=True)
class Metric:
    """A metric of one region in one case.

    Attributes
    ----------
    name
        Its column in files, and its key in `CaseEvaluated.figures`.
    title, unit
        Its name and unit in tables.
    measure
        Computes it from the model's mask, the reference mask, and their grid.
    needs
        The masks that it uses. If it uses both, it measures their agreement.
    decimals
        Decimals in files and in tables.
    averages
        The averages over cases that `evaluate` prints.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Mask, Mask, SourceGrid], float]
    needs: Literal["both", "prediction", "reference"] = "both"
    decimals: tuple[int, int] = (3, 2)
    averages: tuple[Literal["mean", "median"], ...] = ("median",)

    @property
    def heading(self) -> str:
        """Title and unit, as a table heading."""
        return f"{self.title} {self.unit}".strip()

    def write(self, value: float) -> str:
        """Format a value for files."""
        return f"{value:.{self.decimals[0]}f}"

    def show(self, value: float) -> str:
        """Format a value for tables."""
        return f"{value:.{self.decimals[1]}f}"


METRICS: list[Metric] = [
    Metric(
        "dice",
        "Dice",
        "",
        lambda prediction, reference, _: volume_dice(prediction, reference),
        decimals=(4, 3),
        averages=("mean", "median"),
    ),
    Metric("hd95_mm", "HD95", "mm", hd95_mm, decimals=(2, 1)),
    Metric(
        "predicted_ml",
        "predicted",
        "mL",
        lambda prediction, _, grid: region_volume_ml(prediction, grid),
        needs="prediction",
        averages=(),
    ),
    Metric(
        "reference_ml",
        "reference",
        "mL",
        lambda _, reference, grid: region_volume_ml(reference, grid),
        needs="reference",
        averages=(),
    ),
]
"""The metrics, in the order of columns."""


def list_agreement_metrics() -> list[Metric]:
    """Return the metrics that measure the agreement of two masks."""
    return [metric for metric in METRICS if metric.needs == "both"]
