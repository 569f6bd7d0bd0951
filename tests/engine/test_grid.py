import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.grid import check_same_grid, corner_distance_vox, default_grid, grid_from_affine

SHAPE = (30, 24, 10)
REMEDY = "Resample one first."


def make_grid(steps=(0.9, 0.9, 5.0), move=(0.0, 0.0, 0.0), turn=0.2, shape=SHAPE, **known):
    c, s = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(steps)
    affine[:3, 3] = move
    return grid_from_affine(shape, affine, format=known.pop("format", "nifti"), **known)


def check(one, two):
    return check_same_grid(one, two, "'a.nii'", "'b.nii'", REMEDY)


@settings(deadline=None, max_examples=60)
@given(
    move=st.tuples(*[st.floats(-1, 1)] * 3),
    stretch=st.tuples(*[st.floats(-0.01, 0.01)] * 3),
    more=st.floats(-0.01, 0.01),
)
def test_two_grids_are_one_exactly_where_every_corner_is_within_a_tenth_of_a_voxel(move, stretch, more) -> None:
    one = make_grid()
    two = make_grid(np.array((0.9, 0.9, 5.0)) * (1 + np.array(stretch)), move, 0.2 + more)
    corners = np.array(list(itertools.product(*((0, n - 1) for n in SHAPE))))
    there = corners @ two.affine[:3, :3].T + two.affine[:3, 3]
    back = np.linalg.inv(one.affine)
    far = np.linalg.norm(there @ back[:3, :3].T + back[:3, 3] - corners, axis=1).max()
    assert corner_distance_vox(one, two) == pytest.approx(far)
    if far <= 0.1:
        assert check(one, two) is None
    else:
        with pytest.raises(DataError, match=r"differ in voxel size|mm apart"):
            check(one, two)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("far_mm", [0.006, 0.05])
def test_headers_rounded_by_different_programs_are_one_grid(axis, far_mm) -> None:
    move = np.zeros(3)
    move[axis] = far_mm
    assert check(make_grid(), make_grid(move=move)) is None


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_scans_stored_along_different_axes_are_one_grid_where_their_voxels_lie_alike(axes) -> None:
    one = make_grid(turn=0)
    turned = np.eye(4)[:, [*axes, 3]]
    two = grid_from_affine(tuple(SHAPE[a] for a in axes), one.affine @ turned, format="nifti")
    assert check(one, two) is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"shape": (30, 24, 9)}, r"'a\.nii' \(10, 24, 30\) and 'b\.nii' \(9, 24, 30\) differ in shape\. Resample"),
        ({"steps": (0.9, 0.9, 5.1)}, r"\(5 x 0\.9 x 0\.9 mm\) and 'b\.nii' \(5\.1 x 0\.9 .* differ in voxel size"),
        ({"move": (0, 0, 0.6)}, r"'a\.nii' and 'b\.nii' lie up to 0\.6 mm apart"),
        ({"turn": 0.25}, r"lie up to .* mm apart"),
        ({"turn": 0.3, "spacing_known": False}, "are rotated relative to each other"),
        ({"orientation_known": False}, r"'b\.nii' does not state its orientation .* but 'a\.nii' does"),
        ({"orientation_known": False, "format": "tiff", "steps": (0.8, 0.8, 5)}, "differ in voxel size"),
    ],
)  # fmt: skip
def test_grids_that_differ_are_refused_with_the_difference(other, message) -> None:
    with pytest.raises(DataError, match=message):
        check(make_grid(), make_grid(**other))


def test_what_a_file_does_not_state_is_not_compared_but_noted() -> None:
    stack = default_grid((10, 24, 30), format="tiff", spacing_known=False, orientation_known=False)
    assert "'b.nii' does not state its orientation" in check(make_grid(), stack)
    assert "'a.nii' does not state its orientation" in check(stack, make_grid())
    assert check(stack, stack) is None
    guessed = make_grid((1, 1, 1), (-80, 0, 3), spacing_known=False)
    assert "voxel size of 'b.nii' is not known" in check(make_grid(), guessed)


@pytest.mark.parametrize("turn", [0, 0.3])
def test_a_voxel_size_given_by_the_user_replaces_that_of_the_file(turn) -> None:
    grid = make_grid((1, 1, 1), turn=turn, spacing_known=False, spacing_note="A guess.")
    stated = grid.with_spacing((6, 0.9, 0.8))
    assert stated.spacing == pytest.approx((6, 0.9, 0.8))
    assert stated.spacing_known
    assert stated.notes == ()
    assert stated.voxel_ml == pytest.approx(6 * 0.9 * 0.8 / 1000)
    assert (grid.axes, grid.flips) == (stated.axes, stated.flips)
    assert grid.spacing == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1), (1, 1000, 1), (1, 1, 25)])
def test_a_voxel_size_that_no_head_has_is_refused(spacing) -> None:
    with pytest.raises(
        SettingsError, match=r"are not possible for a scan of 10 x 24 x 30 voxels.*Enter the voxel size"
    ):
        make_grid().with_spacing(spacing)
