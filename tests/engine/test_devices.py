import subprocess
import sys

import pytest
import torch

from fake_card import CUDA
from napari_braintumor.engine.devices import choose_autocast, choose_device, describe_device, is_out_of_memory
from napari_braintumor.engine.errors import SettingsError

CPU = torch.device("cpu")


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


def test_a_device_is_described_in_words(monkeypatch) -> None:
    assert describe_device(CPU).startswith("CPU, ")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert describe_device(CUDA) == "Some GPU, 3.0 of 8.0 GiB free"


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


def test_exhausted_memory_is_recognized_whoever_reports_it() -> None:
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated ...)"))
    assert is_out_of_memory(MemoryError())
    for words in ("CUDNN_STATUS_ALLOC_FAILED", "std::bad_alloc", "DefaultCPUAllocator: can't allocate memory"):
        assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("a bug"))
