import numpy as np
import pytest

from moved_heads import STAY, make_grid, make_move, read_sample, scan_head
from napari_braintumor.engine.aligning.returning import labels_on, move_labels
from napari_braintumor.engine.alignment import AlignedScan, Alignment
from napari_braintumor.engine.errors import SettingsError

FINE = make_grid((2, 1, 1))
MOVED = make_move((6, -4, 8), (7, -5, 9))


def overlap(one, two):
    return 2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two))


def align_to(grid, to_reference, reference=FINE):
    return Alignment("FLAIR", {
        "FLAIR": AlignedScan(reference, STAY, "same grid"), "T1": AlignedScan(grid, to_reference, "registered")
    })  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "least"),
    [(make_grid((1.5, 1, 1)), 0.97), (make_grid((5, 1, 1), tilt_deg=17), 0.93),
     (make_grid((1, 5, 1), plane="sagittal"), 0.9),
     (make_grid((4, 1, 1), shear=0.15), 0.93)],
)  # fmt: skip
@pytest.mark.parametrize("move", [STAY, MOVED], ids=["by headers", "registered"])
def test_labels_return_to_where_the_tumor_is_in_the_original_scan(grid, least, move):
    labels = scan_head("seg", FINE, order=0).data.astype(np.uint8)
    returned = labels_on(labels, align_to(grid, np.linalg.inv(move)), "T1")
    there = scan_head("seg", grid, move, order=0).data
    assert returned.shape == grid.shape_ZYX
    assert returned.dtype == np.uint8
    assert set(np.unique(returned)) <= {0, 1, 2, 3}
    assert overlap(returned > 0, there > 0) > least
    assert (returned > 0).sum() == pytest.approx((there > 0).sum(), rel=0.05)


def test_labels_on_the_references_own_grid_stay_exactly_as_they_are():
    labels, grid = read_sample("seg")
    alignment = Alignment("FLAIR", {m: AlignedScan(grid, STAY, "same grid") for m in ("FLAIR", "T1")})
    for modality in ("FLAIR", "T1"):
        np.testing.assert_array_equal(labels_on(labels.astype(np.uint8), alignment, modality), labels)


def test_the_way_there_and_back_is_exact_for_moves_by_whole_voxels():
    labels = scan_head("seg", FINE, order=0).data.astype(np.uint8)
    step = make_move((0, 0, 0), (3, -4, 6))
    alignment = align_to(FINE, step)
    returned = labels_on(labels, alignment, "T1")
    back = move_labels(returned, FINE, FINE, step)
    np.testing.assert_array_equal(back, labels)
    assert (returned != labels).any()


def test_a_voxel_that_labels_cover_by_half_gets_the_one_that_covers_most():
    grid, coarse = make_grid((1, 1, 1), (8, 8, 8)), make_grid((4, 1, 1), (8, 8, 8))
    labels = np.zeros(grid.shape_ZYX, np.uint8)
    labels[:4, 2:6, 2:6] = np.array([0, 1, 2, 2])[:, None, None]
    moved = move_labels(labels, grid, coarse, STAY)
    assert (moved[0, 2:6, 2:6] == 2).all()
    labels[:4, 2:6, 2:6] = np.array([0, 0, 0, 2])[:, None, None]
    assert not move_labels(labels, grid, coarse, STAY).any()


def test_labels_for_a_scan_that_is_not_there_are_refused():
    with pytest.raises(SettingsError, match=r"There is no T2 in this case.*one of FLAIR, T1"):
        labels_on(np.zeros(FINE.shape_ZYX, np.uint8), align_to(FINE, STAY), "T2")
