"""Trust: probabilities promise a Dice, and a calibration says how far such promises are off, else nothing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.measuring.record import describe_segmentation
from napari_braintumor.engine.models.calibration import (
    CalibratedScans,
    Calibration,
    RegionCalibration,
    find_calibration,
)
from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model
from napari_braintumor.engine.segmenting.certainty import Certainty
from napari_braintumor.engine.segmenting.trust import (
    ExpectedDice,
    choose_word,
    find_reasons,
    judge_case,
    promise,
    read_trust,
    to_logit,
)
from segmenting import result_of
from trusting import calibrate

KNOWN = RegionCalibration(intercept=-0.2, slope=0.9, reach=1.0, least=-1.0, most=4.0, patients=20)
ALL = MODALITIES
SURE = {"drawn_ml": 40.0, "right_ml": 38.0, "missed_ml": 2.0}


def calibration(**regions: RegionCalibration) -> Calibration:
    regions = regions or {"whole tumor": KNOWN}
    scans = CalibratedScans(modalities=(ALL, ("T1ce", "FLAIR")), regions=regions)
    return Calibration(weights_sha256="0" * 64, scans=(scans,))


def test_certainty_sums_probabilities_above_and_below_the_threshold_slice_by_slice() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(-2, 3, (2, 5, 9, 8)).astype(np.float32))
    certainty = Certainty.empty(2)
    for z in range(5):
        for place in range(2):
            certainty.add(place, logits[place, z], 0.5)
    probability = logits.sigmoid().numpy().astype(float)
    probability[logits.numpy() <= -7] = 0
    drawn = logits.numpy() > 0.5
    np.testing.assert_allclose(certainty.drawn, drawn.sum((1, 2, 3)))
    np.testing.assert_allclose(certainty.inside, (probability * drawn).sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(certainty.outside, (probability * ~drawn).sum((1, 2, 3)), rtol=1e-5)


def test_what_lies_outside_of_the_crop_does_not_count() -> None:
    certainty = Certainty.empty(1)
    certainty.add(0, torch.full((4, 4), -torch.inf), 0.0)
    assert (certainty.drawn, certainty.outside) == (0, 0)


def test_a_region_that_is_certain_promises_more_than_one_that_is_not() -> None:
    sure, faint = promise(SURE, 40.0), promise({**SURE, "right_ml": 25.0, "missed_ml": 15.0}, 40.0)
    assert sure == pytest.approx(to_logit(2 * 38 / (40 + 38 + 2)))
    assert faint < sure


@pytest.mark.parametrize(("sums", "ml"), [(SURE, 0.0), ({**SURE, "drawn_ml": 0.0}, 3.0), (SURE, 60.0)])
def test_what_is_not_drawn_or_not_by_the_network_promises_nothing(sums, ml) -> None:
    assert promise(sums, ml) is None


@given(
    drawn=st.floats(0.1, 500),
    sure=st.floats(0.5, 1),
    missed=st.floats(0, 200),
    kept=st.floats(0.05, 3),
)
def test_an_interval_lies_around_its_middle_within_0_and_1(drawn, sure, missed, kept) -> None:
    sums = {"drawn_ml": drawn, "right_ml": drawn * sure, "missed_ml": missed}
    trust = judge_case(calibration(), ALL, {"whole tumor": sums}, {"whole tumor": drawn * kept})
    if trust is not None:
        dice = trust.regions["whole tumor"]
        assert 0 < dice.low < dice.middle < dice.high < 1
        assert trust.word in ("high", "medium", "low")


@pytest.mark.parametrize(
    ("dice", "word"),
    [
        (ExpectedDice(0.9, 0.8, 0.95), "high"),
        (ExpectedDice(0.9, 0.5, 0.95), "medium"),
        (ExpectedDice(0.75, 0.5, 0.9), "medium"),
        (ExpectedDice(0.75, 0.3, 0.95), "low"),
        (ExpectedDice(0.5, 0.45, 0.6), "low"),
    ],
)
def test_the_word_follows_from_the_interval(dice, word) -> None:
    assert choose_word(dice) == word


@pytest.mark.parametrize(
    ("known", "used", "sums", "ml"),
    [
        (None, ALL, SURE, 40.0),
        (calibration(), ("FLAIR",), SURE, 40.0),
        (calibration(**{"tumor core": KNOWN}), ALL, SURE, 40.0),
        (calibration(), ALL, SURE, 0.0),
        (calibration(), ALL, {**SURE, "right_ml": 3.0}, 40.0),
    ],
    ids=["no-calibration", "other-modalities", "another-region", "nothing-drawn", "less-sure-than-any-patient"],
)
def test_nothing_is_claimed_of_what_was_not_calibrated(known, used, sums, ml) -> None:
    assert judge_case(known, used, {"whole tumor": sums}, {"whole tumor": ml}) is None


@pytest.mark.parametrize(
    ("sums", "ml", "reasons"),
    [
        (SURE, 40.0, []),
        (
            {"drawn_ml": 90.0, "right_ml": 72.0, "missed_ml": 30.0},
            90.0,
            ["large faint whole tumor: expect missed parts"],
        ),
        (
            {"drawn_ml": 40.0, "right_ml": 28.0, "missed_ml": 1.0},
            40.0,
            ["whole tumor, of which the network is unsure: expect too much of it"],
        ),
        (
            {"drawn_ml": 2.0, "right_ml": 1.9, "missed_ml": 0.1},
            2.0,
            ["small whole tumor: a few voxels change its Dice much"],
        ),
        (SURE, 20.0, ["whole tumor in scattered small parts, which were removed: look for lost ones"]),
        (SURE, 60.0, ["whole tumor drawn by depth in the tumor: its edge is a guess"]),
        (SURE, 0.0, []),
    ],
    ids=["none", "missed", "too-much", "small", "removed", "by-depth", "empty"],
)
def test_what_lowers_trust_is_named(sums, ml, reasons) -> None:
    assert find_reasons("whole tumor", sums, ml) == reasons


def test_a_segmentation_says_how_far_it_can_be_trusted_if_its_weights_were_calibrated(
    make_volume, toy_model, tmp_path
) -> None:
    model = Path(shutil.copy(toy_model, tmp_path / "renamed.safetensors"))
    volume, _ = make_volume(7)
    before = result_of(volume, model=str(model))
    assert read_trust(before.provenance) is None
    assert set(before.provenance["certainty"]) <= {"whole tumor", "tumor core", "enhancing tumor"}
    assert before.provenance["certainty"]["whole tumor"]["drawn_ml"] > 0
    calibrate(model, "whole tumor", "tumor core")
    result = result_of(volume, model=str(model))
    trust = read_trust(json.loads(json.dumps(describe_segmentation(result))))
    assert trust is not None
    assert trust.lines()[0] == f"Trust: {trust.word}"
    assert trust.lines()[1].startswith("whole tumor: Dice 0.")
    np.testing.assert_array_equal(result.labels, before.labels)


def test_a_calibration_is_of_its_weights_alone_whatever_the_card_says(toy_model, tmp_path) -> None:
    card, weights = read_card(toy_model), load_weights(toy_model)
    model = save_model(tmp_path / "one.safetensors", weights, card.model_copy(update={"version": "9"}))
    calibrate(model, "whole tumor")
    assert find_calibration(model) is not None
    changed = {name: tensor + 1 for name, tensor in weights.items()}
    assert find_calibration(save_model(tmp_path / "two.safetensors", changed, card)) is None


def test_a_damaged_calibration_says_what_to_do(toy_model, tmp_path) -> None:
    model = Path(shutil.copy(toy_model, tmp_path / "one.safetensors"))
    model.with_name("one.trust.json").write_text("{}")
    with pytest.raises(ModelError, match=r"'one\.trust\.json' holds no calibration .* Delete the file"):
        find_calibration(model)
