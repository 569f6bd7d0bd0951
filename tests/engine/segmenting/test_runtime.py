from contextlib import contextmanager

import pytest
import torch

from fake_card import CUDA, OnCard, put_on_card
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.segmenting.runtime import (
    FallbackRunner,
    TorchRunner,
    choose_batch,
    run_with_cpu_fallback,
    start_runner,
    start_with_fallback,
)

CPU = torch.device("cpu")


class FakeRunner:
    """Doubles its input; runs out of memory above `limit` slices. What it gives on a card lies on the card."""

    runtime = "torch"

    def __init__(self, limit: int, device: torch.device = CUDA) -> None:
        self.limit = limit
        self.device = device
        self.sizes: list[int] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return put_on_card(batch * 2) if self.device == CUDA else batch * 2


@pytest.fixture
def no_cuda_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


BATCH = torch.arange(16.0).reshape(16, 1, 1, 1)


def test_a_batch_that_fits_runs_in_one_piece() -> None:
    runner = FakeRunner(16)
    network = FallbackRunner(runner, 16, pytest.fail)
    logits = network(BATCH)
    assert isinstance(logits, OnCard)
    assert torch.equal(logits.cpu(), BATCH * 2)
    assert runner.sizes == [16]
    assert network.notes == []


def test_when_memory_runs_out_smaller_batches_are_tried_and_said(no_cuda_calls) -> None:
    runner = FakeRunner(4)
    network = FallbackRunner(runner, 16, pytest.fail)
    logits = network(BATCH)
    assert isinstance(logits, OnCard)
    assert torch.equal(logits.cpu(), BATCH * 2)
    assert runner.sizes == [16, 8, 4, 4, 4, 4]
    assert network.notes == [
        "Memory ran out on cuda; continuing with 8 slices at a time.",
        "Memory ran out on cuda; continuing with 4 slices at a time.",
    ]


@pytest.mark.parametrize("pieces_that_fit", [0, 1, 2, 3])
@pytest.mark.parametrize("device", [CUDA, torch.device("meta")])
def test_when_the_gpu_has_no_room_left_the_cpu_does_the_whole_batch(no_cuda_calls, device, pieces_that_fit) -> None:
    """At whichever piece of a batch that happens; of `meta` tensors nothing can be fetched."""

    class Filling(FakeRunner):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            self.limit = 1 if len(self.sizes) < pieces_that_fit else 0
            logits = super().__call__(batch)
            return logits.to(device) if device.type == "meta" else logits

    network = FallbackRunner(Filling(0, device), 1, lambda: FakeRunner(99, CPU))
    logits = network(BATCH[:4])
    assert not isinstance(logits, OnCard)
    assert torch.equal(logits, BATCH[:4] * 2)
    assert network.runner.device == CPU
    assert "with a single slice; continuing on the CPU, more slowly" in network.notes[-1]


def test_a_network_that_does_not_fit_the_gpu_starts_on_the_cpu_and_the_user_is_notified(no_cuda_calls) -> None:
    def full() -> FakeRunner:
        raise RuntimeError("CUDA error: out of memory")

    network = start_with_fallback(full, lambda: FakeRunner(99, CPU), None)
    assert torch.equal(network(BATCH), BATCH * 2)
    assert network.notes == ["The model does not fit into the free memory; continuing on the CPU, more slowly."]

    def broken() -> FakeRunner:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        start_with_fallback(broken, pytest.fail, None)


def test_what_does_not_fit_the_gpu_is_worked_out_on_the_cpu() -> None:
    def halve(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, OnCard):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tensor / 2

    assert torch.equal(run_with_cpu_fallback(halve, put_on_card(BATCH)), BATCH / 2)
    with pytest.raises(ZeroDivisionError):
        run_with_cpu_fallback(lambda _: 1 // 0, put_on_card(BATCH))


def test_when_one_slice_does_not_fit_the_computer_the_user_is_notified() -> None:
    with pytest.raises(SettingsError, match="Memory ran out on the CPU with a single slice"):
        FallbackRunner(FakeRunner(0, CPU), 1, pytest.fail)(BATCH)


def test_other_failures_are_not_taken_for_exhausted_memory() -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug")

    fail.device = CPU
    with pytest.raises(RuntimeError, match="a bug"):
        FallbackRunner(fail, 1, pytest.fail)(BATCH)


def test_gpus_and_openvino_get_batches_and_torch_on_the_cpu_single_slices() -> None:
    assert choose_batch("openvino", CPU) > 1
    assert choose_batch("torch", CUDA) > 1
    assert choose_batch("torch", CPU) == 1


class WatchedNetwork(torch.nn.Conv2d):
    """Notes under what settings it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let torch's meta device stand for a CUDA card."""
        super().__init__(4, 3, 1)
        self.settings: dict[str, object] = {}
        self.seen: dict[str, object] = {}
        real_to, real_move = torch.Tensor.to, torch.nn.Module.to

        def pin(batch: torch.Tensor) -> torch.Tensor:
            pinned = batch.clone(memory_format=torch.preserve_format)
            pinned.is_pinned_here = True
            return pinned

        def to(tensor: torch.Tensor, *where: object, **how: object) -> torch.Tensor:
            if where and where[0] == CUDA:
                self.settings["copied without waiting"] = how["non_blocking"] and tensor.is_pinned_here
                return real_to(tensor, "meta")
            return real_to(tensor, *where, **how)

        def move(module: torch.nn.Module, *where: object, **how: object) -> torch.nn.Module:
            return real_move(module, *("meta" if place == CUDA else place for place in where), **how)

        @contextmanager
        def setting(name: str, value: object):
            self.settings[name] = value
            yield
            del self.settings[name]

        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.nn.Module, "to", move)
        monkeypatch.setattr(torch, "autocast", lambda kind, dtype: setting(f"{kind} precision", dtype))
        monkeypatch.setattr(torch.backends.cudnn, "flags", lambda **flags: setting("fastest", flags["benchmark"]))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        channels_last = batch.is_contiguous(memory_format=torch.channels_last)
        self.seen = {**self.settings, "channels last": channels_last}
        return super().forward(batch)


def test_on_cuda_a_network_runs_with_the_fastest_kernels_on_a_pinned_copy_and_logits_stay_there(monkeypatch) -> None:
    network = WatchedNetwork(monkeypatch)
    logits = TorchRunner(network, CUDA)(torch.zeros(2, 4, 8, 8))
    assert logits.dtype == torch.float32
    assert logits.device.type == "meta"
    assert network.seen == {
        "fastest": True,
        "copied without waiting": True,
        "cuda precision": torch.bfloat16,
        "channels last": True,
    }


def test_full_precision_on_cuda_leaves_autocast_out(monkeypatch) -> None:
    network = WatchedNetwork(monkeypatch)
    TorchRunner(network, CUDA, "float32")(torch.zeros(2, 4, 8, 8))
    assert network.seen["fastest"]
    assert "cuda precision" not in network.seen


def test_a_second_start_with_the_same_model_and_shape_compiles_nothing(toy_model) -> None:
    start = (toy_model, "sha", "openvino", CPU, (4, 32, 32))
    assert start_runner(*start) is start_runner(*start)
    assert start_runner(*start[:-1], (4, 32, 48)) is not start_runner(*start)


def test_several_slices_at_a_time_come_back_in_their_order(toy_model) -> None:
    runner = start_runner(toy_model, "sha", "openvino", CPU, (4, 32, 32))
    batch = torch.randn(9, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.cat([runner(batch[i : i + 1]) for i in range(9)])
    assert torch.equal(runner(batch), one_by_one)
