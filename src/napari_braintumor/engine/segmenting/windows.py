"""A three-dimensional network over a whole case: one window where it fits, else overlapping ones."""

# M modality, R region, C channel (either), Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil, prod
from queue import SimpleQueue
from threading import Event
from typing import cast

import numpy as np
import torch

from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.models.axes import from_network_axes, order_for_network, to_network_axes
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.preparing.transforms import Survey, prepare_slices
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import RegionMaps, fill_volume
from napari_braintumor.engine.segmenting.resolve import SegmentTask

OVERLAP = 0.5
"""Of neighboring windows, as in MONAI's bundle for BraTS."""


class _Stopped(Exception):
    """Nobody waits for the windows any more."""


def choose_window(card: ModelCard, shape: tuple[int, ...], divisor: int) -> tuple[int, ...]:
    """Return what a network sees at once: the sides Z, Y, X of its windows, or Y, X of its slices.

    Parameters
    ----------
    card
        The model's. A 2-D model sees whole slices, a 3-D model windows no larger than the case, and without a window on
        its card the whole case at once.
    shape
        Of the crop: Z, Y, X.
    divisor
        What the sides must be multiples of.
    """
    if card.spatial_dims == 2:
        return shape[1:]
    fitting = [ceil(size / divisor) * divisor for size in shape]
    return tuple(fitting if card.window is None else map(min, fitting, card.window))


def look_through_windows(task: SegmentTask, survey: Survey, network: Network, maps: RegionMaps) -> Iterator[SlicesDone]:
    """Enter into the maps what a 3-D network finds in the whole case."""
    slices = len(survey.head)
    window = choose_window(task.card, survey.head.shape, task.divisor)
    data_MZYX = torch.from_numpy(prepare_slices(task.volume, task.card.modalities, survey, np.arange(slices)))
    running = run_windows(data_MZYX, task.card, window, network)
    try:
        while True:
            done, windows = next(running)
            yield SlicesDone(slices * done // windows, slices)
    except StopIteration as ended:
        logits_RZYX = ended.value
    finally:
        running.close()
    fill_volume(maps, task, survey, logits_RZYX)


def run_windows(
    data_MZYX: torch.Tensor,
    card: ModelCard,
    window: tuple[int, ...],
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
    roi = order_for_network(window, card)
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
