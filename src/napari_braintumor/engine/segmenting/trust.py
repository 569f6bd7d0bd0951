"""One word of trust for a whole case, the Dice to expect of each region, and the reasons in words.

A network's probabilities promise a Dice. How far such promises were off on patients is known from a calibration. Of a
model without one nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_braintumor.engine.models.calibration import Calibration, RegionCalibration

LEAST_DICE, MOST_DICE = 0.02, 0.99
"""Dice beyond these counts as these, in logits."""

BEYOND = 0.5
"""A promise may lie outside of what the calibration saw by this much, in logits."""

HIGH = (0.82, 0.65)
LOW = (0.7, 0.4)
"""Trust is high if the Dice to expect and the low end of its interval reach the first two, and low if either misses the
second two."""

LARGE_ML, SMALL_ML = 60.0, 3.0
FAINT = 0.85
"""A region is faint where the mean probability inside is lower."""

MISSED, WRONG, REMOVED = 0.15, 0.2, 0.2
"""Shares of a region, expected to be missed, to be wrong, and removed as small parts, that are named as a reason."""

GREW = 1.2
"""A core that is so many times as large as the network's own was drawn by depth."""


@dataclass(frozen=True)
class ExpectedDice:
    """The Dice to expect of a region.

    Attributes
    ----------
    middle
        As often too high as too low.
    low, high
        Nine of ten patients like those of the calibration lie between.
    """

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Trust:
    """How far the result of a case can be trusted.

    Attributes
    ----------
    word
        ``"high"``, ``"medium"`` or ``"low"``, by the outermost region.
    regions
        The Dice to expect of each region of which something can be said, outermost first.
    reasons
        What lowers it, in words.
    """

    word: str
    regions: Mapping[str, ExpectedDice]
    reasons: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return it for the record: JSON values only."""
        return {
            "word": self.word,
            "expected_dice": {
                name: [round(value, 3) for value in (dice.low, dice.middle, dice.high)]
                for name, dice in self.regions.items()
            },
            "reasons": list(self.reasons),
        }

    def lines(self) -> list[str]:
        """Return it in words, a line for the word, one for each region, and one for each reason."""
        dice = [f"{name}: Dice {each.low:.2f} to {each.high:.2f}" for name, each in self.regions.items()]
        return [f"Trust: {self.word}", *dice, *(f"{reason[0].upper()}{reason[1:]}" for reason in self.reasons)]


def read_trust(record: Mapping[str, Any]) -> Trust | None:
    """Return the trust that a record of a result states; None if it states none."""
    known = record.get("trust")
    if not known:
        return None
    regions = {name: ExpectedDice(middle, low, high) for name, (low, middle, high) in known["expected_dice"].items()}
    return Trust(known["word"], regions, tuple(known["reasons"]))


def judge_case(
    calibration: Calibration | None,
    modalities: tuple[str, ...],
    certainty: Mapping[str, Mapping[str, float]],
    volumes_ml: Mapping[str, float],
) -> Trust | None:
    """Say how far a result can be trusted.

    Parameters
    ----------
    calibration
        Of the model, if there is one.
    modalities
        Those that were used.
    certainty
        From `Certainty.describe`, outermost region first.
    volumes_ml
        Of each region as it was drawn in the end.

    Returns
    -------
    Trust or None
        None if nothing can be said: no calibration, none with these modalities, nothing drawn, or the network is less
        or more sure than it was of any patient there.
    """
    calibrated = {} if calibration is None else calibration.of_regions(modalities)
    regions = {}
    for name, sums in certainty.items():
        known, promised = calibrated.get(name), promise(sums, volumes_ml.get(name, 0.0))
        if known is not None and promised is not None and known.least - BEYOND <= promised <= known.most + BEYOND:
            regions[name] = expect_dice(known, promised)
    if not regions or next(iter(certainty)) not in regions:
        return None
    outermost = regions[next(iter(certainty))]
    reasons = [reason for name in certainty for reason in find_reasons(name, certainty[name], volumes_ml[name])]
    return Trust(choose_word(outermost), regions, tuple(reasons))


def promise(sums: Mapping[str, float], drawn_ml: float) -> float | None:
    """Return the logit of the Dice that probabilities promise of a region as it was drawn.

    Returns
    -------
    float or None
        None if it is empty, or if it was drawn by depth: then the network promises nothing.
    """
    if not drawn_ml or not sums["drawn_ml"] or drawn_ml > GREW * sums["drawn_ml"]:
        return None
    right = sums["right_ml"] * min(1.0, drawn_ml / sums["drawn_ml"])
    missed = sums["right_ml"] + sums["missed_ml"] - right
    return to_logit(2 * right / (drawn_ml + right + missed))


def expect_dice(known: RegionCalibration, promised: float) -> ExpectedDice:
    """Return the Dice to expect where so much is promised, in logits."""
    middle = known.intercept + known.slope * promised
    middle_dice, low, high = (_to_dice(middle + reach) for reach in (0, -known.reach, known.reach))
    return ExpectedDice(middle_dice, low, high)


def choose_word(dice: ExpectedDice) -> str:
    """Return ``"high"``, ``"medium"`` or ``"low"``."""
    if dice.middle >= HIGH[0] and dice.low >= HIGH[1]:
        return "high"
    return "low" if dice.middle < LOW[0] or dice.low < LOW[1] else "medium"


def find_reasons(name: str, sums: Mapping[str, float], drawn_ml: float) -> list[str]:
    """Return in words what lowers the trust in a region."""
    if not drawn_ml:
        return []
    size = "large " if drawn_ml >= LARGE_ML else "small " if drawn_ml < SMALL_ML else ""
    own = max(sums["drawn_ml"], 1e-6)
    faint = "faint " if sums["right_ml"] / own < FAINT else ""
    expected = sums["right_ml"] + sums["missed_ml"]
    reasons = []
    if sums["missed_ml"] > MISSED * expected:
        reasons.append(f"{size}{faint}{name}: expect missed parts")
    if own - sums["right_ml"] > WRONG * own:
        reasons.append(f"{size}{name}, of which the network is unsure: expect too much of it")
    if not reasons and size == "small ":
        reasons.append(f"small {name}: a few voxels change its Dice much")
    if drawn_ml < (1 - REMOVED) * own:
        reasons.append(f"{name} in scattered small parts, which were removed: look for lost ones")
    if drawn_ml > GREW * own:
        reasons.append(f"{name} drawn by depth in the tumor: its edge is a guess")
    return reasons


def to_logit(dice: float) -> float:
    """Return the logit of a Dice, which is kept off 0 and 1."""
    kept = float(np.clip(dice, LEAST_DICE, MOST_DICE))
    return float(np.log(kept / (1 - kept)))


def _to_dice(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))
