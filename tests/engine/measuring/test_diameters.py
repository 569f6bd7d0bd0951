"""Diameters of digital ellipsoids, which are known, and of small and thin masks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.measuring.diameters import measure_axial_diameters, measure_longest_diameter

Matrix = NDArray[np.float64]


def draw_ellipsoid(
    seed: int, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], SourceGrid, Matrix, float, NDArray[np.float64]]:
    """An ellipsoid at any angle: mask, grid, its quadratic form over (z, y, x) mm, longest axis, heights of slices."""
    random = np.random.default_rng(seed)
    longest = random.uniform(20, 30) if spacing[0] < 3 else random.uniform(27, 35)  # at least ten slices
    axes = np.array([longest, longest * random.uniform(0.5, 0.85), longest * random.uniform(0.4, 0.7)])
    turn = Rotation.random(random_state=seed).as_matrix()
    form = turn @ np.diag(1 / axes**2) @ turn.T
    shape = tuple(int(82 / side) for side in spacing)
    center = (np.array(shape) - 1) / 2 * spacing + random.uniform(-0.5, 0.5, 3) * spacing
    away = np.moveaxis(np.indices(shape), 0, -1) * spacing - center
    mask = np.einsum("...i,ij,...j->...", away, form, away) <= 1
    return mask, default_grid(shape, spacing), form, 2 * longest, np.arange(shape[0]) * spacing[0] - center[0]


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0, 1.0), 0.02), ((5.0, 1.0, 1.0), 0.05)])
@pytest.mark.parametrize("seed", range(12))
def test_diameters_of_an_ellipsoid_at_any_angle(
    seed: int, spacing: tuple[float, float, float], tolerance: float
) -> None:
    mask, grid, form, longest, heights = draw_ellipsoid(seed, spacing)
    assert measure_longest_diameter(mask, grid) == pytest.approx(longest, rel=tolerance)
    # The slice nearest to the middle shows an ellipse whose axes follow from the form.
    upright = form[0, 0] - form[0, 1:] @ np.linalg.solve(form[1:, 1:], form[1:, 0])
    scale = np.sqrt(1 - upright * (heights**2).min())
    across, along = np.sort(2 * scale / np.sqrt(np.linalg.eigvalsh(form[1:, 1:])))
    found = measure_axial_diameters(mask, grid)
    assert found is not None
    assert found.longest_mm == pytest.approx(along, rel=tolerance)
    assert found.across_mm == pytest.approx(across, rel=tolerance)
    assert found.longest_mm * found.across_mm == pytest.approx(along * across, rel=2 * tolerance)


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
    assert measure_longest_diameter(mask, oblique) == pytest.approx(2 * measure_longest_diameter(mask, grid))


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
