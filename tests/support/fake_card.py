"""A graphics card that is not there: its tensors say that they are on CUDA, and do not mix with those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

CUDA = torch.device("cuda")


class OnCard(torch.Tensor):
    """A tensor of the card: numbers and all, but only `cpu` fetches them."""

    device = CUDA

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mixed = [each for each in _tensors((args, kwargs or {})) if not isinstance(each, cls) and each.ndim]
        if mixed:
            raise RuntimeError(f"Expected all tensors to be on the same device in {function.__name__}")
        return super().__torch_function__(function, types, args, kwargs or {})

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def numpy(self) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def put_on_card(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(OnCard)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``tensor.to("cuda")`` put a tensor on the card."""
    real = torch.Tensor.to

    def to(tensor: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        if where and where[0] == CUDA:
            return put_on_card(tensor)
        return real(tensor, *where, **how)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
