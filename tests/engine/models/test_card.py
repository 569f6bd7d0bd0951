from __future__ import annotations

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.models.card import MIN_MEASURABLE_DICE, OWN_SLICES, Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore

BUNDLED = ("glioma-u2net", "glioma-res-unet", "glioma-unet")


def measured(data: str, held_out: bool) -> Metric:
    return Metric(data=data, region="whole tumor", modalities=("FLAIR",), mean=0.8, n=3, held_out=held_out)


NEVER, OWN, STOPPED = "never validated", "only on slices of the scans it learned from", "stopped early, after 12%"


@pytest.mark.parametrize(
    ("metrics", "stopped_at", "doubted"),
    [
        ((), None, [NEVER]),
        ((), 0.12, [NEVER, STOPPED]),
        ((measured("BraTS", True),), None, []),
        ((measured("validation", False),), None, []),
        ((measured("validation", False),), 0.12, [STOPPED]),
        ((measured(OWN_SLICES, False),), None, [OWN]),
        ((measured("slices kept back", False),), 0.12, [OWN, STOPPED]),
        ((measured(OWN_SLICES, False), measured("LGG", True)), None, []),
    ],
)
def test_a_model_is_doubted_until_other_patients_were_measured_and_its_training_came_to_an_end(
    metrics, stopped_at, doubted
) -> None:
    card = ModelCard(name="a", architecture="unet", metrics=metrics, stopped_at=stopped_at)
    assert len(card.doubts) == len(doubted)
    assert all(part in doubt for part, doubt in zip(doubted, card.doubts, strict=True))
    assert all(doubt.endswith(".") for doubt in card.doubts)


def test_models_that_ship_with_the_package_are_not_doubted() -> None:
    assert all(model.card is not None and not model.card.doubts for model in ModelStore().list() if model.bundled)


@pytest.mark.parametrize(("share", "is_doubted"), [(0.4, True), (0.98, True), (0.995, False), (None, False)])
def test_a_training_that_was_stopped_in_its_last_moments_is_not_doubted(share, is_doubted) -> None:
    card = ModelCard(name="a", architecture="unet", validation_patients=("b",), stopped_at=share)
    assert any("stopped early" in reason for reason in card.doubts) == is_doubted


def card_with(*rows: tuple, **changes) -> ModelCard:
    """A card with figures: region, modalities, mean, and more of `Metric`."""
    fields = ("region", "modalities", "mean", "data", "n", "held_out", "measure")
    defaults = {"data": "BraTS", "n": 3, "held_out": True}
    metrics = tuple(Metric(**{**defaults, **dict(zip(fields, row, strict=False))}) for row in rows)
    return ModelCard(name="a", architecture="unet", accepts_missing=True, metrics=metrics, **changes)


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("modalities", [("FLAIR",), ("T2", "FLAIR"), ("T2",), ("T1", "T2", "FLAIR")])
def test_without_a_contrast_enhanced_scan_only_regions_with_a_dice_worth_drawing_are_measurable(
    name: str, modalities
) -> None:
    card = ModelStore().find(name).card
    missing = card.find_unmeasurable(modalities)
    assert missing["enhancing tumor"] == "not measurable without T1ce"
    assert "whole tumor" not in missing
    (core,) = card.expected_dice(modalities)["tumor core"]
    assert ("tumor core" in missing) == (core.mean < MIN_MEASURABLE_DICE)
    assert core.mean < 0.5


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("modalities", [("T1", "T1ce", "T2", "FLAIR"), ("T1ce",), ("T1ce", "FLAIR")])
def test_what_the_scans_can_show_is_measurable(name: str, modalities) -> None:
    assert ModelStore().find(name).card.find_unmeasurable(modalities) == {}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([("FLAIR", 0.29), ("FLAIR T1ce", 0.3)], "not measurable without T1ce", id="just enough"),
        pytest.param([("FLAIR", 0.3), ("FLAIR T1ce", 0.9)], None, id="measurable"),
        pytest.param(
            [("FLAIR", 0.1), ("FLAIR T2", 0.2), ("FLAIR T1 T1ce", 0.8)], "not measurable without T1 and T1ce", id="two"
        ),
        pytest.param(
            [("FLAIR", 0.1), ("FLAIR T1", 0.4), ("FLAIR T1ce", 0.8)],
            "not measurable without T1ce",
            id="the best of one",
        ),
        pytest.param(
            [("FLAIR", 0.1), ("FLAIR T2", 0.4), ("FLAIR T2 T1ce", 0.8)], "not measurable without T2", id="the smallest"
        ),
        pytest.param([("FLAIR", 0.1), ("T1ce", 0.8)], "not measurable with this model", id="not by adding"),
        pytest.param([("FLAIR", 0.1)], "not measurable with this model", id="nothing helps"),
        pytest.param([("T1ce", 0.1)], None, id="these modalities were not measured"),
    ],
)
def test_what_is_not_measurable_names_the_fewest_modalities_that_would_make_it_so(rows, expected) -> None:
    card = card_with(*(("tumor core", tuple(names.split()), mean) for names, mean in rows))
    assert card.find_unmeasurable(["FLAIR"]).get("tumor core") == expected
    assert card.find_unmeasurable(("DWI", "FLAIR")).get("tumor core") == expected


