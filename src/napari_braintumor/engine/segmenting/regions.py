"""Turn logits on the crop into regions on the scan's own grid, made to nest and thresholded there."""

# N slice of a batch, R region, C channel, Z slice, Y row, X column; z, y, x: the same on the crop

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_braintumor.engine.anatomy import Region, count_nested
from napari_braintumor.engine.preparing.prepare import Survey
from napari_braintumor.engine.preparing.working_grid import resize
from napari_braintumor.engine.segmenting.certainty import Certainty
from napari_braintumor.engine.segmenting.resolve import SegmentTask
from napari_braintumor.engine.segmenting.runtime import run_with_cpu_fallback
from napari_braintumor.engine.volumes import AnyVolume, Volume

BACKGROUND_LOGIT = -30.0
"""The logit of background: certainly not tumor, but still finite for interpolation."""


@dataclass(frozen=True, eq=False)
class RegionMaps:
    """What a network finds in a case, on the case's own grid; filled slice by slice or all at once.

    Attributes
    ----------
    depth
        uint8 ``(Z, Y, X)``, the region depth: the number of nested regions that contain a voxel, or the place on the
        card, counted from 1, of a region that does not nest and covers it; 0 outside all. A NumPy array, or a zarr
        array for a streamed case.
    probabilities
        float16 ``(R, Z, Y, X)``, also NumPy or zarr, if the task asks for them.
    certainty
        How sure the network is of each region.
    """

    depth: Any
    probabilities: Any | None
    certainty: Certainty

    @classmethod
    def empty(cls, task: SegmentTask) -> RegionMaps:
        """Return the maps of a task, still empty."""
        shape = task.volume.shape
        wanted = task.config.probabilities
        return cls(
            depth=_zeros(task.volume, shape, np.uint8),
            probabilities=_zeros(task.volume, (len(task.card.regions), *shape), np.float16) if wanted else None,
            certainty=Certainty.empty(len(task.card.regions)),
        )


def fill_slices(
    maps: RegionMaps, task: SegmentTask, survey: Survey, slices: NDArray[np.intp], logits_NRyx: Tensor
) -> list[int]:
    """Write the regions of some slices to the maps, from their logits.

    Parameters
    ----------
    maps
        The maps of the task.
    task, survey
        The task, and the survey of its volume.
    slices
        Slices of the crop.
    logits_NRyx
        Their logits on the crop.

    Returns
    -------
    list of int
        Those of the slices in which tumor is found.
    """
    regions, hidden = task.card.regions, task.not_measurable
    depth_NYX, logits_RNYX = threshold_slices(survey, slices, logits_NRyx, task.threshold, regions, hidden)
    for place, logits in enumerate(logits_RNYX):
        maps.certainty.add(place, logits, _logit(task.threshold))
    first = survey.box[0].start
    hits = []
    for index, plane in zip(slices, depth_NYX, strict=True):
        if plane.any():
            maps.depth[first + index] = plane
            hits.append(int(index))
    if maps.probabilities is not None:
        for index, logits in zip(slices, logits_RNYX.transpose(0, 1), strict=True):
            maps.probabilities[:, first + index] = run_with_cpu_fallback(torch.sigmoid, logits).half().cpu().numpy()
    return hits


def fill_volume(maps: RegionMaps, task: SegmentTask, survey: Survey, logits_Rzyx: Tensor) -> None:
    """Write the regions of a whole crop to the maps, from its logits."""
    outside = torch.from_numpy(~survey.foreground)[:, None]
    regions = task.card.regions
    logits_Rzyx = _nest(logits_Rzyx.transpose(0, 1), regions).masked_fill(outside, BACKGROUND_LOGIT).transpose(0, 1)
    limit = _logit(task.threshold)
    for index, region in enumerate(regions):  # one at a time, because on the case's own grid each is as large as a scan
        region_ZYX = restore_volume(survey, logits_Rzyx[index : index + 1])[0]
        maps.certainty.add(index, region_ZYX, limit)
        for z, plane in enumerate(region_ZYX):
            inside = (plane > limit).numpy()
            if inside.any() and region.nested:
                maps.depth[z] = maps.depth[z] + inside
            elif inside.any() and region.name not in task.not_measurable:
                maps.depth[z] = np.where(inside, np.uint8(index + 1), maps.depth[z])
            if maps.probabilities is not None:
                maps.probabilities[index, z] = plane.sigmoid().half().numpy()


