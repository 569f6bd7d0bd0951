import pytest
import torch

from napari_braintumor.engine.losses import LOSSES, dice_loss, dice_per_region, supervised


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 16, 16, generator=generator)
    target = (torch.rand(4, 3, 16, 16, generator=generator) > 0.7).float()
    return logits, target, torch.ones(4, 3, dtype=torch.bool)


def test_a_perfect_prediction_has_a_dice_of_one() -> None:
    _, target, known = batch()
    assert dice_per_region((target - 0.5) * 100, target, known) == pytest.approx(torch.ones(3), abs=1e-5)


def test_dice_agrees_with_its_definition_pooled_over_the_batch() -> None:
    logits, target, known = batch()
    p, t = logits.sigmoid()[:, 1], target[:, 1]
    expected = (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert dice_per_region(logits, target, known)[1] == pytest.approx(float(expected), rel=1e-6)


def test_a_region_known_nowhere_is_nan_and_leaves_the_loss_finite() -> None:
    logits, target, known = batch()
    known[:, 2] = False
    assert dice_per_region(logits, target, known).isnan().tolist() == [False, False, True]
    assert all(loss(logits, target, known).isfinite() for loss in LOSSES.values())


@pytest.mark.parametrize("name", LOSSES)
def test_planes_that_the_annotation_does_not_define_have_no_gradient(name: str) -> None:
    logits, target, known = batch()
    known[1, 0] = False
    logits.requires_grad_()
    LOSSES[name](logits, target, known).backward()
    assert logits.grad is not None
    assert (logits.grad[1, 0] == 0).all()
    assert (logits.grad[1, 1] != 0).any()


def test_side_outputs_add_up() -> None:
    logits, target, known = batch()
    assert supervised(dice_loss, [logits, logits], target, known) == pytest.approx(
        2 * float(dice_loss(logits, target, known))
    )
