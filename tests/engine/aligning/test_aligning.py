from itertools import pairwise

import numpy as np
import pytest

from moved_heads import STAY, make_grid, make_move, measure_error, scan_head
from napari_braintumor.engine.aligning import aligning
from napari_braintumor.engine.aligning.aligning import align
from napari_braintumor.engine.aligning.registration import Registration
from napari_braintumor.engine.aligning.scans import Scan, choose_reference
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import Aligned, PhaseReached
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.inspecting.inspection import find_with_skull
from napari_braintumor.engine.settings import AlignConfig

THICK = make_grid((5, 2, 2))
FINE = make_grid((3, 1.5, 1.5))
HEADERS = AlignConfig(registration="never")
MOVED = make_move((6, -4, 8), (7, -5, 9))


def align_now(scans, config=None, **options):
    """Align without following progress."""
    *_, last = align(scans, config, **options)
    assert isinstance(last, Aligned)
    return last


def test_scans_that_share_a_grid_stay_as_they_are():
    scans = {"T1": scan_head("t1", THICK), "FLAIR": scan_head("flair", THICK)}
    aligned = align_now(scans)
    assert aligned.alignment is None
    assert all(aligned.images[modality] is scan.data for modality, scan in scans.items())
    assert list(align(scans))[:-1] == []


@pytest.mark.parametrize(
    "grid",
    [FINE, make_grid((1.5, 4, 1.5), plane="sagittal"), make_grid((4, 2, 1.5), plane="coronal"),
     make_grid((4, 1.5, 1.5), tilt_deg=17), make_grid((4, 1.5, 1.5), tilt_deg=-9, shear=0.15)],
    ids=["finer", "sagittal", "coronal", "oblique", "gantry tilt"],
)  # fmt: skip
def test_scans_on_other_grids_are_brought_to_where_their_headers_say(grid):
    aligned = align_now({"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", grid)}, HEADERS)
    expected, found = scan_head("t1", THICK).data, aligned.images["T1"]
    assert found.shape == THICK.shape_ZYX
    assert aligned.grid is THICK
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.97
    moved_off = [np.corrcoef(np.roll(expected, 1, axis).ravel(), found.ravel())[0, 1] for axis in range(3)]
    assert max(moved_off) < np.corrcoef(expected.ravel(), found.ravel())[0, 1]
    scan = aligned.alignment.scans["T1"]
    assert (scan.how, scan.grid, scan.before) == ("scanner coordinates", grid, None)
    np.testing.assert_array_equal(scan.to_reference, STAY)
    assert "T1 was brought onto the grid of FLAIR by its scanner coordinates." in aligned.notes


def test_a_head_that_moved_between_two_scans_is_registered():
    scans = {"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", FINE, MOVED)}
    aligned = align_now(scans)
    scan = aligned.alignment.scans["T1"]
    assert scan.how == "registered"
    assert scan.after > 1.2 * scan.before
    mm, degrees = measure_error(scan.to_reference, np.linalg.inv(MOVED))
    assert mm < 1
    assert degrees < 1
    (note,) = (note for note in aligned.notes if note.startswith("T1 was registered to FLAIR"))
    shift_mm, angle_deg = aligned.alignment.find_move("T1")
    assert f"moved by {shift_mm:.1f} mm and turned by {angle_deg:.1f}°" in note
    assert shift_mm == pytest.approx(np.sqrt(7**2 + 5**2 + 9**2), abs=1)
    assert angle_deg == pytest.approx(np.degrees(np.arccos((np.trace(MOVED[:3, :3]) - 1) / 2)), abs=1)


def test_two_scanner_coordinate_systems_that_do_not_meet_are_registered():
    far = make_move((0, 0, 5), (400, -300, 200))
    grid = make_grid((3, 1.5, 1.5))
    elsewhere = default_grid(grid.shape_ZYX, grid.spacing)
    elsewhere = type(grid)(**{**vars(grid), "affine": far @ grid.affine})
    aligned = align_now({"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", elsewhere, far)})
    mm, degrees = measure_error(aligned.alignment.scans["T1"].to_reference, np.linalg.inv(far))
    assert mm < 1
    assert degrees < 1


