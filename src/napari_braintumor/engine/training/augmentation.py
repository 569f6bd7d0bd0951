"""Random variation of one slice: image and masks move together, and the same seed gives the same slice."""

# M modality, K mask, H height, W width

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.training.plan import TrainPlan

KEYS = ("image", "masks")
MODES = {"image": "bilinear", "masks": "nearest"}
"""Masks are moved without blending, so that they stay what they were."""

ROTATION, ZOOM, SHIFT_PX = math.pi / 8, 0.2, 6.0
"""Up to 22 degrees, a fifth of zoom along each axis and 6 pixels of shift."""

INTENSITY_SCALE, INTENSITY_SHIFT_Z = 0.3, 0.5
"""Each modality is scaled by up to so much and shifted by up to so many z: a large tumor shifts the head's own mean."""

OF_VALUES = (RandScaleIntensityd, RandShiftIntensityd, RandAdjustContrastd, RandGaussianNoised)
"""Steps that change values wherever they lie in a slice."""

OF_INTENSITIES = (*OF_VALUES, RandBiasFieldd, RandGaussianSmoothd, RandSimulateLowResolutiond)

MOVED_SHARE = 0.8
"""How many slices are rotated, zoomed and shifted."""

DEFORMED_SHARE = 0.25
"""How many are deformed as well, where deformation is on; the others are moved by `MOVED_SHARE`."""


