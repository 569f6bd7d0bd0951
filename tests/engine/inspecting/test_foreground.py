"""Air that is not one value: however a scan was resampled, corrected or denoised, its head comes out alike."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.preparing.prepare import survey
from napari_braintumor.engine.settings import SegmentConfig

BRIGHT = 100.0
"""Of the made-up head's tissue; the way of a real scan is scaled by its own."""

Way = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def spline(image: np.ndarray, order: int = 3) -> np.ndarray:
    there = ndimage.shift(image, (0, 0.37, 0.61), order=order)
    return ndimage.shift(there, (0, -0.37, -0.61), order=order)


def rician(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    return np.hypot(image + random.normal(0, sigma, image.shape), random.normal(0, sigma, image.shape))


def gain(image: np.ndarray) -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    return image * np.exp(0.3 * (0.7 * x + 0.5 * y - 0.4 * z**2))


def z_scores(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / image.std()


def brain_z_scores(image: np.ndarray) -> np.ndarray:
    brain = image > 0
    return np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)


WAYS: dict[str, Way] = {
    "spline": lambda x, b, r: spline(x),
    "spline of fifth order": lambda x, b, r: spline(x, 5),
    "spline, bias corrected": lambda x, b, r: gain(spline(x)),
    "spline, negative values cut": lambda x, b, r: np.maximum(spline(x), 0),
    "spline, shifted": lambda x, b, r: spline(x) + b,
    "spline, z-scores": lambda x, b, r: z_scores(spline(x)),
    "Gaussian noise": lambda x, b, r: x + r.normal(0, 0.02 * b, x.shape),
    "Gaussian noise, spline": lambda x, b, r: spline(x + r.normal(0, 0.02 * b, x.shape)),
    "Rician noise": lambda x, b, r: rician(x, 0.03 * b, r),
    "strong Rician noise": lambda x, b, r: rician(x, 0.05 * b, r),
    "Rician noise, bias corrected": lambda x, b, r: gain(rician(x, 0.03 * b, r)),
    "Rician noise, denoised": lambda x, b, r: ndimage.median_filter(rician(x, 0.03 * b, r), (1, 3, 3)),
    "Rician noise, z-scores": lambda x, b, r: z_scores(rician(x, 0.02 * b, r)),
    "air of 5": lambda x, b, r: x + 5,
    "air of -1024": lambda x, b, r: x - 1024,
    "air of -1024 with noise": lambda x, b, r: x + r.normal(-1024, 0.02 * b, x.shape),
    "z-scores of the brain": lambda x, b, r: brain_z_scores(x),
    "z-scores of the brain, spline": lambda x, b, r: spline(brain_z_scores(x)),
}


def in_another_way(data: np.ndarray, way: str) -> np.ndarray:
    random = np.random.default_rng(0)
    stored = [WAYS[way](image, float(np.percentile(image[image > 0], 99)), random) for image in data]
    return np.stack(stored).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_the_head_is_that_of_the_plain_scan_whatever_its_background_became(make_volume, way: str) -> None:
    volume, _ = make_volume(3)
    plain = survey(volume, MODALITIES, crop=False).foreground
    head = survey(replace(volume, data=in_another_way(volume.data, way)), MODALITIES, crop=False).foreground
    assert volume_dice(head, plain) > 0.96  # a rim of one voxel is 4 % here


@pytest.mark.parametrize("way", ["spline", "Rician noise", "Gaussian noise, spline"])
def test_a_field_of_view_without_background_is_all_foreground(make_volume, way: str) -> None:
    volume, _ = make_volume(3)
    data = np.ascontiguousarray(in_another_way(volume.data, way)[:, 3:9, 20:52, 18:46])
    assert (
        survey(replace(volume, data=data), MODALITIES, crop=False)
        .foreground[:, : data.shape[2], : data.shape[3]]
        .mean()
        > 0.98
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "strong Rician noise"])
def test_the_tumor_of_the_sample_is_found_whatever_its_background_became(way: str) -> None:
    (case,) = find_cases(sample_folder())
    volume, truth = read_case(case), read_reference(case).regions["whole tumor"]
    *_, last = segment(replace(volume, data=in_another_way(volume.data, way)), SegmentConfig(device="cpu"))
    dice = volume_dice(last.segmentation.labels > 0, truth)
    print(f"{way}: whole-tumor Dice {dice:.3f}")
    assert dice > 0.8
