"""Several processes that train one network together: torch.distributed, started by torchrun.

Every process draws its own part of each batch. Sums that a loss or a batch norm needs of the whole batch go through
`sum_across`, gradients through `average_gradients`, so that two processes with batches of B do what one does with 2 B.
Alone, all of this costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """Return this process's number; 0 writes the run."""
    return distributed.get_rank() if _together() else 0


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if _together() else 1


@contextmanager
def join(device: torch.device) -> Iterator[None]:
    """Join the other processes for the time of a training: nccl on CUDA, gloo elsewhere.

    Does nothing where torchrun's variables are absent.

    Parameters
    ----------
    device
        Where this process trains.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or _together():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def assign_device(device: torch.device) -> torch.device:
    """Return the GPU of this process: each takes one by its number on the machine."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def wait() -> None:
    """Wait until every process has come here."""
    if _together():
        distributed.barrier()


def any_of(flag: bool, device: torch.device) -> bool:
    """Return True if the flag is set in any process, the same in all of them."""
    if not _together():
        return flag
    total = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(total)
    return bool(total.item() > 0)


def sum_across(part: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; gradients flow back to every process."""
    return _Sum.apply(part) if _together() else part  # type: ignore[no-untyped-call]


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over all processes."""
    if not _together():
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= count()
    start = 0
    for gradient in gradients:
        gradient.copy_(together[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def synchronize(network: nn.Module) -> None:
    """Start all processes from the weights of the first, and let batch norms see the whole batch."""
    if not _together():
        return
    for tensor in (*network.parameters(), *network.buffers()):
        distributed.broadcast(tensor.data, 0)
    _share_statistics(network)


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of the batches of all processes; torch's own is for GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  (the name that torch gives it)
        pass

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the normalized batch ``(N, C, ...)``."""
        if not self.training or not _together():
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        size = input.numel() // input.shape[1]
        sums = sum_across(torch.cat([input.sum(axes), input.new_tensor([float(size)])]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centered = input - mean.view(shape)
        variance = sum_across(centered.square().sum(axes)) / total
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * total / (total - 1), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        output = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: object, part: Tensor) -> Tensor:
        total = part.clone().contiguous()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        total = gradient.clone().contiguous()
        distributed.all_reduce(total)
        return total


def _share_statistics(module: nn.Module) -> None:
    """Turn every batch norm into a `SharedBatchNorm` in place: same parameters, same names."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.__class__ = SharedBatchNorm


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
