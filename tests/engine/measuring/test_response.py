"""RANO's thresholds, and what counts as a target."""

from __future__ import annotations

import pytest

from napari_braintumor.engine.measuring.measurements import Measured
from napari_braintumor.engine.measuring.response import assess, choose_region, sum_products

ET = "enhancing tumor"


def visit(*lesions: tuple[float, float, float], region: str = ET) -> list[Measured]:
    """A region with lesions of these mL, long and short diameters."""
    total = sum(ml for ml, _, _ in lesions)
    if not lesions:
        return [Measured(region, 0, {"volume_ml": 0.0, "lesions": 0})]
    rows = [
        Measured(region, number, {"volume_ml": ml, "across_mm": short, "product_mm2": long * short})
        for number, (ml, long, short) in enumerate(lesions, start=1)
    ]
    largest = max(rows, key=lambda row: row.values["product_mm2"])
    whole = Measured(region, 0, {**largest.values, "volume_ml": total, "lesions": len(lesions)})
    return [whole, *(rows if len(rows) > 1 else [])]


@pytest.mark.parametrize(
    ("later", "category", "by_volume", "reason"),
    [
        ((10.0, 30.0, 20.0), "SD", "SD", r"sum of products \+0% \(600 to 600 mm²\)"),
        ((13.9, 31.0, 24.0), "SD", "SD", r"\+24%"),
        ((14.0, 30.0, 25.0), "PD", "PD", r"\+25% \(600 to 750 mm²\)"),
        ((4.0, 25.0, 12.1), "SD", "SD", r"-50%"),
        ((3.5, 25.0, 12.0), "PR", "PR", r"-50%"),
        ((0.4, 9.0, 8.0), "PR", "PR", r"-100%"),
    ],
)
def test_the_thresholds_of_rano(later, category: str, by_volume: str, reason: str) -> None:
    import re

    found = assess(ET, visit((10.0, 30.0, 20.0)), visit(later))
    assert (found.category, found.by_volume) == (category, by_volume)
    assert re.search(reason, found.reason)


def test_nothing_left_is_complete_and_nothing_at_all_is_no_category() -> None:
    assert assess(ET, visit((2.0, 15.0, 12.0)), visit()).category == "CR"
    found = assess(ET, visit(), visit())
    assert (found.category, found.by_volume) == ("", "")
    assert "neither visit shows enhancing tumor" in found.reason


def test_a_new_measurable_lesion_is_progression_and_a_small_one_is_not() -> None:
    before, large = visit((10.0, 30.0, 20.0)), visit((10.0, 30.0, 20.0), (1.0, 12.0, 11.0))
    assert assess(ET, before, large, visit((1.0, 12.0, 11.0))).category == "PD"
    assert assess(ET, before, before, visit((0.2, 9.0, 6.0))).category == "SD"


def test_small_lesions_become_measurable_or_stay_as_they_are() -> None:
    small = visit((0.3, 9.0, 8.0))
    assert assess(ET, small, visit((1.0, 13.0, 11.0))).category == "PD"
    assert assess(ET, small, small).category == "SD"


def test_the_five_largest_lesions_are_added_up() -> None:
    lesions = [(1.0, 10.0 + n, 10.0) for n in range(7)]
    assert sum_products(ET, visit(*lesions)) == sum(10 * (10 + n) for n in range(2, 7))


def test_enhancing_tumor_is_assessed_if_a_visit_shows_any() -> None:
    whole = visit((5.0, 20.0, 20.0), region="whole tumor")
    assert choose_region([*whole, *visit()], [*whole, *visit((1.0, 10.0, 10.0))]) == ET
    assert choose_region([*whole, *visit()], [*whole, *visit()]) == "whole tumor"
