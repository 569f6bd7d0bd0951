"""The only preprocessing: defined by a card, and the same for training and for segmenting.

A case is resampled to the network's working grid, its foreground (the head) is found, intensities become z-scores over
the foreground, everything outside becomes zero, and the array is cropped to the foreground. (Other networks may use
other z-scores, see `Normalization`.) A `Survey` is what must be known about the whole case for that; with it, slices
can be prepared by themselves. A `PreparedCase` is a survey with all slices.
"""

# M modality, R region, C channel (either), Z slice, Y row, X column

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.inspecting.foreground import find_background
from napari_braintumor.engine.models.card import ModelCard, Normalization, Spacing
from napari_braintumor.engine.preparing.components import ConnectedComponents
from napari_braintumor.engine.preparing.working_grid import (
    check_extent,
    choose_read_size,
    group_slices,
    read_working,
    working_shape,
)
from napari_braintumor.engine.volumes import AnyVolume, Volume

HEAD_MARGIN_VOX = 24
"""Working-grid voxels kept around the foreground: with fewer, border effects of convolutions would change labels."""

CLIP_Z = 5.0
"""z-scores are clipped to this, because larger ones carry no more information."""

JOINT_PERCENTILES = (10, 99)
"""Percentiles over all images together, for ``percentile z-score`` (Buda et al. 2019)."""

SAMPLED_SLICES = 192
"""Intensities are measured on at most about this many evenly spaced slices, so that memory does not grow with Z."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Survey:
    """What must be known about a whole case before its slices can be prepared.

    Attributes
    ----------
    foreground
        bool ``(z, y, x)``, the head, on the crop.
    present
        bool ``(M,)``, which of the network's modalities the case has.
    normalization
        As on the card.
    limits
        The limits to which all images are clipped before they are scaled, for ``percentile z-score``.
    scales
        ``(M, 2)``, mean and standard deviation of each present modality.
    box
        The crop's position in the working frame. In Y and X it may extend beyond the frame, where data is zero.
    frame
        The shape of the whole working grid, Z, Y, X.
    shape
        The shape of the case's own grid, Z, Y, X.
    thumbnails
        For each present modality, every fourth voxel of its samples on the working grid.
    slice_mm
        How far slices of the working grid lie apart; None if that is not known.
    context_mm
        How far from a slice those lie that the network sees besides; None if it sees one slice alone.
    """

    foreground: NDArray[np.bool_]
    present: NDArray[np.bool_]
    normalization: Normalization
    limits: tuple[float, float]
    scales: NDArray[np.float32]
    box: Box
    frame: tuple[int, int, int]
    shape: tuple[int, int, int]
    thumbnails: Mapping[str, NDArray[np.float32]]
    slice_mm: float | None
    context_mm: float | None

    @property
    def context_step(self) -> int:
        """How many slices up and down those lie that the network sees besides; 0 if it sees one slice alone.

        The nearest to `context_mm`, and at least the next one. Where the distance of slices is not known, the next one.
        """
        if self.context_mm is None:
            return 0
        return 1 if self.slice_mm is None else max(1, math.floor(self.context_mm / self.slice_mm + 0.5))

    def crop(self, array_CZYX: NDArray[Any]) -> NDArray[Any]:
        """Crop an array on the whole working grid, with zeros where the crop extends beyond it."""
        return _cut(array_CZYX, self.box)


@dataclass(frozen=True, eq=False)
class PreparedCase(Survey):
    """A survey together with all slices of the case, as the network sees them.

    Attributes
    ----------
    data
        float32 ``(M, z, y, x)``, modalities in the card's order, cropped to the foreground; absent modalities are zero.
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
    context_mm: float | None = None,
) -> Survey:
    """Find the foreground of a case on the working grid, and measure its intensities.

    Parameters
    ----------
    volume
        The case.
    modalities
        The network's channels.
    spacing
        Voxel size of the working grid in mm along Z, Y, X; None leaves an axis unchanged.
    divisor
        The crop's in-plane sides and its corner are multiples of this, so that the network's pooling windows fall where
        they would in the whole frame.
    normalization
        How intensities are measured, see `Normalization`.
    crop
        False keeps the whole frame, padded to the divisor: slower, with the same result up to rounding.
    margin_vox
        Voxels of the working grid kept around the foreground.
    context_mm
        How far from a slice those lie that the network sees besides.

    Returns
    -------
    Survey
        All that `prepare_slices` needs besides the voxels.

    Raises
    ------
    DataError
        If the case has none of the modalities, or no foreground is found in it.
    """
    present = np.array([name in volume.modalities for name in modalities])
    if not present.any():
        raise DataError(
            f"'{volume.name}' has {', '.join(volume.modalities)}, but the model needs at least one of "
            f"{', '.join(modalities)}. Name each image after its MRI sequence."
        )
    check_extent(volume, spacing)
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
        background = find_background(some)
        inside = background.find_tissue(some)
        if every == 1:
            tissue |= inside
        else:
            for slab in group_slices(np.arange(frame[0]), choose_read_size(volume)):
                tissue[slab] |= background.find_tissue(read_working(volume, name, frame, slab))
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
    foreground = fill_foreground(tissue)
    if not foreground.any():
        raise DataError(f"No head was found in '{volume.name}': it seems to be all background. Check the images.")
    box = foreground_box(foreground, divisor, margin_vox) if crop else frame_box(frame, divisor)
    slice_mm = volume.spacing[0] * volume.shape[0] / frame[0] if volume.source.spacing_known else None
    return Survey(
        foreground=_cut(foreground, box),
        present=present,
        normalization=normalization,
        limits=limits,
        scales=scales,
        box=box,
        frame=frame,
        shape=volume.shape,
        thumbnails=thumbnails,
        slice_mm=slice_mm,
        context_mm=context_mm,
    )


