"""How far the logits of a region move by what strokes say: a Gaussian process over what the network sees and where.

A voxel moves as far as it is like those under a stroke: likeness fades with the difference in features and with
distance.
"""

# V voxel, S sampled voxel under a stroke, C channel

from __future__ import annotations

from collections.abc import Callable
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

REACH_MM = 30.0
"""Likeness fades over this distance."""

LIKENESS = 1.0
"""It also fades with the difference in features, over this many times the case's own spread."""

NOISE = 0.1
"""Variance of what is said under a stroke: a pen is not exact."""

HOLDING_VOXELS = 80
HOLDING_MM = 40.0
"""So many voxels within this distance of the strokes hold the answer where it is."""

HOLDING_NOISE = (2.0, 5.0)
"""With this variance: for the outermost region, whose outline is rarely far off, and for those inside it, of which
networks miss whole parts."""

SPREAD_VOXELS = 6000
"""The case's own spread is measured over so many voxels."""

UNLIKELY = -8.0
NEAR_MM = 40.0
"""Voxels that are less likely than `UNLIKELY` (a logit) and farther from any stroke than this are not looked at."""

CHUNK_VOXELS = 16384

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Voxels that stand for strokes, and voxels that hold the answer.

    Attributes
    ----------
    rows
        ``(S,)``, which of the kept voxels of the case.
    says
        ``(S, R)``: 1 inside a region, -1 outside, 0 unknown.
    holds
        bool ``(S,)``, which of them hold the answer; these say nothing.
    """

    rows: NDArray[np.intp]
    says: NDArray[np.int8]
    holds: NDArray[np.bool_]


def squeeze(logits: Floats) -> Floats:
    """Return logits squeezed into less than `MOST_CERTAIN`; their signs stay."""
    return (logits / (1 + np.abs(logits) / MOST_CERTAIN)).astype(np.float32)


def choose_samples(
    features: CaseFeatures, rows: NDArray[np.intp], says: NDArray[np.int8], stroke_of: NDArray[np.intp]
) -> Sampled:
    """Choose voxels that stand for each stroke, evenly spaced, and voxels around that hold the answer.

    Parameters
    ----------
    features
        Of the case.
    rows, says, stroke_of
        The voxels under strokes, what is said of each, and the number of its stroke.

    Returns
    -------
    Sampled
        `SAMPLES` of each stroke or fewer, then `HOLDING_VOXELS` or fewer.
    """
    chosen = []
    near = np.zeros(len(features.places), bool)
    for number in np.unique(stroke_of):
        under = np.flatnonzero(stroke_of == number)
        chosen.append(under[np.unique(np.linspace(0, len(under) - 1, SAMPLES).round().astype(np.intp))])
        near |= features.find_near(features.mm[rows[under]].mean(0), HOLDING_MM)
    near[rows] = False
    around = np.flatnonzero(near)
    holding = around[np.random.default_rng(0).permutation(len(around))[:HOLDING_VOXELS]]
    index = np.concatenate(chosen)
    return Sampled(
        rows=np.concatenate([rows[index], holding]),
        says=np.concatenate([says[index], np.zeros((len(holding), says.shape[1]), np.int8)]),
        holds=np.arange(len(index) + len(holding)) >= len(index),
    )


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
        self.features = features
        self.squeezed_VR = squeezed_VR
        every = -(-len(features.places) // SPREAD_VOXELS)
        self.some = slice(every // 2, None, every)
        varies = float(features.values[self.some].astype(np.float32).var(0).sum())
        self.spread = np.float32(np.sqrt(max(1e-6, varies)))
        self.seen_SC = features.values[sampled.rows].astype(np.float32) / self.spread
        self.mm_S3 = features.mm[sampled.rows]
        self._places_S = self._place(sampled.rows)

    def _place(self, rows: NDArray[np.intp]) -> Floats:
        """Return voxels as points whose square distance is how unlike they are: ``(len(rows), C + 3)``."""
        channels = self.features.values.shape[1]
        places = np.empty((len(rows), channels + 3), np.float32)
        places[:, :channels] = self.features.values[rows]
        places[:, :channels] *= 1 / (np.sqrt(2) * LIKENESS * self.spread)
        places[:, channels:] = self.features.mm[rows]
        places[:, channels:] *= 1 / (np.sqrt(2) * REACH_MM)
        return places

    def compare(self, rows: NDArray[np.intp], regions: list[int]) -> list[Floats]:
        """Return the likeness ``(len(rows), S)`` of voxels to the samples, for each of some regions."""
        alike = square_distances(self._place(rows), self._places_S)
        np.negative(alike, out=alike)
        np.exp(alike, out=alike)
        return [alike for _ in regions]


def fit_change(
    features: CaseFeatures,
    logits_VR: Floats,
    rows: NDArray[np.intp],
    says: NDArray[np.int8],
    stroke_of: NDArray[np.intp],
    likeness: Callable[[CaseFeatures, Floats, Sampled], Likeness] = Likeness,
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
    likeness
        How alike voxels are; other ways are for comparison.

    Returns
    -------
    array
        float32 ``(V, R)``.

    References
    ----------
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapter 2.2.
    """
    before = squeeze(logits_VR)
    after = before.copy()
    if not len(rows):
        return after
    sampled = choose_samples(features, rows, says, stroke_of)
    regions = [region for region in range(before.shape[1]) if sampled.says[:, region].any()]
    compared = likeness(features, before, sampled)
    moves = [
        _solve(alike, sampled, region, before[sampled.rows, region])
        for alike, region in zip(compared.compare(sampled.rows, regions), regions, strict=True)
    ]
    looked_at = find_candidates(features, logits_VR, features.mm[rows])
    for start in range(0, len(looked_at), CHUNK_VOXELS):
        chunk = looked_at[start : start + CHUNK_VOXELS]
        for region, move, alike in zip(regions, moves, compared.compare(chunk, regions), strict=True):
            after[chunk, region] += alike @ move
    return after


def _solve(alike_SS: Floats, sampled: Sampled, region: int, before_S: Floats) -> Floats:
    """Return how strongly each sample moves what is like it; one that says nothing of the region does not."""
    counts = (sampled.says[:, region] != 0) | sampled.holds
    sign = sampled.says[counts, region].astype(np.float64)
    wanted = np.maximum(MARGIN - sign * before_S[counts], 0) * sign
    alike = alike_SS[np.ix_(counts, counts)].astype(np.float64)
    noise = np.where(sampled.holds[counts], HOLDING_NOISE[min(region, 1)], NOISE)
    moves = np.zeros(len(counts), np.float32)
    moves[counts] = np.linalg.solve(alike + np.diag(noise), wanted)
    return moves


def find_candidates(features: CaseFeatures, logits_VR: Floats, mm_S3: Floats) -> NDArray[np.intp]:
    """Return the voxels that strokes may move: near them, or not certainly outside of all regions."""
    possible = (logits_VR > UNLIKELY).any(1)
    low, high = mm_S3.min(0) - NEAR_MM, mm_S3.max(0) + NEAR_MM
    where = features.mm
    possible |= ((where >= low) & (where <= high)).all(1)
    return np.flatnonzero(possible)


def square_distances(one: Floats, other: Floats) -> Floats:
    """Return the square of the distance of each row of an array from each row of another."""
    squares: Floats = one @ other.T
    squares *= -2
    squares += np.einsum("ij,ij->i", one, one)[:, None]
    squares += np.einsum("ij,ij->i", other, other)
    return np.maximum(squares, 0, out=squares)
