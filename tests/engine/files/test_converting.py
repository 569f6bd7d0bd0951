"""Labels of one convention in the numbers of another, both ways."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import CAVITY, CONVENTIONS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.converting import values_from_regions
from napari_braintumor.engine.files.labels import reference_from_values
from napari_braintumor.engine.grid import default_grid

GRID = default_grid((4, 5, 6))
FULL = [name for name, each in CONVENTIONS.items() if len(each.regions) >= 3]


def draw(convention: str) -> np.ndarray:
    values = np.array(sorted(CONVENTIONS[convention].values or {0, 1}), np.uint8)
    return np.random.default_rng(0).choice(values, (4, 5, 6))


@pytest.mark.parametrize(("one", "other"), list(product(FULL, FULL)))
def test_regions_are_the_same_in_every_convention_and_back(one: str, other: str) -> None:
    before = reference_from_values(draw(one), one, GRID).regions
    values, _ = values_from_regions(before, other)
    after = reference_from_values(values, other, GRID).regions
    for region in set(before) & set(after) - {CAVITY}:
        assert np.array_equal(before[region] & ~before.get(CAVITY, False), after[region] & ~before.get(CAVITY, False))
    assert set(np.unique(values)) <= CONVENTIONS[other].values


@pytest.mark.parametrize(
    ("one", "other", "numbers"),
    [
        ("brats2017", "brats2023", {1: 1, 2: 2, 4: 3}),
        ("brats2023", "brats2017", {1: 1, 2: 2, 3: 4}),
        ("brats2023", "decathlon", {1: 2, 2: 1, 3: 3}),
        ("brats2024", "brats2017", {1: 1, 2: 2, 3: 4, 4: 0}),
        ("bratsped2024", "brats2023", {1: 3, 2: 1, 3: 1, 4: 2}),
        ("brats2023", "whole", {1: 1, 2: 1, 3: 1}),
        ("brats2023", "core", {1: 1, 2: 0, 3: 1}),
    ],
)
def test_numbers_change_as_the_data_sets_say(one: str, other: str, numbers: dict[int, int]) -> None:
    before = np.zeros((4, 5, 6), np.uint8)
    before.flat[: len(numbers)] = list(numbers)
    values, _ = values_from_regions(reference_from_values(before, one, GRID).regions, other)
    assert values.flat[: len(numbers)].tolist() == list(numbers.values())


def test_what_a_convention_cannot_say_is_noted() -> None:
    _, notes = values_from_regions(reference_from_values(draw("brats2024"), "brats2024", GRID).regions, "brats2013")
    assert any("has 2 numbers for what is only tumor core (1, 3); all of it became 1" in note for note in notes)
    assert any("has no number for resection cavity by itself" in note for note in notes)


def test_numbers_never_say_more_than_is_known() -> None:
    with pytest.raises(DataError, match=r"do not say what is tumor core or enhancing tumor, which 'brats2023' disting"):
        values_from_regions({"whole tumor": np.ones((2, 2, 2), np.bool_)}, "brats2023")