def _mean_and_deviation(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return mean and standard deviation for z-scores; the deviation is 1 if all values are equal up to rounding."""
    if not values.size:
        return 0.0, 1.0
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean, deviation if deviation > 1e-6 * abs(mean) else 1.0


def survey_for(card: ModelCard, volume: AnyVolume, divisor: int, *, crop: bool = True) -> Survey:
    """Survey a case as a model's card says."""
    # Cropping changes nothing only if the background is zero, which is what convolutions see beyond the border.
    crop = crop and card.normalization != "percentile z-score"
    return survey(
        volume,
        card.modalities,
        card.spacing,
        divisor,
        normalization=card.normalization,
        crop=crop,
        context_mm=card.context_mm,
    )


def prepare_slices(
    volume: AnyVolume, modalities: tuple[str, ...], case_survey: Survey, slices: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Prepare some slices of a surveyed case.

    Parameters
    ----------
    volume, modalities
        The volume and modalities that were surveyed.
    case_survey
        Their survey.
    slices
        Slices of the crop, in ascending order.

    Returns
    -------
    ndarray
        float32 ``(M, len(slices), y, x)`` on the crop, normalized as the survey says; absent modalities are zero.
    """
    foreground = case_survey.foreground[slices]
    prepared = np.zeros((len(modalities), *foreground.shape), np.float32)
    for index in np.flatnonzero(case_survey.present):
        working = read_working(volume, modalities[index], case_survey.frame, slices + case_survey.box[0].start)
        mean, deviation = case_survey.scales[index]
        cropped = _cut(working, (slice(0, len(slices)), *case_survey.box[1:]))
        scaled = (np.clip(cropped, *case_survey.limits) - mean) / deviation
        if case_survey.normalization == "head z-score":
            scaled = np.where(foreground, np.clip(scaled, -CLIP_Z, CLIP_Z), 0)
        elif case_survey.normalization == "nonzero z-score":
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
    context_mm: float | None = None,
) -> PreparedCase:
    """Resample a whole case to the working grid, normalize it over the foreground, and crop it to the foreground.

    Parameters and errors are those of `survey`.

    Returns
    -------
    PreparedCase
        The case on the working grid.
    """
    case_survey = survey(volume, modalities, spacing, divisor, crop=crop, margin_vox=margin_vox, context_mm=context_mm)
    return _prepare_all(volume, modalities, case_survey)


def prepare_for(card: ModelCard, volume: Volume, divisor: int, *, crop: bool = True) -> PreparedCase:
    """Prepare a case as a model's card says."""
    case_survey = survey_for(card, volume, divisor, crop=crop)
    return _prepare_all(volume, card.modalities, case_survey)


def _prepare_all(volume: AnyVolume, modalities: tuple[str, ...], case_survey: Survey) -> PreparedCase:
    data = prepare_slices(volume, modalities, case_survey, np.arange(len(case_survey.foreground)))
    return PreparedCase(**vars(case_survey), data=data)


def fill_foreground(tissue_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep, in place, the large connected components of the tissue, and fill their holes slice by slice."""
    found = ConnectedComponents(lambda start, stop: tissue_ZYX[start:stop], len(tissue_ZYX), diagonal=False)
    for start, stop, mask in found.keep(found.sizes >= 0.1 * found.sizes.max(initial=0)):
        for z, plane in zip(range(start, stop), mask, strict=True):
            tissue_ZYX[z] = ndimage.binary_fill_holes(plane) if plane.any() else plane
    return tissue_ZYX


def foreground_box(head_ZYX: NDArray[np.bool_], divisor: int, margin_vox: int) -> Box:
    """Return the bounding box of the foreground, in-plane with a margin and rounded to multiples of the divisor."""
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
