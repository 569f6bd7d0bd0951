import numpy as np
import pytest

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.inspecting.witness import find_suspect_modalities

SHAPE = (40, 96, 96)
FLUID = {"T1": 30, "T1ce": 35, "T2": 220, "FLAIR": 25}
GRAY = {"T1": 90, "T1ce": 100, "T2": 110, "FLAIR": 120}
WHITE = {"T1": 130, "T1ce": 130, "T2": 80, "FLAIR": 95}


def brain(modality, shape=SHAPE):
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    distance = z**2 + y**2 + x**2
    image = np.where(distance < 0.15, WHITE[modality], GRAY[modality])
    image = np.where((np.abs(x) < 0.12) & (np.abs(y) < 0.35) & (np.abs(z) < 0.35), FLUID[modality], image)
    noise = np.random.default_rng(sum(map(ord, modality))).normal(0, 5, shape)
    return ((image + noise) * (distance < 0.95)).astype(np.float32)


def stored(**true):
    return {name: brain(modality) for name, modality in true.items()}


RIGHT = {"T1": "T1", "T1ce": "T1ce", "T2": "T2", "FLAIR": "FLAIR"}


@pytest.mark.parametrize("missing", [None, *RIGHT])
@pytest.mark.parametrize("change", [lambda a: a, lambda a: a - 300, lambda a: a * 1e-7, lambda a: a.astype(np.int16)])
def test_images_that_are_what_they_are_called_are_not_doubted(missing, change):
    images = stored(**{name: modality for name, modality in RIGHT.items() if name != missing})
    assert find_suspect_modalities({name: change(image) for name, image in images.items()}) == ()


@pytest.mark.parametrize("others", [("T1",), ("T1ce",), ("T1", "T1ce")])
def test_a_t2_that_behaves_like_a_flair_is_reported(others):
    (note,) = find_suspect_modalities(stored(T2="FLAIR", **{name: name for name in others}))
    assert note.startswith("T2 looks like a FLAIR")


@pytest.mark.parametrize("others", [(), ("T1",), ("T1", "T1ce")])
def test_t2_and_flair_that_are_swapped_are_reported(others):
    (note,) = find_suspect_modalities(stored(T2="FLAIR", FLAIR="T2", **{name: name for name in others}))
    assert note.startswith("T2 and FLAIR look swapped")


def test_nothing_is_claimed_about_scans_that_cannot_be_judged():
    assert find_suspect_modalities(stored(T2="FLAIR")) == ()
    assert find_suspect_modalities({name: image[:8] for name, image in stored(T1="T1", T2="FLAIR").items()}) == ()
    assert find_suspect_modalities({name: np.zeros(SHAPE) for name in RIGHT}) == ()
    assert find_suspect_modalities({name: np.ones(SHAPE) for name in RIGHT}) == ()


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["brats", "brats_lgg", "brats_more"])
def test_real_t2_and_flair_are_distinguished(real_data, folder):
    for case in find_cases(real_data / folder):
        volume = read_case(case)
        images = dict(zip(volume.modalities, volume.data, strict=True))
        assert find_suspect_modalities(images) == ()
        if "T2" in images:
            assert find_suspect_modalities(images | {"T2": images["FLAIR"], "FLAIR": images["T2"]})
            assert find_suspect_modalities({"T1": images["T1"], "T2": images["FLAIR"]})
