"""Checkpoints that travel: two bytes a number and no momentum, a third of the size, and back again.

The omitted state is rebuilt within a few dozen steps: the momentum starts from zero, weights and running averages are
rounded to float16, squared gradients to bfloat16.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

MOMENTUM, SQUARES = "exp_avg", "exp_avg_sq"


def slim(source: Path, target: Path) -> None:
    """Write a slim copy of a checkpoint."""
    tensors, metadata = _read(source)
    kept = {}
    for name, tensor in tensors.items():
        last = name.rpartition("/")[2]
        if name.startswith(("optimizer/", "optimiser/")) and last == MOMENTUM:
            continue
        if tensor.dtype == torch.float32 and tensor.ndim > 1:
            tensor = tensor.to(torch.bfloat16 if last == SQUARES else torch.float16)
        kept[name] = tensor.contiguous()
    save_file(kept, target, metadata)


def restore(source: Path, target: Path) -> None:
    """Turn a slim checkpoint into one that a training can resume from."""
    tensors, metadata = _read(source)
    restored = {}
    for name, tensor in tensors.items():
        restored[name] = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        if name.rpartition("/")[2] == SQUARES:
            restored[f"{name.rpartition('/')[0]}/{MOMENTUM}"] = torch.zeros_like(restored[name])
    save_file(restored, target, metadata)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict
