"""The one preprocessing, made from a card and used alike for training and for use.

A case is resampled to the network's working grid, its head is found, intensities become z-scores over the head,
everything outside the head becomes zero, and the array is cropped to the head. (Networks from elsewhere may know other
z-scores: see `Normalization`.) `Survey` is what must be known of the whole case for that: with it, any of its slices
can be prepared by themselves. `Prepared` is a survey with all slices.
"""

# M modality, R region, C channel (either), Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.inspecting.foreground import find_air
from napari_braintumor.engine.models.card import ModelCard, Normalization, Spacing
from napari_braintumor.engine.preparing.components import ConnectedComponents
from napari_braintumor.engine.volumes import AnyVolume, Volume

HEAD_MARGIN_VOX = 24
"""Working-grid voxels kept around the head in use: with fewer, what convolutions see at the border changes labels."""

CLIP_Z = 5.0
"""z-scores beyond this carry no more information than this."""

JOINT_PERCENTILES = (10, 99)
"""Of all images together, with ``percentile z-score`` (Buda et al. 2019)."""

SAMPLED_SLICES = 192
"""Intensities are measured on at most about so many slices, evenly spread, so that memory does not grow with Z."""

LEAST_READ_SLICES = 16
"""Slices read and prepared at once: fewer would be slow, more would take memory."""

LEAST_SIDE_MM, MOST_SIDE_MM = 8.0, 2000.0
"""Of an image along an axis that is resampled. What is smaller or larger holds no head, or has a wrong voxel size."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Survey:
    """What must be known of a whole case before its slices can be prepared.

    Attributes
    ----------
    head
        bool ``(z, y, x)``, the head in the crop.
    present
        bool ``(M,)``, which of the network's modalities the case has.
    normalization
        As on the card.
    limits
        What all images are clipped to before they are scaled, with ``percentile z-score``.
    scales
        ``(M, 2)``, mean and standard deviation of each modality that is present.
    box
        Where the crop lies in the working frame. In Y and X it may reach beyond the frame, where data is zero.
    frame
        The shape of the whole working grid, Z, Y, X.
    shape
        The shape of the case's own grid, Z, Y, X.
    thumbnails
        For each modality that is present every fourth voxel of what was sampled on the working grid.
    """

    head: NDArray[np.bool_]
    present: NDArray[np.bool_]
    normalization: Normalization
    limits: tuple[float, float]
    scales: NDArray[np.float32]
    box: Box
    frame: tuple[int, int, int]
    shape: tuple[int, int, int]
    thumbnails: Mapping[str, NDArray[np.float32]]

    def crop(self, array_CZYX: NDArray[Any]) -> NDArray[Any]:
        """Cut an array on the whole working grid to the crop, with zeros where the crop reaches beyond it."""
        return _cut(array_CZYX, self.box)


@dataclass(frozen=True, eq=False)
class Prepared(Survey):
    """A whole case as the network sees it.

    Attributes
    ----------
    data
        float32 ``(M, z, y, x)`` in the card's order of modalities, cropped to the head; absent modalities are zero.
    """

    data: NDArray[np.float32]


def survey(
    volume: AnyVolume,
    modalities: tuple[str, ...],
    spacing: Spacing = (None, None, None),
    divisor: int = 16,
    *,
    normalization: Normalization = "head z-score",
    crop: bool = True,
    margin_vox: int = HEAD_MARGIN_VOX,
) -> Survey:
    """Find the head of a case on the working grid, and measure its intensities.

    Parameters
    ----------
    volume
        The case.
    modalities
        The network's channels.
    spacing
        The working grid in mm along Z, Y, X; None leaves an axis as it is.
    divisor
        The crop's in-plane sides become multiples of this, and so does its corner, so that the network's pooling
        windows fall where they would in the whole frame.
    normalization
        What is measured: see `Normalization`.
    crop
        False keeps the whole frame, padded to the divisor: slower, and the same result but for rounding.
    margin_vox
        Voxels of the working grid kept around the head.

    Raises
    ------
    DataError
        If the case has none of the modalities, or no head is found in it.
    """
    present = np.array([name in volume.modalities for name in modalities])
    if not present.any():
        raise DataError(
            f"'{volume.name}' has {', '.join(volume.modalities)}, but the model needs at least one of "
            f"{', '.join(modalities)}. Name the images by their MRI sequence."
        )
    _check_extent(volume, spacing)
    frame = working_shape(volume.shape, volume.spacing, spacing)
    every = -(-frame[0] // SAMPLED_SLICES)
    sampled = np.arange(frame[0])[every // 2 :: every]
    tissue = np.zeros(frame, bool)
    samples: dict[int, NDArray[np.float32]] = {}
    limits = -np.inf, np.inf
    scales = np.zeros((len(modalities), 2), np.float32)
    thumbnails = {}
    for index, name in enumerate(modalities):
        if not present[index]:
            continue
        some = read_working(volume, name, frame, sampled)
        air = find_air(some)
        inside = air.tissue(some)
        if every == 1:
            tissue |= inside
        else:
            for slab in group_slices(np.arange(frame[0]), read_together(volume)):
                tissue[slab] |= air.tissue(read_working(volume, name, frame, slab))
        thumbnails[name] = some[::4, ::4, ::4].copy()
        if normalization == "percentile z-score":
            samples[index] = some
        elif normalization == "nonzero z-score":
            scales[index] = _mean_and_deviation(some[some != 0])
        elif inside.any():
            values = some[inside]
            scales[index] = _mean_and_deviation(np.clip(values, *np.percentile(values, (0.5, 99.5))))
    if samples:
        low, high = np.percentile(np.stack(list(samples.values())), JOINT_PERCENTILES)
        limits = float(low), float(high)
        for index, some in samples.items():
            scales[index] = _mean_and_deviation(np.clip(some, *limits))
    head = fill_head(tissue)
    if not head.any():
        raise DataError(f"No head was found in '{volume.name}': it seems to hold only background. Check the images.")
    box = head_box(head, divisor, margin_vox) if crop else frame_box(frame, divisor)
    return Survey(_cut(head, box), present, normalization, limits, scales, box, frame, volume.shape, thumbnails)


def _mean_and_deviation(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return what makes z-scores of values of any size; the deviation is 1 where all are the same but for rounding."""
    if not values.size:
        return 0.0, 1.0
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean, deviation if deviation > 1e-6 * abs(mean) else 1.0


