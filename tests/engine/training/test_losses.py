import math
from typing import get_args

import pytest
import torch

from napari_braintumor.engine.training.losses import (
    apply_loss,
    build_loss,
    dice_loss,
    dice_per_region,
    log_cosh,
    seed_dice_loss,
    tversky_loss,
)
from napari_braintumor.engine.training.plan import LossName, TrainPlan

NAMES = get_args(LossName)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 16, 16, generator=generator)
    target = (torch.rand(4, 3, 16, 16, generator=generator) > 0.7).float()
    return logits, target, torch.ones(4, 3, dtype=torch.bool)


def loss_named(name: str, **more):
    return build_loss(TrainPlan(name="a", cases=("b",), loss=name, **more))


def test_a_perfect_prediction_has_a_dice_of_one() -> None:
    _, target, known = batch()
    assert dice_per_region((target - 0.5) * 100, target, known) == pytest.approx(torch.ones(3), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_near_zero_for_a_perfect_prediction_and_larger_for_its_opposite(name: str) -> None:
    _, target, known = batch()
    loss = loss_named(name)
    assert 0 <= float(loss((target - 0.5) * 100, target, known)) < 1e-3
    assert float(loss((0.5 - target) * 100, target, known)) > 0.3


def test_dice_agrees_with_its_definition_pooled_over_the_batch() -> None:
    logits, target, known = batch()
    p, t = logits.sigmoid()[:, 1], target[:, 1]
    expected = (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert dice_per_region(logits, target, known)[1] == pytest.approx(float(expected), rel=1e-6)


def test_tversky_agrees_with_its_definition_and_is_dice_at_a_half() -> None:
    logits, target, known = batch()
    p, t = logits.sigmoid(), target
    hit, missed, false = ((x).sum((0, 2, 3)) for x in (p * t, (1 - p) * t, p * (1 - t)))
    expected = 1 - ((hit + 1) / (hit + 0.7 * missed + 0.3 * false + 1)).mean()
    assert float(tversky_loss(logits, target, known, 0.7)) == pytest.approx(float(expected), rel=1e-5)
    assert float(tversky_loss(logits, target, known, 0.5)) == pytest.approx(
        float(dice_loss(logits, target, known)), abs=1e-3
    )


def test_a_missed_voxel_costs_more_than_a_false_one_where_alpha_says_so() -> None:
    target = torch.zeros(1, 1, 10, 10)
    target[..., :5] = 1
    known = torch.ones(1, 1, dtype=torch.bool)
    too_small, too_large = torch.full_like(target, -50.0), torch.full_like(target, -50.0)
    too_small[..., :3], too_large[..., :7] = 50.0, 50.0
    loss = loss_named("tversky", tversky_alpha=0.9)
    assert float(loss(too_small, target, known)) > 1.5 * float(loss(too_large, target, known))


def test_the_focal_loss_is_the_tversky_loss_to_a_power() -> None:
    parts = batch()
    expected = float(tversky_loss(*parts)) ** 0.75
    assert float(loss_named("focal_tversky")(*parts)) == pytest.approx(expected, rel=1e-5)


def test_the_seed_s_loss_averages_the_background_in() -> None:
    empty = torch.full((2, 1, 20, 20), -50.0)
    target = torch.zeros(2, 1, 20, 20)
    target[..., :5, :5] = 1
    known = torch.ones(2, 1, dtype=torch.bool)
    # Nothing found, yet half the score: the foreground's Dice is near 0, the background's near 1.
    assert float(seed_dice_loss(empty, target, known)) == pytest.approx(0.5, abs=0.05)


def test_log_cosh_is_that() -> None:
    for value in (0.0, 0.3, 1.0, 30.0):
        assert float(log_cosh(torch.tensor(value))) == pytest.approx(math.log(math.cosh(value)), abs=1e-5)
    parts = batch()
    assert float(loss_named("log_cosh_dice")(*parts)) == pytest.approx(
        math.log(math.cosh(float(dice_loss(*parts)))), rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_region_known_nowhere_leaves_the_loss_finite(name: str) -> None:
    logits, target, known = batch()
    known[:, 2] = False
    assert dice_per_region(logits, target, known).isnan().tolist() == [False, False, True]
    assert loss_named(name)(logits, target, known).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_any_known_region_teaches_nothing(name: str) -> None:
    logits, target, known = batch()
    logits.requires_grad_()
    loss = loss_named(name)(logits, target, torch.zeros_like(known))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_planes_that_the_annotation_does_not_define_have_no_gradient(name: str) -> None:
    logits, target, known = batch()
    known[1, 0] = False
    logits.requires_grad_()
    loss_named(name)(logits, target, known).backward()
    assert logits.grad is not None
    assert (logits.grad[1, 0] == 0).all()
    assert (logits.grad[1, 1] != 0).any()


def test_a_soft_target_is_reached_where_the_prediction_equals_it() -> None:
    logits, _, known = batch()
    loss = loss_named("dice_bce")
    target = logits.sigmoid()
    assert float(loss(logits, target, known)) < float(loss(logits + 1, target, known))


def test_side_outputs_add_up() -> None:
    logits, target, known = batch()
    assert apply_loss(dice_loss, [logits, logits], target, known) == pytest.approx(
        2 * float(dice_loss(logits, target, known))
    )


@pytest.mark.parametrize("name", ["dice", "dice_bce", "tversky", "seed_dice"])
def test_a_diverged_network_gives_no_number_rather_than_no_loss(name: str) -> None:
    loss = build_loss(TrainPlan(name="a", cases=("b",), loss=name))
    target, known = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, dtype=torch.bool)
    assert loss(torch.full((2, 3, 8, 8), torch.nan), target, known).isnan()
