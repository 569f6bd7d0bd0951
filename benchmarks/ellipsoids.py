"""How right volumes and diameters of digital ellipsoids at any angle are, by size; the table in docs/measuring.md.

Their sizes are known: the longest axis in space, and the axes of the section through the middle.

Usage: python benchmarks/ellipsoids.py [COUNT]
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_braintumor.engine.grid import SourceGrid, default_grid
from napari_braintumor.engine.measuring.diameters import measure_axial_diameters, measure_longest_diameter
from napari_braintumor.engine.measuring.metrics import region_volume_ml

SIZES_MM = ((10, 14), (14, 18), (18, 24), (24, 36), (36, 60))
SPACINGS_MM = ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0))
LEAST_SLICES = 5
"""Of thick slices; fewer do not show how long a tumor is across them."""

TITLES = ("volume", "longest in space", "longest in a slice", "across it", "product")


def draw(
    random: np.random.Generator, longest_mm: float, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], SourceGrid, NDArray[np.float64], NDArray[np.float64]]:
    """Draw an ellipsoid at any angle: mask, grid, its half axes in mm, and its quadratic form over (z, y, x) in mm."""
    axes = longest_mm / 2 * np.array([1.0, random.uniform(0.6, 0.9), random.uniform(0.5, 0.8)])
    turn = Rotation.random(random_state=int(random.integers(1 << 30))).as_matrix()
    form = turn @ np.diag(1 / axes**2) @ turn.T
    shape = tuple(int(np.ceil((longest_mm + 6) / side)) + 2 for side in spacing)
    center = (np.array(shape) - 1) / 2 * spacing + random.uniform(-0.5, 0.5, 3) * spacing
    z, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    away = (z * spacing[0] - center[0], y * spacing[1] - center[1], x * spacing[2] - center[2])
    mask = sum(form[i, j] * away[i] * away[j] for i in range(3) for j in range(3)) <= 1
    return mask, default_grid(shape, spacing), axes, form


def find_errors(
    random: np.random.Generator, longest_mm: float, spacing: tuple[float, float, float]
) -> list[float] | None:
    """Return the error of each of `TITLES` in %; None where thick slices are too few."""
    mask, grid, axes, form = draw(random, longest_mm, spacing)
    if spacing[0] > 2 and np.count_nonzero(mask.any(axis=(1, 2))) < LEAST_SLICES:
        return None
    across, along = np.sort(2 / np.sqrt(np.linalg.eigvalsh(form[1:, 1:])))
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    pairs = (
        (region_volume_ml(mask, grid), 4 / 3 * np.pi * axes.prod() / 1000),
        (measure_longest_diameter(mask, grid), longest_mm),
        (found.longest_mm, along),
        (found.across_mm, across),
        (found.product_mm2, along * across),
    )
    return [100 * (measured / true - 1) for measured, true in pairs]


def main(count: int) -> None:
    """Print a table for each spacing: mean and largest error in %."""
    for spacing in SPACINGS_MM:
        print(f"\n{' x '.join(f'{side:g}' for side in spacing)} mm, mean and largest error in %")
        print("| longest axis, mm | n |", " | ".join(TITLES), "|", flush=True)
        for least, most in SIZES_MM:
            random = np.random.default_rng(least)
            drawn = [find_errors(random, random.uniform(least, most), spacing) for _ in range(count)]
            errors = np.array([each for each in drawn if each is not None])
            if len(errors):
                cells = (f"{column.mean():+.1f}, {np.abs(column).max():.1f}" for column in errors.T)
                print(f"| {least} to {most} | {len(errors)} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
