"""A quick check of images before they are used: skull stripping, and what the user should look at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.inspecting.foreground import FILLED_SHARE, common_share, find_background

LOW_OVERLAP = 0.6
"""Registered scans of one head overlap by 0.8 or more; a lower overlap than this is reported."""

NOISE_SHARE = 0.03
"""More of an image than this is neither blank nor tissue if it was not skull-stripped: 0.059 to 0.52 in 132 scans with
the skull, at most 0.005 in 88 without."""

LARGEST_BRAIN_CM2 = 225.0
"""No axial section of a brain is larger: 152 to 200 cm² in 88 skull-stripped scans, and 252 or more in the five scans
with the skull that state their voxel size."""


@dataclass(frozen=True)
class Inspection:
    """The result of a quick check.

    Attributes
    ----------
    with_skull
        The modalities that show more than the brain, see `find_with_skull`.
    findings
        One sentence for each thing that seems wrong.
    """

    with_skull: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def skull_stripped(self) -> bool:
        """True if all images show the brain alone."""
        return not self.with_skull


THUMBNAIL_SIDE = 32
"""Voxels along each side that a quick check uses, so that it takes milliseconds for a scan of any size."""


def make_thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return every fourth voxel of an image or fewer, three axes in any order: enough for a quick check."""
    steps = (max(4, -(-side // THUMBNAIL_SIDE)) for side in image.shape)
    return np.asarray(image[tuple(slice(None, None, step) for step in steps)], np.float32)


def inspect_thumbnails(
    thumbnails: Mapping[str, NDArray[np.float32]], planes_cm2: Mapping[str, float] | None = None
) -> Inspection:
    """Check the modalities of a case quickly, given their thumbnails from `make_thumbnail`; see `find_with_skull`."""
    heads = {name: find_foreground(image) for name, image in thumbnails.items()}
    with_skull = _tell_with_skull(thumbnails, heads, planes_cm2)
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
    return Inspection(with_skull, tuple(findings))


def find_with_skull(
    images: Mapping[str, NDArray[np.float32]], planes_cm2: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """Return the modalities that show more than the brain, in the order given.

    After skull stripping the background is blank up to the brain: one value fills it, and hardly anything else lies
    outside of what is tissue in any of the images. Around a head there is noise, and where a scanner blanks the air,
    the head is still too large for a brain.

    Parameters
    ----------
    images
        Thumbnails or a few slices of each modality, ``(Z, Y, X)``; those of one shape show the same place.
    planes_cm2
        The area of a whole slice of each modality; left out where the voxel size is not known.

    Returns
    -------
    tuple of str
        Empty if all are skull-stripped.
    """
    return _tell_with_skull(images, {name: find_foreground(image) for name, image in images.items()}, planes_cm2)


def _tell_with_skull(
    images: Mapping[str, NDArray[np.float32]],
    heads: Mapping[str, NDArray[np.bool_]],
    planes_cm2: Mapping[str, float] | None,
) -> tuple[str, ...]:
    from scipy.ndimage import binary_fill_holes

    found = []
    for name, image in images.items():
        alike = [head for head in heads.values() if head.shape == image.shape]
        blank, share = common_share(image)
        noise = np.mean((image != blank) & ~np.logical_or.reduce(alike))
        largest = max(float(binary_fill_holes(plane).mean()) for plane in heads[name])
        area_cm2 = largest * planes_cm2.get(name, 0.0) if planes_cm2 else 0.0
        if share < FILLED_SHARE or noise > NOISE_SHARE or area_cm2 > LARGEST_BRAIN_CM2:
            found.append(name)
    return tuple(found)


def find_foreground(image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return the foreground (tissue) mask of one image."""
    return find_background(image_ZYX).find_tissue(image_ZYX)