class RandMovement:
    """Rotate, zoom, shift and deform a dictionary of ``image`` and ``masks``, all in one interpolation.

    Elastic deformation is Gaussian displacements at the nodes of a coarse grid, cubic in between. The nodes lie half a
    slice apart, at least 32 pixels, as in a 3x3 grid over the slice. MONAI's RandAffined and Rand2DElasticd draw from
    the same distributions, but take more time than all of the other steps together.

    Parameters
    ----------
    moved
        Share of slices that are moved.
    elastic_px
        Standard deviation of the displacements at the nodes.
    deformed
        Share of slices that are deformed as well.
    rotation, zoom, shift_px
        The largest angle in radians, change of scale, and shift.

    References
    ----------
    Ronneberger et al. 2015, U-Net, section 3.1: 3x3 grid, Gaussian with 10 pixels standard deviation, bicubic.
    """

    def __init__(
        self,
        moved: float = MOVED_SHARE,
        elastic_px: float = 0.0,
        deformed: float = 0.0,
        *,
        rotation: float = ROTATION,
        zoom: float = ZOOM,
        shift_px: float = SHIFT_PX,
    ) -> None:
        self.moved, self.elastic_px, self.deformed = moved, elastic_px, deformed
        self.rotation, self.zoom, self.shift_px = rotation, zoom, shift_px

    def set_random_state(self, state: np.random.RandomState) -> None:
        """Draw from this state, as MONAI's steps do."""
        self.R = state

    def __call__(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the dictionary with both moved alike."""
        deforms = self.R.random() < self.deformed
        if not deforms and self.R.random() >= self.moved:
            return item
        size: tuple[int, int] = (item["image"].shape[1], item["image"].shape[2])
        places_2HW = self.draw_places(size, deforms)
        # What grid_sample wants: x before y, and the outer edges of the slice at -1 and 1.
        grid_HW2 = torch.stack([places_2HW[1] * (2 / size[1]), places_2HW[0] * (2 / size[0])], dim=-1)
        return {
            key: functional.grid_sample(item[key][None], grid_HW2[None], mode=MODES[key], align_corners=False)[0]
            for key in KEYS
        }

    def draw_places(self, size: tuple[int, int], deforms: bool) -> Tensor:
        """Draw where each pixel's value comes from: ``(2, H, W)``, pixels along Y and X from the slice's middle."""
        angle = self.R.uniform(-self.rotation, self.rotation)
        zoom = self.R.uniform(1 - self.zoom, 1 + self.zoom, 2)
        shift = self.R.uniform(-self.shift_px, self.shift_px, 2)
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = np.array([[cos, -sin], [sin, cos]])
        affine = torch.from_numpy(np.column_stack([rotation * zoom, rotation @ shift])).float()
        places = places_in(size)
        if deforms:
            places = places + self.draw_displacements(size)
        return torch.addmm(affine[:, 2:], affine[:, :2], places.flatten(1)).view(2, *size)

    def draw_displacements(self, size: tuple[int, int]) -> Tensor:
        """Draw an elastic deformation: ``(2, H, W)``, pixels along Y and X."""
        y, x = (cubic_weights(side) for side in size)
        nodes = self.R.normal(0, self.elastic_px, (2, y.shape[1], x.shape[1]))
        # `float` copies into torch's aligned memory: products of unaligned matrices may round differently each time.
        return y @ torch.from_numpy(nodes).float() @ x.T


def build_augmentation(plan: TrainPlan) -> list[Any]:
    """Return the steps of the plan's random variation of a dictionary of ``image`` (M, H, W) and ``masks`` (K, H, W).

    `light` mirrors left and right, rotates, zooms, shifts, and scales and shifts intensities; `full` also deforms
    elastically, and varies gamma, contrast, bias field, noise, sharpness and resolution. Intensities are z-scores: what
    lies outside the head must be set to zero again afterwards.

    Returns
    -------
    list
        MONAI's dictionary transforms, in the order to apply; empty for ``none``.
    """
    steps: list[Any] = []
    if plan.augmentation != "none":
        deforms = plan.augmentation == "full" and plan.elastic_px > 0
        steps += [
            RandFlipd(KEYS, prob=0.5, spatial_axis=1),
            RandMovement(MOVED_SHARE, plan.elastic_px, DEFORMED_SHARE if deforms else 0.0),
            RandScaleIntensityd("image", factors=INTENSITY_SCALE, prob=0.5, channel_wise=True),
            RandShiftIntensityd("image", offsets=INTENSITY_SHIFT_Z, prob=0.5, channel_wise=True),
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
    return steps


def vary(augmentation: Sequence[Any], item: dict[str, Tensor], seed: int, stacked_slices: int = 1) -> dict[str, Tensor]:
    """Apply the steps of a variation one after the other; the seed alone decides what is drawn.

    Parameters
    ----------
    augmentation
        From `build_augmentation`.
    item
        ``image`` and ``masks``.
    seed
        Decides what is drawn.
    stacked_slices
        Of how many neighboring slices of one scan the channels of ``image`` are, slice by slice: the scan is varied,
        so all of them alike.

    Returns
    -------
    dict
        ``image`` and ``masks``, varied.
    """
    random = np.random.RandomState(np.random.PCG64(seed))  # MONAI knows no newer kind of generator
    tracked = get_track_meta()
    set_track_meta(False)  # what MONAI would note of each transform costs more than the transform
    try:
        for step in augmentation:
            step.set_random_state(state=random)
            if stacked_slices > 1 and isinstance(step, OF_INTENSITIES):
                item = {**item, "image": _vary_alike(step, item["image"].chunk(stacked_slices), random)}
            else:
                item = step(item)
    finally:
        set_track_meta(tracked)
    return {key: item[key].as_subclass(Tensor).float() for key in KEYS}


def _vary_alike(step: Any, slices: Sequence[Tensor], random: np.random.RandomState) -> Tensor:
    """Vary the intensities of neighboring slices alike, each ``(M, H, W)``; return them as channels of one image."""
    if isinstance(step, OF_VALUES):  # side by side they are one image
        varied = torch.as_tensor(step({"image": torch.cat(list(slices), dim=1)})["image"])
        return torch.cat(varied.chunk(len(slices), dim=1))
    before = random.get_state(legacy=False)
    results = []
    for one in slices:
        random.set_state(before)
        results.append(step({"image": one})["image"])
    return torch.cat(results)


@lru_cache(maxsize=8)
def places_in(size: tuple[int, int]) -> Tensor:
    """Return where the pixels of a slice lie: ``(2, H, W)``, pixels along Y and X from its middle."""
    y, x = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))


@lru_cache(maxsize=8)
def cubic_weights(side: int) -> Tensor:
    """Return how much each node of the coarse grid weighs at each pixel of an axis: ``(side, nodes)``."""
    spacing = max(32, side // 2)
    nodes = math.ceil(side / spacing) + 4  # cubic interpolation looks at two nodes beyond each end
    impulses = torch.eye(nodes)[:, None]
    fine = functional.interpolate(impulses[..., None], scale_factor=(spacing, 1), mode="bicubic", align_corners=False)
    start = (nodes * spacing - side) // 2
    return fine[:, 0, start : start + side, 0].T.contiguous()
