from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.card import ModelCard, SolidCore
from napari_braintumor.engine.segmenting.cleaning import (
    count_voxels,
    drop_small_regions,
    fill_solid_core,
    leave_out,
    paint_labels,
    remove_small_components,
)


def test_small_components_are_removed_and_the_largest_kept() -> None:
    depth = np.zeros((5, 20, 20), np.uint8)
    depth[1:4, 2:8, 2:8] = 1
    depth[2, 15, 15] = 2

    def cleaned(min_vox: int, keep_largest: bool) -> np.ndarray:
        copy = depth.copy()
        remove_small_components(copy, min_vox, keep_largest)
        return copy

    assert cleaned(5, False).sum() == 3 * 6 * 6
    assert cleaned(0, True).sum() == 3 * 6 * 6
    assert np.array_equal(cleaned(0, False), depth)
    empty = np.zeros_like(depth)
    remove_small_components(empty, 5, True)
    assert not empty.any()


def test_a_sheet_is_removed_unless_the_stack_may_show_a_part_of_it() -> None:
    depth = np.zeros((9, 20, 20), np.uint8)
    depth[0, :9, :9] = depth[4:6, :9, :9] = depth[3:6, 12:, 12:] = 1
    remove_small_components(depth, 50, False, 40, min_slices=3)
    assert depth.any((1, 2)).tolist() == [True, False, False, True, True, True, False, False, False]
    assert not depth[4, :9, :9].any()
    remove_small_components(depth, 50, True, 40, min_slices=3)
    assert depth.sum() == 3 * 8 * 8


def test_a_region_too_small_to_be_believed_counts_as_the_one_around_it() -> None:
    depth = np.ones((1, 4, 10), np.uint8)
    depth[0, :2], depth[0, :1, :2] = 2, 3
    whole, core, enhancing = GLIOMA_REGIONS

    def kept(least_core: float, least_enhancing: float, voxel_ml: float) -> list[int]:
        regions = (
            whole,
            core.model_copy(update={"least_ml": least_core}),
            enhancing.model_copy(update={"least_ml": least_enhancing}),
        )
        card, copy = ModelCard(name="a", architecture="unet", regions=regions), depth.copy()
        drop_small_regions(copy, card, voxel_ml)
        return count_voxels(copy, card)

    assert kept(0.0, 3.0, voxel_ml=1.0) == [40, 20, 0]
    assert kept(0.0, 3.0, voxel_ml=2.0) == [40, 20, 2]
    assert kept(30.0, 0.0, voxel_ml=1.0) == [40, 0, 0]


def test_what_lies_in_a_region_that_is_left_out_counts_as_the_next_around_it() -> None:
    card = ModelCard(name="x", architecture="unet", regions=GLIOMA_REGIONS)

    def painted(*names: str) -> list[int]:
        depth = np.array([[[0, 1, 2, 3]]], np.uint8)
        leave_out(depth, card, names)
        paint_labels(depth, card)
        return depth.ravel().tolist()

    assert painted() == [0, 2, 1, 3]
    assert painted("enhancing tumor") == [0, 2, 1, 1]
    assert painted("tumor core") == [0, 2, 2, 3]
    assert painted("whole tumor") == [0, 0, 1, 3]
    assert painted("whole tumor", "tumor core") == [0, 0, 0, 3]
    assert painted("whole tumor", "tumor core", "enhancing tumor") == [0, 0, 0, 0]


def test_a_region_that_is_dropped_is_not_painted_as_one_that_is_left_out() -> None:
    whole, core, enhancing = GLIOMA_REGIONS
    regions = (whole, core, enhancing.model_copy(update={"least_ml": 5.0}))
    card, depth = ModelCard(name="a", architecture="unet", regions=regions), np.array([[[1, 1, 3, 3]]], np.uint8)
    drop_small_regions(depth, card, 1.0, {"tumor core": "not measurable without T1ce"})
    assert depth.ravel().tolist() == [1, 1, 1, 1]


def test_a_voxel_gets_the_label_of_the_innermost_region_it_lies_in() -> None:
    depth = np.array([[[0, 1, 2, 3]]], np.uint8)
    paint_labels(depth, ModelCard(name="x", architecture="unet", regions=GLIOMA_REGIONS))
    assert depth.ravel().tolist() == [0, 2, 1, 3]


