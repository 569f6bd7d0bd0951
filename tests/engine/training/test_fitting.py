import ctypes
import sys

import numpy as np
import pytest
import torch

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.training.data import Part, load_training_case
from napari_braintumor.engine.training.fitting import (
    Fit,
    count_activation_bytes,
    freed_memory_kept,
    frozen_stages,
    mean_of,
    validate,
)
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.engine.training.runs import Run


def test_stages_learn_one_after_the_other_the_deepest_first() -> None:
    assert [frozen_stages(2, 0.5, share) for share in (0.0, 0.24, 0.26, 0.49, 0.5, 0.9)] == [2, 2, 1, 1, 0, 0]
    assert frozen_stages(3, 1.0, 0.99) == 3
    assert frozen_stages(0, 0.5, 0.0) == 0


def test_validation_measures_only_the_slices_that_count(toy_plan, case_folder) -> None:
    case = load_training_case(find_cases(case_folder / "case0")[0], toy_plan)

    class Perfect(torch.nn.Module):
        """Knows the answer for slice 5, and nothing else."""

        def forward(self, x):
            logits = torch.full((len(x), 3, *x.shape[2:]), -1.0)
            for n, image in enumerate(x):
                if torch.equal(image, torch.from_numpy(case.prepared.data[:, 5].astype(np.float32))):
                    logits[n][torch.from_numpy(case.regions[:, 5])] = 1.0
            return logits

    device = torch.device("cpu")
    only = validate(Perfect(), [Part(case, np.array([5]))], toy_plan, device)
    assert only == dict.fromkeys(toy_plan.regions, 1.0)
    both = validate(Perfect(), [Part(case, np.array([4, 5]))], toy_plan, device)
    assert 0.3 < both["whole tumor"] < 0.9
    assert mean_of({}) is None


def test_activations_are_counted_without_the_weights(toy_plan) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1))
    fit = Fit(network, toy_plan, torch.device("cpu"))
    batch = [torch.randn(2, 4, 32, 32), torch.rand(2, 3, 32, 32).round(), torch.ones(2, 3, dtype=torch.bool)]
    counted = count_activation_bytes(fit, fit.network, batch)
    assert counted >= 4 * 2 * 32 * 32 * (4 + 8)
    assert counted < 4 * 2 * 32 * 32 * 64


def test_a_blend_lies_between_the_parent_and_what_was_learnt(toy_plan) -> None:
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


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told to"
)
def test_freed_memory_is_used_again_without_the_system_clearing_it() -> None:
    import resource

    def count_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(16 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_memory_kept():
        # What else the process holds may lie in the way at first, so that the heap grows once more.
        assert min(count_faults() for _ in range(5)) < 1000
    assert count_faults() > 4 * 1000


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_a_checkpoint_goes_on_with_the_same_step_to_the_bit(toy_plan, tmp_path, optimiser: str) -> None:
    plan = toy_plan.model_copy(update={"optimiser": optimiser, "output": tmp_path})
    run = Run.start(plan)
    batch = torch.randn(2, 4, 32, 32), torch.ones(2, 3, 32, 32), torch.ones(2, 3, dtype=torch.bool)

    def start() -> Fit:
        torch.manual_seed(0)
        network = build_network("unet", in_channels=4, out_channels=3, options=plan.options)
        return Fit(network, plan, torch.device("cpu"))

    whole, resumed = start(), start()
    for _ in range(2):
        whole.take_step(batch)
    whole.save(run)
    resumed.load(run)
    for _ in range(2):
        assert resumed.take_step(batch) == whole.take_step(batch)
    for one, two in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, two)
