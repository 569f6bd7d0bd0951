"""A small network says how far strokes reach, where it knows the case."""

from dataclasses import replace

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, WHOLE
from napari_braintumor.engine.correcting.clues import Clues
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.fitting import GaussianProcess, Likeness, fit_change, squeeze
from napari_braintumor.engine.correcting.learned import (
    BUNDLED,
    StrokeNetwork,
    fit_learned,
    knows,
    load_stroke_network,
    refine_by,
)
from napari_braintumor.engine.correcting.strokes import Stroke

IN_THE_MISSED_HALF = Stroke(WHOLE, ((6, 14, 20), (6, 18, 20)), 1.0)


@pytest.fixture
def seen(half_found):
    """A case of which the model found one half, with its scans."""
    features, labels, ball = half_found()
    bright = ball[:, 1::2, 1::2].reshape(-1, 1) * np.array([0.1, 0.2, 1.5, 2.0])
    return replace(features, images=bright.astype(np.float16)), labels, ball


def under_a_stroke(region: int, says: int = 1) -> Evidence:
    said = np.zeros((9, 3), np.int8)
    said[:, region] = says
    return Evidence(np.arange(1400, 1409), said, np.zeros(9, np.intp))


def describe(features, evidence: Evidence, region: int, rows=None) -> np.ndarray:
    process = GaussianProcess(features, squeeze(features.logits), evidence, Likeness)
    rows = np.arange(len(features.places)) if rows is None else rows
    return Clues(process).describe(rows, region, process.move(rows)[:, process.regions.index(region)])


def test_the_network_of_this_program_is_small_and_takes_the_clues_of_four_modalities(seen):
    features, _, _ = seen
    network = load_stroke_network()
    clues = describe(features, under_a_stroke(0), 0)
    assert BUNDLED.stat().st_size < 2**21
    assert network.layers[0][0].shape[0] == clues.shape[1]
    assert network.run(clues).shape == (len(clues),)


@pytest.mark.parametrize("region", [0, 1, 2])
@pytest.mark.parametrize("says", [1, -1])
def test_clues_are_finite_and_do_not_depend_on_what_else_is_asked(seen, region, says):
    features, _, _ = seen
    evidence = under_a_stroke(region, says)
    every = describe(features, evidence, region)
    some = np.array([3, 1403, 2500])
    assert np.isfinite(every).all()
    assert np.abs(every).max() < 10
    np.testing.assert_allclose(describe(features, evidence, region, some), every[some], atol=1e-5)


def test_a_missing_modality_gives_no_clue_by_difference(seen):
    features, _, _ = seen
    silent = replace(features, images=np.zeros_like(features.images))
    one, other = (describe(each, under_a_stroke(0), 0) for each in (features, silent))
    differing = np.flatnonzero((one != other).any(0))
    assert differing.size
    assert not other[:, differing[differing > 8]].any()


def test_the_network_moves_the_whole_tumor_only(seen):
    features, _, _ = seen
    pushing = StrokeNetwork(((np.zeros((describe(features, under_a_stroke(0), 0).shape[1], 1)), np.array([1.5])),))
    said = Evidence(np.arange(1400, 1409), np.ones((9, 3), np.int8), np.zeros(9, np.intp))
    plain = fit_change(features, features.logits, said)
    pushed = fit_change(features, features.logits, said, refine=refine_by(pushing))
    moved = plain[:, 0] != squeeze(features.logits)[:, 0]
    np.testing.assert_allclose(pushed[moved, 0], plain[moved, 0] + 1.5, atol=1e-5)


def test_inner_regions_follow_by_likeness_alone(seen):
    features, _, _ = seen
    np.testing.assert_array_equal(
        fit_learned(features, features.logits, under_a_stroke(1)),
        fit_change(features, features.logits, under_a_stroke(1)),
    )


@pytest.mark.parametrize(
    "unknown",
    [
        lambda features: replace(features, adapts=False),
        lambda features: replace(features, images=features.images[:, :1]),
        lambda features: replace(features, images=np.empty((0, 0), np.float16)),
        lambda features: replace(features, regions=GLIOMA_REGIONS[1:], logits=features.logits[:, 1:]),
    ],
    ids=["layers not shown", "one modality", "no scans", "no whole tumor"],
)
def test_a_case_that_the_network_does_not_know_is_followed_by_likeness_alone(seen, unknown):
    features, _, _ = seen
    other = unknown(features)
    assert knows(features)
    assert features.images.shape[1] == len(MODALITIES)
    assert not knows(other)
    evidence = under_a_stroke(0)
    evidence = replace(evidence, says=evidence.says[:, : len(other.regions)])
    np.testing.assert_array_equal(fit_learned(other, other.logits, evidence), fit_change(other, other.logits, evidence))


def test_a_stroke_finds_the_missed_half_and_taking_it_back_gives_the_answer_without_it(seen):
    features, labels, ball = seen
    one = correct(features, labels, [IN_THE_MISSED_HALF]).labels
    outside = Stroke(None, ((2, 3, 3),), 1.0)
    correct(features, labels, [IN_THE_MISSED_HALF, outside])
    assert ((one > 0) & ball).sum() > (labels > 0).sum() + 20
    assert np.array_equal(correct(features, labels, [IN_THE_MISSED_HALF]).labels, one)