def test_registration_gives_the_same_move_to_the_bit_every_time():
    scans = {"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", make_grid((4, 3, 3)), MOVED)}
    first, second = (align_now(scans) for _ in range(2))
    np.testing.assert_array_equal(*(each.alignment.scans["T1"].to_reference for each in (first, second)))
    np.testing.assert_array_equal(first.images["T1"], second.images["T1"])


@pytest.mark.parametrize("gain", [-0.1, 0.0, 0.01])
def test_a_move_that_does_not_make_scans_more_alike_is_never_used(monkeypatch, gain):
    def find_worse(reference, other):
        yield Registration(MOVED, 0.5, 0.5 * (1 + gain))

    monkeypatch.setattr(aligning, "register", find_worse)
    scan = scan_head("t1", FINE)
    aligned = align_now({"FLAIR": scan_head("flair", THICK), "T1": scan})
    kept = aligned.alignment.scans["T1"]
    assert (kept.how, kept.before, kept.after) == ("scanner coordinates", 0.5, 0.5)
    np.testing.assert_array_equal(kept.to_reference, STAY)
    np.testing.assert_array_equal(
        aligned.images["T1"], align_now({"FLAIR": scan_head("flair", THICK), "T1": scan}, HEADERS).images["T1"]
    )
    assert any("registration found no better place" in note for note in aligned.notes)


@pytest.mark.parametrize(("frames", "how"), [(("a", "a"), "scanner coordinates"), (("a", "b"), "registered")])
def test_a_small_move_counts_only_between_two_scanner_coordinate_systems(monkeypatch, frames, how):
    def find_better(reference, other):
        yield Registration(make_move((0, 0, 0), (1, 0, 0)), 0.5, 0.6)

    monkeypatch.setattr(aligning, "register", find_better)
    one, two = (
        scan_head(kind, grid, frame=frame)
        for kind, grid, frame in zip(("flair", "t1"), (THICK, FINE), frames, strict=True)
    )
    assert align_now({"FLAIR": one, "T1": two}).alignment.scans["T1"].how == how


def test_registration_may_also_be_asked_for_scans_that_share_a_grid():
    scans = {"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", THICK, MOVED)}
    scan = align_now(scans, AlignConfig(registration="always")).alignment.scans["T1"]
    assert scan.how == "registered"
    assert measure_error(scan.to_reference, np.linalg.inv(MOVED))[0] < 1


def test_scans_that_share_a_grid_in_a_case_that_is_aligned_may_have_moved_too():
    scans = {"T1ce": scan_head("t1ce", FINE), "T1": scan_head("t1", FINE, MOVED), "T2": scan_head("t2", THICK)}
    aligned = align_now(scans)
    assert aligned.alignment.scans["T1"].how == "registered"
    assert list(aligned.images) == ["T1ce", "T1", "T2"]


# --------------------------------------------------------------------------------------------- what is not shown


def test_what_a_scan_does_not_show_is_air_around_the_head_and_missing_inside_it():
    part = make_grid((4, 2, 2), extent_mm=(60, 192, 160))
    flair, t1 = scan_head("flair", THICK), scan_head("t1", part)
    aligned = align_now({"FLAIR": flair, "T1": t1}, HEADERS)
    found, full = aligned.images["T1"], scan_head("t1", THICK).data
    head = full > 20
    unseen = np.zeros(THICK.shape_ZYX, bool)
    unseen[:8] = unseen[-8:] = True
    in_head = found[unseen & head & (flair.data > 20)]
    assert np.ptp(in_head) == 0
    tissue = found[~unseen & head]
    assert abs(in_head[0] - tissue.mean()) < 0.25 * tissue.std()  # no edge: a mean is nothing special
    assert not found[unseen & (flair.data == 0) & ~head].any()
    assert any(note.startswith("T1 shows only ") for note in aligned.notes)
    assert 0.2 < aligned.alignment.scans["T1"].coverage < 0.8


