"""Registration of real scans: slow, and only where the shared scans are."""

import csv
from functools import cache

import numpy as np
import pytest

from moved_heads import measure_turn
from napari_braintumor.engine.aligning.registration import Registration, prepare_scan, register
from napari_braintumor.engine.aligning.resampling import resample
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.grid import grid_from_affine

pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(1200)]

TRIALS = 20
NATIVE = "unlabelled/TCGA-FG-6692_native"
BRATS = "brats/BraTS2021_00024/BraTS2021_00024"
FIRST, LATER = (f"brats_reg/BraTSReg_002/BraTSReg_002_{visit}" for visit in ("00_0000", "01_0262"))


@cache
def read_scan(path):
    data, grid = read_nifti(path)
    return Scan(data, grid, path.name)


def find(reference, other):
    *_, last = register(prepare_scan(reference), prepare_scan(other))
    assert isinstance(last, Registration)
    return last


def draw_move(rng, center):
    """A turn of up to 15 degrees about any axis through a place, and a shift of up to 20 mm in any direction."""
    axis, way = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    angle = np.radians(rng.uniform(0, 15))
    cross = np.cross(np.eye(3), -axis)
    move = np.eye(4)
    move[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    move[:3, 3] = center - move[:3, :3] @ center + rng.uniform(0, 20) * way
    return move


def middle_of(grid):
    return (grid.affine @ np.array([*((np.array(grid.shape) - 1) / 2), 1]))[:3]


@pytest.mark.parametrize(
    ("one", "two"),
    [(f"{BRATS}_flair", f"{BRATS}_t1"), (f"{BRATS}_t1ce", f"{BRATS}_t2"), ("healthy/chris_t1", "healthy/chris_t1"),
     (f"{NATIVE}/flair", f"{NATIVE}/flair")],
    ids=["T1 to FLAIR", "T2 to T1ce", "T1 with skull", "thick FLAIR with skull"],
)  # fmt: skip
def test_random_moves_of_up_to_15_degrees_and_20_mm_are_recovered(real_data, one, two):
    reference, other = (read_scan(real_data / f"{name}.nii.gz") for name in (one, two))
    prepared = prepare_scan(reference)
    rng, good = np.random.default_rng(16), 0
    for trial in range(TRIALS):
        move = draw_move(rng, middle_of(other.grid))
        # The moved head is scanned on a tilted grid of other voxels, so that no voxel lies where one was before.
        tilt = draw_move(rng, middle_of(other.grid))
        spacing = np.array(other.grid.affine)
        spacing[:3, :3] *= 1.15
        shape = tuple(int(np.ceil(size / 1.15)) for size in other.grid.shape)
        grid = grid_from_affine(shape, tilt @ spacing, format="nifti")
        moved = Scan(resample(other.data, other.grid, grid, move), grid, "moved")
        *_, found = register(prepared, prepare_scan(moved))
        error = found.to_reference @ move
        center = np.append(middle_of(reference.grid), 1)
        mm, degrees = float(np.linalg.norm((error @ center - center)[:3])), measure_turn(error)
        good += mm < 1 and degrees < 1
        print(f"{trial:2d}  {mm:5.2f} mm  {degrees:5.2f}°  mutual information {found.before:.3f} -> {found.after:.3f}")
    print(f"{good} of {TRIALS} within 1 mm and 1 degree")
    assert good >= TRIALS - 1


def read_landmarks(path):
    """Landmarks in RAS mm; the files have LPS."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return np.array([[-float(row["X"]), -float(row["Y"]), float(row["Z"])] for row in rows])


def fit_rigidly(points, onto):
    """The best rigid move by least squares (Kabsch)."""
    u, _, vt = np.linalg.svd((points - points.mean(0)).T @ (onto - onto.mean(0)))
    turn = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = turn, onto.mean(0) - turn @ points.mean(0)
    return move


def test_a_later_visit_is_brought_to_the_first_as_near_as_rigid_moves_can(real_data):
    first, later = (read_landmarks(real_data / f"{visit}_landmarks.csv") for visit in (FIRST, LATER))

    def apart(move):
        return float(np.median(np.linalg.norm(later @ move[:3, :3].T + move[:3, 3] - first, axis=1)))

    found = find(*(read_scan(real_data / f"{visit}_t1ce.nii.gz") for visit in (FIRST, LATER)))
    best, before, after = apart(fit_rigidly(later, first)), apart(np.eye(4)), apart(found.to_reference)
    print(f"{len(first)} landmarks, median: {before:.2f} mm before, {after:.2f} registered, {best:.2f} best rigid fit")
    assert after <= best + 0.5
