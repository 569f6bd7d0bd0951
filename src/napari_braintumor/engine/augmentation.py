"""Random variation of one slice: image and masks move together, and the same seed gives the same slice."""

# M modality, K mask, H height, W width

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    OneOf,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)
from torch import Tensor

from napari_braintumor.engine.plan import TrainPlan

KEYS = ("image", "masks")
MODES = ("bilinear", "nearest")
"""Masks are moved without blending, so that they stay what they were."""

PLACE = {"rotate_range": np.pi / 8, "scale_range": (0.2, 0.2), "translate_range": (6, 6), "padding_mode": "zeros"}
"""Up to 22 degrees, a fifth of zoom and 6 pixels of shift."""

ELASTIC_SHARE = 0.25
"""Of the moved slices, how many are also deformed."""


def build_augmentation(plan: TrainPlan) -> Compose:
    """Return the plan's random variation of a dictionary of ``image`` (M, H, W) and ``masks`` (K, H, W).

    `light` mirrors left and right, rotates, zooms, shifts, and scales and shifts intensities; `full` also deforms
    elastically, and varies gamma, contrast, bias field, noise, sharpness and resolution. Intensities are z-scores: what
    lies outside the head must be set to zero again afterwards.
    """
    steps: list[Any] = []
    if plan.augmentation != "none":
        moved: Any = RandAffined(KEYS, prob=0.8, mode=MODES, **PLACE)
        if plan.augmentation == "full" and plan.elastic_px > 0:
            moved = OneOf([moved, make_elastic(plan)], weights=[1 - ELASTIC_SHARE, ELASTIC_SHARE])
        steps += [
            RandFlipd(KEYS, prob=0.5, spatial_axis=1),
            moved,
            RandScaleIntensityd("image", factors=0.2, prob=0.5, channel_wise=True),
            RandShiftIntensityd("image", offsets=0.3, prob=0.5, channel_wise=True),
        ]
    if plan.augmentation == "full":
        steps += [
            RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.25, retain_stats=True),
            RandBiasFieldd("image", degree=3, coeff_range=(0.0, 0.1), prob=0.15),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), prob=0.15),
            RandSimulateLowResolutiond(
                "image", prob=0.1, zoom_range=(0.5, 1.0), downsample_mode="area", upsample_mode="bilinear"
            ),
            RandGaussianNoised("image", std=0.15, prob=0.2),
        ]
    return Compose(steps)


def make_elastic(plan: TrainPlan, chance: float = 1.0) -> Rand2DElasticd:
    """Return elastic deformation: Gaussian displacements at the nodes of a coarse grid, cubic in between.

    The nodes lie half a patch apart, at least 32 pixels, as in a 3x3 grid over the patch; MONAI multiplies normal draws
    by a magnitude in pixels, so that is their standard deviation. Rotation, zoom and shift come with it.

    Parameters
    ----------
    plan
        Its `elastic_px` and `patch` are used.
    chance
        Of a slice being deformed.

    References
    ----------
    Ronneberger et al. 2015, U-Net, section 3.1: 3x3 grid, Gaussian with 10 pixels standard deviation, bicubic.
    """
    spacing = tuple(max(32, side // 2) for side in plan.patch)
    magnitude = (plan.elastic_px, plan.elastic_px)
    return Rand2DElasticd(KEYS, spacing=spacing, magnitude_range=magnitude, prob=chance, mode=MODES, **PLACE)


def vary(augmentation: Compose, item: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Apply a variation; the seed alone decides what is drawn."""
    if not augmentation.transforms:
        return item
    augmentation.set_random_state(seed)
    tracked = get_track_meta()
    set_track_meta(False)  # what MONAI would note of each transform costs more than the transform
    try:
        varied = augmentation(item)
    finally:
        set_track_meta(tracked)
    return {key: varied[key].as_subclass(Tensor).float() for key in KEYS}
