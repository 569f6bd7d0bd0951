"""How far the logits of a region move by what strokes say: a Gaussian process over what the network sees and where.

Two terms say how much a voxel is like one under a stroke. The first is that of a last layer whose weights are fitted
again, held where they are by the voxels of the case (the Laplace approximation): it carries a stroke through the whole
tumor. The second fades with the difference in features and with distance, and makes the stroke hold near it.
"""

# V voxel, S sampled voxel under a stroke, C channel

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import CaseFeatures

MOST_CERTAIN = 4.0
"""Logits are squeezed to less than this, so that a confident error can be turned without turning all that is near."""

MARGIN = 1.0
"""Under a stroke the squeezed logit becomes at least about so large."""

SAMPLES = 6
"""So many voxels stand for a stroke, however long it is."""

HEAD_SHARE = 0.3
"""Weight of the fitted last layer against the local term."""

HEAD_REACH_MM = 60.0
"""The fitted layer's part fades over this distance, so that the far end of the brain stays."""

LIKENESS = 1.0
"""How different features may be, in units of the case's own spread, until a stroke hardly counts."""

LEAST_REACH_MM, MOST_REACH_MM = 8.0, 30.0
"""The local term fades over a multiple of the stroke's length, within these limits: a short stroke means little."""

REACH_OF_LENGTH = 3.0

NOISE = 0.1
PRIOR = 0.02
PULLING_VOXELS = 6000
LEAST_PULL = 0.02

UNLIKELY = -8.0
NEAR_MM = 40.0
"""Voxels that are less likely than `UNLIKELY` (a logit) and farther from any stroke than this are not looked at."""

CHUNK_VOXELS = 16384

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sampled:
    """The voxels that stand for strokes.

    Attributes
    ----------
    rows
        ``(S,)``, which of the kept voxels of the case.
    says
        ``(S, R)``: 1 inside a region, -1 outside, 0 unknown.
    reach_mm
        ``(S,)``, how far the local term of its stroke reaches.
    """

    rows: NDArray[np.intp]
    says: NDArray[np.int8]
    reach_mm: Floats


def squeeze(logits: Floats) -> Floats:
    """Return logits squeezed into less than `MOST_CERTAIN`; their signs stay."""
    return (logits / (1 + np.abs(logits) / MOST_CERTAIN)).astype(np.float32)


def choose_samples(
    features: CaseFeatures, rows: NDArray[np.intp], says: NDArray[np.int8], stroke_of: NDArray[np.intp]
) -> Sampled:
    """Choose voxels that stand for each stroke, evenly spaced.

    Parameters
    ----------
    features
        Of the case.
    rows, says, stroke_of
        The voxels under strokes, what is said of each, and the number of its stroke.

    Returns
    -------
    Sampled
        At most `SAMPLES` of each stroke.
    """
    chosen, reach = [], []
    for number in np.unique(stroke_of):
        under = np.flatnonzero(stroke_of == number)
        picked = under[np.unique(np.linspace(0, len(under) - 1, SAMPLES).round().astype(np.intp))]
        where = features.find_mm(rows[under])
        length_mm = float(np.linalg.norm(where.max(0) - where.min(0)))
        chosen.append(picked)
        reach.append(np.full(len(picked), np.clip(REACH_OF_LENGTH * length_mm, LEAST_REACH_MM, MOST_REACH_MM)))
    index = np.concatenate(chosen)
    return Sampled(rows[index], says[index], np.concatenate(reach).astype(np.float32))