def survey_for(card: ModelCard, volume: AnyVolume, divisor: int, *, crop: bool = True) -> Survey:
    """Survey a case as a model's card says."""
    # Air is nothing to a network only where it is zero, as is what convolutions see beyond the border.
    crop = crop and card.normalization != "percentile z-score"
    return survey(volume, card.modalities, card.spacing, divisor, normalization=card.normalization, crop=crop)


def prepare_slices(
    volume: AnyVolume, modalities: tuple[str, ...], known: Survey, slices: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Prepare some slices of a surveyed case.

    Parameters
    ----------
    volume, modalities
        Those that were surveyed.
    known
        The survey.
    slices
        Which slices of the crop, rising.

    Returns
    -------
    ndarray
        float32 ``(M, len(slices), y, x)`` on the crop, normalized as the survey says; absent modalities are zero.
    """
    head = known.head[slices]
    prepared = np.zeros((len(modalities), *head.shape), np.float32)
    for index in np.flatnonzero(known.present):
        working = read_working(volume, modalities[index], known.frame, slices + known.box[0].start)
        mean, deviation = known.scales[index]
        cropped = _cut(working, (slice(0, len(slices)), *known.box[1:]))
        scaled = (np.clip(cropped, *known.limits) - mean) / deviation
        if known.normalization == "head z-score":
            scaled = np.where(head, np.clip(scaled, -CLIP_Z, CLIP_Z), 0)
        elif known.normalization == "nonzero z-score":
            scaled = np.where(cropped != 0, scaled, 0)
        prepared[index] = scaled
    return prepared


def prepare(
    volume: Volume,
    modalities: tuple[str, ...],
    spacing: Spacing = (None, None, None),
    divisor: int = 16,
    *,
    crop: bool = True,
    margin_vox: int = HEAD_MARGIN_VOX,
) -> Prepared:
    """Bring a whole case onto the working grid, normalise it over the head and crop it to the head.

    Parameters and errors are those of `survey`.
    """
    known = survey(volume, modalities, spacing, divisor, crop=crop, margin_vox=margin_vox)
    return _prepare_all(volume, modalities, known)


def prepare_for(card: ModelCard, volume: Volume, divisor: int, *, crop: bool = True) -> Prepared:
    """Prepare a case as a model's card says."""
    known = survey_for(card, volume, divisor, crop=crop)
    return _prepare_all(volume, card.modalities, known)


def _prepare_all(volume: AnyVolume, modalities: tuple[str, ...], known: Survey) -> Prepared:
    data = prepare_slices(volume, modalities, known, np.arange(len(known.head)))
    return Prepared(**vars(known), data=data)


def working_shape(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], wanted: Spacing
) -> tuple[int, int, int]:
    """Return how many voxels Z, Y, X the working grid has: the same extent, at about the wanted spacing."""
    z, y, x = (
        n if target is None else max(1, round(n * own / target))
        for n, own, target in zip(shape, spacing, wanted, strict=True)
    )
    return z, y, x


