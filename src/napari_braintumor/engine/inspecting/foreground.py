"""What of an image is head and what is air. NumPy only: a copy of this file lies in every bundle for MONAI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TISSUE_SHARE = 0.08
"""Tissue is brighter than air by more than this share of the bright end."""

FILLED_SHARE = 0.15
"""One value that so much of an image has is its background."""

NOISE_TIMES = 4.0
"""Air differs from its middle by hardly more than so many standard deviations of its noise."""

BOTH_SIDES_SHARE = 0.2
"""Where so much, beside what is brighter than air, is darker, tissue lies on both sides of it."""


@dataclass(frozen=True)
class Air:
    """What tells tissue from air in one image.

    Attributes
    ----------
    background
        The intensity of air.
    below
        True if tissue may also be darker than air, as where one value fills the background.
    distance
        Tissue differs from air by more than this.
    """

    background: float
    below: bool
    distance: float

    def tissue(self, image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Return where an image, or a part of it, shows tissue."""
        apart = image_ZYX - self.background
        result: NDArray[np.bool_] = (np.abs(apart) if self.below else apart) > self.distance
        return result


def find_air(image_ZYX: NDArray[np.floating[Any]]) -> Air:
    """Find what tells tissue from air in one image, with or without skull.

    Where one value fills a good part of the image it is taken for the background (zero after skull stripping).
    Elsewhere air is what the edge of most slices shows, be it noise, the ringing of a spline, or a constant that was
    added; where the edge shows no air, zero is the background.
    """
    common, share = common_share(image_ZYX[::4, ::4, ::4] if image_ZYX.size > 64**3 else image_ZYX)
    if share > FILLED_SHARE:
        return Air(common, True, TISSUE_SHARE * _bright(np.abs(image_ZYX - common)))
    middle, noise = _measure_edge(image_ZYX)
    low, high = (float(value) for value in np.percentile(image_ZYX[::2, ::2, ::2], (0.5, 99.5)))
    if noise > TISSUE_SHARE * (high - middle):  # the edge cuts through the head
        background = min(low, 0.0)
        return Air(background, False, TISSUE_SHARE * _bright(image_ZYX - background))
    from_zero = TISSUE_SHARE * _bright(image_ZYX)
    if abs(middle) <= from_zero < np.inf:
        background, distance = 0.0, max(from_zero, middle + NOISE_TIMES * noise)
    else:
        background, distance = middle, max(TISSUE_SHARE * _bright(image_ZYX - middle), NOISE_TIMES * noise)
    apart = image_ZYX - background
    brighter, darker = (int(np.count_nonzero(side > distance)) for side in (apart, -apart))
    return Air(background, darker > BOTH_SIDES_SHARE * brighter, distance)


def common_share(image: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the most common value of an image and the share of voxels that have it."""
    values, counts = np.unique(image, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def _bright(apart_ZYX: NDArray[np.floating[Any]]) -> float:
    """Return the bright end of what is brighter than air; infinity where nothing is."""
    brighter = apart_ZYX[apart_ZYX > 0]
    return float(np.percentile(brighter[:: max(1, brighter.size // 200_000)], 99)) if brighter.size else np.inf


def _measure_edge(image_ZYX: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the middle of what lies at the edge of the slices, and how far it spreads as a standard deviation."""
    sides = image_ZYX[:, :2], image_ZYX[:, -2:], image_ZYX[:, :, :2], image_ZYX[:, :, -2:]
    edge = np.concatenate([side.ravel() for side in sides])
    middle = float(np.median(edge))
    return middle, 1.4826 * float(np.median(np.abs(edge - middle)))
