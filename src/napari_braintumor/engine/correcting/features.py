"""What a network sees in each voxel of a case, kept so that a stroke can be followed without running it again."""

# V voxel, R region, C channel; Z, Y, X on the scan's grid; z, y, x on the coarser grid of the features

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import Region, count_nested


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
    adapts: bool = True
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.places.nbytes + self.logits.nbytes + self.values.nbytes

    @property
    def nested(self) -> int:
        """How many of the regions nest; these come first."""
        return count_nested(self.regions)

    @cached_property
    def mm(self) -> NDArray[np.float32]:
        """Where the kept voxels lie: ``(V, 3)``, mm along Z, Y, X."""
        cells = np.stack(np.unravel_index(self.places, self.grid), axis=1).astype(np.float32)
        return cells * (np.array(self.step) * self.spacing).astype(np.float32)

    def find_near(self, center: NDArray[np.float32], mm: float) -> NDArray[np.bool_]:
        """Return which of the kept voxels lie within a distance of a place (mm along Z, Y, X): bool ``(V,)``."""
        sides = np.array(self.step) * self.spacing
        z, y, x = (
            ((np.arange(count) * side - at) ** 2).astype(np.float32)
            for count, side, at in zip(self.grid, sides, center, strict=True)
        )
        near_zyx = (z[:, None, None] + y[:, None] + x) < mm**2
        near: NDArray[np.bool_] = near_zyx.reshape(-1)[self.places]
        return near

    def spread(self, values_V: NDArray[np.float32], empty: float) -> NDArray[np.float32]:
        """Return values of the kept voxels as an array on the features' grid."""
        whole = np.full(self.grid, empty, np.float32)
        whole.reshape(-1)[self.places] = values_V
        return whole

    def find_indices(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return, for each axis, the scan's voxel at each voxel of the features' grid."""
        z, y, x = (
            np.clip(np.rint(start + step * np.arange(count)), 0, size - 1).astype(np.intp)
            for start, step, count, size in zip(self.start, self.step, self.grid, self.shape, strict=True)
        )
        return z, y, x


def find_box(mask_ZYX: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Return the bounding box of a mask; None if it is empty."""
    hits = [np.flatnonzero(mask_ZYX.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not hits[0].size:
        return None
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return z, y, x
