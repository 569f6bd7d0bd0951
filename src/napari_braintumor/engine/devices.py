"""The devices that networks run on: which are available, their precision, and their out-of-memory errors."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from functools import lru_cache
from typing import Any

import torch

from napari_braintumor.engine.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """Return the device that a network runs on.

    Parameters
    ----------
    name
        ``"auto"`` takes CUDA, then MPS, then the CPU.

    Returns
    -------
    torch.device
        The device itself; with ``"auto"`` the first of those above that is available.

    Raises
    ------
    SettingsError
        If the device is not available.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [device for device, is_available in found.items() if is_available]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise SettingsError(
            f"The device '{name}' is not available here. Choose auto or one of: {', '.join(available)}."
        )
    return torch.device(name)


def choose_autocast(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """Return the reduced precision for torch's autocast, or None for full float32.

    Parameters
    ----------
    device
        From `choose_device`.
    precision
        ``"auto"`` takes the faster type on a GPU: bfloat16 from CUDA compute capability 8.0 (Ampere), float16 on older
        cards and on MPS. CPUs get None: on most of them reduced precision is many times slower.

    Returns
    -------
    torch.dtype or None
        ``torch.bfloat16`` or ``torch.float16``; None for full float32.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float16 if device.type == "mps" else None


def describe_device(device: torch.device) -> str:
    """Describe a device in words, with the free memory of a GPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if device.type == "mps":
        return "Apple GPU (MPS)"
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


_OUT_OF_MEMORY = ("out of memory", "alloc_failed", "bad_alloc", "can't allocate memory", "not enough memory")
"""Out-of-memory messages of CUDA, MPS, cuBLAS, cuDNN, OpenVINO and torch on the CPU, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; some backends raise plain RuntimeErrors."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
    )


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """Return the only OpenVINO core, which is never released.

    A core gives the thread that creates it a signal stack (openvinotoolkit/openvino, pull request 11894). Released by
    another thread, it would free that stack without unregistering it, and the next signal that Python handles would
    kill the process.

    Returns
    -------
    openvino.Core
        The same object each time.
    """
    from openvino import Core

    return Core()


def return_freed_memory() -> None:
    """Collect garbage, and give the system back what was freed, where glibc manages memory.

    Figures are garbage that only a collection finds, each with its picture; and glibc keeps small blocks between those
    in use for each thread.
    """
    gc.collect()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
