"""Diameters of digital ellipsoids, which are known, and of small and thin masks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.measuring.diameters import measure_axial_diameters, measure_longest_diameter
from napari_braintumor.engine.measuring.metrics import region_volume_ml

Matrix = NDArray[np.float64]


def draw_ellipsoid(
    seed: int, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], SourceGrid, Matrix, float, NDArray[np.float64]]:
    """An ellipsoid at any angle: mask, grid, its quadratic form over (z, y, x) mm, longest axis, heights of slices."""
    random = np.random.default_rng(seed)
    longest = random.uniform(18, 26) if spacing[0] < 3 else random.uniform(15, 26)
    axes = np.array([longest, longest * random.uniform(0.6, 0.9), longest * random.uniform(0.5, 0.8)])
    turn = Rotation.random(random_state=seed).as_matrix()
    form = turn @ np.diag(1 / axes**2) @ turn.T
    shape = tuple(int(62 / side) for side in spacing)
    center = (np.array(shape) - 1) / 2 * spacing + random.uniform(-0.5, 0.5, 3) * spacing
    z, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    away = (z * spacing[0] - center[0], y * spacing[1] - center[1], x * spacing[2] - center[2])
    mask = sum(form[i, j] * away[i] * away[j] for i in range(3) for j in range(3)) <= 1
    return mask, default_grid(shape, spacing), form, 2 * longest, np.arange(shape[0]) * spacing[0] - center[0]


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0, 1.0), 0.02), ((5.0, 1.0, 1.0), 0.05)])
@pytest.mark.parametrize("seed", range(12))
def test_sizes_of_an_ellipsoid_at_any_angle(seed: int, spacing: tuple[float, float, float], tolerance: float) -> None:
    mask, grid, form, longest, heights = draw_ellipsoid(seed, spacing)
    assert np.count_nonzero(mask.any(axis=(1, 2))) >= 5
    assert measure_longest_diameter(mask, grid) == pytest.approx(longest, rel=tolerance)
    volume_ml = 4 / 3 * np.pi / np.sqrt(np.linalg.det(form)) / 1000
    assert region_volume_ml(mask, grid) == pytest.approx(volume_ml, rel=tolerance)
    # The slice through the middle shows an ellipse whose axes follow from the form.
    across, along = np.sort(2 / np.sqrt(np.linalg.eigvalsh(form[1:, 1:])))
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    assert found.longest_mm == pytest.approx(along, rel=tolerance)
    assert found.across_mm == pytest.approx(across, rel=tolerance)
    assert found.product_mm2 == pytest.approx(along * across, rel=tolerance)
    assert abs(heights[found.z]) <= 1.5 * spacing[0]


@pytest.mark.parametrize("end", [0.05, 0.35, 0.65, 0.95])
def test_a_tumor_of_few_thick_slices_ends_where_its_slices_shrink_to_nothing(end: float) -> None:
    radius, slice_mm = 12.0, 5.0
    z, y, x = np.ogrid[:8, :40, :40]
    mask = ((z - 3 - end) * slice_mm) ** 2 + (y - 19.3) ** 2 + (x - 19.6) ** 2 <= radius**2
    assert measure_longest_diameter(mask, default_grid(mask.shape, (slice_mm, 1, 1))) == pytest.approx(24, rel=0.03)
    upright = ((z - 3 - end) * slice_mm) ** 2 + 4 * (y - 19.3) ** 2 + 4 * (x - 19.6) ** 2 <= radius**2
    assert measure_longest_diameter(upright, default_grid(mask.shape, (slice_mm, 1, 1))) == pytest.approx(24, rel=0.05)


@pytest.mark.parametrize("slices", [1, 2, 3, 7])
def test_a_block_is_as_long_as_from_corner_to_corner(slices: int) -> None:
    mask = np.zeros((9, 30, 30), np.bool_)
    mask[1 : 1 + slices, 4:24, 5:20] = True
    found = measure_longest_diameter(mask, default_grid(mask.shape, (5.0, 1.0, 1.0)))
    assert found == pytest.approx(np.hypot(np.hypot(20, 15), 5 * slices), rel=0.06)


def test_the_ends_of_diameters_are_as_far_apart_as_they_say_and_at_right_angles() -> None:
    mask, grid, *_ = draw_ellipsoid(3, (2.0, 0.7, 1.3))
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    along, across = (
        (ends[1] - ends[0]) @ grid.affine_ZYX[:3, :3].T for ends in (found.longest_ends, found.across_ends)
    )
    assert np.linalg.norm(along) == pytest.approx(found.longest_mm)
    assert np.linalg.norm(across) == pytest.approx(found.across_mm)
    assert along @ across == pytest.approx(0, abs=1e-6)
    assert {*found.longest_ends[:, 0], *found.across_ends[:, 0]} == {found.z}
    assert mask[found.z].any()


def test_diameters_follow_the_voxel_size_and_the_angle_of_an_oblique_scan() -> None:
    mask, grid, *_ = draw_ellipsoid(5, (1.0, 1.0, 1.0))
    affine = np.eye(4)
    affine[:3, :3] = 2 * Rotation.from_euler("xyz", (9, 12, -7), degrees=True).as_matrix() @ grid.affine_ZYX[:3, :3]
    oblique = grid_from_affine(grid.shape_ZYX, affine)
    assert oblique.axes == (0, 1, 2)
    one, two = measure_axial_diameters(mask, grid), measure_axial_diameters(mask, oblique)
    assert one is not None
    assert two is not None
    assert two.longest_mm == pytest.approx(2 * one.longest_mm)
    assert two.across_mm == pytest.approx(2 * one.across_mm)
    assert measure_longest_diameter(mask, oblique) == pytest.approx(2 * measure_longest_diameter(mask, grid), rel=1e-3)


@pytest.mark.parametrize("voxels", [1, 2, 5, 17])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_row_of_voxels_is_as_long_as_its_voxels(voxels: int, axis: int) -> None:
    mask = np.zeros((20, 20, 20), np.bool_)
    mask[tuple(slice(1, 1 + voxels) if each == axis else slice(2, 3) for each in range(3))] = True
    grid = default_grid(mask.shape, (0.8, 0.8, 0.8))
    assert measure_longest_diameter(mask, grid) == pytest.approx(0.8 * voxels)
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    assert found.longest_mm == pytest.approx(0.8 * voxels if axis else 0.8)
    assert found.across_mm == pytest.approx(0.8)


def test_a_thin_ring_is_as_wide_as_it_is_from_side_to_side() -> None:
    y, x = np.indices((60, 60)) - 29.5
    mask = ((np.hypot(y, x) < 20) & (np.hypot(y, x) > 18.8))[None]
    found = measure_axial_diameters(mask, default_grid(mask.shape))
    assert found is not None
    assert found.longest_mm == pytest.approx(40, abs=1)
    assert found.across_mm == pytest.approx(40, abs=1)


def test_lesions_apart_are_measured_one_by_one() -> None:
    mask = np.zeros((6, 40, 40), np.bool_)
    mask[1:4, 2:8, 2:8] = True
    mask[2:5, 30:34, 20:36] = True
    grid = default_grid(mask.shape)
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    assert 15 < found.longest_mm < 17
    assert measure_longest_diameter(mask, grid) < 18


def test_an_empty_mask_has_no_diameters() -> None:
    mask = np.zeros((3, 4, 5), np.bool_)
    assert measure_axial_diameters(mask, default_grid(mask.shape)) is None
    assert measure_longest_diameter(mask, default_grid(mask.shape)) == 0
