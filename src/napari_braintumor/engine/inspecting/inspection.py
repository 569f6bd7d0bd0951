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


RIM_DEPTHS = 0.06, 0.3
"""Between these depths below the border of the largest section lies the bone; shares of its radius."""

BONE_SHARE = 0.015
"""More of the rim is dark where there is a skull: 0.027 or more in 90 cases with it, at most 0.008 in 20 without, also
after noise was added to them or they were resampled by splines. Medians over the modalities."""

LEAST_RADIUS_VOX = 12
"""In a smaller section bone is not looked for."""


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


def find_misplaced(thumbnails: Mapping[str, NDArray[np.float32]]) -> tuple[str, ...]:
    """Return a sentence for each modality whose head lies elsewhere than that of the first; of `make_thumbnail`."""
    heads = {name: find_foreground(image) for name, image in thumbnails.items()}
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
    return tuple(findings)


SAMPLED_SLICES = 5
"""Slices that are looked at for the skull, spread evenly: however the head lies, some show its middle."""

SAMPLED_SIDE = 64
"""About as many voxels of a slice are looked at along each side."""


def choose_sample(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], slice, slice]:
    """Return which slices, rows and columns of an image ``(Z, Y, X)`` `find_with_skull` looks at."""
    depth, *sides = shape
    slices = np.unique(((np.arange(SAMPLED_SLICES) + 0.5) * depth / SAMPLED_SLICES).astype(np.intp))
    rows, columns = (slice(None, None, max(1, side // SAMPLED_SIDE)) for side in sides)
    return slices, rows, columns


def find_with_skull(
    images: Mapping[str, NDArray[np.float32]], planes_cm2: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """Return the modalities that show more than the brain, in the order given.

    After skull stripping the background is blank up to the brain: one value fills it, and hardly anything else lies
    outside of what is tissue in any of the images. Around a head there is noise, and where a scanner blanks the air,
    the head is still too large for a brain. A brain that was smoothed, resampled or made noisy after its skull was
    taken away is recognized by its rim, in which there is no dark bone.

    Parameters
    ----------
    images
        Slices of each modality, ``(Z, Y, X)``, as `choose_sample` chooses them; those of one shape show the same place.
    planes_cm2
        The area of a whole slice of each modality; left out where the voxel size is not known.

    Returns
    -------
    tuple of str
        Empty if all are skull-stripped.
    """
    heads = {name: find_foreground(image) for name, image in images.items()}
    sections = {name: _find_largest_section(head) for name, head in heads.items()}
    too_large, not_blank = set(), set()
    for name, image in images.items():
        alike = [head for head in heads.values() if head.shape == image.shape]
        blank, share = common_share(image)
        noise = np.mean((image != blank) & ~np.logical_or.reduce(alike))
        if share < FILLED_SHARE or noise > NOISE_SHARE:
            not_blank.add(name)
        if planes_cm2 and sections[name].filled.mean() * planes_cm2.get(name, 0.0) > LARGEST_BRAIN_CM2:
            too_large.add(name)
    if not too_large and not_blank:
        bones = [bone for name in not_blank if (bone := sections[name].measure_bone()) is not None]
        if bones and np.median(bones) <= BONE_SHARE:
            not_blank.clear()
    return tuple(name for name in images if name in too_large | not_blank)


@dataclass(frozen=True, eq=False)
class _Section:
    """The largest section of a head: its tissue ``(Y, X)``, and that with its holes filled."""

    tissue: NDArray[np.bool_]
    filled: NDArray[np.bool_]

    def measure_bone(self) -> float | None:
        """Return the share of the rim that is not tissue; None if the section is too small to tell."""
        from scipy.ndimage import binary_opening, distance_transform_edt

        filled = binary_opening(np.pad(self.filled, 1))  # without what hangs on by a voxel
        radius = float(np.sqrt(filled.sum() / np.pi))
        if radius < LEAST_RADIUS_VOX:
            return None
        depth = distance_transform_edt(filled)[1:-1, 1:-1] / radius
        rim = (depth > RIM_DEPTHS[0]) & (depth < RIM_DEPTHS[1])
        return float(1 - self.tissue[rim].mean())


def _find_largest_section(head_ZYX: NDArray[np.bool_]) -> _Section:
    """Return the slice in which most is head."""
    from scipy.ndimage import binary_fill_holes

    filled = [binary_fill_holes(plane) for plane in head_ZYX]
    largest = int(np.argmax([plane.sum() for plane in filled]))
    return _Section(head_ZYX[largest], filled[largest])


def find_foreground(image_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return the foreground (tissue) mask of one image."""
    return find_background(image_ZYX).find_tissue(image_ZYX)
