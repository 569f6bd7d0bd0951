import numpy as np
import pytest
import torch

from napari_braintumor.engine.data import DropModalitiesd, SliceSampler, load_training_case, split_cases
from napari_braintumor.engine.errors import DataError


def loaded(plan):
    return [load_training_case(case, plan) for case in split_cases(plan).training]


def test_a_held_out_patient_is_on_no_side_of_the_split(toy_plan) -> None:
    split = split_cases(toy_plan)
    assert split.validation_patients == ("case6",)
    assert split.training_patients == tuple(f"case{n}" for n in range(6))


def test_a_drawn_share_of_the_patients_is_the_same_each_time(toy_plan) -> None:
    plan = toy_plan.model_copy(update={"validation": 0.3})
    first, second = split_cases(plan), split_cases(plan)
    assert first == second
    assert len(first.validation_patients) == 2
    assert not set(first.validation_patients) & set(first.training_patients)


def test_a_patient_the_plan_names_but_that_is_not_there_is_named(toy_plan) -> None:
    with pytest.raises(DataError, match="not among its cases: nobody"):
        split_cases(toy_plan.model_copy(update={"held_out": ("nobody",)}))


def test_a_split_with_an_empty_side_is_refused(toy_plan) -> None:
    everyone = tuple(f"case{n}" for n in range(7))
    with pytest.raises(DataError, match="0 cases for training and 7 for validation"):
        split_cases(toy_plan.model_copy(update={"validation": everyone}))


def test_batches_have_the_plan_s_shape_and_masks_stay_binary(toy_plan) -> None:
    plan = toy_plan.model_copy(update={"augmentation": "full"})
    image, regions, known = SliceSampler(loaded(plan), plan).draw_batch()
    assert image.shape == (6, 4, 64, 64)
    assert regions.shape == (6, 3, 64, 64)
    assert set(regions.unique().tolist()) <= {0.0, 1.0}
    assert known.all()
    assert image.isfinite().all()


def test_the_same_seed_draws_the_same_batches(toy_plan) -> None:
    cases = loaded(toy_plan)
    first, second = SliceSampler(cases, toy_plan), SliceSampler(cases, toy_plan)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first.draw_batch(), second.draw_batch(), strict=True))


def test_masks_move_with_their_image(toy_plan) -> None:
    plan = toy_plan.model_copy(
        update={"augmentation": "full", "modality_dropout": 0.0, "tumor_share": 1.0, "batch_size": 24}
    )
    image, regions, _ = SliceSampler(loaded(plan), plan).draw_batch()
    inside, ring = regions[:, 0] > 0, (image[:, 3] != 0) & (regions[:, 0] == 0)
    brighter = [
        float(image[n, 3][inside[n]].mean() - image[n, 3][ring[n]].mean()) for n in range(24) if inside[n].sum() > 30
    ]
    assert len(brighter) > 12
    assert min(brighter) > 0.5  # FLAIR is bright where the moved mask says tumor, in every slice


def test_tumor_slices_are_drawn_as_often_as_asked(toy_plan) -> None:
    plan = toy_plan.model_copy(update={"tumor_share": 1.0, "augmentation": "none", "batch_size": 40})
    _, regions, _ = SliceSampler(loaded(plan), plan).draw_batch()
    assert regions.any(dim=(1, 2, 3)).all()


def test_modality_dropout_never_blanks_all_and_never_invents() -> None:
    drop = DropModalitiesd(1.0, np.random.default_rng(0))
    kept = []
    for _ in range(200):
        item = drop({"image": torch.ones(4, 2, 2), "present": np.array([True, True, False, True])})
        kept.append(tuple(item["image"].any(dim=(1, 2)).tolist()))
    assert all(any(k[n] for n in (0, 1, 3)) for k in kept)
    assert len(set(kept)) >= 6


def test_groups_all_of_weight_zero_are_refused(toy_plan) -> None:
    cases = loaded(toy_plan)
    plan = toy_plan.model_copy(update={"group_weights": {case.group: 0.0 for case in cases}})
    with pytest.raises(DataError, match="has the weight 0"):
        SliceSampler(cases, plan)


def test_a_case_without_a_mask_cannot_be_trained_on(toy_plan) -> None:
    from dataclasses import replace

    case = replace(split_cases(toy_plan).training[0], reference=())
    with pytest.raises(DataError, match="has no reference mask"):
        load_training_case(case, toy_plan)
