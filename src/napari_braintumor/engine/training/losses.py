"""Losses over independent regions, each counted only where its annotation defines it.

Every sum over a batch goes through `sum_across`, so that several processes pool their parts of it exactly.
"""

# N batch, R region, H height, W width

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.processes import sum_across

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of logits ``(N, R, H, W)``, target ``(N, R, H, W)`` from 0 to 1 and known regions ``(N, R)``."""


def build_loss(plan: TrainPlan) -> Loss:
    """Return the loss that a plan names, with the plan's parameters."""
    tversky = partial(tversky_loss, alpha=plan.tversky_alpha)
    losses: dict[str, Loss] = {
        "dice_bce": dice_bce_loss,
        "dice": dice_loss,
        "log_cosh_dice": lambda *batch: log_cosh(dice_loss(*batch)),
        "tversky": tversky,
        "focal_tversky": lambda *batch: raise_to(tversky(*batch), plan.focal_gamma),
        "seed_dice": seed_dice_loss,
        "log_cosh_seed_dice": lambda *batch: log_cosh(seed_dice_loss(*batch)),
    }
    return losses[plan.loss]


def dice_per_region(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice of every region, pooled over the batch.

    Parameters
    ----------
    logits_NRHW
        Raw network output, one plane per region.
    target_NRHW
        1 inside the region, 0 outside; a model's probabilities where those are the target.
    known_NR
        1 where the case's annotation defines the region; other planes do not count.
    smooth
        Added to numerator and denominator, in voxels, so that empty planes give 1.

    Returns
    -------
    Tensor
        Shape ``(R,)``, 0 to 1. A region known in no case of the batch is NaN.

    References
    ----------
    Milletari et al. 2016, V-Net, eq. 2 (with squared terms left out).
    """
    score, known = _dice(logits_NRHW.sigmoid(), target_NRHW, known_NR, smooth)
    return torch.where(known, score, torch.nan)


def dice_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Return one minus the mean of `dice_per_region` over the regions known in the batch; 0 where none is."""
    return _one_minus_mean(*_dice(logits_NRHW.sigmoid(), target_NRHW, known_NR))


def dice_bce_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Return `dice_loss` plus the binary cross-entropy, averaged over the known planes."""
    entropy_NR = functional.binary_cross_entropy_with_logits(logits_NRHW, target_NRHW, reduction="none").mean((2, 3))
    weight = known_NR.to(entropy_NR.dtype)
    sums = sum_across(torch.stack([(entropy_NR * weight).sum(), weight.sum()]))
    return dice_loss(logits_NRHW, target_NRHW, known_NR) + sums[0] / sums[1].detach().clamp_min(1)


def tversky_loss(
    logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor, alpha: float = 0.7, smooth: float = 1.0
) -> Tensor:
    """Return one minus the mean Tversky index: Dice with a price of its own for missed voxels.

    Parameters
    ----------
    logits_NRHW, target_NRHW, known_NR
        As in `dice_per_region`.
    alpha
        Weight of missed voxels; false ones weigh ``1 - alpha``. At 0.5 the index is Dice.
    smooth
        Added to numerator and denominator, in voxels.

    Returns
    -------
    Tensor
        A scalar, 0 to 1.

    References
    ----------
    Salehi et al. 2017, Tversky loss function for image segmentation using 3D fully convolutional deep networks.
    """
    hit, missed, false, known = _pooled(logits_NRHW.sigmoid(), target_NRHW, known_NR)
    index = (hit + smooth) / (hit + alpha * missed + (1 - alpha) * false + smooth)
    return _one_minus_mean(index, known)


def seed_dice_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Return one minus Dice as the original project defined it: the mean of that of a region and of its background."""
    probability = logits_NRHW.sigmoid()
    region = _one_minus_mean(*_dice(probability, target_NRHW, known_NR))
    background = _one_minus_mean(*_dice(1 - probability, 1 - target_NRHW, known_NR))
    return (region + background) / 2


def log_cosh(loss: Tensor) -> Tensor:
    """Return the logarithm of the hyperbolic cosine: smooth, and flat near zero.

    Returns
    -------
    Tensor
        The shape of `loss`, 0 or more.

    References
    ----------
    Jadon 2020, A survey of loss functions for semantic segmentation.
    """
    return loss + functional.softplus(-2 * loss) - math.log(2)


def raise_to(loss: Tensor, gamma: float) -> Tensor:
    """Return a loss to the power of gamma; with gamma below 1 it stays steep where little is left to gain.

    Returns
    -------
    Tensor
        The shape of `loss`.

    References
    ----------
    Abraham and Khan 2019, A novel focal Tversky loss function with improved attention U-Net for lesion segmentation.
    """
    return loss.clamp_min(1e-6) ** gamma


def apply_loss(loss: Loss, output: Tensor | Sequence[Tensor], target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Apply a loss to a network's output; side outputs, where there are any, add up (deep supervision)."""
    if isinstance(output, Tensor):
        return loss(output, target_NRHW, known_NR)
    return torch.stack([loss(each, target_NRHW, known_NR) for each in output]).sum()


def _pooled(probability_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each region the voxels hit, missed and falsely claimed in known planes, and whether any is known."""
    weight = known_NR[..., None, None].to(probability_NRHW.dtype)
    hit = (probability_NRHW * target_NRHW * weight).sum((0, 2, 3))
    predicted = (probability_NRHW * weight).sum((0, 2, 3))
    there = (target_NRHW * weight).sum((0, 2, 3))
    sums = sum_across(torch.stack([hit, predicted, there, known_NR.to(hit.dtype).sum(0)]))
    return sums[0], sums[2] - sums[0], sums[1] - sums[0], sums[3].detach() > 0


def _dice(
    probability_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor, smooth: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the soft Dice of every region, and which of them are known; without a meaning where they are not."""
    hit, missed, false, known = _pooled(probability_NRHW, target_NRHW, known_NR)
    return (2 * hit + smooth) / (2 * hit + missed + false + smooth), known


def _one_minus_mean(score_R: Tensor, known_R: Tensor) -> Tensor:
    # No branch on whether any is known: it would have to wait for a GPU.
    return torch.where(known_R, 1 - score_R, 0).sum() / known_R.sum().clamp_min(1)
