"""One validation slice, predicted again and again while a network learns, so that a person can watch."""

# R region, Y row, X column

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_braintumor.engine.anatomy import labels_from_regions
from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.segmenting.regions import BACKGROUND_LOGIT, restore_slices
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.scoring import predict_logits
from napari_braintumor.engine.training.training_cases import Part

AIR_Z = -3.0
"""z-score that the surroundings of the head are shown with: their zeros would look like tissue."""


def save_preview(
    path: Path, network: nn.Module, parts: Sequence[Part], plan: TrainPlan, device: torch.device, epoch: int
) -> None:
    """Predict the slice with the most tumor of the first validation case and write it beside its reference.

    Parameters
    ----------
    path
        A file of NumPy arrays: ``image`` float32, ``reference`` and ``predicted`` uint8 labels, all ``(Y, X)`` on the
        case's own grid, and ``z``, ``case``, ``epoch``.
    network
        As it is now.
    parts
        The validation side.
    plan
        Its regions are used.
    device
        Where the network is.
    epoch
        Written down.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    part = parts[0]
    case, prepared = part.case, part.case.prepared
    area = (np.asarray(case.regions)[:, part.slices] > 0.5).sum((0, 2, 3))
    z = int(part.slices[int(area.argmax())])
    logits = next(iter(predict_logits(network, case, np.array([z]), 1, device)))[0]
    logits = logits.masked_fill(torch.from_numpy(~prepared.foreground[z]), BACKGROUND_LOGIT)

    def on_own_grid(array_CYX: NDArray[Any]) -> NDArray[np.float32]:
        planes_CYX = restore_slices(prepared, torch.from_numpy(array_CYX)[:, None].float())[:, 0]
        return planes_CYX.numpy()

    def labels(planes_RYX: NDArray[Any]) -> NDArray[np.uint8]:
        return labels_from_regions(dict(zip(plan.regions, planes_RYX > 0, strict=True)))

    channel = np.flatnonzero(prepared.present)[-1]
    image = np.where(prepared.foreground[z], prepared.data[channel, z].astype(np.float32), AIR_Z)
    with replacing(path) as temporary:
        np.savez(
            temporary,
            image=on_own_grid(image[None])[0].clip(AIR_Z),
            reference=labels(on_own_grid(np.where(case.regions[:, z] > 0.5, -BACKGROUND_LOGIT, BACKGROUND_LOGIT))),
            predicted=labels(on_own_grid(logits.numpy())),
            z=int(case.slices[z]),
            case=case.name,
            epoch=epoch,
        )
