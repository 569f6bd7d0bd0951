import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.assembling import volume_from_modalities
from napari_braintumor.engine.grid import default_grid

SHAPE = (4, 5, 6)
GRID = default_grid(SHAPE)


def ramp(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_images_are_stacked_in_the_order_given():
    volume = volume_from_modalities({"FLAIR": ramp(), "T1": 2 * ramp(dtype=np.float64)}, GRID, "anna")
    assert volume.modalities == ("FLAIR", "T1")
    assert volume.data.dtype == np.float32
    assert volume.data.shape == (2, *SHAPE)
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(volume.data[1], 2 * ramp())
    assert (volume.name, volume.source) == ("anna", GRID)


def test_the_images_given_are_left_as_they_are():
    image = ramp(dtype=np.float32)
    volume_from_modalities({"T1": image}, GRID, "anna").data[:] = 0
    np.testing.assert_array_equal(image, ramp())


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float64, ">i2", ">f8"])
def test_any_real_numbers_will_do(dtype):
    image = (ramp() % 2).astype(dtype)
    np.testing.assert_array_equal(volume_from_modalities({"T1": image}, GRID, "a").data[0], ramp() % 2)


def bad(value, at=(1, 2, 3)):
    image = ramp(dtype=np.float64)
    image[at] = value
    return image


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "Case 'anna' has no image"),
        ({"T1": ramp((5, 6))}, r"'T1' \(5, 6\) has 2 dimensions.*stack of slices.*whole scan"),
        ({"T1": ramp((2, *SHAPE))}, r"'T1' \(2, 4, 5, 6\) has 4 dimensions.*one image for each modality"),
        ({"T1": ramp((5, 6, 3), np.uint8)}, r"'T1' \(5, 6, 3\) is a color picture.*\(Z, Y, X\)"),
        ({"T1": ramp((9, 5, 6, 4), np.uint8)}, r"'T1' .* is a color picture"),
        ({"T1": ramp((0, 5, 6))}, "'T1' .* has no voxels"),
        ({"T1": ramp().astype(np.complex64)}, "'T1' has values of type complex64.*real numbers"),
        ({"T1": ramp().astype(str)}, "'T1' has values of type"),
        (
            {"T1": ramp(), "FLAIR": ramp((4, 5, 7))},
            r"'T1' \(4, 5, 6\) and 'FLAIR' \(4, 5, 7\) differ in shape.*Resample 'FLAIR' to 'T1'",
        ),
        ({"T1": ramp(), "FLAIR": bad(np.nan)}, "'FLAIR' has 1 voxels that are NaN or infinite"),
        ({"T1": bad([np.inf, -np.inf], at=(0, 0, slice(2)))}, "'T1' has 2 voxels that are NaN or infinite"),
        ({"T1": bad(1e300)}, "'T1' has 1 voxels that are NaN or infinite"),
        ({"T1": np.zeros(SHAPE)}, "'T1' has the value 0 everywhere"),
        ({"T1": np.full(SHAPE, 7)}, "'T1' has the value 7 everywhere"),
        ({"T1": ramp(), "T2": ramp() * 2, "FLAIR": ramp(dtype=np.float64)}, "T1 and FLAIR hold the same image"),
    ],
)
def test_what_cannot_be_segmented_is_refused_with_a_reason(images, message):
    with pytest.raises(DataError, match=message):
        volume_from_modalities(images, GRID, "anna")
