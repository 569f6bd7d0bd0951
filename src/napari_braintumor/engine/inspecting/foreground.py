"""Separate foreground (tissue) from background (air). NumPy only: every MONAI bundle contains a copy of this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TISSUE_SHARE = 0.08
"""Tissue differs from the background by more than this share of the bright end."""

FILLED_SHARE = 0.15
"""A value that fills more than this share of an image is its background."""

NOISE_TIMES = 4.0
"""Background rarely differs from its median by more than this many standard deviations of its noise."""

BOTH_SIDES_SHARE = 0.2
"""If the ratio of darker to brighter voxels exceeds this, tissue lies on both sides of the background."""


@dataclass(frozen=True)
class Background:
    """The background of one image, and how far tissue differs from it.

    Attributes
    ----------
    intensity
        The intensity of the background.
    below
        True if tissue may also be darker than the background, as when one value fills it.
    distance
        Tissue differs from the background by more than this.
    """

    intensity: float
    below: bool
    distance: float

    def find_tissue(self, image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Return the tissue mask of an image or of a part of it."""
        apart = image_ZYX - self.intensity
        result: NDArray[np.bool_] = (np.abs(apart) if self.below else apart) > self.distance
        return result


def find_background(image_ZYX: NDArray[np.floating[Any]]) -> Background:
    """Find the background of one image, with or without skull.

    If one value fills a good part of the image, it is the background (zero after skull stripping). Otherwise the
    background is what the edges of the slices show: noise, spline ringing, or an added constant. If the edges show
    tissue, the background is zero.

    Returns
    -------
    Background
        Its intensity, whether tissue may be darker, and how far from it tissue begins.
    """
    common, share = common_share(image_ZYX[::4, ::4, ::4] if image_ZYX.size > 64**3 else image_ZYX)
    if share > FILLED_SHARE:
        return Background(common, True, TISSUE_SHARE * _bright(np.abs(image_ZYX - common)))
    middle, noise = _measure_edge(image_ZYX)
    low, high = (float(value) for value in np.percentile(image_ZYX[::2, ::2, ::2], (0.5, 99.5)))
    if noise > TISSUE_SHARE * (high - middle):  # the edge cuts through the head, so it is not background
        background = min(low, 0.0)
        return Background(background, False, TISSUE_SHARE * _bright(image_ZYX - background))
    from_zero = TISSUE_SHARE * _bright(image_ZYX)
    if abs(middle) <= from_zero < np.inf:
        background, distance = 0.0, max(from_zero, middle + NOISE_TIMES * noise)
    else:
        background, distance = middle, max(TISSUE_SHARE * _bright(image_ZYX - middle), NOISE_TIMES * noise)
    apart = image_ZYX - background
    brighter, darker = (int(np.count_nonzero(side > distance)) for side in (apart, -apart))
    return Background(background, darker > BOTH_SIDES_SHARE * brighter, distance)


def common_share(image: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the most common value of an image and the share of voxels that have it."""
    values, counts = np.unique(image, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def _bright(apart_ZYX: NDArray[np.floating[Any]]) -> float:
    """Return the bright end of the voxels above the background; infinity if there are none."""
    brighter = apart_ZYX[apart_ZYX > 0]
    return float(np.percentile(brighter[:: max(1, brighter.size // 200_000)], 99)) if brighter.size else np.inf


def _measure_edge(image_ZYX: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the median and the spread, as a standard deviation, of the voxels at the edges of the slices."""
    sides = image_ZYX[:, :2], image_ZYX[:, -2:], image_ZYX[:, :, :2], image_ZYX[:, :, -2:]
    edge = np.concatenate([side.ravel() for side in sides])
    middle = float(np.median(edge))
    return middle, 1.4826 * float(np.median(np.abs(edge - middle)))
