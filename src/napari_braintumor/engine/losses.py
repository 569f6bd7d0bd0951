"""Losses over independent regions, each counted only where its annotation defines it."""

# N batch, R region, H height, W width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def dice_per_region(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice of every region, pooled over the batch.

    Parameters
    ----------
    logits_NRHW
        Raw network output, one plane per region.
    target_NRHW
        1 inside the region, 0 outside.
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
    weight = known_NR[..., None, None].to(logits_NRHW.dtype)
    probability = logits_NRHW.sigmoid() * weight
    target = target_NRHW * weight
    overlap = (probability * target).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + target.sum((0, 2, 3))
    dice = (2 * overlap + smooth) / (total + smooth)
    return torch.where(known_NR.any(0), dice, torch.nan)


def dice_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Return one minus the mean of `dice_per_region` over the regions known in the batch."""
    return 1 - dice_per_region(logits_NRHW, target_NRHW, known_NR).nanmean()


def dice_bce_loss(logits_NRHW: Tensor, target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Return `dice_loss` plus the binary cross-entropy, averaged over the known planes."""
    entropy_NR = functional.binary_cross_entropy_with_logits(logits_NRHW, target_NRHW, reduction="none").mean((2, 3))
    weight = known_NR.to(entropy_NR.dtype)
    entropy = (entropy_NR * weight).sum() / weight.sum().clamp_min(1)
    return dice_loss(logits_NRHW, target_NRHW, known_NR) + entropy


LOSSES: Mapping[str, Loss] = {"dice": dice_loss, "dice_bce": dice_bce_loss}


def supervised(loss: Loss, output: Tensor | Sequence[Tensor], target_NRHW: Tensor, known_NR: Tensor) -> Tensor:
    """Apply a loss to a network's output; side outputs, where there are any, add up (deep supervision)."""
    if isinstance(output, Tensor):
        return loss(output, target_NRHW, known_NR)
    return torch.stack([loss(each, target_NRHW, known_NR) for each in output]).sum()
