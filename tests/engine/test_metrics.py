import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_braintumor.engine.metrics import hd95_mm, region_volume_ml, volume_dice

EMPTY = np.zeros((6, 8, 10), bool)
ONE_MM = (1.0, 1.0, 1.0)


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
@pytest.mark.parametrize("spacing", [ONE_MM, (5.0, 0.8, 1.1)])
@pytest.mark.parametrize("seed", range(6))
def test_hd95_agrees_with_monai_on_random_blobs(seed, spacing):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_hausdorff_distance

    prediction, reference = blob(seed), blob(seed + 100)
    both = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    theirs = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing).item()
    assert hd95_mm(prediction, reference, spacing) == pytest.approx(theirs, rel=1e-5)


def test_hd95_of_a_shifted_box_is_the_shift_in_mm():
    shifted = np.roll(BOX, 2, axis=2)
    assert hd95_mm(BOX, shifted, (1, 1, 1.5)) == pytest.approx(3)
    assert hd95_mm(BOX, np.roll(BOX, 1, axis=0), (5, 1, 1)) == pytest.approx(5)


def test_hd95_takes_the_larger_direction():
    far = BOX | cube(slice(0, 6), slice(7, 8), slice(0, 10))
    assert hd95_mm(BOX, far, ONE_MM) == hd95_mm(far, BOX, ONE_MM) > 1


def test_hd95_is_zero_when_both_masks_are_empty_and_the_brats_penalty_when_one_is():
    assert hd95_mm(EMPTY, EMPTY, ONE_MM) == 0
    assert hd95_mm(BOX, EMPTY, ONE_MM) == 374
    assert hd95_mm(EMPTY, BOX, ONE_MM) == 374


def test_hd95_does_not_depend_on_how_much_air_surrounds_the_masks():
    a, b = blob(1), blob(2)
    inner = hd95_mm(a, b, (2, 1, 1))
    assert hd95_mm(np.pad(a, 7), np.pad(b, 7), (2, 1, 1)) == pytest.approx(inner)


def test_a_volume_in_ml_is_voxels_times_their_size():
    assert region_volume_ml(BOX, (5, 0.5, 0.5)) == pytest.approx(48 * 1.25 / 1000)
    assert region_volume_ml(EMPTY, ONE_MM) == 0


def test_importing_the_metrics_leaves_torch_out():
    code = "import sys, napari_braintumor.engine.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
