"""What is measured of a region and of each of its lesions.

To add a measurement, write a function and add a row to `MEASUREMENTS`. The command line, the CSV files, the report and
the docks follow the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.diameters import (
    AxialDiameters,
    measure_axial_diameters,
    measure_longest_diameter,
)
from napari_braintumor.engine.measuring.lesions import find_box, number_lesions
from napari_braintumor.engine.measuring.sides import Midline, center_line

Mask = NDArray[np.bool_]
Value = float | int | str
"""What a measurement gives."""

MOST_LESIONS = 50
"""The most lesions of a region that are measured one by one; all are counted."""

_MARGIN = 3


@dataclass(frozen=True, eq=False)
class Extent:
    """The voxels of a region or a lesion, cut out of the image.

    Attributes
    ----------
    mask
        bool ``(z, y, x)``, not empty.
    corner
        Index of its first voxel in the image.
    grid
        The grid of the image.
    midline
        The plane between left and right.
    lesions
        How many lesions it consists of.
    """

    mask: Mask
    corner: tuple[int, int, int]
    grid: SourceGrid
    midline: Midline
    lesions: int = 1

    @property
    def volume_ml(self) -> float:
        """Its volume in mL."""
        return np.count_nonzero(self.mask) * self.grid.voxel_ml

    @cached_property
    def voxels(self) -> NDArray[np.intp]:
        """The index of each of its voxels in the image, ``(N, 3)``."""
        return np.argwhere(self.mask) + self.corner

    @cached_property
    def axial(self) -> AxialDiameters:
        """Its diameters in a slice, by index in the image."""
        found = measure_axial_diameters(self.mask, self.grid)
        assert found is not None
        return AxialDiameters(
            found.longest_mm,
            found.across_mm,
            found.z + self.corner[0],
            found.longest_ends + self.corner,
            found.across_ends + self.corner,
        )

    @cached_property
    def surface_mm2(self) -> float:
        """The area of its surface."""
        return measure_surface(self.mask, self.grid)

    @property
    def sphericity(self) -> float:
        """1 for a ball, less for anything else."""
        ball_mm2 = np.pi ** (1 / 3) * (6000 * self.volume_ml) ** (2 / 3)
        return min(float(ball_mm2 / self.surface_mm2), 1.0)

    @property
    def center_mm(self) -> NDArray[np.float64]:
        """Its center of mass in the scanner's coordinates: right, anterior, superior."""
        center: NDArray[np.float64] = (self.grid.affine_ZYX @ [*self.voxels.mean(axis=0), 1.0])[:3]
        return center


def measure_surface(mask_ZYX: Mask, grid: SourceGrid) -> float:
    """Measure the area of the surface of a mask in mm².

    The mask is smoothed with a Gaussian of one voxel, and the length of its gradient summed: the mean area of the
    surfaces of equal value (coarea formula). Counting the faces of voxels instead would make a ball 1.5 times as large.

    Parameters
    ----------
    mask_ZYX
        bool ``(Z, Y, X)``.
    grid
        The grid of the mask.

    Returns
    -------
    float
        mm²; 0 for an empty mask.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(np.pad(mask_ZYX, _MARGIN + 1).astype(np.float32), 1.0, truncate=_MARGIN)
    slopes = [np.asarray(slope) for slope in np.gradient(smooth)]
    back = np.linalg.inv(grid.affine_ZYX[:3, :3])
    metric = back @ back.T  # of the gradient by index: mm^-2
    squares = np.zeros_like(smooth)
    for i, j in product(range(3), repeat=2):
        squares += metric[i, j] * slopes[i] * slopes[j]
    return float(np.sqrt(np.maximum(squares, 0)).sum(dtype=np.float64)) * grid.voxel_ml * 1000


@dataclass(frozen=True)
class Measurement:
    """A measurement of a region or a lesion.

    Attributes
    ----------
    name
        Its column in files, with its unit.
    title, unit
        Its name and unit in tables.
    measure
        Computes it.
    decimals
        Decimals in files and in tables.
    meaning
        What it means, in a sentence, for tooltips and documents.
    of_lesions
        Whether single lesions have it too.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Extent], Value]
    decimals: tuple[int, int]
    meaning: str
    of_lesions: bool = True

    @property
    def heading(self) -> str:
        """Title and unit, as a table heading."""
        return f"{self.title} {self.unit}".strip()

    def write(self, value: Value | None) -> str:
        """Format a value for files; None is left empty."""
        return _format(value, self.decimals[0])

    def show(self, value: Value | None) -> str:
        """Format a value for tables; None is left empty."""
        return _format(value, self.decimals[1])


def _format(value: Value | None, decimals: int) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{decimals}f}"


