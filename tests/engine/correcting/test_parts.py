"""Edits of regions: what is asked for, nested as before, in mm whatever the voxels are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_braintumor.engine.anatomy import CAVITY, CORE, ENHANCING, REGION_LABELS, WHOLE, region_from_labels
from napari_braintumor.engine.correcting.parts import (
    change_region,
    fill_holes,
    find_part,
    grow,
    interpolate,
    keep_part,
    remove_part,
    smooth,
)
from napari_braintumor.engine.errors import DataError, SettingsError

ISOTROPIC = (1.0, 1.0, 1.0)


def ball(shape: tuple[int, ...], center: tuple[float, ...], mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm((grid - center) * spacing, axis=-1) <= mm


@pytest.fixture
def two_tumors() -> np.ndarray:
    """A large tumor with core and enhancing part, and a small one of edema."""
    labels = np.zeros((12, 24, 24), np.uint8)
    for mm, label in ((5, 2), (3.5, 1), (2, 3)):
        labels[ball(labels.shape, (5, 8, 8), mm, ISOTROPIC)] = label
    labels[9:11, 18:21, 18:21] = 2
    return labels


@given(
    before=arrays(np.uint8, (3, 5, 5), elements=st.sampled_from((0, 1, 2, 3, 4, 9))),
    wanted=arrays(np.bool_, (3, 5, 5)),
    region=st.sampled_from(tuple(REGION_LABELS)),
)
@settings(deadline=None, max_examples=60)
def test_a_region_covers_what_is_wanted_and_others_change_no_more_than_nesting_asks(before, wanted, region):
    after = change_region(before, region, wanted)
    was, now = region_from_labels(before, region), region_from_labels(after, region)
    others = np.isin(before, (4, 9)) if region != CAVITY else np.isin(before, (1, 2, 3, 9))
    np.testing.assert_array_equal(now, np.where(others & ~was, False, wanted))
    np.testing.assert_array_equal(after[wanted == was], before[wanted == was])
    for outer, inner in ((WHOLE, CORE), (CORE, ENHANCING)):
        assert not (region_from_labels(after, inner) & ~region_from_labels(after, outer)).any()
    if region == ENHANCING:
        np.testing.assert_array_equal(
            region_from_labels(after, WHOLE) & ~wanted, region_from_labels(before, WHOLE) & ~wanted
        )


@pytest.mark.parametrize(("region", "taken", "added"), [(WHOLE, 0, 2), (CORE, 2, 1), (ENHANCING, 1, 3), (CAVITY, 0, 4)])
def test_what_is_taken_from_a_region_belongs_to_the_one_around_it(region, taken, added):
    own = {WHOLE: 2, CORE: 1, ENHANCING: 3, CAVITY: 4}[region]
    before = np.array([own, own, 0], np.uint8)
    after = change_region(before, region, np.array([True, False, True]))
    np.testing.assert_array_equal(after, [own, taken, added])


def test_the_part_that_was_clicked_is_removed(two_tumors):
    after = remove_part(two_tumors, WHOLE, (9, 19, 19))
    assert not after[9:11, 18:21, 18:21].any()
    np.testing.assert_array_equal(after[:8], two_tumors[:8])


def test_only_the_part_that_was_clicked_is_kept(two_tumors):
    after = keep_part(two_tumors, WHOLE, (9, 19, 19))
    assert np.count_nonzero(after) == 2 * 3 * 3
    inner = keep_part(two_tumors, CORE, (5, 8, 8))
    np.testing.assert_array_equal(inner, two_tumors)


def test_a_click_beside_a_region_is_refused(two_tumors):
    with pytest.raises(DataError, match=r"There is no tumor core where you clicked\. Click inside a part of it"):
        remove_part(two_tumors, CORE, (9, 19, 19))


def test_voxels_that_share_a_corner_are_one_part():
    labels = np.zeros((2, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 2
    assert find_part(labels, WHOLE, (0, 0, 0)).sum() == 2


def test_holes_are_filled_with_the_region_s_own_tissue(two_tumors):
    holed = two_tumors.copy()
    holed[5, 8, 12] = 0
    holed[5, 8, 8] = 1
    assert fill_holes(holed, WHOLE)[5, 8, 12] == 2
    assert fill_holes(holed, ENHANCING)[5, 8, 8] == 3
    open_above = holed.copy()
    open_above[5:, 8, 12] = 0
    assert fill_holes(open_above, WHOLE)[5, 8, 12] == 0
    assert fill_holes(open_above[5], WHOLE)[8, 12] == 2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7)])
@pytest.mark.parametrize("mm", [1.0, 2.5, 4.0])
def test_a_region_grows_by_mm_whatever_its_voxels_are(spacing, mm):
    shape = tuple(int(24 / side) | 1 for side in spacing)
    center = tuple(size // 2 for size in shape)
    labels = np.zeros(shape, np.uint8)
    labels[center] = 2
    np.testing.assert_array_equal(grow(labels, WHOLE, spacing, mm) == 2, ball(shape, center, mm, spacing))


@given(
    mask=arrays(np.bool_, (4, 6, 6)),
    mm=st.sampled_from((1.0, 1.5, 2.0)),
    region=st.sampled_from((WHOLE, CORE, ENHANCING)),
)
@settings(deadline=None, max_examples=40)
def test_shrinking_leaves_what_is_further_inside_than_that(mask, mm, region):
    labels = change_region(np.zeros(mask.shape, np.uint8), region, mask)
    spacing = (2.0, 1.0, 1.0)
    small = region_from_labels(grow(labels, region, spacing, -mm), region)
    again = region_from_labels(grow(change_region(labels * 0, region, small), region, spacing, mm), region)
    assert not (small & ~mask).any()
    assert not (again & ~mask).any()


def test_growing_a_core_beyond_the_tumor_extends_the_tumor(two_tumors):
    after = grow(two_tumors, CORE, ISOTROPIC, 4)
    assert region_from_labels(after, WHOLE).sum() > region_from_labels(two_tumors, WHOLE).sum()
    assert not (region_from_labels(after, ENHANCING) ^ region_from_labels(two_tumors, ENHANCING)).any()


def test_smoothing_takes_a_spike_away_and_keeps_the_tumor(two_tumors):
    spiked = two_tumors.copy()
    spiked[5, 8, 13:18] = 2
    after = smooth(spiked, WHOLE, ISOTROPIC, 1.0)
    assert not after[5, 8, 15:18].any()
    assert 0.85 < np.count_nonzero(after[:8]) / np.count_nonzero(two_tumors[:8]) < 1.05
    np.testing.assert_array_equal(after == 3, two_tumors == 3)


@pytest.mark.parametrize("mm", [0.0, 60.0, -60.0, float("nan")])
def test_an_edge_moves_by_a_size(two_tumors, mm):
    with pytest.raises(SettingsError, match="Expected more than 0 and at most 50 mm"):
        grow(two_tumors, WHOLE, ISOTROPIC, mm)
    with pytest.raises(SettingsError, match="cannot be moved by"):
        smooth(two_tumors, WHOLE, ISOTROPIC, mm)


@pytest.mark.parametrize(
    "edit", [fill_holes, lambda x, r: grow(x, r, ISOTROPIC, 2), lambda x, r: smooth(x, r, ISOTROPIC)]
)
def test_where_there_is_no_region_nothing_changes(two_tumors, edit):
    np.testing.assert_array_equal(edit(two_tumors, CAVITY), two_tumors)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sections_between_two_are_drawn_from_one_to_the_other(axis):
    shape = [15, 15, 15]
    labels = np.zeros(shape, np.uint8)
    along = np.moveaxis(labels, axis, 0)
    along[2, 3:12, 3:12] = 2
    along[2, 5:10, 5:10] = 1
    along[6, 5:10, 5:10] = 2
    along[4] = 2  # as it was before
    after = np.moveaxis(interpolate(labels, axis, 2, 6, ISOTROPIC), axis, 0)
    areas = [int(np.count_nonzero(section)) for section in after[2:7]]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[2] > areas[4]
    np.testing.assert_array_equal(after[[2, 6]], along[[2, 6]])
    assert not after[:2].any()
    assert (after[3] == 1).any()


def test_sections_between_equal_ones_are_equal(two_tumors):
    labels = two_tumors.copy()
    labels[8] = labels[4] = two_tumors[5]
    after = interpolate(labels, 0, 4, 8, (3.0, 1.0, 1.0))
    for z in range(5, 8):
        np.testing.assert_array_equal(after[z], two_tumors[5])


@pytest.mark.parametrize(("first", "last"), [(4, 4), (4, 5), (6, 4), (-1, 5), (4, 12)])
def test_there_must_be_sections_between(two_tumors, first, last):
    with pytest.raises(DataError, match=f"There is no section between {first} and {last}"):
        interpolate(two_tumors, 0, first, last, ISOTROPIC)


def test_edits_leave_their_input_alone(two_tumors):
    before = two_tumors.copy()
    for edit in (
        lambda x: remove_part(x, WHOLE, (5, 8, 8)),
        lambda x: fill_holes(x, WHOLE),
        lambda x: grow(x, CORE, ISOTROPIC, 2),
        lambda x: smooth(x, WHOLE, ISOTROPIC),
        lambda x: interpolate(x, 0, 2, 8, ISOTROPIC),
    ):
        edit(two_tumors)
        np.testing.assert_array_equal(two_tumors, before)