def _check_extent(volume: AnyVolume, wanted: Spacing) -> None:
    """Refuse a working grid that follows from a voxel size which no scan of a head has, before it is allocated."""
    for name, own, before, target in zip("ZYX", volume.spacing, volume.shape, wanted, strict=True):
        if target is None or LEAST_SIDE_MM <= before * own <= MOST_SIDE_MM:
            continue
        raise DataError(
            f"The voxels of '{volume.name}' are {own:g} mm along {name}, so {before} of them would span "
            f"{before * own:g} mm. Expected an image of {LEAST_SIDE_MM:g} to {MOST_SIDE_MM:g} mm. Correct the voxel "
            "size in the file, or the layer's scale."
        )


def read_working(
    volume: AnyVolume, modality: str, frame: tuple[int, int, int], slices: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return some slices of one modality on the working grid: ``(len(slices), y, x)``."""
    index = volume.modalities.index(modality)
    if frame[0] == volume.shape[0]:
        working = np.empty((len(slices), *frame[1:]), np.float32)
        done = 0
        for slab in group_slices(slices, read_together(volume)):
            array = torch.from_numpy(volume.read(index, slab))[None]
            working[done : done + len(slab)] = resize(array, (len(slab), *frame[1:]))[0].numpy()
            done += len(slab)
        return working
    # Where slices are blended, each needs its neighbors; only training of thick slices comes here, with all at once.
    whole = torch.from_numpy(volume.read(index, np.arange(volume.shape[0])))
    return resize(whole[None], frame)[0].numpy()[slices]


def resize(array_CZYX: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Resample to another number of voxels over the same extent, linearly and without aliasing."""
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
    """Yield rising slices in groups that lie between neighboring multiples of a depth."""
    yield from np.split(slices, np.flatnonzero(np.diff(slices // depth)) + 1)


def read_together(volume: AnyVolume) -> int:
    """Return how many neighboring slices are read at once: those that are best read together, and not too few."""
    return volume.slab_slices * -(-LEAST_READ_SLICES // volume.slab_slices)


def fill_head(tissue_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep, in place, the large connected parts of the tissue, and fill their holes slice by slice."""
    found = ConnectedComponents(lambda start, stop: tissue_ZYX[start:stop], len(tissue_ZYX), diagonal=False)
    for start, stop, mask in found.keep(found.sizes >= 0.1 * found.sizes.max(initial=0)):
        for z, plane in zip(range(start, stop), mask, strict=True):
            tissue_ZYX[z] = ndimage.binary_fill_holes(plane) if plane.any() else plane
    return tissue_ZYX


def head_box(head_ZYX: NDArray[np.bool_], divisor: int, margin_vox: int) -> Box:
    """Return the head's bounding box: slices that hold head, and in-plane a margin and multiples of the divisor."""
    bounds = [slice(0, 0)] * 3
    for axis in range(3):
        hit = np.flatnonzero(head_ZYX.any(axis=tuple(a for a in range(3) if a != axis)))
        if axis == 0:
            bounds[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
        else:
            start = max(0, int(hit[0]) - margin_vox) // divisor * divisor
            stop = min(head_ZYX.shape[axis], int(hit[-1]) + 1 + margin_vox)
            bounds[axis] = slice(start, start + -(-(stop - start) // divisor) * divisor)
    return bounds[0], bounds[1], bounds[2]


def frame_box(frame: tuple[int, int, int], divisor: int) -> Box:
    """Return the box of the whole frame, its in-plane sides padded to the divisor."""
    z, y, x = frame
    return slice(0, z), slice(0, -(-y // divisor) * divisor), slice(0, -(-x // divisor) * divisor)


def _cut(array: NDArray[Any], box: Box) -> NDArray[Any]:
    part = array[(..., *box)]
    missing = [s.stop - s.start - n for s, n in zip(box, part.shape[-3:], strict=True)]
    if any(missing):
        part = np.pad(part, [(0, 0)] * (array.ndim - 3) + [(0, m) for m in missing])
    return part
