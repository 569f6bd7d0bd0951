from itertools import permutations

import numpy as np
import pytest

from fluid_heads import SHAPE, brain
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.inspecting.witness import find_suspect_modalities, judge_fluid
from napari_braintumor.engine.settings import AlignConfig


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


@pytest.mark.parametrize("known", RIGHT)
@pytest.mark.parametrize("modality", RIGHT)
def test_fluid_is_bright_in_t2_alone_whatever_it_is_compared_with(modality, known):
    seen = judge_fluid(brain(modality), brain(known), known)
    assert seen == ("bright" if modality == "T2" else "dark")


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.ones(SHAPE), np.random.default_rng(0).normal(size=SHAPE)])
def test_fluid_is_not_judged_in_images_that_show_none(image):
    assert judge_fluid(image, brain("T1"), "T1") is None
    assert judge_fluid(brain("T2")[:8], brain("T1")[:8], "T1") is None


@pytest.mark.real_data
@pytest.mark.parametrize(
    "folder", ["brats", "brats_lgg", "brats_more", "brats_pseudo", "brats_reg", "lgg", "unlabelled"]
)
def test_fluid_is_never_judged_wrongly_in_real_scans(real_data, folder):
    judged = pairs = 0
    for case in find_cases(real_data / folder):
        volume = read_case(case, AlignConfig(registration="never"))
        images = dict(zip(volume.modalities, volume.data[:, :: max(1, round(2 / volume.spacing[0]))], strict=True))
        for known, modality in permutations(images, 2):
            seen = judge_fluid(images[modality], images[known], known)
            assert seen in (None, "bright" if modality == "T2" else "dark"), (case.name, modality, known)
            judged, pairs = judged + (seen is not None), pairs + 1
    print(f"{folder}: {judged} of {pairs} pairs judged")
    assert judged > pairs / 3  # the scans of the native case lie up to 17 mm apart


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
