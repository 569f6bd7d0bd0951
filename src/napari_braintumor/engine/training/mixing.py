"""Tumors of other patients: a slice gets the tumor of another, cut out with a margin and put where it lay there.

With few patients a network learns their heads by heart, and what lies where in them. Mixed slices show each tumor in
many heads.

References
----------
Zhang et al. 2023, CarveMix: a simple data augmentation method for brain lesion segmentation.
"""

# N batch, C channel: modality and slice beside; M modality, R region, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.anatomy import find_region

MARGINS_PX = (1, 3, 5, 8)
"""Pixels around a tumor that come with it, on the plan's working grid; one of them for a batch."""


@dataclass(frozen=True)
class Mixture:
    """Which slices of a batch get a tumor, and from where.

    Attributes
    ----------
    donors
        ``(N,)``: for each slice the one whose tumor it gets; itself where it stays as it is.
    margin_px
        How much around a tumor comes with it.
    """

    donors: NDArray[np.intp]
    margin_px: int


def draw_mixture(present_NM: NDArray[np.bool_], share: float, random: np.random.Generator) -> Mixture:
    """Draw which slices of a batch get the tumor of another one.

    Parameters
    ----------
    present_NM
        Which modalities the slices have; two without any in common are not mixed.
    share
        How many of them get one, from 0 to 1.
    random
        Draws.

    Returns
    -------
    Mixture
        The donors and a margin.
    """
    own = np.arange(len(present_NM))
    others = (own + random.integers(1, max(len(own), 2), len(own))) % len(own)
    fits = (random.random(len(own)) < share) & (present_NM & present_NM[others]).any(1)
    return Mixture(np.where(fits, others, own), int(random.choice(MARGINS_PX)))


def mix_tumors(
    image_NCHW: Tensor,
    regions_NRHW: Tensor,
    known_NR: Tensor,
    heads_NHW: Tensor,
    donors_N: Tensor,
    margin_px: int,
    names: Sequence[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """Put tumors of some slices of a batch into others.

    A region counts only if both patients' annotations define it; where a slice has nothing of an outer region, it is
    known to have nothing of those within.

    Parameters
    ----------
    image_NCHW, regions_NRHW, known_NR
        A batch as `Fit.take_step` takes it.
    heads_NHW
        The heads of its slices; nothing is put outside.
    donors_N
        `Mixture.donors`.
    margin_px
        `Mixture.margin_px`.
    names
        The regions.

    Returns
    -------
    tuple
        Image, regions and known regions, mixed.
    """
    known_NR = know_empty(regions_NRHW, known_NR, names)
    is_mixed_N = donors_N != torch.arange(len(donors_N), device=donors_N.device)
    tumor_N1HW = (regions_NRHW * known_NR[..., None, None]).amax(1, keepdim=True)
    taken_N1HW = functional.max_pool2d(tumor_N1HW, 2 * margin_px + 1, 1, margin_px)[donors_N] > 0.5
    inside_N1HW = (heads_NHW & heads_NHW[donors_N] & is_mixed_N[:, None, None])[:, None]
    taken_N1HW = taken_N1HW & inside_N1HW
    image = torch.where(taken_N1HW, image_NCHW[donors_N], image_NCHW)
    regions = torch.where(taken_N1HW, regions_NRHW[donors_N], regions_NRHW)
    known = torch.where(is_mixed_N[:, None], known_NR & known_NR[donors_N], known_NR)
    return image, regions, known


def know_empty(regions_NRHW: Tensor, known_NR: Tensor, names: Sequence[str]) -> Tensor:
    """Return which regions are known when a slice has nothing of a known outer one: then it has nothing within either.

    Parameters
    ----------
    regions_NRHW, known_NR
        Of a batch.
    names
        The regions, the outermost first.

    Returns
    -------
    Tensor
        bool ``(N, R)``.
    """
    nested = torch.tensor([find_region(name).nested for name in names], device=known_NR.device)
    is_empty_NR = known_NR & (regions_NRHW.flatten(2).amax(2) <= 0) & nested
    return known_NR | (is_empty_NR.long().cumsum(1) > 0) & nested
