"""Run a 2-D network over a case: slices in chunks, with the next chunk prepared while one runs."""

# N slice of a batch, R region, C channel; Z, Y, X on the case's grid; y, x on the crop

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.preparing.context import prepare_images
from napari_braintumor.engine.preparing.prepare import Survey
from napari_braintumor.engine.segmenting.cleaning import leave_out, paint_labels
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import RegionMaps, fill_slices
from napari_braintumor.engine.segmenting.resolve import SegmentTask

CHUNK_SLICES = 8
"""Slices in a chunk; the logits of at most three chunks are in memory."""


def segment_slices(task: SegmentTask, survey: Survey, network: Network, maps: RegionMaps) -> Iterator[SlicesDone]:
    """Write to the maps what a 2-D network finds in the slices with foreground."""
    slices = np.flatnonzero(survey.foreground.any((1, 2)))
    hits: list[int] = []
    painted: dict[int, NDArray[np.uint8]] = {}
    done = 0
    for looked_at in search(slices, hits, task.search_step):
        for chunk, logits_NRyx in predict(task, survey, network, looked_at):
            found = fill_slices(maps, task, survey, chunk, logits_NRyx)
            hits += found
            done += len(chunk)
            painted = {**painted, **paint_first(maps, task, [survey.box[0].start + z for z in found])}
            yield SlicesDone(done, len(slices), painted)
    if done < len(slices):
        yield SlicesDone(len(slices), len(slices))


def paint_first(maps: RegionMaps, task: SegmentTask, slices: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Return the labels of slices of the case as they are before anything is cleaned."""
    painted = {z: np.array(maps.depth[z : z + 1]) for z in slices}
    for plane in painted.values():
        leave_out(plane, task.card, task.not_measurable)
        paint_labels(plane, task.card)
    return {z: plane[0] for z, plane in painted.items()}


def search(slices: NDArray[np.intp], hits: list[int], step: int) -> Iterator[NDArray[np.intp]]:
    """Yield the slices to search, and then those closer than a step to a slice in which tumor was found meanwhile.

    One of any `step` consecutive slices is searched, and so are the first and the last slice. So a connected component
    that spans `step` slices, or touches the first or last slice, is segmented in all of its slices. Any other component
    is too thin to be kept anyway.

    Yields
    ------
    ndarray
        Slices, in ascending order.
    """
    searched = slices[(slices % step == 0) | np.isin(slices, slices[[0, -1]])]
    yield searched
    near = (np.abs(slices[:, None] - np.array(hits, np.intp)) < step).any(1)
    rest = np.setdiff1d(slices[near], searched)
    if len(rest):
        yield rest


def predict(
    task: SegmentTask, survey: Survey, network: Network, slices: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
    """Run slices of a surveyed case through the network.

    While one chunk runs, the caller works on the previous one and the next one is read and prepared.

    Yields
    ------
    tuple
        The slices of the crop in a chunk, and their logits ``(N, R, y, x)`` on the crop.
    """
    worker = ThreadPoolExecutor(max_workers=1)
    waiting: tuple[NDArray[np.intp], Future[Tensor]] | None = None
    size = max(CHUNK_SLICES, network.runner.batch_size)
    try:
        for chunk, images_NCyx in prepare_images(task.volume, task.card.modalities, survey, slices, size):
            running = worker.submit(network, torch.from_numpy(images_NCyx))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = chunk, running
        if waiting is not None:
            yield waiting[0], waiting[1].result()
    finally:
        worker.shutdown(cancel_futures=True)
