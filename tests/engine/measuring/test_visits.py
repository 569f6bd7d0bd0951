"""Two visits of a patient: pairing, days, and a made pair whose change is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.grid import default_grid, grid_from_affine
from napari_braintumor.engine.measuring.visits import (
    CHANGES,
    GROWN,
    NEW,
    SHRUNK,
    UNCHANGED,
    VANISHED,
    compare_visits,
    find_day,
    find_interval,
    map_changes,
    pair_visits,
    register_visits,
    scans_of_volume,
)
from napari_braintumor.engine.volumes import Reference

SHAPE = (60, 90, 100)
ET, WT = "enhancing tumor", "whole tumor"


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    z, y, x = np.ogrid[tuple(slice(size) for size in SHAPE)]
    return (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= radius**2


FIRST, SECOND, THIRD = (30, 45, 30), (30, 45, 75), (15, 20, 50)


def make_pair() -> tuple[np.ndarray, np.ndarray]:
    """One lesion grows by 2 mm, one vanishes, one is new."""
    return ball(FIRST, 10) | ball(SECOND, 7), ball(FIRST, 12) | ball(THIRD, 8)


def test_what_grew_vanished_and_is_new_is_mapped() -> None:
    earlier, later = make_pair()
    changes, new, vanished = map_changes(earlier, later, default_grid(SHAPE))
    assert (new, vanished) == (1, 1)
    assert np.array_equal(changes == UNCHANGED, ball(FIRST, 10))
    assert np.array_equal(changes == GROWN, ball(FIRST, 12) & ~ball(FIRST, 10))
    assert np.array_equal(changes == NEW, ball(THIRD, 8))
    assert np.array_equal(changes == VANISHED, ball(SECOND, 7))
    back, *_ = map_changes(later, earlier, default_grid(SHAPE))
    assert np.array_equal(back == SHRUNK, changes == GROWN)


def reference(mask: np.ndarray, grid=None) -> Reference:
    return Reference({WT: mask, ET: mask}, "brats2023", grid or default_grid(mask.shape))


def test_the_made_pair_is_measured_assessed_and_mapped() -> None:
    earlier, later = make_pair()
    found = compare_visits(reference(earlier), reference(later), np.eye(4), 90)
    by_region = {region: (before, after) for region, before, after in found.list_volumes()}
    assert by_region[ET] == pytest.approx((earlier.sum() / 1000, later.sum() / 1000))
    assert found.interval_days == 90
    assert (found.new, found.vanished) == (1, 1)
    assert found.assessment.region == ET
    assert found.assessment.category == "PD"
    assert "1 new lesion of at least 10 x 10 mm" in found.assessment.reason
    assert found.changes_ml[GROWN] == pytest.approx((ball(FIRST, 12).sum() - ball(FIRST, 10).sum()) / 1000)
    assert set(found.changes_ml) == set(CHANGES)


def test_growth_alone_is_judged_by_the_product_of_diameters() -> None:
    found = compare_visits(reference(ball(FIRST, 10)), reference(ball(FIRST, 12)), np.eye(4))
    before, after = found.assessment.products_mm2
    assert (before, after) == pytest.approx((20 * 20, 24 * 24), rel=0.07)  # centers on voxels make a ball long
    assert found.assessment.category == "PD"
    assert found.assessment.by_volume == "PD"
    stable = compare_visits(reference(ball(FIRST, 10)), reference(ball(FIRST, 10.5)), np.eye(4))
    assert stable.assessment.category == "SD"
    gone = compare_visits(reference(ball(FIRST, 10)), reference(np.zeros(SHAPE, np.bool_)), np.eye(4))
    assert (gone.assessment.category, gone.vanished) == ("CR", 1)


def test_a_later_visit_on_a_moved_grid_is_brought_onto_the_earlier_one() -> None:
    """The same tumor in a head that lies elsewhere in the scanner: with the right move nothing has changed."""
    mask = ball(FIRST, 10)
    grid = default_grid(SHAPE)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", (4, -6, 5), degrees=True).as_matrix()
    move[:3, 3] = 6, -4, 3
    moved = grid_from_affine(grid.shape, np.linalg.inv(move) @ grid.affine)
    later = reference(moved.from_source(grid.to_source(mask)), moved)
    found = compare_visits(reference(mask), later, move)
    assert found.changes_ml[GROWN] + found.changes_ml[SHRUNK] < 0.02 * found.changes_ml[UNCHANGED]
    unmoved = compare_visits(reference(mask), later, np.eye(4))
    assert unmoved.changes_ml[GROWN] + unmoved.changes_ml[NEW] > 0.3 * found.changes_ml[UNCHANGED]


def test_visits_without_a_common_region_are_refused() -> None:
    mask = ball(FIRST, 5)
    one = Reference({"tumor core": mask}, "core", default_grid(SHAPE))
    two = Reference({WT: mask}, "whole", default_grid(SHAPE))
    with pytest.raises(DataError, match=r"have tumor core and whole tumor\. Expected a region in both"):
        compare_visits(one, two, np.eye(4))
    with pytest.raises(DataError, match=r"Expected enhancing tumor in both"):
        compare_visits(two, two, np.eye(4), region=ET)


def case(name: str, patient: str = "p1") -> CaseFiles:
    return CaseFiles(name, patient, "other", ())


@pytest.mark.parametrize(
    ("first", "second", "days"),
    [
        ("p1_2024-03-01", "p1_2024-03-31", 30),
        ("p1_20240301", "p1_20250301", 365),
        ("BraTSReg_002_00_0000", "BraTSReg_002_01_0262", 262),
        ("p1_baseline", "p1_2024-03-31", None),
        ("p1_1", "p1_2", None),
    ],
)
def test_the_days_between_visits_follow_from_their_names(first: str, second: str, days: int | None) -> None:
    assert find_interval(find_day(case(first)), find_day(case(second))) == days


def test_a_day_that_does_not_exist_is_not_known() -> None:
    assert find_day(case("p1_2024-02-30")) is None


def test_visits_are_paired_in_the_order_of_their_dates() -> None:
    cases = [
        case("p1_2024-10-01"),
        case("p1_2023-12-31"),
        case("p1_2024-02-01"),
        case("p2_1", "p2"),
        case("p3_10", "p3"),
    ]
    cases.append(case("p3_9", "p3"))
    names = [(one.name, two.name) for one, two in pair_visits(cases)]
    assert names == [
        ("p1_2023-12-31", "p1_2024-02-01"),
        ("p1_2024-02-01", "p1_2024-10-01"),
        ("p3_9", "p3_10"),
    ]


def test_patients_with_one_visit_make_no_pair() -> None:
    with pytest.raises(DataError, match=r"No patient has two visits among 2 cases \(p1, p2\)"):
        pair_visits([case("p1"), case("p2", "p2")])


def test_a_head_that_moved_between_visits_is_found_again() -> None:
    (files,) = find_cases(sample_folder())
    earlier = read_case(files).with_modalities(("T1",))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("z", 6, degrees=True).as_matrix()
    move[:3, 3] = 7, -5, 4
    moved = replace(earlier.source, affine=np.linalg.inv(move) @ earlier.source.affine)
    *_, found = register_visits(scans_of_volume(earlier), scans_of_volume(replace(earlier, source=moved)))
    assert isinstance(found, np.ndarray)
    corners = np.array([[40, 40, 40, 1], [-40, 30, 10, 1], [0, -50, 60, 1]], float).T
    assert np.abs(found @ corners - move @ corners).max() < 1.0
    with pytest.raises(DataError, match="The visits have no modality in common: T1 and FLAIR"):
        next(register_visits(scans_of_volume(earlier), {"FLAIR": scans_of_volume(earlier)["T1"]}))
