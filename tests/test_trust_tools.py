"""The calibration of trust: what a line over patients claims holds for patients that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

import calibrate_trust
from napari_braintumor.engine.models.calibration import ENDING, read_calibration
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.store import ModelStore, bundled_folder
from napari_braintumor.engine.segmenting.trust import expect_dice


def make_rows(unseen: int, *, seen: int = 40, optimism: float = 0.8, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(seen + unseen):
        side = "training" if number < seen else "validation" if number % 4 == 0 else "held_out"
        promised = rng.uniform(1, 4)
        logit = promised - 1.2 + (optimism if side == "training" else 0) + rng.normal(0, 0.5)
        rows.append(
            {
                "case": f"case{number}",
                "patient": f"patient{number}",
                "side": side,
                "modalities": ("T1ce", "FLAIR"),
                "region": "whole tumor",
                "promised": promised,
                "dice": float(1 / (1 + np.exp(-logit))),
            }
        )
    return rows


def test_nine_of_ten_patients_that_no_fit_saw_lie_in_their_intervals() -> None:
    hits = []
    for seed in range(20):
        fitted = calibrate_trust.fit(make_rows(24, seed=seed))
        hits += [calibrate_trust.is_inside(row, fitted) for row in make_rows(30, seen=0, seed=seed + 1000)]
    assert 0.85 <= np.mean(hits) <= 0.95


def test_patients_that_training_saw_do_not_make_the_interval_better_than_it_is() -> None:
    plain, spoiled = (calibrate_trust.fit(make_rows(24, optimism=optimism)) for optimism in (0.0, 1.0))
    assert expect_dice(plain, 2.0).middle == pytest.approx(expect_dice(spoiled, 2.0).middle, abs=0.02)


def test_a_patient_with_many_scans_counts_as_one() -> None:
    rows = make_rows(24)
    once = calibrate_trust.fit(rows)
    again = calibrate_trust.fit([*rows, *([rows[-1]] * 30)])
    assert again.intercept == pytest.approx(once.intercept, abs=1e-3)
    assert again.reach == pytest.approx(once.reach, abs=1e-3)


def test_with_few_patients_nothing_is_claimed_and_the_others_are_printed() -> None:
    rows = make_rows(24) + [{**row, "region": "tumor core"} for row in make_rows(4)]
    calibration, lines = calibrate_trust.calibrate(rows, "0" * 64)
    (scans,) = calibration.scans
    assert set(scans.regions) == {"whole tumor"}
    assert scans.modalities == (("T1ce", "FLAIR"),)
    assert lines[0].startswith("whole tumor, with T1ce: 1")
    assert "24 patients that training did not see" in lines[0]


def test_every_calibration_that_ships_is_of_weights_that_ship() -> None:
    weights = {read_weights_sha256(model.path): model.name for model in ModelStore().list() if model.bundled}
    for path in bundled_folder().glob(f"*{ENDING}"):
        assert weights.get(read_calibration(path).weights_sha256) == path.name.removesuffix(ENDING), (
            "Calibrate the new weights (tools/calibrate_trust.py), or delete the file."
        )
