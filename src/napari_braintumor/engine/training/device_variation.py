"""Variation of a whole batch on the GPU: drawn on the CPU, one interpolation, then intensities step by step."""

# N batch, M modality, H height, W width; h, w of a patch

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.training import augmentation
from napari_braintumor.engine.training.plan import TrainPlan

SMOOTHING_REACH = 4
"""Pixels: four deviations of the widest smoothing."""

BIAS_DEGREE = 3


@dataclass(frozen=True)
class Variation:
    """The random draws that vary a batch; lists of members are empty where a step does not touch it.

    Attributes
    ----------
    affine
        ``(N, 2, 3)``: where a pixel's value comes from, pixels along Y and X from the patch's middle.
    deformed, nodes
        Who is deformed, and displacements at the nodes of a coarse grid, ``(n, 2, y, x)``.
    scale, shift
        ``(N, M)``.
    contrast, gamma
        Who gets another gamma, and which.
    biased, coefficients
        Who gets a bias field, and its polynomial, ``(n, 10)``.
    smoothed, sigma
        Who is smoothed, by deviations along Y and X, ``(n, 2)``.
    coarsened, zooms
        Whose resolution falls, and to which share.
    noisy, noise
        Who gets noise, and of which deviation.
    """

    affine: NDArray[np.float64]
    deformed: NDArray[np.intp]
    nodes: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    contrast: NDArray[np.intp]
    gamma: NDArray[np.float64]
    biased: NDArray[np.intp]
    coefficients: NDArray[np.float64]
    smoothed: NDArray[np.intp]
    sigma: NDArray[np.float64]
    coarsened: NDArray[np.intp]
    zooms: NDArray[np.float64]
    noisy: NDArray[np.intp]
    noise: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the draws, by name."""
        return vars(self)


def draw_variation(plan: TrainPlan, shape: tuple[int, int], random: np.random.Generator) -> Variation:
    """Draw how a batch is varied, with the chances and ranges of `build_augmentation`.

    Parameters
    ----------
    plan
        Its augmentation and patch are used.
    shape
        Slices in the batch, and modalities.
    random
        Draws.

    Returns
    -------
    Variation
        The draws for each slice of the batch.
    """
    size = shape[0]
    varies, fully = plan.augmentation != "none", plan.augmentation == "full"

    def choose(chance: float) -> NDArray[np.intp]:
        return np.flatnonzero(random.random(size) < chance)

    deformed = choose(augmentation.DEFORMED_SHARE if fully and plan.elastic_px > 0 else 0.0)
    moves = random.random(size) < (augmentation.MOVED_SHARE if varies else 0.0)
    moves[deformed] = True
    angle = np.where(moves, random.uniform(-augmentation.ROTATION, augmentation.ROTATION, size), 0.0)
    zoom = np.where(moves[:, None], random.uniform(1 - augmentation.ZOOM, 1 + augmentation.ZOOM, (size, 2)), 1.0)
    shift = np.where(moves[:, None], random.uniform(-augmentation.SHIFT_PX, augmentation.SHIFT_PX, (size, 2)), 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    affine = np.concatenate([rotation * zoom[:, None, :], (rotation @ shift[:, :, None])], axis=2)
    affine[random.random(size) < (0.5 if varies else 0.0), 1] *= -1  # mirrored left and right
    most_scaled, most_shifted = augmentation.INTENSITY_SCALE, augmentation.INTENSITY_SHIFT_Z
    scaled, shifted = (random.random((size, 1)) < (0.5 if varies else 0.0) for _ in range(2))
    contrast, biased, smoothed, coarsened, noisy = (
        choose(chance if fully else 0.0) for chance in (0.25, 0.15, 0.15, 0.1, 0.2)
    )
    y, x = (augmentation.cubic_weights(side).shape[1] for side in plan.patch)
    return Variation(
        affine=affine,
        deformed=deformed,
        nodes=random.normal(0, plan.elastic_px, (len(deformed), 2, y, x)),
        scale=np.where(scaled, 1 + random.uniform(-most_scaled, most_scaled, shape), 1.0),
        shift=np.where(shifted, random.uniform(-most_shifted, most_shifted, shape), 0.0),
        contrast=contrast,
        gamma=random.uniform(0.7, 1.5, len(contrast)),
        biased=biased,
        coefficients=random.uniform(0.0, 0.1, (len(biased), (BIAS_DEGREE + 1) * (BIAS_DEGREE + 2) // 2)),
        smoothed=smoothed,
        sigma=random.uniform(0.3, 1.0, (len(smoothed), 2)),
        coarsened=coarsened,
        zooms=random.uniform(0.5, 1.0, len(coarsened)),
        noisy=noisy,
        noise=random.uniform(0.0, 0.15, len(noisy)),
    )


def place(drawn: Variation, on_card: Mapping[str, Tensor], patch: tuple[int, int], canvas: tuple[int, ...]) -> Tensor:
    """Return where the pixels of patches lie in their slices, as `grid_sample` wants it.

    Parameters
    ----------
    drawn
        How the batch is varied.
    on_card
        The same on the device, and ``middles`` ``(N, 2)``, where patches lie: pixels along Y and X.
    patch
        Its size.
    canvas
        The size that slices are stored in.

    Returns
    -------
    Tensor
        float32 ``(N, h, w, 2)``: X and Y, from -1 to 1 across the slice.
    """
    affine, device = on_card["affine"], on_card["affine"].device
    places = _places(patch, device).expand(len(affine), -1, -1, -1)
    if len(drawn.deformed):
        y, x = (_cubic_weights(side, device) for side in patch)
        places = places.index_add(0, on_card["deformed"].long(), y @ on_card["nodes"] @ x.T)
    moved = torch.baddbmm(affine[:, :, 2:], affine[:, :, :2], places.flatten(2)).unflatten(2, patch)
    pixels = moved + on_card["middles"][:, :, None, None]
    height, width = canvas
    return torch.stack([(2 * pixels[:, 1] + 1) / width - 1, (2 * pixels[:, 0] + 1) / height - 1], dim=-1)


def vary_intensities(
    image_NMHW: Tensor, drawn: Variation, on_card: Mapping[str, Tensor], random: torch.Generator
) -> Tensor:
    """Vary the z-scores of a batch, step by step as `build_augmentation` lists them.

    Parameters
    ----------
    image_NMHW
        Patches; may be changed.
    drawn
        How they are varied.
    on_card
        The same on the device.
    random
        Draws the noise.

    Returns
    -------
    Tensor
        ``(N, M, H, W)``, the same memory where possible.
    """
    stacked = image_NMHW.shape[1] // on_card["scale"].shape[1]  # slices of one scan are varied alike
    scale, shift = (on_card[name].repeat(1, stacked)[:, :, None, None] for name in ("scale", "shift"))
    image = image_NMHW * scale + shift

    def those(name: str) -> Tensor:
        return on_card[name].long()

    if len(drawn.contrast):
        image[those("contrast")] = _change_contrast(image[those("contrast")], on_card["gamma"])
    if len(drawn.biased):
        height, width = image.shape[2:]
        basis = _bias_basis(height, width, image.device)
        field = torch.einsum("nb,bhw->nhw", on_card["coefficients"], basis)
        image[those("biased")] = image[those("biased")] * field.exp()[:, None]
    if len(drawn.smoothed):
        image[those("smoothed")] = _smooth(image[those("smoothed")], on_card["sigma"])
    for member, zoom in zip(drawn.coarsened, drawn.zooms, strict=True):
        image[member] = _coarsen(image[member], float(zoom))
    if len(drawn.noisy):
        before = image[those("noisy")]
        noise = torch.randn(before.shape, generator=random, device=before.device)
        image[those("noisy")] = before + noise * on_card["noise"][:, None, None, None]
    return image


def _change_contrast(image_NMHW: Tensor, gamma_N: Tensor) -> Tensor:
    """Apply a gamma to each slice and give it back its mean and deviation."""
    flat = image_NMHW.flatten(1)
    least, most = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    curved = ((flat - least) / (most - least + 1e-7)) ** gamma_N[:, None] * (most - least) + least
    deviation, mean = torch.std_mean(flat, 1, keepdim=True)
    own_deviation, own_mean = torch.std_mean(curved, 1, keepdim=True)
    changed: Tensor = (curved - own_mean) / (own_deviation + 1e-8) * deviation + mean
    return changed.view_as(image_NMHW)


def _smooth(image_NMHW: Tensor, sigma_N2: Tensor) -> Tensor:
    """Smooth each slice by its own Gaussian, zeros around."""
    count, modalities = image_NMHW.shape[:2]
    reach = torch.arange(-SMOOTHING_REACH, SMOOTHING_REACH + 1, device=image_NMHW.device, dtype=torch.float32)
    scale = 1 / (math.sqrt(2) * sigma_N2[..., None])
    kernels = 0.5 * (((reach + 0.5) * scale).erf() - ((reach - 0.5) * scale).erf())
    kernels_CT = kernels.repeat_interleave(modalities, 0)
    one = image_NMHW.flatten(0, 1)[None]
    groups = count * modalities
    one = functional.conv2d(one, kernels_CT[:, 0, None, :, None], padding=(SMOOTHING_REACH, 0), groups=groups)
    one = functional.conv2d(one, kernels_CT[:, 1, None, None, :], padding=(0, SMOOTHING_REACH), groups=groups)
    smoothed: Tensor = one[0].unflatten(0, (count, modalities))
    return smoothed


def _coarsen(image_MHW: Tensor, zoom: float) -> Tensor:
    """Bring a slice to a coarser grid and back."""
    size = image_MHW.shape[1:]
    coarse = functional.interpolate(image_MHW[None], [max(1, round(side * zoom)) for side in size], mode="area")
    return functional.interpolate(coarse, size, mode="bilinear", align_corners=False)[0]


@cache
def _places(patch: tuple[int, int], device: torch.device) -> Tensor:
    return augmentation.places_in(patch).to(device)


@cache
def _cubic_weights(side: int, device: torch.device) -> Tensor:
    return augmentation.cubic_weights(side).to(device)


@cache
def _bias_basis(height: int, width: int, device: torch.device) -> Tensor:
    """Return products of Legendre polynomials along Y and X up to a degree: ``(10, h, w)``."""
    y, x = (
        np.polynomial.legendre.legvander(np.linspace(-1, 1, side), BIAS_DEGREE).astype(np.float32)
        for side in (height, width)
    )
    rows, columns = np.tril_indices(BIAS_DEGREE + 1)
    return torch.from_numpy(np.ascontiguousarray(y.T[rows][:, :, None] * x.T[columns][:, None])).to(device)
