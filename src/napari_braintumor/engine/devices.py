"""Where networks run: which devices there are, how precise they are, and how they say that memory ran out."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from typing import Any

import torch

from napari_braintumor.engine.errors import SettingsError


def choose_device(wanted: str) -> torch.device:
    """Return where a network is to run.

    Parameters
    ----------
    wanted
        ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    SettingsError
        If the wanted device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        there = ", ".join(name for name, there in available.items() if there)
        raise SettingsError(f"The device '{wanted}' is not available here. Choose auto or one of: {there}.")
    return torch.device(wanted)


def choose_autocast(device: torch.device, wanted: str = "auto") -> torch.dtype | None:
    """Return the reduced precision to run in with torch, or None for full float32.

    Parameters
    ----------
    device
        From `choose_device`.
    wanted
        ``"auto"`` takes what is faster on a GPU: bfloat16 from CUDA compute capability 8.0 (Ampere), float16 before and
        on MPS. CPUs then get None: on most of them reduced precision is many times slower.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float16 if device.type == "mps" else None


def describe_device(device: torch.device) -> str:
    """Return a device in words, with the free memory of a GPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if device.type == "mps":
        return "Apple GPU (MPS)"
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


_OUT_OF_MEMORY = ("out of memory", "alloc_failed", "bad_alloc", "can't allocate memory", "not enough memory")
"""What CUDA, MPS, cuBLAS, cuDNN, OpenVINO and torch on the CPU say, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; some back ends raise plain RuntimeErrors."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
    )


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """Return the one core of OpenVINO, which is never let go.

    It gives the thread that makes it a stack for signals (openvinotoolkit/openvino, pull request 11894). Dropped by
    another thread, it would free that stack without taking it away, and the next signal that Python handles would end
    the process.
    """
    from openvino import Core

    return Core()
