"""How the scans of a case lie to each other: what brought them onto one grid, and brings labels back. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid

How = Literal["same grid", "scanner coordinates", "registered"]
"""How the place of a scan was found: it has the reference's grid, by its header, or by registration."""


@dataclass(frozen=True, eq=False)
class AlignedScan:
    """How one scan of a case was brought onto the reference's grid.

    Attributes
    ----------
    grid
        The scan's own grid.
    to_reference
        ``(4, 4)`` float64, rigid: RAS mm of this scan to RAS mm of the reference; identity unless it was registered.
    how
        How its place was found.
    before, after
        Mutual information with the reference in nats, by the header and as it is used; None if it was not measured.
    coverage
        The share of the reference's head that this scan shows, 0 to 1.
    """

    grid: SourceGrid
    to_reference: NDArray[np.float64]
    how: How
    before: float | None = None
    after: float | None = None
    coverage: float = 1.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the scans of a case were brought onto one grid, and so how labels return to each scan's own grid.

    Attributes
    ----------
    reference
        The modality whose grid all scans have now.
    scans
        Each modality, the reference included.
    """

    reference: str
    scans: Mapping[str, AlignedScan]

    def find_move(self, modality: str) -> tuple[float, float]:
        """Return how far registration moved a scan: mm at the center of the reference's grid, and degrees."""
        matrix = self.scans[modality].to_reference
        grid = self.scans[self.reference].grid
        center = grid.affine @ np.array([*((size - 1) / 2 for size in grid.shape), 1.0])
        shift_mm = float(np.linalg.norm((np.linalg.inv(matrix) @ center - center)[:3]))
        cosine = (np.trace(matrix[:3, :3]) - 1) / 2
        return shift_mm, float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
