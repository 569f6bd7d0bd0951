"""A three-dimensional network over a whole case: one window where it fits, else overlapping ones."""

# M modality, R region, C channel (either), Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil, prod
from queue import SimpleQueue
from threading import Event
from typing import Any, cast

import torch

from napari_braintumor.engine.models.card import ModelCard

OVERLAP = 0.5
"""Of neighboring windows, as in MONAI's bundle for BraTS."""


class _Stopped(Exception):
    """Nobody waits for the windows any more."""


def choose_window(card: ModelCard, shape: tuple[int, int, int], divisor: int) -> tuple[int, int, int]:
    """Return the size of the windows Z, Y, X: the card's, or less where the case is smaller.

    Parameters
    ----------
    card
        Of a 3-D model; without a window of its own it sees the whole case at once.
    shape
        Of the crop.
    divisor
        What the sides must be multiples of.
    """
    fitting = [ceil(size / divisor) * divisor for size in shape]
    z, y, x = fitting if card.window is None else map(min, fitting, card.window)
    return z, y, x


def to_network_axes(array_CZYX: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """Turn an array (or several, along leading axes) as the network knows it."""
    if card.axes == "LPS zyx":
        return array_CZYX
    return (array_CZYX.flip(-2, -1) if card.axes == "RAS xyz" else array_CZYX).transpose(-3, -1)


def from_network_axes(array: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """Undo `to_network_axes`."""
    if card.axes == "LPS zyx":
        return array
    array_CZYX = array.transpose(-3, -1)
    return array_CZYX.flip(-2, -1) if card.axes == "RAS xyz" else array_CZYX


def in_network_order(zyx: Sequence[Any], card: ModelCard) -> tuple[Any, ...]:
    """Return what is told of Z, Y and X in the order of the network's own axes."""
    return tuple(zyx if card.axes == "LPS zyx" else zyx[::-1])


def run_windows(
    data_MZYX: torch.Tensor,
    card: ModelCard,
    window: tuple[int, int, int],
    run: Callable[[torch.Tensor], torch.Tensor],
) -> Generator[tuple[int, int], None, torch.Tensor]:
    """Run a network over a case, window by window, blended with Gaussian weights.

    Parameters
    ----------
    data_MZYX
        The prepared case.
    card
        The model's.
    window
        From `choose_window`.
    run
        Gives output for windows ``(N, M, ...)`` in the network's axes.

    Yields
    ------
    tuple
        How many windows are done, and how many there are.

    Returns
    -------
    Tensor
        ``(C, z, y, x)``.
    """
    from monai.inferers import SlidingWindowInferer  # takes seconds, which a 2-D network must not wait for

    turned = to_network_axes(data_MZYX[None], card)
    roi = in_network_order(window, card)
    inferer = SlidingWindowInferer(roi, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    done: SimpleQueue[bool] = SimpleQueue()
    stop = Event()

    def run_one(batch: torch.Tensor) -> torch.Tensor:
        if stop.is_set():
            raise _Stopped
        output = run(batch).cpu()
        done.put(True)
        return output

    worker = ThreadPoolExecutor(max_workers=1)
    try:
        whole = worker.submit(inferer, turned, run_one)
        whole.add_done_callback(lambda _: done.put(False))
        count, windows = 0, count_windows(turned.shape[2:], roi)
        while done.get():
            count += 1
            yield count, windows
        output = cast("torch.Tensor", whole.result())
        return from_network_axes(output, card)[0]
    finally:
        stop.set()
        worker.shutdown()


def count_windows(shape: tuple[int, ...], window: tuple[int, ...]) -> int:
    """Return how many windows cover a case."""
    return prod(
        max(1, ceil((size - side) / int(side * (1 - OVERLAP))) + 1) for size, side in zip(shape, window, strict=True)
    )
