from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from napari_braintumor.engine import evaluate
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseEvaluated, CaseFailed, Noted, SeedEvaluated
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.patients import WhoIsWho, is_held_out
from napari_braintumor.engine.models.model_file import read_card
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig


@pytest.fixture
def configure(toy_model) -> Callable[..., EvaluateConfig]:
    return partial(EvaluateConfig, segmentation=SegmentConfig(model=str(toy_model), device="cpu"))


def test_every_case_is_measured_and_known_to_be_seen_or_held_out(case_folder, configure) -> None:
    results = {event.case: event for event in evaluate(find_cases(case_folder), configure())}
    assert len(results) == 8
    assert {name: result.held_out for name, result in results.items()} == {
        **{f"case{n}": False for n in range(7)},
        "case7": True,
    }
    assert results["case7"].dice["whole tumor"] > 0.6
    assert (
        results["case7"].figures["reference_ml"]["whole tumor"]
        > results["case7"].figures["reference_ml"]["enhancing tumor"]
        > 0
    )


@pytest.mark.parametrize(
    ("patients", "seen"),
    [({"case7": "case0"}, False), ({"case0": "case7"}, False), ({"case1": "case0"}, True), ({}, True)],
)
def test_a_patient_whose_twin_was_trained_on_is_not_held_out(case_folder, toy_model, patients, seen) -> None:
    card = read_card(toy_model).model_copy(update={"patients": patients})
    (case,) = find_cases(case_folder / "case7")
    who = WhoIsWho({case.name: case.patient}, card.patients)
    assert is_held_out(case.name, card, who) is seen
    twin = replace(case, name="other-set-7", patient="other-set-7")
    card = read_card(toy_model).model_copy(update={"patients": {"other-set-7": "case7"}})
    assert is_held_out(twin.name, card, WhoIsWho({twin.name: twin.patient}, card.patients)) is True


def test_only_held_out_patients_are_measured_where_asked(case_folder, configure) -> None:
    results = list(evaluate(find_cases(case_folder), configure(held_out=True)))
    assert [result.case for result in results] == ["case7"]


def test_a_case_can_be_measured_with_some_of_its_modalities(case_folder, configure) -> None:
    cases = find_cases(case_folder / "case7")
    flair = next(iter(evaluate(cases, configure(modalities=("FLAIR",)))))
    everything = next(iter(evaluate(cases, configure())))
    assert isinstance(flair, CaseEvaluated)
    assert flair.dice != everything.dice


def test_cases_without_reference_or_wanted_modality_are_passed_over_and_noted(case_folder, configure) -> None:
    cases = find_cases(case_folder)[:3]
    mixed = [replace(cases[0], reference=()), replace(cases[1], images=cases[1].images[:1]), cases[2]]
    notes = [event.text for event in evaluate(mixed, configure(modalities=("FLAIR",))) if isinstance(event, Noted)]
    assert notes == [
        "case0 is skipped: it has no reference.",
        "case1 is skipped: it has none of the modalities.",
    ]


def test_when_nothing_is_left_to_measure_the_user_is_notified(case_folder, configure) -> None:
    with pytest.raises(DataError, match=r"None of the 1 cases found can be evaluated.*held-out"):
        list(evaluate(find_cases(case_folder / "case0"), configure(held_out=True)))


def test_only_the_slices_of_a_split_are_measured_where_asked(case_folder, configure) -> None:
    whole = next(iter(evaluate(find_cases(case_folder), configure(side={"case7": None}))))
    part = next(iter(evaluate(find_cases(case_folder), configure(side={"case7": [5, 6]}))))
    assert whole.case == part.case == "case7"
    assert part.figures["reference_ml"]["whole tumor"] < whole.figures["reference_ml"]["whole tumor"]


def test_all_cases_together_are_measured_last(case_folder, configure) -> None:
    case, seed, *calibrations = evaluate(find_cases(case_folder / "case7"), configure(pooled=True))
    assert case.lesions["whole tumor"] == 1
    assert isinstance(seed, SeedEvaluated)
    assert seed.region == "whole tumor"
    assert seed.slices > 3
    assert 0.5 < seed.dice < 1
    assert [c.region for c in calibrations] == ["whole tumor", "tumor core", "enhancing tumor"]
    assert all(0 < c.error < 0.5 and len(c.bins) == 10 for c in calibrations)


def test_in_a_case_without_tumor_all_that_is_found_is_false(case_folder, configure) -> None:
    case = replace(find_cases(case_folder)[0], reference=())
    (result,) = evaluate([case], configure(no_tumor=True))
    assert result.figures["reference_ml"] == {"whole tumor": 0, "tumor core": 0, "enhancing tumor": 0}
    assert result.figures["predicted_ml"]["whole tumor"] > 0
    assert result.dice["whole tumor"] == 0


def raising(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        ("read_case", MemoryError(), "There was not enough memory"),
        ("read_case", EOFError("ended"), "Unexpected error: EOFError."),
        ("read_reference", DataError("Two masks."), "Two masks."),
        ("segment", RuntimeError("no\n  luck"), "Unexpected error: RuntimeError."),
        ("count_missed_lesions", ZeroDivisionError(), "Unexpected error: ZeroDivisionError."),
    ],
)
def test_whatever_is_wrong_with_one_case_the_others_are_measured(
    case_folder, configure, monkeypatch, place, error, reason
) -> None:
    from napari_braintumor.engine.measuring import evaluation

    cases = find_cases(case_folder)[:3]
    works, calls = getattr(evaluation, place), []

    def fail_once(*arguments, **settings):
        calls.append(1)
        per_case = 3 if place == "count_missed_lesions" else 1
        return (raising(error) if len(calls) == per_case + 1 else works)(*arguments, **settings)

    monkeypatch.setattr(evaluation, place, fail_once)
    first, failed, last = evaluate(cases, configure())
    assert (first.case, failed.case, last.case) == ("case0", "case1", "case2")
    assert isinstance(failed, CaseFailed)
    assert failed.reason.startswith(reason)
    assert bool(failed.details) == (not isinstance(error, DataError))


def test_a_case_that_was_found_broken_fails_and_is_not_passed_over(case_folder, configure) -> None:
    good, bad = find_cases(case_folder)[:2]
    bad = replace(bad, images=(), reference=(), problem="It has two masks.")
    failed, measured = evaluate([bad, good], configure())
    assert (failed.case, failed.reason, measured.case) == ("case1", "It has two masks.", "case0")
    with pytest.raises(DataError, match="None of the 1 cases found can be evaluated: 1 failed"):
        list(evaluate([bad], configure()))


def test_what_reading_noted_is_said_of_its_case(case_folder, configure) -> None:
    case = replace(find_cases(case_folder)[0], notes=("One file was left out.",))
    note, result = evaluate([case], configure())
    assert note == Noted("case0: One file was left out.")
    assert result.case == "case0"
