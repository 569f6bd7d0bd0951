"""Distillation: the parent's answers stand in for old cases where a fine-tuning was given none."""

# R region, Z slice, H height, W width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_braintumor.engine.training.scoring import predict_logits
from napari_braintumor.engine.training.training_cases import Part


def ask_parent(parent: nn.Module, parts: Sequence[Part], batch_size: int, device: torch.device) -> Iterator[Part]:
    """Let a parent answer on all slices of cases, and yield those that nobody reviewed with its answers as target."""
    for part in parts:
        slices = np.arange(len(part.case.slices), dtype=np.intp)
        logits = torch.cat(list(predict_logits(parent, part.case, slices, batch_size, device)))
        answered = take_unreviewed(part, logits.sigmoid().transpose(0, 1).numpy().astype(np.float16))
        if answered is not None:
            yield answered


def take_unreviewed(part: Part, probabilities_RZHW: NDArray[np.float16]) -> Part | None:
    """Return the slices of a case that nobody reviewed, with a model's probabilities as their target.

    None where every slice was reviewed.

    Returns
    -------
    Part or None
        The slices and their target.
    """
    case = part.case
    rest = np.setdiff1d(np.arange(len(case.slices), dtype=np.intp), case.counted)
    if not len(rest):
        return None
    return Part(replace(case, regions=probabilities_RZHW, known=np.ones_like(case.known)), rest)
