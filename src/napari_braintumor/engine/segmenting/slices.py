"""Run a 2-D network over a case: slices in chunks, with the next chunk prepared while one runs."""

# N slice of a batch, M modality, R region, C channel; Z, Y, X on the case's grid; y, x on the crop

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.preparing.prepare import Survey, choose_read_size, group_slices, prepare_slices
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import RegionMaps, fill_slices
from napari_braintumor.engine.segmenting.resolve import SegmentTask

CHUNK_SLICES = 8
"""Slices in a chunk; the logits of at most three chunks are in memory."""


def segment_slices(task: SegmentTask, survey: Survey, network: Network, maps: RegionMaps) -> Iterator[SlicesDone]:
    """Write to the maps what a 2-D network finds in the slices with foreground."""
    slices = np.flatnonzero(survey.foreground.any((1, 2)))
    hits: list[int] = []
    done = 0
    for looked_at in search(slices, hits, task.search_step):
        for chunk, logits_NRyx in predict(task, survey, network, looked_at):
            hits += fill_slices(maps, task, survey, chunk, logits_NRyx)
            done += len(chunk)
            yield SlicesDone(done, len(slices))
    if done < len(slices):
        yield SlicesDone(len(slices), len(slices))


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
    yield np.setdiff1d(slices[near], searched)


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
    try:
        for chunk, images_NMyx in _prepared_chunks(task, survey, slices, max(CHUNK_SLICES, network.runner.batch_size)):
            running = worker.submit(network, images_NMyx)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = chunk, running
        if waiting is not None:
            yield waiting[0], waiting[1].result()
    finally:
        worker.shutdown(cancel_futures=True)


def _prepared_chunks(
    task: SegmentTask, survey: Survey, slices: NDArray[np.intp], size: int
) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
    """Yield slices in chunks of limited size, with their images ``(N, M, y, x)``."""
    volume, first = task.volume, survey.box[0].start
    together = choose_read_size(volume) if volume.slab_slices > 1 else None
    slabs = _chunks(slices, size) if together is None else (s - first for s in group_slices(slices + first, together))
    for slab in slabs:
        if not len(slab):
            continue
        data_MNyx = prepare_slices(volume, task.card.modalities, survey, slab)
        for chunk in _chunks(np.arange(len(slab)), size):
            yield slab[chunk], torch.from_numpy(np.ascontiguousarray(data_MNyx[:, chunk].swapaxes(0, 1)))


def _chunks(array: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(array), size):
        yield array[start : start + size]
