"""What is measured of regions and lesions, against shapes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_braintumor.engine.grid import default_grid, grid_from_affine
from napari_braintumor.engine.measuring.measurements import (
    MEASUREMENTS,
    MOST_LESIONS,
    measure_regions,
    measure_surface,
)


def draw_ball(
    shape: tuple[int, int, int], center: tuple[float, float, float], axes: tuple[float, float, float], spacing
):
    z, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    parts = zip((z, y, x), spacing, center, axes, strict=True)
    return sum(((index * step - middle) / axis) ** 2 for index, step, middle, axis in parts) <= 1


def ellipsoid_surface(a: float, b: float, c: float) -> float:
    """Thomsen's formula, right within 1.1 %."""
    p = 1.6075
    return 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)


@pytest.mark.parametrize(
    ("axes", "spacing", "tolerance"),
    [
        ((15, 15, 15), (1, 1, 1), 0.02),
        ((6, 6, 6), (1, 1, 1), 0.04),
        ((20, 12, 9), (1, 1, 1), 0.02),
        ((20, 15, 18), (5, 1, 1), 0.05),
        ((16, 11, 13), (1.2, 0.8, 0.6), 0.02),
    ],
)
def test_the_surface_of_an_ellipsoid(axes, spacing, tolerance: float) -> None:
    shape = tuple(int(50 / step) for step in spacing)
    mask = draw_ball(shape, (24.4, 24.7, 25.1), axes, spacing)
    assert measure_surface(mask, default_grid(shape, spacing)) == pytest.approx(ellipsoid_surface(*axes), rel=tolerance)


def test_the_surface_does_not_depend_on_how_the_scan_is_turned() -> None:
    mask = draw_ball((30, 30, 30), (14.5, 14.5, 14.5), (11, 7, 9), (1, 1, 1))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (9, 12, -7), degrees=True).as_matrix() @ np.diag([2.0, 2.0, 2.0])
    turned = grid_from_affine((30, 30, 30), affine)
    assert measure_surface(mask, turned) == pytest.approx(
        4 * measure_surface(mask, default_grid((30, 30, 30))), rel=1e-4
    )


def test_a_region_and_each_of_its_lesions_are_measured() -> None:
    spacing = (1.0, 1.0, 1.0)
    large = draw_ball((50, 60, 80), (25, 30, 20), (12, 12, 12), spacing)
    small = draw_ball((50, 60, 80), (30, 20, 60), (6, 6, 6), spacing)
    grid = default_grid((50, 60, 80), spacing)
    whole, first, second, nothing = measure_regions({"whole tumor": large | small, "tumor core": large & small}, grid)
    assert [row.title for row in (whole, first, second)] == [
        "whole tumor",
        "whole tumor, lesion 1",
        "whole tumor, lesion 2",
    ]
    assert whole.values["lesions"] == 2
    assert "lesions" not in first.values
    assert whole.values["volume_ml"] == pytest.approx(first.values["volume_ml"] + second.values["volume_ml"])
    assert second.values["volume_ml"] == pytest.approx(4 / 3 * np.pi * 6**3 / 1000, rel=0.03)
    assert (first.values["side"], second.values["side"], whole.values["side"]) == ("right", "left", "both")
    assert second.values["longest_mm"] == pytest.approx(12, rel=0.06)
    assert first.values["product_mm2"] == whole.values["product_mm2"] == pytest.approx(24 * 24, rel=0.02)
    assert first.values["sphericity"] == pytest.approx(1, abs=0.02)
    assert whole.values["slice_z"] == pytest.approx(25, abs=3)
    right, anterior, superior = (float(second.values[f"center_{axis}_mm"]) for axis in "ras")
    expected = grid.affine_ZYX @ [30, 20, 60, 1]
    assert (right, anterior, superior) == pytest.approx(tuple(expected[:3]), abs=0.01)
    assert nothing.values == {"volume_ml": 0.0, "lesions": 0}
    assert nothing.diameters is None


def test_diameters_lie_where_the_lesion_is() -> None:
    mask = draw_ball((30, 60, 80), (20, 40, 60), (6, 8, 6), (1, 1, 1))
    (row,) = measure_regions({"whole tumor": mask}, default_grid(mask.shape))
    assert row.diameters is not None
    assert row.diameters.longest_ends.mean(axis=0) == pytest.approx((20, 40, 60), abs=1)
    assert abs(np.diff(row.diameters.longest_ends[:, 1])) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 1), (2, 2, 2)])
def test_the_smallest_masks_are_measured(shape: tuple[int, int, int]) -> None:
    (row,) = measure_regions({"core": np.ones(shape, np.bool_)}, default_grid(shape))
    assert set(row.values) == {each.name for each in MEASUREMENTS}
    assert 0 < row.values["sphericity"] <= 1
    assert row.values["longest_mm"] >= row.values["axial_mm"] >= row.values["across_mm"] > 0


def test_all_lesions_are_counted_and_the_largest_are_measured() -> None:
    mask = np.zeros((4, 100, 100), np.bool_)
    mask[1, 4::12, 4::12] = True
    mask[1, 4, 4:7] = True
    whole, first, *others = measure_regions({"enhancing tumor": mask}, default_grid(mask.shape))
    assert whole.values["lesions"] == 64
    assert len(others) == MOST_LESIONS - 1
    assert first.values["longest_mm"] == pytest.approx(3)


def test_values_are_written_with_their_decimals_and_words_as_they_are() -> None:
    volume, side = (next(each for each in MEASUREMENTS if each.name == name) for name in ("volume_ml", "side"))
    assert (volume.write(1.23456), volume.show(1.23456), volume.show(None)) == ("1.235", "1.2", "")
    assert side.write("left") == side.show("left") == "left"
