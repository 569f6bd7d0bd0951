"""Context: the slices above and below a slice as further channels of a 2-D network, for training and for segmenting.

They are the nearest slices at a distance in mm, so that scans of 1 and of 3 mm look alike. Beyond the ends of a scan,
and beside a single slice, they are zero, as is what lies outside the head. Channels come in the order of
`ModelCard.inputs`: the modalities of the slice itself, those of the slice above, those of the slice below.
"""

# M modality, C channel: modality and slice beside; N slice asked for; z, y, x on the crop

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.preparing.prepare import PreparedCase, Survey, prepare_slices
from napari_braintumor.engine.preparing.working_grid import choose_read_size, group_slices
from napari_braintumor.engine.volumes import AnyVolume

NONE = -1
"""Stands for a slice that does not exist."""


def find_neighbors(slices: NDArray[np.intp], step: int, count: int) -> NDArray[np.intp]:
    """Return which slices a network sees for each slice.

    Parameters
    ----------
    slices
        Slices of a stack.
    step
        `Survey.context_step`: how many slices up and down; 0 if the network sees one slice.
    count
        Slices of the stack.

    Returns
    -------
    ndarray
        ``(1, n)`` or ``(3, n)``: the slice itself, the one above and the one below; `NONE` beyond the ends.
    """
    offsets = np.array([0, step, -step] if step else [0])
    seen: NDArray[np.intp] = slices + offsets[:, None]
    seen[(seen < 0) | (seen >= count)] = NONE
    return seen


def gather(array_Mzyx: NDArray[Any], seen: NDArray[np.intp]) -> NDArray[Any]:
    """Return the slices that a network sees as channels.

    Parameters
    ----------
    array_Mzyx
        Slices with one or more planes each.
    seen
        From `find_neighbors`.

    Returns
    -------
    ndarray
        ``(C, N, y, x)``, C being M for each row of `seen`; zero where there is no slice.
    """
    parts = []
    for numbers in seen:
        part = array_Mzyx[:, numbers]
        part[:, numbers == NONE] = 0
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def take_images(prepared: PreparedCase, slices: NDArray[np.intp]) -> NDArray[Any]:
    """Return slices of a prepared case as a network sees them.

    Returns
    -------
    ndarray
        ``(C, N, y, x)``, in the type of the case's data.
    """
    return gather(prepared.data, find_neighbors(slices, prepared.context_step, len(prepared.foreground)))


def prepare_images(
    volume: AnyVolume, modalities: tuple[str, ...], case_survey: Survey, slices: NDArray[np.intp], size: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Prepare slices of a surveyed case, in chunks, as a network sees them; each slice of the scan is read once.

    Parameters
    ----------
    volume, modalities, case_survey
        As for `prepare_slices`.
    slices
        Slices of the crop, in ascending order.
    size
        Slices in a chunk.

    Yields
    ------
    tuple
        The slices of a chunk, as many as asked for but in the last one, and their images ``(N, C, y, x)``.
    """
    step, count = case_survey.context_step, len(case_survey.foreground)
    seen = find_neighbors(slices, step, count)
    needed = np.unique(seen[seen != NONE])
    held, data_Mzyx = (
        np.zeros(0, np.intp),
        np.zeros((len(modalities), 0, *case_survey.foreground.shape[1:]), np.float32),
    )
    waiting = slices
    for slab in _group(volume, needed, case_survey.box[0].start, size):
        prepared = prepare_slices(volume, modalities, case_survey, slab)
        held, data_Mzyx = np.append(held, slab), np.concatenate([data_Mzyx, prepared], axis=1)
        is_last = held[-1] == needed[-1]
        ready = len(waiting) if is_last else int(np.searchsorted(waiting, held[-1] - step, side="right"))
        while ready >= size or (is_last and ready):
            chunk, waiting = np.split(waiting, [min(size, ready)])
            ready -= len(chunk)
            seen = find_neighbors(chunk, step, count)
            places = np.where(seen == NONE, NONE, np.searchsorted(held, seen))
            yield chunk, np.ascontiguousarray(gather(data_Mzyx, places).swapaxes(0, 1))
        kept = slice(int(np.searchsorted(held, waiting[0] - step)) if len(waiting) else len(held), None)
        held, data_Mzyx = held[kept], data_Mzyx[:, kept]


def _group(volume: AnyVolume, slices: NDArray[np.intp], first: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Yield slices in groups to read: those that are stored together, or else as many as a chunk has."""
    if not len(slices):
        return
    if volume.slab_slices > 1:
        yield from (slab - first for slab in group_slices(slices + first, choose_read_size(volume)))
    else:
        yield from np.split(slices, range(size, len(slices), size))
