import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.training.plan import FineTuning, TrainPlan
from napari_braintumor.engine.training.splits import (
    check_names,
    check_tuning,
    know_patients,
    split_patients,
    split_slices,
)


def plan(**more) -> TrainPlan:
    return TrainPlan(**{"name": "a", "cases": ("b",), "validation": 0.3, **more})


CASES = [CaseFiles(f"p{n}-{t}", f"p{n}", "other", ()) for n in range(10) for t in range(2)]


def test_time_points_of_a_patient_stay_on_one_side() -> None:
    split = split_patients(CASES, plan())
    assert len(split.validation) == 3
    assert set(split.training) | set(split.validation) == {f"p{n}" for n in range(10)}
    assert not set(split.training) & set(split.validation)


def test_a_drawn_split_is_the_same_each_time_and_another_with_another_seed() -> None:
    assert split_patients(CASES, plan()) == split_patients(CASES[::-1], plan())
    assert split_patients(CASES, plan()) != split_patients(CASES, plan(seed=1))


def test_patients_named_for_validation_are_on_that_side_and_held_out_ones_on_none() -> None:
    split = split_patients(CASES, plan(validation=("p3", "p4"), held_out=("p5",)))
    assert split.validation == ("p3", "p4")
    assert "p5" not in split.training
    assert len(split.training) == 7


def test_folds_share_out_every_patient_once() -> None:
    sides = [split_patients(CASES, plan(fold=(part, 3))).validation for part in (1, 2, 3)]
    assert sorted(name for side in sides for name in side) == sorted(f"p{n}" for n in range(10))


@pytest.mark.parametrize("side", ["validation", "training"])
def test_a_patient_to_learn_from_or_to_validate_on_that_is_not_there_is_named(side: str) -> None:
    with pytest.raises(DataError, match="not among its cases: nobody"):
        split_patients(CASES, plan(**{side: ("nobody",)}))


def test_patients_held_out_that_are_not_among_these_cases_are_noted() -> None:
    events = list(check_names(plan(held_out=("nobody", "p3")), know_patients(CASES, plan())))
    assert len(events) == 1
    assert "held out but not among the cases: nobody" in events[0]


@pytest.mark.parametrize("side", ["held_out", "validation", "training", "patients"])
@pytest.mark.parametrize("slip", ["P3", "p03", "p_3", "p3-7"])
def test_a_slip_in_the_name_of_a_patient_is_refused_with_the_name_that_is_meant(side: str, slip: str) -> None:
    named = {slip: "somebody"} if side == "patients" else (slip,)
    with pytest.raises(DataError, match=f"names '{slip}', which is not among its cases, but 'p3(-[01])?' is"):
        split_patients(CASES, plan(**{side: named}))


def test_a_person_with_a_similar_name_who_is_not_there_can_be_stated() -> None:
    split_patients(CASES, plan(held_out=("P3",), patients={"P3": "P3"}))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("named", ["p4", "p4-1", "other"])
def test_the_twin_of_a_patient_is_on_the_same_side(named: str, seed: int) -> None:
    """By the patient's name, a case's, or that of the other data set."""
    stated = plan(patients={"p4": "p7", "other": "p4-0"}, held_out=(named,), seed=seed)
    split = split_patients(CASES, stated)
    assert not {"p4", "p7"} & {*split.training, *split.validation}
    for part in range(1, 4):
        split = split_patients(CASES, plan(patients={"p4": "p7"}, fold=(part, 3), seed=seed))
        assert "p4" not in (*split.training, *split.validation)
        assert len(split.training) + len(split.validation) == 9


def test_one_person_named_on_two_sides_by_two_names_is_refused() -> None:
    with pytest.raises(DataError, match="names the patient 'p7' in both held_out and validation"):
        split_patients(CASES, plan(patients={"p4": "p7"}, held_out=("p4",), validation=("p7-1",)))


@pytest.mark.parametrize("seed", range(8))
def test_a_patient_set_to_training_is_never_drawn_into_validation(seed: int) -> None:
    chosen = ("p1", "p2", "p3-0", "p5", "p6")
    for more in ({"validation": 0.5}, {"fold": (1, 2)}):
        split = split_patients(CASES, plan(training=chosen, seed=seed, **more))
        assert {"p1", "p2", "p3", "p5", "p6"} <= set(split.training)
        assert split.validation


def test_where_all_patients_are_set_to_training_none_is_left_to_validate_on() -> None:
    with pytest.raises(DataError, match="leaves 10 for training and 0 for validation"):
        split_patients(CASES, plan(training=tuple(f"p{n}" for n in range(10))))


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(DataError, match="leaves 0 for training and 1 for validation"):
        split_patients(CASES[:2], plan())


def test_a_split_by_slice_has_everyone_on_both_sides() -> None:
    split = split_patients(CASES, plan(split_by="slice"))
    assert split.by_slice
    assert split.training == split.validation


def test_fine_tuning_keeps_the_middle_of_three_reviewed_slices_back() -> None:
    tuning = plan(fine_tuning=FineTuning(), start_from="x")
    learned, judged = split_slices(np.array([4, 9, 30]), tuning, "case")
    assert learned.tolist() == [4, 30]
    assert judged.tolist() == [9]
    learned, judged = split_slices(np.array([4]), tuning, "case")
    assert learned.tolist() == [4]
    assert judged.tolist() == []


def test_of_cases_with_one_slice_each_every_third_judges() -> None:
    tuning = plan(fine_tuning=FineTuning(), start_from="x")
    sides = [split_slices(np.array([4]), tuning, f"case{n}", n) for n in range(4)]
    assert [len(judged) for _, judged in sides] == [0, 1, 0, 0]


@pytest.mark.parametrize(("to_learn", "to_judge"), [(0, 0), (1, 0), (1, 1), (2, 0), (5, 0), (0, 3), (1, 2)])
def test_a_fine_tuning_of_too_few_slices_is_refused_with_how_many_are_needed(to_learn: int, to_judge: int) -> None:
    with pytest.raises(DataError, match="at least 3 reviewed slices: two to learn from and one to judge by"):
        check_tuning(to_learn, to_judge)
    check_tuning(2, 1)


@pytest.mark.parametrize("count", range(1, 30))
def test_a_split_by_slice_judges_by_at_least_one_of_three_and_learns_from_at_least_one(count: int) -> None:
    for share in (0.01, 0.2, 0.5, 0.99):
        learned, judged = split_slices(np.arange(count), plan(split_by="slice", validation=share), "case")
        assert sorted([*learned, *judged]) == list(range(count))
        assert len(learned) > 0
        assert len(judged) > 0 or count < 3


def test_slices_split_by_share_are_drawn_anew_for_each_case_but_not_each_time() -> None:
    by_slice = plan(split_by="slice", validation=0.25)
    slices = np.arange(40)
    learned, judged = split_slices(slices, by_slice, "one")
    assert len(judged) == 10
    assert sorted([*learned, *judged]) == slices.tolist()
    assert judged.tolist() == split_slices(slices, by_slice, "one")[1].tolist()
    assert judged.tolist() != split_slices(slices, by_slice, "two")[1].tolist()
