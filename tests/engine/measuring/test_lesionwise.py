"""Lesion-wise scores: those that the challenge's own code gives, and cases that can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lesion_cases import draw_case
from napari_braintumor.engine.anatomy import REGION_LABELS, region_from_labels
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.lesionwise import RULES, LesionScore, robust_distance_mm, score_lesions

EXPECTED = json.loads((Path(__file__).parent / "lesionwise_expected.json").read_text())
SHORT = {"WT": "whole tumor", "TC": "tumor core", "ET": "enhancing tumor", "RC": "resection cavity"}


def regions_of(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {region: region_from_labels(labels, region) for region in REGION_LABELS}


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_those_of_the_code_of_the_challenges(seed: int) -> None:
    """The expected figures are those of rachitsaluja/BraTS-2023-Metrics and BraTS-2024-Metrics (glioma)."""
    prediction, reference = (regions_of(labels) for labels in draw_case(seed))
    for year, rules in RULES.items():
        scores = score_lesions(prediction, reference, default_grid(next(iter(reference.values())).shape), rules)
        expected = {SHORT[key[5:]]: value for key, value in EXPECTED[str(seed)].items() if key.startswith(str(year))}
        assert scores.keys() == expected.keys()
        for region, score in scores.items():
            for name, value in expected[region].items():
                assert getattr(score, name) == pytest.approx(value, abs=1e-6), (year, region, name)


def score(prediction: np.ndarray, reference: np.ndarray, year: int = 2023) -> LesionScore:
    scores = score_lesions(
        {"whole tumor": prediction}, {"whole tumor": reference}, default_grid(prediction.shape), RULES[year]
    )
    return scores["whole tumor"]


@pytest.fixture
def lesions() -> np.ndarray:
    """Two lesions of 125 voxels, far apart, and one of 27."""
    mask = np.zeros((12, 60, 20), np.bool_)
    mask[4:9, 5:10, 5:10] = mask[4:9, 30:35, 5:10] = mask[4:7, 50:53, 5:8] = True
    return mask


def test_every_lesion_counts_the_same(lesions) -> None:
    assert score(lesions, lesions) == LesionScore(1.0, 0.0, 2, 0, 0)
    one = lesions.copy()
    one[:, 25:40] = False
    assert score(one, lesions) == LesionScore(0.5, 187.0, 1, 1, 0)


def test_a_small_lesion_counts_from_2024_on(lesions) -> None:
    without = lesions.copy()
    without[:, 45:] = False
    assert score(without, lesions).missed == 0
    assert score(without, lesions, 2024) == LesionScore(pytest.approx(2 / 3), pytest.approx(374 / 3), 2, 1, 0)


def test_a_part_near_a_lesion_is_its_own_and_one_far_away_is_false(lesions) -> None:
    near, far = lesions.copy(), lesions.copy()
    near[4:9, 12:14, 5:10] = True
    far[4:9, 19:21, 5:10] = True
    assert score(near, lesions).false == 0
    assert score(near, lesions).dice == pytest.approx((1 + 250 / 300) / 2)
    assert score(far, lesions) == LesionScore(pytest.approx(2 / 3), pytest.approx(374 / 3), 2, 0, 1)


def test_nothing_where_nothing_is_has_full_marks(lesions) -> None:
    nothing = np.zeros_like(lesions)
    assert score(nothing, nothing) == LesionScore(1.0, 0.0, 0, 0, 0)
    assert score(lesions, nothing) == LesionScore(0.0, 374.0, 0, 0, 3)
    assert score(nothing, lesions) == LesionScore(0.0, 374.0, 0, 2, 0)


def test_only_regions_that_both_define_are_scored(lesions) -> None:
    scores = score_lesions({"tumor core": lesions}, {"whole tumor": lesions}, default_grid(lesions.shape), RULES[2023])
    assert scores == {}


def test_distances_are_in_millimeters_of_the_grid(lesions) -> None:
    shifted = np.roll(lesions, 2, axis=0)
    assert robust_distance_mm(shifted, lesions, default_grid(lesions.shape, (5.0, 1.0, 1.0))) == pytest.approx(10)
