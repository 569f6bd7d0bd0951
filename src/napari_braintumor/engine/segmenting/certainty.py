"""How sure a network is of the regions it draws, summed over a case while its slices are done."""

# R region, N slice, Y row, X column

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_braintumor.engine.segmenting.resolve import SegmentTask
from napari_braintumor.engine.segmenting.runtime import run_with_cpu_fallback

LEAST_LOGIT = -7.0
"""Less likely voxels do not count: over a whole head, their many small probabilities would add up."""


@dataclass(frozen=True, eq=False)
class Certainty:
    """Sums over the voxels of a case, for each of R regions; all start at 0.

    Attributes
    ----------
    drawn
        ``(R,)``: voxels above the threshold.
    inside
        ``(R,)``: the sum of their probabilities, so how many of them to expect to be right.
    outside
        ``(R,)``: the sum of the other voxels' probabilities, so how many to expect to be missed.
    """

    drawn: NDArray[np.float64]
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]

    @classmethod
    def empty(cls, regions: int) -> Certainty:
        """Return the sums before the first slice."""
        return cls(np.zeros(regions), np.zeros(regions), np.zeros(regions))

    def add(self, place: int, logits: Tensor, limit: float) -> None:
        """Add voxels of a region.

        Parameters
        ----------
        place
            The region's place, from 0.
        logits
            Of any shape.
        limit
            The logit of the threshold.
        """

        def sum_up(logits: Tensor) -> list[float]:
            likely = logits[logits > LEAST_LOGIT].float()
            probability = likely.sigmoid()
            drawn = likely > limit
            inside = probability[drawn].sum()
            return torch.stack([drawn.sum(), inside, probability.sum() - inside]).tolist()

        drawn, inside, outside = run_with_cpu_fallback(sum_up, logits)
        self.drawn[place] += drawn
        self.inside[place] += inside
        self.outside[place] += outside

    def describe(self, task: SegmentTask) -> dict[str, dict[str, float]]:
        """Return the sums of each region that is drawn, in mL, for the record."""
        voxel_ml = task.volume.source.voxel_ml
        sums = zip(task.card.regions, self.drawn, self.inside, self.outside, strict=True)
        return {
            region.name: {
                name: round(float(voxels) * voxel_ml, 3)
                for name, voxels in (("drawn_ml", drawn), ("right_ml", inside), ("missed_ml", outside))
            }
            for region, drawn, inside, outside in sums
            if region.name not in task.not_measurable
        }
