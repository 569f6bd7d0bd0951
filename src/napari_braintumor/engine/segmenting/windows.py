"""Run a 3-D network over a whole case: in one window if the case fits, otherwise in overlapping windows."""

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
from napari_braintumor.engine.preparing.prepare import Survey, prepare_slices
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import RegionMaps, fill_volume
from napari_braintumor.engine.segmenting.resolve import SegmentTask

OVERLAP = 0.5
"""Overlap of neighboring windows, as in MONAI's bundle for BraTS."""


class _InferenceCancelled(Exception):
    """The caller no longer needs the windows."""


def choose_window(card: ModelCard, shape: tuple[int, ...], divisor: int) -> tuple[int, ...]:
    """Return the sides of a network's input: Z, Y, X of its windows, or Y, X of its slices.

    Parameters
    ----------
    card
        The model's card. A 2-D model sees whole slices; a 3-D model sees windows no larger than the case, or the whole
        case if its card states no window.
    shape
        Shape of the crop: Z, Y, X.
    divisor
        The sides must be multiples of this.

    Returns
    -------
    tuple of int
        Z, Y, X for a 3-D model, else Y, X; in voxels of the working grid.
    """
    if card.spatial_dims == 2:
        return shape[1:]
    fitting = [ceil(size / divisor) * divisor for size in shape]
    return tuple(fitting if card.window is None else map(min, fitting, card.window))


def segment_windows(task: SegmentTask, survey: Survey, network: Network, maps: RegionMaps) -> Iterator[SlicesDone]:
    """Write to the maps what a 3-D network finds in the whole case."""
    slices = len(survey.foreground)
    window = choose_window(task.card, survey.foreground.shape, task.divisor)
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
        Returns the output for windows ``(N, M, ...)`` in the network's axes.

    Yields
    ------
    tuple
        Number of windows done, and number of all windows.

    Returns
    -------
    Tensor
        ``(C, z, y, x)``.
    """
    from monai.inferers import SlidingWindowInferer  # takes seconds, so 2-D networks avoid it

    turned = to_network_axes(data_MZYX[None], card)
    roi = order_for_network(window, card)
    inferer = SlidingWindowInferer(roi, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    done: SimpleQueue[bool] = SimpleQueue()
    stop = Event()

    def run_one(batch: torch.Tensor) -> torch.Tensor:
        if stop.is_set():
            raise _InferenceCancelled
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
