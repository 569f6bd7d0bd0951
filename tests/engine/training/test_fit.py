import pytest
import torch

from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.training.fit import Fit, count_frozen_stages
from napari_braintumor.engine.training.plan import FineTuning


def test_stages_learn_one_after_the_other_the_deepest_first() -> None:
    assert [count_frozen_stages(2, 0.5, share) for share in (0.0, 0.24, 0.26, 0.49, 0.5, 0.9)] == [2, 2, 1, 1, 0, 0]
    assert count_frozen_stages(3, 1.0, 0.99) == 3
    assert count_frozen_stages(0, 0.5, 0.0) == 0


def test_a_blend_lies_between_the_parent_and_what_was_learned(toy_plan) -> None:
    plan = toy_plan.model_copy(update={"fine_tuning": FineTuning(), "start_from": "x", "averaging": 0.0})
    fit = Fit(torch.nn.Conv2d(4, 3, 1), plan, torch.device("cpu"))
    before = fit.network.weight.detach().clone()
    with torch.no_grad():
        fit.network.weight += 1
    assert torch.allclose(fit.blend_with_parent(0.25).weight, before + 0.25)
    assert torch.equal(fit.blend_with_parent(0.0).weight, before)
    assert torch.allclose(fit.network.weight, before + 1)


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 0), None)])
def test_training_on_cuda_uses_bfloat16_where_the_card_has_it_and_never_float16(
    toy_plan, monkeypatch, capability, expected
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    network = torch.nn.Conv2d(4, 3, 1)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **kwargs: self)
    assert Fit(network, toy_plan, torch.device("cuda")).autocast is expected


@pytest.mark.parametrize(("precision", "expected"), [("auto", None), ("float32", None), ("bfloat16", torch.bfloat16)])
def test_training_on_a_cpu_is_in_full_precision_unless_the_plan_asks_for_less(toy_plan, precision, expected) -> None:
    plan = toy_plan.model_copy(update={"precision": precision})
    assert Fit(torch.nn.Conv2d(4, 3, 1), plan, torch.device("cpu")).autocast is expected


def test_a_step_in_bfloat16_moves_float32_weights(toy_plan) -> None:
    fit = Fit(torch.nn.Conv2d(4, 3, 1), toy_plan.model_copy(update={"precision": "bfloat16"}), torch.device("cpu"))
    before = fit.network.weight.detach().clone()
    batch = torch.randn(2, 4, 16, 16), torch.ones(2, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
    loss, _ = fit.take_step(batch)
    assert loss > 0
    assert fit.network.weight.dtype is torch.float32
    assert not torch.equal(fit.network.weight, before)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_checkpoint_goes_on_with_the_same_step_to_the_bit(toy_plan, tmp_path, optimizer: str) -> None:
    plan = toy_plan.model_copy(update={"optimizer": optimizer})
    path = tmp_path / "checkpoint.safetensors"
    batch = torch.randn(2, 4, 32, 32), torch.ones(2, 3, 32, 32), torch.ones(2, 3, dtype=torch.bool)

    def start() -> Fit:
        torch.manual_seed(0)
        network = build_network("unet", in_channels=4, out_channels=3, options=plan.options)
        return Fit(network, plan, torch.device("cpu"))

    whole, resumed = start(), start()
    for _ in range(2):
        whole.take_step(batch)
    whole.save(path)
    resumed.load(path)
    for _ in range(2):
        assert resumed.take_step(batch) == whole.take_step(batch)
    for one, two in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, two)
