"""A quick look at images before they are used: what is head and what is air, and what a user should look at twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW_OVERLAP = 0.6
"""Registered scans of one head overlap by 0.8 and more; what is below this is worth a look."""


@dataclass(frozen=True)
class Inspection:
    """What a quick look found.

    Attributes
    ----------
    skull_stripped
        True if the background of all images is blank, as it is after skull stripping.
    findings
        One sentence for each thing that seems wrong.
    """

    skull_stripped: bool
    findings: tuple[str, ...]


THUMBNAIL_SIDE = 32
"""Voxels along a side that a quick look needs; with these it takes milliseconds, however large the scan is."""


def inspect_images(images: Mapping[str, NDArray[Any]]) -> Inspection:
    """Look at the modalities of a case, on every fourth voxel or fewer.

    Parameters
    ----------
    images
        For each modality an array of the same shape, three axes in any order.
    """
    return inspect_few({name: make_thumbnail(image) for name, image in images.items()})


def make_thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return voxels of an image, evenly spread, that are few enough for a quick look."""
    steps = (max(4, -(-side // THUMBNAIL_SIDE)) for side in image.shape)
    return np.asarray(image[tuple(slice(None, None, step) for step in steps)], np.float32)


def inspect_few(few: Mapping[str, NDArray[np.float32]]) -> Inspection:
    """Look at the modalities of a case, of which only some voxels, evenly spread, are given."""
    heads = {name: foreground(image) for name, image in few.items()}
    shares = {name: _common_share(image)[1] for name, image in few.items()}
    blank = all(share > 0.3 and share + heads[name].mean() > 0.97 for name, share in shares.items())
    findings = []
    first = next(iter(few))
    for name in list(few)[1:]:
        union = (heads[first] | heads[name]).sum()
        overlap = (heads[first] & heads[name]).sum() / union if union else 1.0
        if overlap < LOW_OVERLAP:
            findings.append(
                f"The heads in {first} and {name} overlap by only {overlap:.0%}: they may not be registered, or one is "
                "another scan."
            )
    return Inspection(blank, tuple(findings))


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

    Where one value fills a good part of the image it is taken for the background (zero after skull stripping);
    otherwise zero is. Air is noisy, so that tissue is what rises above a small part of the bright end.
    """
    common, share = _common_share(image_ZYX[::4, ::4, ::4] if image_ZYX.size > 64**3 else image_ZYX)
    below = share > 0.15
    background = common if below else min(float(image_ZYX.min()), 0.0)
    apart = np.abs(image_ZYX - background) if below else image_ZYX - background
    positive = apart[apart > 0]
    if positive.size == 0:
        return Air(background, below, np.inf)
    bright = float(np.percentile(positive[:: max(1, positive.size // 200_000)], 99))
    return Air(background, below, 0.08 * bright)


def foreground(image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Tell tissue from air in one image."""
    return find_air(image_ZYX).tissue(image_ZYX)


def _common_share(image: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the most common value of an image and the share of voxels that have it."""
    values, counts = np.unique(image, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())
