"""Whether a scan shows a head, and all of it."""

from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.inspecting.head import describe_head

UNIFORM = "is uniform inside, as a phantom is and a head is not"


def make_head(shape=(30, 100, 90), spacing=(5.0, 2.0, 2.0), seed=0):
    """A ball with gray and white matter in it, as uneven as a head."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    ball = (z / 0.85) ** 2 + (y / 0.8) ** 2 + (x / 0.75) ** 2 < 1
    folds = np.sign(np.sin(25 * z) + np.sin(30 * y + 2) + np.sin(28 * x + 1))
    return ((100 + 25 * folds) * ball + np.abs(random.normal(0, 4, shape))).astype(np.float32), spacing


def test_a_whole_head_is_nothing_to_remark_on():
    assert describe_head(*make_head()) == ""


@pytest.mark.parametrize("noise", [0, 2, 10])
@pytest.mark.parametrize("bias", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.5, 1.5, 1.5)])
def test_a_uniform_object_is_called_that_whatever_the_coil_and_the_noise(noise: float, bias: float, spacing):
    shape = tuple(round(180 / side) for side in spacing)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    ball = y**2 + x**2 + z**2 < 0.8**2
    image = np.abs(100 * (1 + bias * x) * ball + np.random.default_rng(1).normal(0, noise, shape))
    assert describe_head(image, spacing) == UNIFORM


@pytest.mark.parametrize(
    ("part", "side"),
    [
        (np.s_[:16], "top"),
        (np.s_[:, 40:], "front"),
        (np.s_[:, :60], "back"),
        (np.s_[:, :, 35:], "right"),
        (np.s_[:, :, :55], "left"),
        (np.s_[:16, 40:], "top and the front"),
        (np.s_[:16, 40:, :55], "top, the front and the left"),
        (np.s_[:16, 40:60, 35:55], "top, the front, the back, the right and the left"),
    ],
)
def test_a_head_that_is_cut_off_is_reported_with_all_sides_in_one_sentence(part, side: str):
    image, spacing = make_head()
    assert describe_head(image[part], spacing) == f"cuts off the {side} of the head"


def test_where_the_neck_is_cut_does_not_matter():
    image, spacing = make_head()
    assert describe_head(image[12:], spacing) == ""


@pytest.mark.parametrize("shape", [(1, 50, 50), (2, 4, 4), (6, 3, 30), (3, 8, 8)])
def test_what_is_too_small_to_say_says_nothing(shape: tuple[int, int, int]):
    assert describe_head(make_head(shape)[0], (5.0, 5.0, 5.0)) == ""


def test_an_empty_image_shows_nothing():
    assert describe_head(np.zeros((20, 60, 60)), (5.0, 2.0, 2.0)) == "shows nothing"


def test_the_sample_case_shows_a_whole_head():
    volume = read_case(find_cases(sample_folder())[0])
    for image in volume.data:
        assert describe_head(image, volume.spacing) == ""


@pytest.mark.real_data
def test_real_scans_show_whole_heads_and_a_slab_does_not(real_data: Path):
    (case,) = find_cases(real_data / "dicom" / "studyforrest_T1w")
    assert "Series 401 'anat-T1w' cuts off the top of the head." in read_case(case).notes
    for folder in ("lgg", "brats"):
        for case in find_cases(real_data / folder)[:3]:
            volume = read_case(case)
            assert {describe_head(image, volume.spacing) for image in volume.data} == {""}, case.name
