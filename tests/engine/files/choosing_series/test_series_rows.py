"""The table of series: which one is used for each modality, why the others are not, and what the user hears."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_braintumor.engine.files.choosing_series.rows import (
    NO_MODALITY,
    SeriesRow,
    describe_rows,
    find_plane,
    judge_series,
)
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.grid import grid_from_affine

NORMALS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""The world axes of columns, rows and slices."""


def grid(plane: str = "axial", sides: tuple[float, ...] = (0.9, 0.9, 5), shape=(256, 256, 26), at=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, NORMALS[plane]] * np.array(sides)
    affine[:3, 3] = at
    return grid_from_affine(shape, affine, format="nifti")


def series(number: int, description: str, **fields: object) -> Series:
    fields = {"grid": grid(), "slices": 26, "frame_of_reference": "f", **fields}
    return Series((Path(f"{number}"),), "dicom", f"k{number}", number=number, description=description, **fields)


def used(rows: tuple[SeriesRow, ...]) -> dict[str | None, int | None]:
    return {row.modality: row.series.number for row in rows if row.used}


THIN = grid("sagittal", (1, 1, 1.2), (256, 256, 150))


@pytest.mark.parametrize(
    ("good", "worse", "why"),
    [
        ({"grid": THIN}, {}, "has thinner slices"),
        ({}, {"grid": grid("coronal")}, "is axial"),
        ({}, {"image_type": ("DERIVED", "SECONDARY")}, "is an original scan"),
        ({"grid": grid("coronal")}, {"image_type": ("DERIVED", "SECONDARY"), "grid": THIN}, "is an original scan"),
        ({}, {"description": "AX T2 FS"}, "is not fat-suppressed"),
        ({}, {"grid": grid(shape=(256, 256, 8)), "slices": 8}, "covers the whole head"),
        ({}, {"grid": grid(shape=(256, 256, 23)), "slices": 23}, "covers more"),
        ({"number": 9}, {"number": 3}, "is a later repeat"),
        ({}, {"echo_time_ms": 9.0, "repetition_time_ms": 500.0}, "is surer"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_several_candidates_the_best_is_used_and_the_others_say_why_not(good, worse, why: str, turned: bool):
    one = replace(series(4, "AX T2"), **{"key": "good", **good})
    other = replace(series(5, "AX T2"), **{"key": "worse", "number": 4, **worse})
    rows = {row.key: row for row in judge_series([one, other] if turned else [other, one])}
    assert rows["good"].used
    assert not rows["good"].why_not
    assert not rows["worse"].used
    assert rows["worse"].why_not.startswith(f"series {one.number} 'AX T2' {why}")


def test_every_series_is_used_or_says_why_not():
    rows = judge_series([
        series(1, "localizer"), series(2, "AX T1"), series(3, "AX T2"), series(4, "AX FLAIR"), series(5, "AX DWI"),
        series(6, "ADC"), series(7, "AX T1 +C"), series(8, "COR T1 +C", grid=grid("coronal")), series(9, "unknown"),
        series(10, "", kind="SR"), series(11, "AX T2", problem="Series 11 has no pixels."),
    ])  # fmt: skip
    assert used(rows) == {"T1": 2, "T2": 3, "FLAIR": 4, "T1ce": 7}
    assert all(row.used != bool(row.why_not) for row in rows)
    why = {row.series.number: row.why_not for row in rows}
    assert why[1] == "a scout"
    assert why[5] == "a diffusion scan"
    assert why[6] == "a map computed from a diffusion scan"
    assert why[10] == "a report"
    assert why[11] == "Series 11 has no pixels."
    assert "neither the description nor the times" in why[9]


def test_a_series_elsewhere_in_the_body_is_not_used_and_the_next_best_is():
    spine = grid(at=(0, 0, -400))
    rows = judge_series([series(1, "AX T1"), series(2, "AX T2", grid=THIN), series(3, "AX FLAIR", grid=spine)])
    assert used(rows) == {"T1": 1, "T2": 2}
    assert rows[2].why_not == "it does not lie where series 1 'AX T1' lies"
    rows = judge_series([series(1, "AX T1"), series(2, "AX T2", grid=spine), series(3, "COR T2", grid=grid("coronal"))])
    assert used(rows) == {"T1": 1, "T2": 3}


def test_series_in_other_coordinates_are_not_compared_by_place():
    away = series(2, "AX T2", grid=grid(at=(0, 0, -400)), frame_of_reference="other")
    assert used(judge_series([series(1, "AX T1"), away])) == {"T1": 1, "T2": 2}


def test_what_the_user_chose_is_used_whatever_the_headers_say():
    scans = [series(1, "AX T1"), series(2, "AX DWI"), series(3, "AX T2"), series(4, "T2 again", grid=THIN)]
    assert used(judge_series(scans)) == {"T1": 1, "T2": 4}
    rows = judge_series(scans, {"k2": "FLAIR", "k3": "T2", "k1": NO_MODALITY})
    assert used(rows) == {"FLAIR": 2, "T2": 3}
    assert rows[0].why_not == "not wanted"
    assert rows[1].reason == "chosen by hand"
    assert rows[3].why_not == "series 3 'AX T2' was chosen instead"


def test_a_series_that_cannot_be_read_is_not_used_even_if_chosen():
    rows = judge_series([series(1, "AX T1", problem="Series 1 has no pixels.")], {"k1": "T1"})
    assert not used(rows)
    assert rows[0].why_not == "Series 1 has no pixels."


def test_notes_name_what_was_left_out_with_one_sentence_for_each_reason():
    rows = judge_series(
        [series(n, "loc") for n in range(1, 8)]
        + [series(8, "AX T1"), series(9, "AX T2", notes=("Series 9: 1 slice is missing.",))]
    )
    assert describe_rows(rows) == (
        "Series 9: 1 slice is missing.",
        "Series 1 'loc', series 2 'loc', series 3 'loc', series 4 'loc' and 3 more were left out: a scout.",
    )


def test_a_series_that_was_used_in_doubt_is_noted_until_the_user_agrees():
    scans = [series(1, "AX T1"), series(2, "AX T2"), series(3, "AX T1")]
    (note,) = describe_rows(judge_series(scans))
    assert note.startswith("Series 3 'AX T1' was taken for T1ce, but check it: the description says T1; series 1 is")
    assert describe_rows(judge_series(scans, {"k3": "T1ce"})) == ()


def test_a_series_without_number_or_description_still_has_a_name():
    nameless = replace(series(1, ""), number=None)
    assert judge_series([nameless])[0].title == "series without a number"
    assert judge_series([replace(nameless, description="AX T1")])[0].title == "series 'AX T1'"
    assert judge_series([replace(nameless, number=4)])[0].title == "series 4"


@pytest.mark.parametrize("plane", NORMALS)
@pytest.mark.parametrize("sides", [(0.9, 0.9, 5), (1, 1, 1.3), (1, 1, 1), (1.2, 1, 1)])
def test_the_plane_is_that_of_the_slices(plane: str, sides: tuple[float, float, float]):
    assert find_plane(grid(plane, sides)) == plane


@given(st.floats(0, 45), st.sampled_from(list(NORMALS)))
def test_a_plane_turned_by_more_than_twenty_degrees_is_oblique(degrees: float, plane: str):
    angle = np.deg2rad(degrees)
    flat = grid(plane)
    axis = flat.affine[:3, 0] / np.linalg.norm(flat.affine[:3, 0])  # turned about the rows
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = flat.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    if abs(degrees - 20) > 0.01:
        assert find_plane(grid_from_affine(flat.shape, affine)) == (plane if degrees < 20 else "oblique")


def test_a_series_without_a_grid_has_no_plane_and_no_voxel_size():
    (row,) = judge_series([series(1, "AX T1", grid=None)])
    assert (row.plane, row.voxel_size) == ("", "")
    (row,) = judge_series([series(1, "AX T1")])
    assert (row.plane, row.voxel_size) == ("axial", "5 x 0.9 x 0.9")
