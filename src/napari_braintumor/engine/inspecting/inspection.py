"""A quick look at images before they are used: what is head and what is air, and what a user should look at twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.foreground import common_share, find_air

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
    shares = {name: common_share(image)[1] for name, image in few.items()}
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


def foreground(image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Tell tissue from air in one image."""
    return find_air(image_ZYX).tissue(image_ZYX)