class Likeness:
    """How much voxels of a case are like those under strokes.

    Parameters
    ----------
    features
        Of the case.
    squeezed_VR
        The squeezed logits before the strokes.
    sampled
        The voxels that stand for the strokes.
    """

    def __init__(self, features: CaseFeatures, squeezed_VR: Floats, sampled: Sampled) -> None:
        self.features, self.sampled = features, sampled
        every = -(-len(features.places) // PULLING_VOXELS)
        self.pulling_VC = features.values[every // 2 :: every].astype(np.float32)
        self.pulling_VR = squeezed_VR[every // 2 :: every]
        self.spread = np.float32(np.sqrt(max(1e-6, float(self.pulling_VC.var(0).sum()))))
        self.seen_SC = features.values[sampled.rows].astype(np.float32) / self.spread
        self.mm_S3 = features.find_mm(sampled.rows)
        self.head_RCS = [self._fit_head(column) for column in self.pulling_VR.T] if features.adapts else []

    def _fit_head(self, squeezed_V: Floats) -> Floats:
        """Return what the samples are to a last layer that is held by the voxels of the case: ``(C + 1, S)``."""
        scale = np.float32(np.sqrt(self.pulling_VC.shape[1]))
        held = _with_one(self.pulling_VC / self.spread * scale)
        likely = 1 / (1 + np.exp(-squeezed_V))
        weights = np.maximum(4 * likely * (1 - likely), LEAST_PULL).astype(np.float32)
        stiffness = (held.T * weights) @ held / weights.sum() + PRIOR * np.eye(held.shape[1], dtype=np.float32)
        seen = _with_one(self.seen_SC * scale)
        solved: Floats = np.linalg.solve(stiffness, seen.T) / held.shape[1]
        solved[:-1] *= scale
        return solved

    def compare(self, rows: NDArray[np.intp], regions: list[int]) -> list[Floats]:
        """Return the likeness ``(len(rows), S)`` of voxels to the samples, for each of some regions."""
        seen_VC = self.features.values[rows].astype(np.float32) / self.spread
        where = self.features.find_mm(rows)
        apart2 = _square_distances(where, self.mm_S3)
        local = _square_distances(seen_VC, self.seen_SC) / np.float32(-2 * LIKENESS**2)
        local -= apart2 / (2 * self.sampled.reach_mm**2)
        np.exp(local, out=local)
        if not self.features.adapts:
            return [local for _ in regions]
        fading = np.exp(apart2 / np.float32(-2 * HEAD_REACH_MM**2)) * np.float32(HEAD_SHARE)
        found = []
        for region in regions:
            head = self.head_RCS[region]
            found.append(local + fading * (seen_VC @ head[:-1] + head[-1]))
        return found


def fit_change(
    features: CaseFeatures,
    logits_VR: Floats,
    rows: NDArray[np.intp],
    says: NDArray[np.int8],
    stroke_of: NDArray[np.intp],
) -> Floats:
    """Return the squeezed logits ``(V, R)`` after strokes.

    Parameters
    ----------
    features
        Of the case.
    logits_VR
        The logits before, which agree with the labels before.
    rows, says, stroke_of
        The voxels under strokes, as kept in the features; what is said of each region, 1, -1 or 0; and by which stroke.

    Returns
    -------
    array
        float32 ``(V, R)``.

    References
    ----------
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2.2 and 3.4. Where strokes contradict
    each other, or say what is known, the least-squares fit is between them.
    """
    before = squeeze(logits_VR)
    after = before.copy()
    if not len(rows):
        return after
    sampled = choose_samples(features, rows, says, stroke_of)
    regions = [region for region in range(before.shape[1]) if sampled.says[:, region].any()]
    likeness = Likeness(features, before, sampled)
    among = likeness.compare(sampled.rows, regions)
    moves = [
        _solve(each, sampled.says[:, region], before[sampled.rows, region])
        for each, region in zip(among, regions, strict=True)
    ]
    looked_at = find_candidates(features, logits_VR, likeness.mm_S3)
    for start in range(0, len(looked_at), CHUNK_VOXELS):
        chunk = looked_at[start : start + CHUNK_VOXELS]
        for region, move, alike in zip(regions, moves, likeness.compare(chunk, regions), strict=True):
            after[chunk, region] += alike @ move
    return after


def _solve(alike_SS: Floats, says: NDArray[np.int8], before: Floats) -> Floats:
    """Return how strongly each sample moves what is like it; samples that say nothing of the region do not."""
    told = says != 0
    sign = says[told].astype(np.float32)
    wanted = np.maximum(MARGIN - sign * before[told], 0) * sign
    alike = alike_SS[np.ix_(told, told)].astype(np.float64)
    moves = np.zeros(len(says), np.float32)
    moves[told] = np.linalg.solve(alike.T @ alike + NOISE * np.eye(len(alike)), alike.T @ wanted)
    return moves


def find_candidates(features: CaseFeatures, logits_VR: Floats, mm_S3: Floats) -> NDArray[np.intp]:
    """Return the voxels that strokes may move: near them, or not certainly outside of all regions."""
    possible = (logits_VR > UNLIKELY).any(1)
    low, high = mm_S3.min(0) - NEAR_MM, mm_S3.max(0) + NEAR_MM
    where = features.mm
    possible |= ((where >= low) & (where <= high)).all(1)
    return np.flatnonzero(possible)


def _with_one(values: Floats) -> Floats:
    return np.concatenate([values, np.ones((len(values), 1), np.float32)], axis=1)


def _square_distances(one: Floats, other: Floats) -> Floats:
    squares = (one * one).sum(1)[:, None] + (other * other).sum(1) - 2 * one @ other.T
    positive: Floats = np.maximum(squares, 0)
    return positive