def threshold_slices(
    survey: Survey,
    slices: NDArray[np.intp],
    logits_NRyx: Tensor,
    threshold: float,
    regions: Sequence[Region],
    hidden: Collection[str] = (),
) -> tuple[NDArray[np.uint8], Tensor]:
    """Resample the logits of some slices to the case's own grid and threshold them, on their device.

    Parameters
    ----------
    survey, slices, logits_NRyx
        See `fill_slices`.
    threshold
        The probability from which a voxel belongs to a region.
    regions
        The model's regions, nested ones first. A region that does not nest covers those before it.
    hidden
        Names of regions that are not drawn; if they do not nest, they cover nothing.

    Returns
    -------
    tuple
        The region depth, uint8 ``(N, Y, X)``, as in `RegionMaps`; and the logits ``(R, N, Y, X)``, nested by
        `nest_logits`.
    """

    def threshold_there(logits: Tensor) -> tuple[NDArray[np.uint8], Tensor]:
        outside = torch.from_numpy(~survey.foreground[slices])[:, None].to(logits.device)
        agreeing = _nest(logits, regions).masked_fill(outside, BACKGROUND_LOGIT)
        logits_RNYX = restore_slices(survey, agreeing.transpose(0, 1))
        inside_RNYX = logits_RNYX > _logit(threshold)
        depth_NYX = inside_RNYX[: count_nested(regions)].sum(0, dtype=torch.uint8)
        for place, region in enumerate(regions):
            if not region.nested and region.name not in hidden:
                depth_NYX = depth_NYX.masked_fill(inside_RNYX[place], place + 1)
        return depth_NYX.cpu().numpy(), logits_RNYX

    return run_with_cpu_fallback(threshold_there, logits_NRyx)


def _nest(logits_NRyx: Tensor, regions: Sequence[Region]) -> Tensor:
    """Make the nested regions consistent, and leave the others unchanged."""
    nested = count_nested(regions)
    if nested == len(regions):
        return nest_logits(logits_NRyx)
    return torch.cat([nest_logits(logits_NRyx[:, :nested]), logits_NRyx[:, nested:]], dim=1)


def nest_logits(logits_NRyx: Tensor) -> Tensor:
    """Make nested regions consistent: no inner region is more likely than the one around it.

    Where a network contradicts itself, the logits of the affected regions are averaged; elsewhere nothing changes.
    Trusting only the outer region would lose enhancing tumor where a missing modality hides the rest; trusting only the
    inner region would add its false positives to the whole tumor.

    Parameters
    ----------
    logits_NRyx
        Logits, with regions outermost first.

    Returns
    -------
    Tensor
        The closest logits, by least squares, that do not increase from outer to inner regions.

    References
    ----------
    Barlow et al. 1972, Statistical Inference under Order Restrictions: the min-max formula of isotonic regression.
    """
    regions = logits_NRyx.shape[1]
    sums = torch.nn.functional.pad(logits_NRyx.cumsum(1), (0, 0, 0, 0, 1, 0))

    def mean(first: int, last: int) -> Tensor:
        return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)

    fitted = []
    for region in range(regions):
        highest = [
            torch.stack([mean(outer, inner) for inner in range(region, regions)]).amax(0) for outer in range(region + 1)
        ]
        fitted.append(torch.stack(highest).amin(0))
    return torch.stack(fitted, dim=1)


def restore_slices(survey: Survey, crop_CNyx: Tensor) -> Tensor:
    """Resample slices of the crop to the in-plane grid of the case.

    Parameters
    ----------
    survey
        The survey of the case.
    crop_CNyx
        Logits on the crop, for some or all of its slices.

    Returns
    -------
    Tensor
        ``(C, N, Y, X)``; outside the crop the logits are -inf, or `BACKGROUND_LOGIT` where they had to be interpolated.
    """
    _, frame_y, frame_x = survey.frame
    (y0, y1), (x0, x1) = ((side.start, side.stop) for side in survey.box[1:])
    inside = crop_CNyx[..., : min(y1, frame_y) - y0, : min(x1, frame_x) - x0]
    same_grid = survey.frame[1:] == survey.shape[1:]
    # -inf must not enter the interpolation.
    whole = inside.new_full((*inside.shape[:2], frame_y, frame_x), -torch.inf if same_grid else BACKGROUND_LOGIT)
    whole[..., y0 : y0 + inside.shape[-2], x0 : x0 + inside.shape[-1]] = inside
    return whole if same_grid else resize(whole, (whole.shape[1], *survey.shape[1:]))


def restore_volume(survey: Survey, crop_Czyx: Tensor) -> Tensor:
    """Resample a whole crop to the case's own grid, also along Z.

    Parameters
    ----------
    survey
        The survey of the case.
    crop_Czyx
        Logits on the crop.

    Returns
    -------
    Tensor
        ``(C, Z, Y, X)``; outside the crop the logits are `BACKGROUND_LOGIT`.
    """
    stops = [min(side.stop, size) for side, size in zip(survey.box, survey.frame, strict=True)]
    frame = crop_Czyx.new_full((len(crop_Czyx), *survey.frame), BACKGROUND_LOGIT)
    inside = tuple(slice(side.start, stop) for side, stop in zip(survey.box, stops, strict=True))
    sizes = tuple(slice(0, side.stop - side.start) for side in inside)
    frame[(slice(None), *inside)] = crop_Czyx[(slice(None), *sizes)]
    return resize(frame, survey.shape)


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _zeros(volume: AnyVolume, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of zeros: NumPy, or for a streamed case zarr, compressed in memory."""
    if isinstance(volume, Volume):
        return np.zeros(shape, dtype)
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *shape[-2:])
    return zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype=dtype, fill_value=0)
