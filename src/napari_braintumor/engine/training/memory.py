"""Memory of a training: kept from step to step, and counted before the first one."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt, from malloc.h."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let what one step frees serve the next, where glibc manages memory; at the end the system gets it back.

    By default glibc hands large blocks back at once, and clearing them anew takes a seventh of every step on a CPU.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    assert libc is not None
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 65536)
        libc.mallopt(M_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


def count_activation_bytes(network: nn.Module, run_forward: Callable[[], object]) -> int:
    """Return the memory that a pass through a network keeps for the way back.

    Parameters
    ----------
    network
        Its weights are not counted.
    run_forward
        Sends a batch through the network; it may go the way back, too.

    Returns
    -------
    int
        Bytes; memory that tensors share counts once.
    """
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run_forward()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return sum(size for pointer, size in seen.items() if pointer not in weights)