def ball(radius_mm: float, sides: tuple[float, float, float], enhancing_mm: float = 0.0) -> np.ndarray:
    """A tumor of depth 1, in a frame that holds it, on a grid of these voxels."""
    counts = [int(2 * (radius_mm + 4) / side) for side in sides]
    where = np.meshgrid(
        *((np.arange(n) - n / 2 + 0.5) * side for n, side in zip(counts, sides, strict=True)), indexing="ij"
    )
    far = np.sqrt(sum(axis**2 for axis in where))
    depth = (far < radius_mm).astype(np.uint8)
    depth[far < enhancing_mm] = 3
    return depth


def solid_task(depth: np.ndarray, sides: tuple[float, float, float], **more: object) -> SimpleNamespace:
    card = ModelCard(
        name="a",
        architecture="unet",
        regions=GLIOMA_REGIONS,
        solid_core=SolidCore(below_share=0.05, rim_share=0.2, rim_mm=2),
    )
    source = default_grid(depth.shape, sides)
    volume = SimpleNamespace(spacing=source.spacing, source=source)
    return SimpleNamespace(**{"card": card, "volume": volume, "not_measurable": {}, **more})


@pytest.mark.parametrize("sides", [(1, 1, 1), (5, 1, 1), (0.5, 0.4, 0.4), (3, 0.6, 2)])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_middle_of_a_tumor_in_which_no_core_was_found_counts_as_core_on_any_grid(sides, streamed) -> None:
    depth = ball(20, sides)
    array = zarr.array(depth) if streamed else depth.copy()
    (note,) = fill_solid_core(array, solid_task(depth, sides))
    assert "found hardly any core (0% of the tumor)" in note
    filled = np.asarray(array[:])
    assert np.array_equal(filled > 0, depth > 0)
    share = (filled == 2).sum() / (depth > 0).sum()
    assert share == pytest.approx(0.8**3, abs=0.05 + 0.02 * max(sides))  # a rim of a fifth of the radius
    assert filled[tuple(side // 2 for side in filled.shape)] == 2


@pytest.mark.parametrize(
    ("enhancing_mm", "more"),
    [
        (9.0, {}),
        (0.0, {"not_measurable": {"enhancing tumor": "no T1ce"}}),
        (0.0, {"card": ModelCard(name="a", architecture="unet")}),
    ],
)
def test_the_core_stays_as_the_network_says_where_it_finds_enough_or_cannot_see_it_or_no_rule_is_on_the_card(
    enhancing_mm, more
) -> None:
    depth = ball(20, (1, 1, 1), enhancing_mm)
    before = depth.copy()
    assert fill_solid_core(depth, solid_task(depth, (1, 1, 1), **more)) == []
    assert np.array_equal(depth, before)


def test_a_little_enhancing_tumor_stays_what_it_is_while_the_core_is_drawn_around_it() -> None:
    depth = ball(20, (1, 1, 1), 4.0)
    before = depth.copy()
    (note,) = fill_solid_core(depth, solid_task(depth, (1, 1, 1)))
    assert "(1% of the tumor)" in note
    assert np.array_equal(depth == 3, before == 3)
    assert (depth == 2).sum() > 0.3 * (before > 0).sum()


def test_each_tumor_has_a_middle_of_its_own_and_one_cut_off_by_the_stack_is_deep_at_the_cut() -> None:
    small, large = ball(8, (1, 1, 1)), ball(20, (1, 1, 1))
    both = np.zeros((48, 100, 48), np.uint8)
    both[: len(small), : len(small), : len(small)] = small
    both[:, 50 : 50 + len(large)] = large
    cut = large[24:].copy()  # the stack begins in the middle of the tumor
    for depth in (both, cut):
        fill_solid_core(depth, solid_task(depth, (1, 1, 1)))
    assert both[12, 12, 12] == 2
    assert both[24, 74, 24] == 2
    assert cut[0, 24, 24] == 2
    assert cut[0, 24, 24 + 14] == 2
