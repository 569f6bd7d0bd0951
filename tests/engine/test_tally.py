from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_braintumor.engine.tally import EMPTY, add_up, pack_slice, tally_slice, tally_slices, unpack_slice


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.uint16]))
def test_a_slice_is_counted_and_known_again_whatever_its_kind_of_integer(seed, dtype):
    plane = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 3, 4], (7, 9)).astype(dtype)
    tally = tally_slice(plane)
    assert tally.voxels == {int(v): int((plane == v).sum()) for v in np.unique(plane) if v}
    assert tally == tally_slice(plane.astype(np.uint8))
    assert tally == tally_slice(np.asfortranarray(plane))
    other = plane.copy()
    other[3, 4] = (other[3, 4] + 1) % 5
    assert tally_slice(other).digest != tally.digest


@pytest.mark.parametrize("labels", [(300, 4), (-1, 2), (70000, 70001)])
def test_labels_that_no_byte_holds_are_counted_too(labels):
    plane = np.zeros((4, 5), np.int64)
    plane[0, :3], plane[2, 1] = labels
    assert tally_slice(plane).voxels == {labels[0]: 3, labels[1]: 1}


def test_labels_that_changed_places_are_another_slice():
    plane = np.zeros((4, 5), np.uint8)
    plane[0, 0], plane[0, 1] = 1, 2
    assert tally_slice(plane).voxels == tally_slice(plane[:, [1, 0, 2, 3, 4]]).voxels
    assert tally_slice(plane).digest != tally_slice(plane[:, [1, 0, 2, 3, 4]]).digest


def test_slices_add_up_and_empty_ones_hold_nothing():
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, 0], labels[2] = 1, 2
    tallies = tally_slices(labels)
    assert tallies[1] == EMPTY
    assert add_up(tallies) == {1: 1, 2: 20}
    assert add_up([EMPTY]) == {}


def test_a_slice_that_was_made_small_comes_back():
    plane = np.random.default_rng(0).integers(0, 4, (31, 17)).astype(np.uint8)
    np.testing.assert_array_equal(unpack_slice(pack_slice(plane.T), (17, 31)), plane.T)
