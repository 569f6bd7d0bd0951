"""The network's working grid: its shape, and slices of a scan resampled to it, read as they are stored."""

# C channel, Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.models.card import Spacing
from napari_braintumor.engine.volumes import AnyVolume

LEAST_READ_SLICES = 16
"""Least number of slices read and prepared at once: fewer would be slow, more would take memory."""

LEAST_SIDE_MM, MOST_SIDE_MM = 8.0, 2000.0
"""Limits of an image's length along a resampled axis. Beyond them it shows no head, or its voxel size is wrong."""


def working_shape(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], working_spacing: Spacing
) -> tuple[int, int, int]:
    """Return the shape Z, Y, X of the working grid: the same extent, at about the working spacing."""
    z, y, x = (
        n if target is None else max(1, round(n * own / target))
        for n, own, target in zip(shape, spacing, working_spacing, strict=True)
    )
    return z, y, x


def check_extent(volume: AnyVolume, spacing: Spacing) -> None:
    """Raise an error if the voxel size is impossible for a head, before a working grid is allocated."""
    for name, own, before, target in zip("ZYX", volume.spacing, volume.shape, spacing, strict=True):
        if target is None or LEAST_SIDE_MM <= before * own <= MOST_SIDE_MM:
            continue
        raise DataError(
            f"The voxels of '{volume.name}' are {own:g} mm along {name}, so {before} of them would span "
            f"{before * own:g} mm. Expected an image of {LEAST_SIDE_MM:g} to {MOST_SIDE_MM:g} mm. Correct the voxel "
            "size in the file, or the scale of the layer."
        )


def read_working(
    volume: AnyVolume, modality: str, frame: tuple[int, int, int], slices: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return some slices of one modality on the working grid: ``(len(slices), y, x)``."""
    index = volume.modalities.index(modality)
    if frame[0] == volume.shape[0]:
        working = np.empty((len(slices), *frame[1:]), np.float32)
        done = 0
        for slab in group_slices(slices, choose_read_size(volume)):
            array = torch.from_numpy(volume.read(index, slab))[None]
            working[done : done + len(slab)] = resize(array, (len(slab), *frame[1:]))[0].numpy()
            done += len(slab)
        return working
    # Blended slices need their neighbors. Only training with thick slices comes here, with all slices at once.
    whole = torch.from_numpy(volume.read(index, np.arange(volume.shape[0])))
    return resize(whole[None], frame)[0].numpy()[slices]


def resize(array_CZYX: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Resample to a new shape over the same extent, linearly and without aliasing."""
    if array_CZYX.shape[2:] != shape[1:]:
        array_CZYX = functional.interpolate(array_CZYX, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    if array_CZYX.shape[1] != shape[0]:
        channels, z = array_CZYX.shape[:2]
        columns = array_CZYX.reshape(channels, 1, z, -1)
        columns = functional.interpolate(
            columns, (shape[0], columns.shape[-1]), mode="bilinear", antialias=True, align_corners=False
        )
        array_CZYX = columns.reshape(channels, *shape)
    return array_CZYX


def group_slices(slices: NDArray[np.intp], depth: int) -> Iterator[NDArray[np.intp]]:
    """Yield ascending slices in groups, split at the multiples of a depth."""
    yield from np.split(slices, np.flatnonzero(np.diff(slices // depth)) + 1)


def choose_read_size(volume: AnyVolume) -> int:
    """Return how many neighboring slices to read at once: a multiple of those that are best read together."""
    return volume.slab_slices * -(-LEAST_READ_SLICES // volume.slab_slices)
