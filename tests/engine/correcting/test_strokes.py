"""What a stroke covers, and what cannot be one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_braintumor.engine.correcting.strokes import Stroke, describe_strokes, follow, read_strokes
from napari_braintumor.engine.errors import DataError, SettingsError

POINT = st.tuples(*(st.floats(0, 19) for _ in range(3)))


def test_a_click_with_a_thin_pen_covers_the_voxel_under_it():
    assert Stroke("whole tumor", ((2.2, 3.4, 4.0),), 0).find_voxels((9, 9, 9), (5, 1, 1)).tolist() == [[2, 3, 4]]


def test_a_pen_is_round_in_mm_and_not_in_voxels():
    voxels = Stroke(None, ((4, 10, 10),), 3).find_voxels((9, 21, 21), (3.0, 1.0, 1.0))
    spans = np.ptp(voxels, axis=0) + 1
    assert spans.tolist() == [3, 7, 7]


@settings(deadline=None)
@given(st.lists(POINT, min_size=1, max_size=4), st.floats(0, 4))
def test_a_stroke_has_no_gaps_and_lies_near_its_points(points, radius):
    voxels = Stroke(None, tuple(points), radius).find_voxels((20, 20, 20), (1, 1, 1))
    way = follow(points)
    away = np.linalg.norm(voxels[:, None] - way[None], axis=-1)
    assert (away.min(1) <= max(radius, 0.87) + 1e-6).all()
    assert {tuple(np.rint(each).astype(int)) for each in way} <= set(map(tuple, voxels))


def test_what_lies_outside_of_the_scan_is_left_out():
    assert Stroke(None, ((-5, 0, 0), (0, 0, 0)), 0).find_voxels((2, 2, 2), (1, 1, 1)).tolist() == [[0, 0, 0]]


def test_a_stroke_without_points_is_refused():
    with pytest.raises(DataError, match="A stroke has no points"):
        Stroke(None, ())


def test_a_stroke_through_nowhere_is_refused():
    with pytest.raises(DataError, match="points that are not numbers"):
        Stroke(None, ((0, float("nan"), 0),))


@pytest.mark.parametrize("radius", [-1, 1000, float("nan")])
def test_an_impossible_pen_is_refused(radius):
    with pytest.raises(SettingsError, match="Expected 0 to 100 mm"):
        Stroke(None, ((0, 0, 0),), radius)


def test_strokes_are_described_and_read_again() -> None:
    strokes = (Stroke("whole tumor", ((1, 2.5, 3), (1, 4, 5)), 2.5), Stroke(None, ((0, 0, 0),), 0, innermost=False))
    assert read_strokes(json.loads(json.dumps(describe_strokes(strokes)))) == strokes


@pytest.mark.parametrize(
    "described", [[{}], [3], [{"region": None, "points_zyx": [[1, 2]], "radius_mm": 1, "innermost": True}]]
)
def test_strokes_of_another_program_are_refused(described) -> None:
    with pytest.raises(DataError, match=r"strokes in the record are not as this program writes .*Draw the"):
        read_strokes(described)