def test_a_region_is_judged_over_all_patients_of_all_sets_that_training_never_saw() -> None:
    rows = [("whole tumor", ("T1",), 0.1, "BraTS", 2), ("whole tumor", ("T1",), 0.4, "LGG", 8)]
    assert card_with(*rows).find_unmeasurable(("T1",)) == {}
    seen = [("whole tumor", ("T1",), 0.1, "validation", 20, False)]
    assert card_with(*seen).find_unmeasurable(("T1",)) == {}
    other = [("whole tumor", ("T1",), 0.1, "BraTS", 3, True, "calibration error")]
    assert card_with(*other).find_unmeasurable(("T1",)) == {}


def test_the_expected_dice_is_given_for_each_region_and_kind_of_case_with_exactly_these_scans() -> None:
    card = ModelStore().find("glioma-u2net").card
    expected = card.expected_dice(["FLAIR", "T1ce", "DWI"])
    assert list(expected) == ["whole tumor", "tumor core", "enhancing tumor"]
    whole = {metric.kind: metric for metric in expected["whole tumor"]}
    assert set(whole) == {"glioblastoma", "lower-grade glioma"}
    assert whole["lower-grade glioma"].mean == pytest.approx(0.786, abs=0.01)
    assert whole["lower-grade glioma"].n == 15
    assert {metric.kind for metric in card.expected_dice(["T1ce"])["enhancing tumor"]} == {
        "glioblastoma",
        "treated glioblastoma",
    }
    assert all(set(m.modalities) == {"T1ce", "FLAIR"} for metrics in expected.values() for m in metrics)


def test_nothing_is_claimed_of_scans_that_were_never_measured() -> None:
    card = card_with(("whole tumor", ("T1", "FLAIR"), 0.8), regions=GLIOMA_REGIONS)
    assert card.expected_dice(("T1",)) == {}
    assert card.expected_dice(()) == {}
    assert list(card.expected_dice(("FLAIR", "T1"))) == ["whole tumor"]
    unknown = card_with(("whole tumor", ("T1",), 0.8, "our hospital"))
    assert unknown.expected_dice(("T1",))["whole tumor"][0].kind == "our hospital"
    assert np.isclose(unknown.expected_dice(("T1",))["whole tumor"][0].mean, 0.8)


def test_with_context_a_network_takes_each_modality_three_times() -> None:
    card = ModelCard(name="a", architecture="unet", modalities=("T1", "FLAIR"))
    assert card.inputs == ("T1", "FLAIR")
    seen = card.model_copy(update={"context_mm": 3.0})
    assert seen.inputs == ("T1", "FLAIR", "T1 above", "FLAIR above", "T1 below", "FLAIR below")


def test_a_network_that_sees_volumes_has_no_context() -> None:
    with pytest.raises(ValueError, match="only 2-D networks have context"):
        ModelCard(name="a", architecture="unet", spatial_dims=3, context_mm=3.0)


@pytest.mark.parametrize("context_mm", [0, -1, 51])
def test_context_lies_within_the_head(context_mm: float) -> None:
    with pytest.raises(ValueError, match="context_mm"):
        ModelCard(name="a", architecture="unet", context_mm=context_mm)
