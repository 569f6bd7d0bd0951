"""Scoring: how well a network finds each region in prepared cases, whatever it is measured for."""

# R region, Z slice, H height, W width; y, x rows and columns of a prepared case

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.preparing.context import take_images
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.prepared import TrainingCase
from napari_braintumor.engine.training.training_cases import Part


def predict_logits(
    network: nn.Module, case: TrainingCase, slices: NDArray[np.intp], batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Run a network in evaluation mode over slices of a prepared case; yields logits ``(n, R, y, x)`` on the CPU."""
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(slices), batch_size):
            part = take_images(case.prepared, slices[start : start + batch_size]).astype(np.float32)
            batch = torch.from_numpy(part).transpose(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            yield network(batch).float().cpu()


def validate(network: nn.Module, parts: Sequence[Part], plan: TrainPlan, device: torch.device) -> dict[str, float]:
    """Return the mean Dice of every region over the cases that define it, on their slices and the working grid.

    Dice is that of all slices of a case together; both masks empty counts 1, one empty counts 0.

    Returns
    -------
    dict
        Dice by region, 0 to 1; regions that no case defines are left out.
    """
    dice: dict[str, list[float]] = {name: [] for name in plan.regions}
    for part in parts:
        case = part.case
        logits = predict_logits(network, case, part.slices, plan.batch_size, device)
        predicted_ZRHW = np.concatenate([(each > 0).numpy() for each in logits])
        predicted_RZHW = predicted_ZRHW.swapaxes(0, 1) & case.prepared.foreground[part.slices]
        for index, name in enumerate(plan.regions):
            if case.known[index]:
                dice[name].append(volume_dice(predicted_RZHW[index], case.regions[index, part.slices] > 0.5))
    return {name: float(np.mean(values)) for name, values in dice.items() if values}


def average_dice(dice: Mapping[str, float]) -> float | None:
    """Return the one number by which weights are compared: the mean over the regions; None if none was measured."""
    return float(np.mean(list(dice.values()))) if dice else None
