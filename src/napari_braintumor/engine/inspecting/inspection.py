"""A quick check of images before they are used: skull stripping, and what the user should look at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.foreground import common_share, find_background

LOW_OVERLAP = 0.6
"""Registered scans of one head overlap by 0.8 or more; a lower overlap than this is reported."""


@dataclass(frozen=True)
class Inspection:
    """The result of a quick check.

    Attributes
    ----------
    skull_stripped
        True if the background of all images is blank, as after skull stripping.
    findings
        One sentence for each thing that seems wrong.
    """

    skull_stripped: bool
    findings: tuple[str, ...]


THUMBNAIL_SIDE = 32
"""Voxels along each side that a quick check uses, so that it takes milliseconds for a scan of any size."""


def make_thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return every fourth voxel of an image or fewer, three axes in any order: enough for a quick check."""
    steps = (max(4, -(-side // THUMBNAIL_SIDE)) for side in image.shape)
    return np.asarray(image[tuple(slice(None, None, step) for step in steps)], np.float32)


def inspect_thumbnails(thumbnails: Mapping[str, NDArray[np.float32]]) -> Inspection:
    """Check the modalities of a case quickly, given their thumbnails from `make_thumbnail`."""
    heads = {name: find_foreground(image) for name, image in thumbnails.items()}
    shares = {name: common_share(image)[1] for name, image in thumbnails.items()}
    blank = all(share > 0.3 and share + heads[name].mean() > 0.97 for name, share in shares.items())
    findings = []
    first, *others = thumbnails
    for name in others:
        union = (heads[first] | heads[name]).sum()
        overlap = (heads[first] & heads[name]).sum() / union if union else 1.0
        if overlap < LOW_OVERLAP:
            findings.append(
                f"The heads in {first} and {name} overlap by only {overlap:.0%}: the scans may not be registered, or "
                "one may be from another patient."
            )
    return Inspection(blank, tuple(findings))


def find_foreground(image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return the foreground (tissue) mask of one image."""
    return find_background(image_ZYX).find_tissue(image_ZYX)
