import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.measuring.metrics import (
    calibration_error,
    calibration_sums,
    count_missed_lesions,
    hd95_mm,
    mean_interval,
    region_volume_ml,
    seed_dice,
    seed_sums,
    volume_dice,
)

EMPTY = np.zeros((6, 8, 10), bool)


def grid_of(*spacing: float) -> SourceGrid:
    return default_grid(EMPTY.shape, spacing)


ONE_MM = grid_of(1, 1, 1)


def cube(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = EMPTY.copy()
    mask[z, y, x] = True
    return mask


def blob(seed: int, shape: tuple[int, int, int] = (20, 32, 28)) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.5)
    return noise > np.quantile(noise, 0.9)


BOX = cube(slice(1, 4), slice(2, 6), slice(2, 6))


def test_dice_counts_twice_the_overlap():
    half = cube(slice(1, 4), slice(2, 6), slice(2, 4))
    assert volume_dice(half, BOX) == pytest.approx(2 * 24 / (24 + 48))
    assert volume_dice(BOX, half) == volume_dice(half, BOX)


def test_dice_of_a_mask_with_itself_is_one_and_with_its_complement_zero():
    assert volume_dice(BOX, BOX) == 1
    assert volume_dice(BOX, ~BOX) == 0


def test_dice_is_one_when_both_masks_are_empty_and_zero_when_one_is():
    assert volume_dice(EMPTY, EMPTY) == 1
    assert volume_dice(BOX, EMPTY) == 0
    assert volume_dice(EMPTY, BOX) == 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # inside MONAI
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.8, 1.1)])
@pytest.mark.parametrize("seed", range(6))
def test_hd95_agrees_with_monai_on_random_blobs(seed, spacing):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_hausdorff_distance

    prediction, reference = blob(seed), blob(seed + 100)
    both = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    theirs = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing).item()
    assert hd95_mm(prediction, reference, grid_of(*spacing)) == pytest.approx(theirs, rel=1e-5)


def test_hd95_of_a_shifted_box_is_the_shift_in_mm():
    shifted = np.roll(BOX, 2, axis=2)
    assert hd95_mm(BOX, shifted, grid_of(1, 1, 1.5)) == pytest.approx(3)
    assert hd95_mm(BOX, np.roll(BOX, 1, axis=0), grid_of(5, 1, 1)) == pytest.approx(5)


def test_hd95_takes_the_larger_direction():
    far = BOX | cube(slice(0, 6), slice(7, 8), slice(0, 10))
    assert hd95_mm(BOX, far, ONE_MM) == hd95_mm(far, BOX, ONE_MM) > 1


def test_hd95_is_zero_when_both_masks_are_empty_and_the_brats_penalty_when_one_is():
    assert hd95_mm(EMPTY, EMPTY, ONE_MM) == 0
    assert hd95_mm(BOX, EMPTY, ONE_MM) == 374
    assert hd95_mm(EMPTY, BOX, ONE_MM) == 374


def test_hd95_does_not_depend_on_how_much_background_surrounds_the_masks():
    a, b = blob(1), blob(2)
    inner = hd95_mm(a, b, grid_of(2, 1, 1))
    assert hd95_mm(np.pad(a, 7), np.pad(b, 7), grid_of(2, 1, 1)) == pytest.approx(inner)


def test_a_volume_in_ml_is_voxels_times_their_size():
    assert region_volume_ml(BOX, grid_of(5, 0.5, 0.5)) == pytest.approx(48 * 1.25 / 1000)
    assert region_volume_ml(EMPTY, ONE_MM) == 0


def test_lesions_that_are_not_touched_are_missed() -> None:
    reference = np.zeros((4, 12, 12), bool)
    reference[0, :2, :2] = reference[2, 5:7, 5:7] = reference[3, 10:, 10:] = True
    prediction = np.zeros_like(reference)
    prediction[2, 6, 6] = True
    assert count_missed_lesions(prediction, reference) == (2, 3)
    assert count_missed_lesions(reference, reference) == (0, 3)
    assert count_missed_lesions(prediction, np.zeros_like(reference)) == (0, 0)


