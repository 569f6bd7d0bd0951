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

from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.spreading import Floats, spread

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
        near[features.find_near(features.find_mm(rows[under]).mean(0), HOLDING_MM)] = True
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
        self.mm_S3 = features.find_mm(sampled.rows)
        self._places_S = self._place(sampled.rows)

    def _place(self, rows: NDArray[np.intp]) -> Floats:
        """Return voxels as points whose square distance is how unlike they are: ``(len(rows), C + 3)``."""
        channels = self.features.values.shape[1]
        places = np.empty((len(rows), channels + 3), np.float32)
        places[:, :channels] = self.features.values[rows]
        places[:, :channels] *= 1 / (np.sqrt(2) * LIKENESS * self.spread)
        places[:, channels:] = self.features.find_mm(rows)
        places[:, channels:] *= 1 / (np.sqrt(2) * REACH_MM)
        return places

    def compare(self, rows: NDArray[np.intp], regions: list[int]) -> list[Floats]:
        """Return the likeness ``(len(rows), S)`` of voxels to the samples, for each of some regions."""
        alike = square_distances(self._place(rows), self._places_S)
        np.negative(alike, out=alike)
        np.exp(alike, out=alike)
        return [alike for _ in regions]


MakeLikeness = Callable[[CaseFeatures, Floats, Sampled], Likeness]


class GaussianProcess:
    """How far strokes move the squeezed logits of any voxel.

    Parameters
    ----------
    features
        Of the case.
    before_VR
        The squeezed logits before the strokes.
    evidence
        What strokes say.
    likeness
        How alike voxels are; other ways are for comparison.

    Attributes
    ----------
    regions
        The regions of which something is said.
    sampled
        The voxels that stand for the strokes.
    """

    def __init__(self, features: CaseFeatures, before_VR: Floats, evidence: Evidence, likeness: MakeLikeness) -> None:
        self.features, self.before_VR, self.evidence = features, before_VR, evidence
        self.sampled = choose_samples(features, evidence.rows, evidence.says, evidence.stroke)
        self.regions = [region for region in range(before_VR.shape[1]) if self.sampled.says[:, region].any()]
        self.likeness = likeness(features, before_VR, self.sampled)
        self._moves = [
            _solve(alike, self.sampled, region, before_VR[self.sampled.rows, region])
            for alike, region in zip(self.likeness.compare(self.sampled.rows, self.regions), self.regions, strict=True)
        ]

    def move(self, rows: NDArray[np.intp]) -> Floats:
        """Return by how much voxels move, for each of the regions: ``(len(rows), regions)``."""
        compared = self.likeness.compare(rows, self.regions)
        return np.stack([alike @ move for alike, move in zip(compared, self._moves, strict=True)], axis=1)


Refine = Callable[[NDArray[np.intp], Floats], Floats]
MakeRefinement = Callable[[GaussianProcess], Refine | None]


def fit_change(
    features: CaseFeatures,
    logits_VR: Floats,
    evidence: Evidence,
    likeness: MakeLikeness = Likeness,
    refine: MakeRefinement | None = None,
) -> Floats:
    """Return the squeezed logits ``(V, R)`` after strokes.

    Parameters
    ----------
    features
        Of the case.
    logits_VR
        The logits before, which agree with the labels before.
    evidence
        What strokes say.
    likeness
        How alike voxels are; other ways are for comparison.
    refine
        Makes a function, from voxels and by how much they move to by how much they move instead; None if it has no
        better answer.

    Returns
    -------
    array
        float32 ``(V, R)``.

    References
    ----------
    Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapter 2.2.
    """
    before = squeeze(logits_VR)
    if not len(evidence.rows):
        return before
    process = GaussianProcess(features, before, evidence, likeness)
    refined = refine(process) if refine is not None else None

    def move(rows: NDArray[np.intp]) -> Floats:
        moves = process.move(rows)
        return moves if refined is None else refined(rows, moves)

    return spread(features, logits_VR, before, evidence.rows, process.regions, move)


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


def square_distances(one: Floats, other: Floats) -> Floats:
    """Return the square of the distance of each row of an array from each row of another."""
    squares: Floats = one @ other.T
    squares *= -2
    squares += np.einsum("ij,ij->i", one, one)[:, None]
    squares += np.einsum("ij,ij->i", other, other)
    return np.maximum(squares, 0, out=squares)
