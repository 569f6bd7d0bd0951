import subprocess
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from fake_card import CUDA, OnCard, put_on_card
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.segmenting import runtime
from napari_braintumor.engine.segmenting.runtime import (
    Ladder,
    TorchRunner,
    check_precision,
    choose_autocast,
    choose_batch,
    choose_device,
    choose_runtime,
    is_out_of_memory,
    start_ladder,
    start_runner,
    with_room,
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
    ladder = Ladder(runner, 16, pytest.fail)
    logits = ladder(BATCH)
    assert isinstance(logits, OnCard)
    assert torch.equal(logits.cpu(), BATCH * 2)
    assert runner.sizes == [16]
    assert ladder.notes == []


def test_when_memory_runs_out_smaller_batches_are_tried_and_said(no_cuda_calls) -> None:
    runner = FakeRunner(4)
    ladder = Ladder(runner, 16, pytest.fail)
    logits = ladder(BATCH)
    assert isinstance(logits, OnCard)
    assert torch.equal(logits.cpu(), BATCH * 2)
    assert runner.sizes == [16, 8, 4, 4, 4, 4]
    assert ladder.notes == [
        "Memory ran out on cuda; going on with 8 slices at a time.",
        "Memory ran out on cuda; going on with 4 slices at a time.",
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

    ladder = Ladder(Filling(0, device), 1, lambda: FakeRunner(99, CPU))
    logits = ladder(BATCH[:4])
    assert not isinstance(logits, OnCard)
    assert torch.equal(logits, BATCH[:4] * 2)
    assert ladder.runner.device == CPU
    assert "with a single slice; going on, slower, on the CPU" in ladder.notes[-1]


def test_a_network_that_does_not_fit_the_gpu_starts_on_the_cpu_and_the_user_is_told(no_cuda_calls) -> None:
    def full() -> FakeRunner:
        raise RuntimeError("CUDA error: out of memory")

    ladder = start_ladder(full, lambda: FakeRunner(99, CPU), None)
    assert torch.equal(ladder(BATCH), BATCH * 2)
    assert ladder.notes == ["The model does not fit into the memory that is free; going on, slower, on the CPU."]

    def broken() -> FakeRunner:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        start_ladder(broken, pytest.fail, None)


def test_what_does_not_fit_the_gpu_is_worked_out_on_the_cpu() -> None:
    def halve(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, OnCard):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tensor / 2

    assert torch.equal(with_room(halve, put_on_card(BATCH)), BATCH / 2)
    with pytest.raises(ZeroDivisionError):
        with_room(lambda _: 1 // 0, put_on_card(BATCH))


def test_when_one_slice_does_not_fit_the_computer_the_user_is_told() -> None:
    with pytest.raises(SettingsError, match="Memory ran out on the CPU with a single slice"):
        Ladder(FakeRunner(0, CPU), 1, pytest.fail)(BATCH)


def test_other_failures_are_not_taken_for_exhausted_memory() -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug")

    fail.device = CPU
    with pytest.raises(RuntimeError, match="a bug"):
        Ladder(fail, 1, pytest.fail)(BATCH)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated ...)"))
    assert is_out_of_memory(MemoryError())
    for words in ("CUDNN_STATUS_ALLOC_FAILED", "std::bad_alloc", "DefaultCPUAllocator: can't allocate memory"):
        assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="'cuda' is not available here"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "expected"), [((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_autocast_follows_the_card_s_capability(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_autocast(CUDA) == expected


def test_a_cpu_never_gets_reduced_precision() -> None:
    assert choose_autocast(CPU) is None


def test_a_wanted_precision_wins_over_the_device_s_own(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert choose_autocast(CUDA, "float32") is None
    assert choose_autocast(CUDA, "bfloat16") is torch.bfloat16


@pytest.mark.parametrize(
    ("chosen_runtime", "device", "able"),
    [("openvino", CPU, True), ("openvino", CPU, False), ("torch", CPU, False), ("torch", CUDA, True)],
)
def test_bfloat16_is_refused_where_there_are_no_instructions_for_it(
    monkeypatch, chosen_runtime: str, device: torch.device, able: bool
) -> None:
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "BF16"] if able else ["FP32"])
    monkeypatch.setattr(runtime, "openvino_core", lambda: core)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    check_precision("auto", chosen_runtime, device)
    if able:
        check_precision("bfloat16", chosen_runtime, device)
    else:
        with pytest.raises(SettingsError, match="There are no instructions for bfloat16 here"):
            check_precision("bfloat16", chosen_runtime, device)


def test_an_older_cuda_card_is_refused_bfloat16(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(SettingsError, match=r"bfloat16 here \(cuda, torch\)"):
        check_precision("bfloat16", "torch", CUDA)


def test_gpus_and_openvino_get_batches_and_torch_on_the_cpu_single_slices() -> None:
    assert choose_batch("openvino", CPU) > 1
    assert choose_batch("torch", CUDA) > 1
    assert choose_batch("torch", CPU) == 1


class FakeCard:
    """Stands for a CUDA card: notes what torch is asked for. What is put there lies on torch's meta device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        real_to, real_move = torch.Tensor.to, torch.nn.Module.to

        def pin(batch: torch.Tensor) -> torch.Tensor:
            self.asked.append("pinned")
            return batch

        def to(tensor: torch.Tensor, *where: object, **how: object) -> torch.Tensor:
            if where and where[0] == CUDA:
                self.asked.append("copied without waiting" if how.get("non_blocking") else "copied")
                assert tensor.is_contiguous(memory_format=torch.channels_last)
                return real_to(tensor, "meta")
            return real_to(tensor, *where, **how)

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            self.asked.append("fetched")
            return tensor

        def move(module: torch.nn.Module, *where: object, **how: object) -> torch.nn.Module:
            return real_move(module, *("meta" if place == CUDA else place for place in where), **how)

        def autocast(kind: str, dtype: torch.dtype) -> object:
            self.asked.append(f"{kind} {dtype}")
            return nullcontext()

        @contextmanager
        def flags(**settings: object):
            assert settings["benchmark"] is True
            self.asked.append("fastest kernels looked for")
            yield

        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.Tensor, "cpu", cpu)
        monkeypatch.setattr(torch.nn.Module, "to", move)
        monkeypatch.setattr(torch, "autocast", autocast)
        monkeypatch.setattr(torch.backends.cudnn, "flags", flags)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))


def test_on_cuda_copies_are_pinned_kernels_looked_for_and_logits_stay_on_the_card(monkeypatch) -> None:
    card = FakeCard(monkeypatch)
    logits = TorchRunner(torch.nn.Conv2d(4, 3, 1), CUDA)(torch.zeros(2, 4, 8, 8))
    assert logits.dtype == torch.float32
    assert logits.device.type == "meta"
    assert card.asked == [
        "fastest kernels looked for",
        "pinned",
        "copied without waiting",
        "cuda torch.bfloat16",
    ]


def test_full_precision_on_cuda_leaves_autocast_out(monkeypatch) -> None:
    card = FakeCard(monkeypatch)
    TorchRunner(torch.nn.Conv2d(4, 3, 1), CUDA, "float32")(torch.zeros(2, 4, 8, 8))
    assert not any(asked.startswith("cuda ") for asked in card.asked)


def test_a_second_start_with_the_same_model_and_shape_compiles_nothing(toy_model) -> None:
    start = (toy_model, "sha", "openvino", CPU, (4, 32, 32))
    assert start_runner(*start) is start_runner(*start)
    assert start_runner(*start[:-1], (4, 32, 48)) is not start_runner(*start)


def test_several_slices_at_a_time_come_back_in_their_order(toy_model) -> None:
    runner = start_runner(toy_model, "sha", "openvino", CPU, (4, 32, 32))
    batch = torch.randn(9, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.cat([runner(batch[i : i + 1]) for i in range(9)])
    assert torch.equal(runner(batch), one_by_one)


def test_auto_runtime_is_openvino_on_the_cpu_only_where_it_is_installed(monkeypatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _: SimpleNamespace())
    assert choose_runtime("auto", CPU) == "openvino"
    assert choose_runtime("auto", CUDA) == "torch"
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    assert choose_runtime("auto", CPU) == "torch"


def test_openvino_where_it_cannot_run_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="OpenVINO is not installed"):
        choose_runtime("openvino", CPU)
    monkeypatch.setattr(runtime, "find_spec", lambda _: SimpleNamespace())
    with pytest.raises(SettingsError, match="OpenVINO runs on the CPU here"):
        choose_runtime("openvino", CUDA)


def test_a_device_is_described_in_words(monkeypatch) -> None:
    assert runtime.describe_device(CPU).startswith("CPU, ")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert runtime.describe_device(CUDA) == "Some GPU, 3.0 of 8.0 GiB free"


@pytest.mark.skipif(sys.platform != "linux", reason="Only there does OpenVINO change where signals are handled.")
def test_a_model_dropped_by_another_thread_leaves_signals_to_be_handled(toy_model) -> None:
    code = f"""
import faulthandler, gc, os, signal, threading
faulthandler.enable()  # gives the main thread a stack for signals, as pytest does
caught = []
signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
from pathlib import Path
import torch
from napari_braintumor.engine.segmenting.runtime import start_runner

start_runner(Path({str(toy_model)!r}), "", "openvino", torch.device("cpu"), (4, 32, 32))

def drop():
    start_runner.cache_clear()
    gc.collect()

thread = threading.Thread(target=drop)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
assert caught
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, (result.returncode, result.stderr)
