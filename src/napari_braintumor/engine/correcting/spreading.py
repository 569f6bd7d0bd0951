"""Where strokes change decisions: from the voxels under them on, as long as what flips hangs together."""

# V voxel, R region

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.correcting.features import CaseFeatures, bound_cells

LEAST_CHANGE = 0.1
"""A voxel changes sides only if its squeezed logit is then larger than this."""

UNLIKELY = -8.0
NEAR_MM = 40.0
"""Voxels that are less likely than `UNLIKELY` (a logit) and farther from any stroke than this are not looked at."""

CHUNK_VOXELS = 16384

BLOCK = 4
"""Voxels are looked at in blocks of so many along each axis."""

Floats = NDArray[np.float32]


def spread(
    features: CaseFeatures,
    logits_VR: Floats,
    before_VR: Floats,
    rows: NDArray[np.intp],
    regions: list[int],
    move: Callable[[NDArray[np.intp]], Floats],
) -> Floats:
    """Return logits in which all is moved that may flip or lies between what flips.

    Parameters
    ----------
    features
        Of the case.
    logits_VR, before_VR
        The logits before, and squeezed.
    rows
        The voxels under strokes.
    regions
        Those that move.
    move
        From voxels to by how much they move, for each of the regions.

    Returns
    -------
    array
        float32 ``(V, R)``, squeezed.
    """
    after = before_VR.copy()
    is_moved = np.zeros(len(after), bool)
    strokes_mm = features.find_mm(rows)

    def move_some(some: NDArray[np.intp]) -> NDArray[np.intp]:
        """Move voxels that were not moved yet, and return those of them that are then clearly on the other side."""
        some = find_candidates(features, logits_VR, strokes_mm, some[~is_moved[some]])
        is_moved[some] = True
        for start in range(0, len(some), CHUNK_VOXELS):
            chunk = some[start : start + CHUNK_VOXELS]
            after[chunk[:, None], regions] += move(chunk)
        flips = ((before_VR[some] > 0) != (after[some] > 0)) & (np.abs(after[some]) > LEAST_CHANGE)
        clearly: NDArray[np.intp] = some[flips.any(1)]
        return clearly

    flipped = _spread_from(features, rows, move_some)
    for region in regions:
        move_some(_find_edge(features, before_VR[:, region], flipped))
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