def test_the_seed_s_measure_gives_an_empty_prediction_a_half() -> None:
    reference = np.zeros((20, 64, 64), bool)
    reference[:, 20:30, 20:30] = True
    assert seed_dice(seed_sums(np.zeros(reference.shape), reference)) == pytest.approx(0.5, abs=0.02)
    assert seed_dice(seed_sums(reference.astype(float), reference)) == pytest.approx(1.0)


def test_the_seed_s_measure_agrees_with_its_definition() -> None:
    random = np.random.default_rng(0)
    p, t = random.random((20, 8, 8)), random.random((20, 8, 8)) > 0.6
    scores = []
    for start in (0, 16):
        one, two = p[start : start + 16], t[start : start + 16].astype(float)
        sides = [(one, two), (1 - one, 1 - two)]
        scores.append(np.mean([(2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in sides]))
    assert seed_dice(seed_sums(p, t)) == pytest.approx(np.mean(scores))


def test_probabilities_that_say_how_often_there_is_tumor_are_calibrated() -> None:
    random = np.random.default_rng(0)
    probability = random.uniform(0, 1, (40, 60, 60))
    honest = random.random(probability.shape) < probability
    assert calibration_error(calibration_sums(probability, honest)) < 0.02
    assert calibration_error(calibration_sums(np.full_like(probability, 0.9), honest)) > 0.3


def test_clear_background_does_not_make_a_model_look_calibrated() -> None:
    probability = np.zeros((4, 50, 50))
    probability[0, :10, :10] = 0.9
    sums = calibration_sums(probability, np.zeros(probability.shape, bool))
    assert sums[:, 0].sum() == 100
    assert calibration_error(sums) == pytest.approx(0.9)
    assert calibration_error(np.zeros((10, 3))) == 0


def test_the_interval_of_a_mean_narrows_with_more_cases() -> None:
    few, many = mean_interval([0.5, 0.7, 0.9]), mean_interval([0.5, 0.7, 0.9] * 30)
    assert few[0] < many[0] < 0.7 < many[1] < few[1]
    assert mean_interval([0.4]) == (0.4, 0.4)


SHEARS = {
    "along Y": [[1, 0, 0], [0.45, 1, 0], [0, 0, 1]],
    "along X": [[1, 0, 0], [0, 1, 0], [-0.6, 0, 1]],
    "in the slice": [[1, 0, 0], [0, 1, 0.5], [0, 0, 1]],
    "all ways": [[1, 0.2, -0.1], [0.4, 1, 0.3], [-0.3, 0.1, 1]],
}


@pytest.mark.parametrize("shear", SHEARS.values(), ids=SHEARS)
@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_volumes_and_distances_in_a_sheared_grid_are_those_in_the_world(shear, turn) -> None:
    c, s = np.cos(turn), np.sin(turn)
    sides = np.diag([2.0, 0.9, 0.8])
    steps = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(shear) @ sides  # columns: mm along Z, Y, X
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ steps[::-1, ::-1]  # source axes X, Y, Z to RAS
    grid = grid_from_affine((28, 32, 20), affine)
    one, two = blob(1), blob(2)
    corners = np.abs(np.linalg.det(steps))
    assert region_volume_ml(one, grid) == pytest.approx(np.count_nonzero(one) * corners / 1000)
    assert grid.voxel_ml < np.prod(grid.spacing) / 1000

    def surface(mask):  # the plain way: every voxel against every other, in the world
        return (np.argwhere(mask & ~binary_erosion(mask))) @ steps.T

    a, b = surface(one), surface(two)
    apart = np.linalg.norm(a[:, None] - b[None], axis=-1)
    expected = max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95))
    assert hd95_mm(one, two, grid) == pytest.approx(expected)