def test_scans_that_do_not_overlap_are_refused_or_left_out():
    far = make_grid()
    away = type(far)(**{**vars(far), "affine": make_move((0, 0, 0), (0, 0, 900)) @ far.affine})
    scans = {"FLAIR": scan_head("flair", FINE), "T1": Scan(scan_head("t1", far).data, away, "'t1.nii.gz'")}
    with pytest.raises(DataError, match=r"'t1\.nii\.gz' \(T1\) does not show the head that 'flair.*do not overlap"):
        align_now(scans, HEADERS)
    aligned = align_now(scans, HEADERS, leave_out=True)
    assert list(aligned.images) == list(aligned.alignment.scans) == ["FLAIR"]
    assert any("'t1.nii.gz' (T1)" in note and "left out" in note for note in aligned.notes)


@pytest.mark.parametrize("missing", ["spacing_known", "orientation_known"])
def test_a_scan_that_does_not_say_where_it_lies_cannot_be_aligned(missing):
    unknown = type(FINE)(**{**vars(FINE), missing: False})
    scans = {"FLAIR": scan_head("flair", THICK), "T1": Scan(scan_head("t1", FINE).data, unknown, "'t1.nii.gz'")}
    with pytest.raises(DataError, match=r"'t1\.nii\.gz'.*Choose files that state their voxel size"):
        align_now(scans)


# ------------------------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize(
    ("grids", "wanted", "chosen"),
    [
        ({"T1": FINE, "T1ce": FINE, "FLAIR": THICK}, "auto", "FLAIR"),
        ({"T1": FINE, "T1ce": THICK, "T2": FINE}, "auto", "T1ce"),
        ({"T1": FINE, "FLAIR": make_grid((5, 1, 1), plane="sagittal")}, "auto", "T1"),
        ({"T1": make_grid((5, 3, 3)), "FLAIR": make_grid((5, 4, 4))}, "auto", "T1"),
        ({"T1": FINE, "FLAIR": THICK}, "finest", "T1"),
        ({"T1": FINE, "FLAIR": THICK}, "T1", "T1"),
    ],
)
def test_the_reference_is_the_best_modality_with_fine_axial_slices(grids, wanted, chosen):
    assert choose_reference(grids, wanted) == chosen


def test_a_reference_that_the_case_does_not_have_is_refused():
    with pytest.raises(SettingsError, match="onto the grid of 'T2': the case has T1, FLAIR"):
        choose_reference({"T1": FINE, "FLAIR": THICK}, "T2")


# ------------------------------------------------------------------------------------------------------- progress


def test_phases_are_named_and_progress_grows_within_each():
    scans = {"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", make_grid((4, 3, 3)))}
    *phases, last = align(scans)
    assert isinstance(last, Aligned)
    assert all(isinstance(phase, PhaseReached) for phase in phases)
    assert list(dict.fromkeys(phase.phase for phase in phases)) == [
        "registering T1 to FLAIR", "resampling T1 to the grid of FLAIR"
    ]  # fmt: skip
    done = [phase.done for phase in phases if phase.phase.startswith("registering")]
    assert len(done) > 4
    assert all(a < b for a, b in pairwise(done))


def test_cubic_resampling_keeps_within_the_range_of_the_scan():
    scans = {"FLAIR": scan_head("flair", THICK), "T1": scan_head("t1", FINE)}
    found = align_now(scans, AlignConfig(registration="never", interpolation="cubic")).images["T1"]
    assert scans["T1"].data.min() <= found.min()
    assert found.max() <= scans["T1"].data.max()


@pytest.mark.parametrize(
    "grid",
    [make_grid((4, 2, 2), tilt_deg=8), make_grid((2, 2, 2)), make_grid((3, 3, 3), tilt_deg=15),
     make_grid((2, 5, 2), plane="coronal")],
    ids=["tilted", "finer", "coarser", "coronal"],
)  # fmt: skip
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_scans_without_the_skull_are_still_without_it_on_another_grid(grid, interpolation):
    onto = make_grid((6, 2, 2))
    scans = {"FLAIR": scan_head("flair", onto, order=0), "T1": scan_head("t1", grid, order=0)}
    config = AlignConfig(reference="FLAIR", registration="never", interpolation=interpolation)
    aligned = align_now(scans, config)
    assert find_with_skull(aligned.images) == ()