MEASUREMENTS: list[Measurement] = [
    Measurement("volume_ml", "volume", "mL", lambda it: it.volume_ml, (3, 1), "Voxels times the volume of a voxel."),
    Measurement(
        "axial_mm",
        "longest in a slice",
        "mm",
        lambda it: it.axial.longest_mm,
        (2, 1),
        "The longest diameter in an axial slice.",
    ),
    Measurement(
        "across_mm",
        "across it",
        "mm",
        lambda it: it.axial.across_mm,
        (2, 1),
        "The longest diameter at right angles to it, in the same slice.",
    ),
    Measurement(
        "product_mm2",
        "product",
        "mm²",
        lambda it: it.axial.product_mm2,
        (1, 0),
        "The product of the two: the bidimensional measurement of RANO.",
    ),
    Measurement(
        "longest_mm",
        "longest in space",
        "mm",
        lambda it: max(measure_longest_diameter(it.mask, it.grid), it.axial.longest_mm),
        (2, 1),
        "The longest diameter in any direction, of one connected part.",
    ),
    Measurement(
        "lesions",
        "lesions",
        "",
        lambda it: it.lesions,
        (0, 0),
        "Parts of the region; those less than about 6 mm apart count as one, as in BraTS.",
        of_lesions=False,
    ),
    Measurement(
        "surface_mm2", "surface", "mm²", lambda it: it.surface_mm2, (1, 0), "The area of the smoothed surface."
    ),
    Measurement(
        "sphericity", "sphericity", "", lambda it: it.sphericity, (3, 2), "1 for a ball, less for anything else."
    ),
    Measurement(
        "side",
        "side",
        "",
        lambda it: it.midline.find_side(it.voxels),
        (0, 0),
        "The patient's side; both if more than 5 % of the volume lies beyond the midline.",
    ),
    Measurement(
        "center_r_mm", "center R", "mm", lambda it: float(it.center_mm[0]), (1, 0), "To the patient's right (RAS)."
    ),
    Measurement("center_a_mm", "center A", "mm", lambda it: float(it.center_mm[1]), (1, 0), "To the front (RAS)."),
    Measurement("center_s_mm", "center S", "mm", lambda it: float(it.center_mm[2]), (1, 0), "Upward (RAS)."),
    Measurement("slice_z", "slice", "", lambda it: it.axial.z, (0, 0), "The slice of the diameters, from 0 below."),
]
"""The measurements, in the order of columns."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The measurements of a region or of one of its lesions.

    Attributes
    ----------
    region
        The region.
    lesion
        The number of the lesion, from 1, the largest first; 0 for the whole region.
    values
        The value of each of the `MEASUREMENTS`, by name; only volume and lesions for an empty region.
    diameters
        The diameters in a slice; None for an empty region.
    """

    region: str
    lesion: int
    values: Mapping[str, Value]
    diameters: AxialDiameters | None = None

    @property
    def title(self) -> str:
        """What was measured, in words."""
        return f"{self.region}, lesion {self.lesion}" if self.lesion else self.region


def measure_regions(
    regions: Mapping[str, Mask], grid: SourceGrid, midline: Midline | None = None
) -> tuple[Measured, ...]:
    """Measure regions and their lesions.

    Parameters
    ----------
    regions
        bool ``(Z, Y, X)`` for each region.
    grid
        Their grid.
    midline
        From `find_midline`; the middle of the image if left out.

    Returns
    -------
    tuple of Measured
        For each region the whole of it, then its lesions if there are several, at most `MOST_LESIONS`.
    """
    found: list[Measured] = []
    for region, mask in regions.items():
        found += measure_region(region, mask, grid, midline or center_line(mask.shape))
    return tuple(found)


def measure_region(region: str, mask_ZYX: Mask, grid: SourceGrid, midline: Midline) -> list[Measured]:
    """Measure a region, bool ``(Z, Y, X)``, and its lesions; see `measure_regions`."""
    if not mask_ZYX.any():
        return [Measured(region, 0, {"volume_ml": 0.0, "lesions": 0})]
    from scipy import ndimage

    box = find_box(mask_ZYX)
    corner = (box[0].start, box[1].start, box[2].start)
    inside = mask_ZYX[box]
    numbers, count = number_lesions(inside, grid)
    extents = [Extent(inside, corner, grid, midline, count)]
    if count > 1:
        for number, part in enumerate(ndimage.find_objects(numbers, MOST_LESIONS), start=1):
            if part is not None:
                z, y, x = (side.start + more for side, more in zip(part, corner, strict=True))
                extents.append(Extent(numbers[part] == number, (z, y, x), grid, midline))
    return [
        Measured(
            region,
            number,
            {each.name: each.measure(extent) for each in MEASUREMENTS if each.of_lesions or not number},
            extent.axial,
        )
        for number, extent in enumerate(extents)
    ]
