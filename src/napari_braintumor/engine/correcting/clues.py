"""What a small network is given of each voxel near strokes, to say how far they reach there."""

# V voxel, S voxel that stands for a stroke, M modality, C clue; z, y, x in a box on the grid of the features

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import average
from napari_braintumor.engine.correcting.fitting import REACH_MM, GaussianProcess, square_distances
from napari_braintumor.engine.correcting.spreading import Floats

AROUND_MM = 45.0
"""Means of the neighborhood are measured within this distance of the strokes; beyond, the nearest one counts."""

WINDOWS_MM = ((6.0, 6.0), (0.0, 14.0), (10.0, 30.0))
"""Sides of the neighborhoods, along Z and in-plane, over which the logit is averaged."""

MOST_Z = 4.0
"""Intensities, and differences of them, are limited to so many standard deviations."""


class Clues:
    """What is known of voxels of a case in which strokes were drawn.

    Parameters
    ----------
    process
        The strokes, and how far they move logits by likeness and nearness.
    """

    def __init__(self, process: GaussianProcess) -> None:
        features, evidence, sampled = process.features, process.evidence, process.sampled
        self._process = process
        said = ~sampled.holds
        self._rows_S, self._says_SR = sampled.rows[said], sampled.says[said]
        self._mm_S3 = process.likeness.mm_S3[said]
        self._seen_SC = process.likeness.seen_SC[said]
        number_of = dict(zip(evidence.rows.tolist(), evidence.stroke.tolist(), strict=True))
        self._stroke_S = np.array([number_of[row] for row in self._rows_S.tolist()])
        counts = np.bincount(evidence.stroke)
        self._size_S = np.log1p(counts[self._stroke_S]).astype(np.float32) / 3
        self._strokes = len(np.unique(evidence.stroke))
        self._sides_mm = features.sides_mm
        self._present = (features.images[process.likeness.some] != 0).any(0).astype(np.float32)
        cells = features.find_cells(evidence.rows)
        reach = np.ceil(AROUND_MM / self._sides_mm).astype(np.intp)
        self._low = np.maximum(cells.min(0) - reach, 0)
        self._high = np.minimum(cells.max(0) + reach + 1, features.grid)
        self._box_rows = features.rows[tuple(slice(a, b) for a, b in zip(self._low, self._high, strict=True))]
        self._kept = self._box_rows >= 0
        self._scans_SM = features.mean_images[self._rows_S].astype(np.float32)
        self._logits_zyx: dict[int, list[Floats]] = {}

    def _average_logits(self, region: int) -> list[Floats]:
        whole = np.full(self._kept.shape, -1, np.float32)
        whole[self._kept] = self._process.before_VR[self._box_rows[self._kept], region] / 4
        return [average(whole, (across, within, within), self._sides_mm) for across, within in WINDOWS_MM]

    def _look_up(self, maps_zyx: list[Floats], rows: NDArray[np.intp]) -> Floats:
        """Return maps of the box at voxels, ``(len(rows), len(maps))``; beyond the box what is nearest to them."""
        cells = np.clip(self._process.features.find_cells(rows), self._low, self._high - 1) - self._low
        return np.stack([each[tuple(cells.T)] for each in maps_zyx], axis=1)

    def describe(self, rows: NDArray[np.intp], region: int, moved_V: Floats) -> Floats:
        """Return the clues of voxels.

        Parameters
        ----------
        rows
            Which of the kept voxels.
        region
            The region in question.
        moved_V
            ``(len(rows),)``, by how much its squeezed logit moves by likeness and nearness.

        Returns
        -------
        array
            float32 ``(len(rows), C)``.
        """
        features, before = self._process.features, self._process.before_VR[rows]
        seen_VC = features.values[rows].astype(np.float32) / self._process.likeness.spread
        mm_V3 = features.find_mm(rows)
        apart_VS = np.sqrt(square_distances(mm_V3, self._mm_S3))
        unlike_VS = square_distances(seen_VC, self._seen_SC)
        scans_VM = features.mean_images[rows].astype(np.float32)
        own = features.images[rows].astype(np.float32)
        one = np.ones(len(rows), np.float32)
        outer = before[:, region - 1] / 4 if region else one
        inner = before[:, region + 1] / 4 if region + 1 < features.nested else -one
        parts = [before[:, region] / 4, moved_V / 4, (before[:, region] + moved_V) / 4, outer, inner]
        if region not in self._logits_zyx:
            self._logits_zyx[region] = self._average_logits(region)
        parts += list(self._look_up(self._logits_zyx[region], rows).T)
        for sign in (1, -1):
            that = np.flatnonzero(self._says_SR[:, region] == sign)
            if that.size:
                parts += self._compare(that, region, mm_V3, apart_VS[:, that], unlike_VS[:, that], scans_VM)
            else:
                parts += [0 * one] * (10 + len(self._present) + 1)
        last = np.flatnonzero(self._stroke_S == self._stroke_S.max())
        said = self._says_SR[last[0], region]
        parts += [said * np.exp(-apart_VS[:, last].min(1) / 20), said * np.exp(-unlike_VS[:, last].min(1) / 2)]
        parts += [*np.clip(own, -MOST_Z, MOST_Z).T / 2, *np.clip(scans_VM, -MOST_Z, MOST_Z).T / 2]
        parts += [each * one for each in (np.log(self._strokes) / 2, self._sides_mm[0] / 5, *self._present)]
        described: Floats = np.stack(parts, axis=1).astype(np.float32)
        return described

    def _compare(
        self,
        that: NDArray[np.intp],
        region: int,
        mm_V3: Floats,
        apart_VT: Floats,
        unlike_VT: Floats,
        scans_VM: Floats,
    ) -> list[Floats]:
        """Return how voxels compare with those under strokes that say the same of a region."""
        rows = np.arange(len(mm_V3))
        nearest = apart_VT.argmin(1)
        of = that[nearest]
        apart = apart_VT[rows, nearest]
        across = np.abs(mm_V3[:, 0] - self._mm_S3[of, 0])
        within = np.sqrt(np.maximum(apart**2 - across**2, 0))
        alike_VT = np.exp(-unlike_VT / 2)
        near_VT = alike_VT * np.exp(apart_VT**2 / (-2 * REACH_MM**2))
        differs_VM = np.clip(scans_VM - self._scans_SM[of], -MOST_Z, MOST_Z) * self._present
        differs = np.sqrt((differs_VM**2).sum(1) / max(1.0, float(self._present.sum())))
        return [
            alike_VT.max(1),
            near_VT.max(1),
            near_VT.sum(1) / 10,
            alike_VT[rows, nearest],
            np.exp(-apart / 10),
            np.exp(-apart / 40),
            np.exp(-across / 5),
            np.exp(-within / 8),
            self._process.before_VR[self._rows_S[of], region] / 4,
            self._size_S[of],
            *differs_VM.T / 2,
            differs / 2,
        ]
