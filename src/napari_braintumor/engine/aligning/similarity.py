"""How alike two scans are where they lie: mutual information, by which a registration is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 32
_ENDS = (0.5, 99.5)
_MOST_POINTS = 60_000


@dataclass(frozen=True, eq=False)
class Witness:
    """Points in and around the head of the reference, with its intensities there.

    Attributes
    ----------
    points
        ``(n, 3)`` RAS mm.
    bins
        ``(n,)``, the reference's intensities in `_BINS` steps.
    """

    points: NDArray[np.float64]
    bins: NDArray[np.intp]


def call_witness(
    image_ZYX: NDArray[np.float32], affine_ZYX: NDArray[np.float64], around_ZYX: NDArray[np.bool_], seed: int
) -> Witness:
    """Choose at most 60,000 voxels of an image by chance.

    Parameters
    ----------
    image_ZYX, affine_ZYX
        The reference, and its ``(4, 4)`` affine from index (z, y, x) to RAS mm.
    around_ZYX
        Where they may lie.
    seed
        Equal seeds choose equal voxels.

    Returns
    -------
    Witness
        Their places and intensities.
    """
    places = np.flatnonzero(around_ZYX)
    if len(places) > _MOST_POINTS:
        places = np.sort(np.random.default_rng(seed).choice(places, _MOST_POINTS, replace=False))
    index = np.stack(np.unravel_index(places, around_ZYX.shape), axis=1)
    values = _to_bins(image_ZYX.ravel()[places], *clip_limits(image_ZYX))
    return Witness(index @ affine_ZYX[:3, :3].T + affine_ZYX[:3, 3], values)


def clip_limits(image: NDArray[np.float32]) -> tuple[float, float]:
    """Return the intensities between which the histogram of an image is measured; a few bright voxels say nothing."""
    low, high = np.percentile(image.ravel()[:: max(1, image.size // 500_000)], _ENDS)
    return float(low), float(max(high, np.nextafter(low, np.inf, dtype=np.float64)))


def measure_similarity(
    witness: Witness,
    image_ZYX: NDArray[np.float32],
    affine_ZYX: NDArray[np.float64],
    to_reference: NDArray[np.float64],
    background: float,
) -> float:
    """Measure how alike the reference and another image are where they lie.

    Points that the other image does not show count as background, so that moving the head out of it gains nothing.

    Parameters
    ----------
    witness
        Points of the reference.
    image_ZYX, affine_ZYX
        The other image.
    to_reference
        ``(4, 4)``: RAS mm of the other image to RAS mm of the reference.
    background
        The other image's intensity of air.

    Returns
    -------
    float
        Mutual information in nats.
    """
    from scipy import ndimage

    back = np.linalg.inv(to_reference @ affine_ZYX)
    index = witness.points @ back[:3, :3].T + back[:3, 3]
    values = ndimage.map_coordinates(image_ZYX, index.T, order=1, mode="nearest")
    size = np.array(image_ZYX.shape)
    values[((index < -0.5) | (index > size - 0.5)).any(axis=1)] = background
    pairs = witness.bins * _BINS + _to_bins(values, *clip_limits(image_ZYX))
    together = np.bincount(pairs, minlength=_BINS**2).reshape(_BINS, _BINS) / len(pairs)
    apart = together.sum(axis=1, keepdims=True) * together.sum(axis=0, keepdims=True)
    seen = together > 0
    return float((together[seen] * np.log(together[seen] / apart[seen])).sum())


def _to_bins(values: NDArray[Any], low: float, high: float) -> NDArray[np.intp]:
    return np.clip((values - low) * (_BINS / (high - low)), 0, _BINS - 1).astype(np.intp)
