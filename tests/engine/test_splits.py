import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.plan import FineTuning, TrainPlan
from napari_braintumor.engine.splits import split_patients, split_slices


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


def test_a_patient_the_plan_names_but_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="not among its cases: nobody"):
        split_patients(CASES, plan(held_out=("nobody",)))


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(DataError, match="leaves 0 for training and 1 for validation"):
        split_patients(CASES[:2], plan())


def test_a_split_by_slice_has_everyone_on_both_sides() -> None:
    split = split_patients(CASES, plan(split_by="slice"))
    assert split.by_slice
    assert split.training == split.validation


def test_fine_tuning_keeps_the_middle_of_three_reviewed_slices_back() -> None:
    tuning = plan(fine_tuning=FineTuning(), start_from="x")
    learnt, judged = split_slices(np.array([4, 9, 30]), tuning, "case")
    assert learnt.tolist() == [4, 30]
    assert judged.tolist() == [9]
    learnt, judged = split_slices(np.array([4]), tuning, "case")
    assert learnt.tolist() == [4]
    assert judged.tolist() == []


def test_slices_split_by_share_are_drawn_anew_for_each_case_but_not_each_time() -> None:
    by_slice = plan(split_by="slice", validation=0.25)
    slices = np.arange(40)
    learnt, judged = split_slices(slices, by_slice, "one")
    assert len(judged) == 10
    assert sorted([*learnt, *judged]) == slices.tolist()
    assert judged.tolist() == split_slices(slices, by_slice, "one")[1].tolist()
    assert judged.tolist() != split_slices(slices, by_slice, "two")[1].tolist()
