"""What a network sees in each voxel of a case, kept so that a stroke can be followed without running it again."""

# V voxel, R region, C channel; Z, Y, X on the scan's grid; z, y, x on the coarser grid of the features

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import Region, count_nested

Box = tuple[slice, slice, slice]

MEAN_MM = 6.0
"""Over this window the scans are averaged."""

NOWHERE = -12.0
"""The logit where none is kept."""


@dataclass(frozen=True, eq=False)
class CaseFeatures:
    """Features of the voxels of a case, on a grid of about 2 mm in-plane; along Z it is the scan's own.

    Attributes
    ----------
    regions
        The model's regions, nested ones first, outermost first.
    shape, spacing
        The scan's grid: voxels, and their size in mm, along Z, Y, X.
    grid
        Voxels of the features' grid along z, y, x.
    start, step
        Voxel n of the features' grid lies at voxel ``start + n * step`` of the scan, for each axis.
    places
        int64 ``(V,)``, ascending: where in the flat features' grid the V voxels of the head lie. The rest is not kept.
    logits
        float32 ``(V, R)``: the network's logits, nested, less that of the threshold: positive is inside.
    values
        float16 ``(V, C)``: what decides, each channel with mean 0 and about deviation 1.
    images
        float16 ``(V, M)``: the scans as the network gets them, one for each of `MODALITIES`, zero if it is missing.
        Empty if they were not kept.
    adapts
        True if `values` are those of the network's last layers; False if the network does not show them, so that only
        its answer and the scans are known.
    notes
        What the user should know, one sentence each.
    """

    regions: tuple[Region, ...]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    grid: tuple[int, int, int]
    start: tuple[float, float, float]
    step: tuple[float, float, float]
    places: NDArray[np.int64]
    logits: NDArray[np.float32]
    values: NDArray[np.float16]
    images: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))
    adapts: bool = True
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.places.nbytes + self.logits.nbytes + self.values.nbytes + self.images.nbytes

    @property
    def nested(self) -> int:
        """How many of the regions nest; these come first."""
        return count_nested(self.regions)

    @cached_property
    def mean_images(self) -> NDArray[np.float16]:
        """The scans, averaged over a window of `MEAN_MM` around each kept voxel: ``(V, M)``."""
        means = np.empty_like(self.images)
        for column, own in enumerate(self.images.T):
            if own.any():
                averaged = average(self.spread(own.astype(np.float32), 0), (MEAN_MM,) * 3, self.sides_mm)
                means[:, column] = averaged.reshape(-1)[self.places]
            else:
                means[:, column] = 0
        return means

    @property
    def sides_mm(self) -> NDArray[np.float64]:
        """How far apart voxels of the features' grid are, along z, y, x."""
        return np.array(self.step) * self.spacing

    @cached_property
    def rows(self) -> NDArray[np.int32]:
        """Which of the kept voxels each voxel of the features' grid is, -1 where none is kept."""
        whole = np.full(self.grid, -1, np.int32)
        whole.reshape(-1)[self.places] = np.arange(len(self.places), dtype=np.int32)
        return whole

    def find_cells(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where some of the kept voxels lie on the features' grid: ``(len(rows), 3)``."""
        return np.stack(np.unravel_index(self.places[rows], self.grid), axis=1)

    def find_mm(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return where some of the kept voxels lie: ``(len(rows), 3)``, mm along Z, Y, X."""
        return self.find_cells(rows).astype(np.float32) * self.sides_mm.astype(np.float32)

    def find_near(self, center: NDArray[np.float32], mm: float) -> NDArray[np.intp]:
        """Return which of the kept voxels lie within a distance of a place (mm along Z, Y, X), in ascending order."""
        sides = self.sides_mm
        box = tuple(
            slice(max(0, int((at - mm) / side)), max(0, int((at + mm) / side) + 2))
            for at, side in zip(center, sides, strict=True)
        )
        z, y, x = (
            ((np.arange(count)[along] * side - at) ** 2).astype(np.float32)
            for count, side, at, along in zip(self.grid, sides, center, box, strict=True)
        )
        near = self.rows[box][(z[:, None, None] + y[:, None] + x) < mm**2]
        rows: NDArray[np.intp] = near[near >= 0].astype(np.intp)
        return rows

    def spread(self, values_V: NDArray[np.float32], empty: float) -> NDArray[np.float32]:
        """Return values of the kept voxels as an array on the features' grid."""
        whole = np.full(self.grid, empty, np.float32)
        whole.reshape(-1)[self.places] = values_V
        return whole

    def take(self, values_VR: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        """Return values of the kept voxels in a box of the features' grid: ``(R, z, y, x)``."""
        rows = self.rows[box]
        there = rows >= 0
        taken = np.full((values_VR.shape[1], *rows.shape), NOWHERE, np.float32)
        taken[:, there] = values_VR[rows[there]].T
        return taken

    def find_indices(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return, for each axis, the scan's voxel at each voxel of the features' grid."""
        z, y, x = (
            np.clip(np.rint(start + step * np.arange(count)), 0, size - 1).astype(np.intp)
            for start, step, count, size in zip(self.start, self.step, self.grid, self.shape, strict=True)
        )
        return z, y, x


def average(
    values_zyx: NDArray[np.float32], window_mm: tuple[float, float, float], sides_mm: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the mean of a window around each voxel; its sides along z, y, x are rounded to odd numbers of voxels."""
    from scipy import ndimage

    sizes = [2 * round(mm / side / 2) + 1 for mm, side in zip(window_mm, sides_mm, strict=True)]
    averaged: NDArray[np.float32] = ndimage.uniform_filter(values_zyx, sizes, mode="nearest")
    return averaged


def bound_cells(cells: NDArray[np.intp], sizes: tuple[int, int, int], margin: int) -> Box:
    """Return the bounding box of voxels ``(n, 3)`` of a grid, with a margin that stays on it; empty without any."""
    if not len(cells):
        return slice(0, 0), slice(0, 0), slice(0, 0)
    low, high = cells.min(0) - margin, cells.max(0) + margin + 1
    z, y, x = (slice(max(0, int(a)), min(size, int(b))) for a, b, size in zip(low, high, sizes, strict=True))
    return z, y, x


def find_box(mask_ZYX: NDArray[np.bool_]) -> Box | None:
    """Return the bounding box of a mask; None if it is empty."""
    hits = [np.flatnonzero(mask_ZYX.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not hits[0].size:
        return None
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return z, y, x
