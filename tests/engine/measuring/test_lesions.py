"""Which parts of a region are one lesion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.lesions import dilate, find_box, number_lesions


def count_as_brats(mask: np.ndarray) -> int:
    """Three dilations with 18 neighbors, then connected parts with 26: as the code of BraTS 2023 does."""
    grown = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2), iterations=3)
    return int(ndimage.label(grown, np.ones((3, 3, 3)))[1])


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_counted_as_in_brats_on_a_grid_of_one_millimeter(seed: int) -> None:
    mask = np.zeros((40, 50, 45), np.bool_)
    random = np.random.default_rng(seed)
    for z, y, x in random.integers(8, 36, (14, 3)):  # far enough from the edge that padding changes nothing
        mask[z : z + 2, y : y + 3, x : x + 2] = True
    numbers, count = number_lesions(mask, default_grid(mask.shape))
    assert count == count_as_brats(mask) > 1
    assert np.array_equal(numbers > 0, mask)
    sizes = np.bincount(numbers.ravel())[1:]
    assert len(sizes) == count
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize(("gap", "count"), [(1, 1), (5, 1), (6, 1), (7, 2), (9, 2)])
def test_parts_up_to_six_voxels_of_a_millimeter_apart_are_one_lesion(gap: int, count: int) -> None:
    mask = np.zeros((9, 12, 30), np.bool_)
    mask[3:6, 4:8, 2:6] = mask[3:6, 4:8, 6 + gap : 10 + gap] = True
    assert number_lesions(mask, default_grid(mask.shape))[1] == count


def test_thick_slices_are_not_bridged_and_fine_ones_are() -> None:
    mask = np.zeros((7, 12, 12), np.bool_)
    mask[1, 4:8, 4:8] = mask[4, 4:8, 4:8] = True
    assert number_lesions(mask, default_grid(mask.shape, (5.0, 1.0, 1.0)))[1] == 2
    assert number_lesions(mask, default_grid(mask.shape, (1.0, 1.0, 1.0)))[1] == 1
    assert number_lesions(mask, default_grid(mask.shape), reach_mm=0)[1] == 2


def test_a_dilation_reaches_as_many_millimeters_along_each_axis() -> None:
    mask = np.zeros((21, 21, 21), np.bool_)
    mask[10, 10, 10] = True
    grown = dilate(mask, default_grid(mask.shape, (5.0, 1.5, 0.5)))
    assert [side.stop - side.start for side in find_box(grown)] == [1, 5, 13]


def test_an_empty_region_has_no_lesions() -> None:
    numbers, count = number_lesions(np.zeros((3, 4, 5), np.bool_), default_grid((3, 4, 5)))
    assert count == 0
    assert not numbers.any()
