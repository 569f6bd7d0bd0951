"""How far the logits of a region move by what strokes say: a Gaussian process over what the network sees and where.

A voxel moves as far as it is like those under a stroke: likeness fades with the difference in features and with
distance.
"""

# V voxel, S sampled voxel under a stroke, C channel

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import CaseFeatures, bound_cells

MOST_CERTAIN = 4.0
"""Logits are squeezed to less than this, so that a confident error can be turned without turning all that is near."""

MARGIN = 1.0
"""Under a stroke the squeezed logit becomes at least about so large."""

LEAST_CHANGE = 0.3
"""A voxel changes sides only if its squeezed logit is then larger than this."""

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

BLOCK = 4
"""Voxels are looked at in blocks of so many along each axis."""

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
    is_moved = np.zeros(len(before), bool)

    def move_some(some: NDArray[np.intp]) -> NDArray[np.intp]:
        """Move voxels that were not moved yet, and return those of them that are then clearly on the other side."""
        some = find_candidates(features, logits_VR, features.find_mm(rows), some[~is_moved[some]])
        is_moved[some] = True
        for start in range(0, len(some), CHUNK_VOXELS):
            chunk = some[start : start + CHUNK_VOXELS]
            for region, move, alike in zip(regions, moves, compared.compare(chunk, regions), strict=True):
                after[chunk, region] += alike @ move
        flips = ((before[some] > 0) != (after[some] > 0)) & (np.abs(after[some]) > LEAST_CHANGE)
        clearly: NDArray[np.intp] = some[flips.any(1)]
        return clearly

    flipped = _spread_from(features, rows, move_some)
    for region in regions:
        move_some(_find_edge(features, before[:, region], flipped))
    return after


def _spread_from(
    features: CaseFeatures, rows: NDArray[np.intp], move: Callable[[NDArray[np.intp]], NDArray[np.intp]]
) -> NDArray[np.intp]:
    """Move the blocks of voxels around strokes, then those around what flipped, and so on; return what flipped."""
    # Only what hangs together with a stroke flips in the end, so that nothing else has to be looked at.
    blocks = [-(-size // BLOCK) for size in features.grid]
    within = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), -1).reshape(-1, 3)
    is_done = np.zeros(blocks, bool)
    front, found = rows, []
    while front.size:
        cells = features.find_cells(front)
        is_next = np.zeros(blocks, bool)
        for aside in product((-1, 1), repeat=3):
            beside = np.clip(cells + aside, 0, np.array(features.grid) - 1)
            is_next[tuple(beside.T // BLOCK)] = True
        is_next &= ~is_done
        is_done |= is_next
        inside = (np.argwhere(is_next)[:, None] * BLOCK + within).reshape(-1, 3)
        inside = inside[(inside < features.grid).all(1)]
        here = features.rows[tuple(inside.T)]
        front = move(here[here >= 0].astype(np.intp))
        found.append(front)
    return np.concatenate(found)


def _find_edge(features: CaseFeatures, before_V: Floats, flipped: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the voxels at a region's edge in the box around what flipped: the edge between voxels moves with them."""
    rows = features.rows[bound_cells(features.find_cells(flipped), features.grid, 1)]
    inside = (rows >= 0) & (before_V[rows] > 0)
    differs = np.zeros(rows.shape, bool)
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :, 1:], np.s_[:, :, :-1]),
        (np.s_[:, 1:, 1:], np.s_[:, :-1, :-1]),
        (np.s_[:, 1:, :-1], np.s_[:, :-1, 1:]),
    ):
        unlike = inside[one] != inside[other]
        differs[one] |= unlike
        differs[other] |= unlike
    # All four voxels around a place count, so that the neighbors of both sides do, too.
    return rows[differs & (rows >= 0)].astype(np.intp)


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


def find_candidates(
    features: CaseFeatures, logits_VR: Floats, mm_S3: Floats, rows: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return which of some voxels strokes may move: those near them, or not certainly outside of all regions."""
    possible = np.asarray((logits_VR[rows] > UNLIKELY).any(1))
    unlikely = np.flatnonzero(~possible)
    low, high = mm_S3.min(0) - NEAR_MM, mm_S3.max(0) + NEAR_MM
    where = features.find_mm(rows[unlikely])
    possible[unlikely] = ((where >= low) & (where <= high)).all(1)
    return rows[possible]


def find_flipped(before_V: Floats, after_V: Floats) -> NDArray[np.intp]:
    """Return where the decision of a region differs."""
    return np.flatnonzero((before_V > 0) != (after_V > 0))


def square_distances(one: Floats, other: Floats) -> Floats:
    """Return the square of the distance of each row of an array from each row of another."""
    squares: Floats = one @ other.T
    squares *= -2
    squares += np.einsum("ij,ij->i", one, one)[:, None]
    squares += np.einsum("ij,ij->i", other, other)
    return np.maximum(squares, 0, out=squares)
