"""Run a network once more over a case, and keep what its last layers see."""

# V voxel, M modality, R region, C channel, N slice; z, y, x on the grid of the features, h, w on the crop

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_braintumor.engine.anatomy import MODALITIES, count_nested
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.events import Segmented, SlicesDone
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.preparing.context import prepare_images
from napari_braintumor.engine.preparing.prepare import Survey, prepare_slices, survey_for
from napari_braintumor.engine.segmenting.network import to_regions
from napari_braintumor.engine.segmenting.regions import nest_logits
from napari_braintumor.engine.segmenting.resolve import SegmentTask, resolve
from napari_braintumor.engine.segmenting.segment import refine_now, segment
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume

GRID_MM = 2.0
"""Features are averaged in-plane to about this size: they tell tissues apart, and edges come from the labels."""

MOST_CHANNELS = 64
"""So many directions are kept of all that the last layers see: those that vary most."""

CHUNK_SLICES = 4

SAMPLED_SLICES = 24
"""Slices by which the directions are chosen."""

MOST_LOGIT = 12.0
"""Logits are limited to this: a network that is more certain is not more often right."""


def gather_features(volume: AnyVolume, config: SegmentConfig) -> Iterator[SlicesDone | CaseFeatures]:
    """Gather what a model sees in a case; takes about as long as segmenting all of its slices.

    Parameters
    ----------
    volume
        The case that was segmented.
    config
        The settings it was segmented with.

    Yields
    ------
    SlicesDone or CaseFeatures
        Progress, and the features last.

    Raises
    ------
    BrainTumorError
        If the volume or the settings do not fit the model.
    """
    task = refine_now(resolve(volume, config))
    survey = survey_for(task.card, task.volume, task.divisor)
    row = find_architecture(task.card.architecture)
    if task.card.spatial_dims == 2 and row.decoder:
        yield from _gather_from_network(task, survey, row.decoder)
    else:
        yield from _gather_from_answer(task, survey)


def _gather_from_network(
    task: SegmentTask, survey: Survey, names: tuple[str, ...]
) -> Iterator[SlicesDone | CaseFeatures]:
    """Gather the features of a network whose last layers are known."""
    slices = np.flatnonzero(survey.foreground.any((1, 2)))
    sampled = slices[:: -(-len(slices) // SAMPLED_SLICES)]
    rest = np.setdiff1d(slices, sampled)
    seeing = _Sight(task, survey, names)
    first = list(seeing.look_at(sampled))
    directions = Directions.of(torch.cat([values for _, _, values, _ in first]), MOST_CHANNELS)
    found = {z: (logits_VR, directions.reduce(values_VC), images) for z, logits_VR, values_VC, images in first}
    yield SlicesDone(len(found), len(slices))
    for z, logits_VR, values_VC, images in seeing.look_at(rest):
        found[z] = logits_VR, directions.reduce(values_VC), images
        if len(found) % CHUNK_SLICES == 0 or len(found) == len(slices):
            yield SlicesDone(len(found), len(slices))
    logits, values, kept = (np.concatenate(each) for each in zip(*(found[z] for z in sorted(found)), strict=True))
    features = replace(_describe(task, survey, seeing.inside, logits, values, adapts=True), images=kept)
    _ = features.mean_images, features.rows  # now, so that the first stroke need not wait for them
    yield features


def _gather_from_answer(task: SegmentTask, survey: Survey) -> Iterator[SlicesDone | CaseFeatures]:
    """Gather the scans and the answer of a network that does not show its layers."""
    config = task.config.model_copy(update={"probabilities": True, "skull": "keep", "n4": False})
    for event in segment(task.volume, config):
        if isinstance(event, SlicesDone):
            yield event
        elif isinstance(event, Segmented):
            probabilities_RZYX = event.segmentation.probabilities
    assert probabilities_RZYX is not None
    inside = shrink_mask(survey.foreground, choose_factor(survey, task))
    frame = _describe(task, survey, inside, np.empty((0, 0), np.float32), np.empty((0, 0), np.float16), adapts=False)
    z, y, x = frame.find_indices()
    logits, values = [], []
    for number in np.flatnonzero(inside.any((1, 2))):
        mask = torch.from_numpy(inside[number])
        plane = np.asarray(probabilities_RZYX[:, z[number]])[:, y][:, :, x].astype(np.float32)
        answer = torch.from_numpy(plane).clamp(1e-6, 1 - 1e-6).logit() - _limit(task)
        logits.append(_clip(answer[:, mask].T, task))
        images = torch.from_numpy(prepare_slices(task.volume, task.card.modalities, survey, np.array([number])))
        values.append(_fit_to(images[survey.present].swapaxes(0, 1), inside.shape[1:])[0][:, mask].T.half().numpy())
    yield _describe(task, survey, inside, np.concatenate(logits), np.concatenate(values), adapts=False)


class _Sight:
    """Looks at slices of a case through a network, and remembers what its last layers see."""

    def __init__(self, task: SegmentTask, survey: Survey, names: tuple[str, ...]) -> None:
        self.task, self.survey = task, survey
        self.inside = shrink_mask(survey.foreground, choose_factor(survey, task))
        self.network = load_network(task.path).to(task.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.maps: dict[str, Tensor] = {}
        for name in names:
            self.network.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.maps[name] = output

    def look_at(
        self, slices: NDArray[np.intp]
    ) -> Iterator[tuple[int, NDArray[np.float32], Tensor, NDArray[np.float16]]]:
        """Yield each slice's number, its logits ``(V, R)``, features float32 ``(V, C)`` and scans ``(V, M)``."""
        sides = self.inside.shape[1:]
        modalities = self.task.card.modalities
        own = np.flatnonzero(self.survey.present)
        for chunk, images_NMhw in prepare_images(self.task.volume, modalities, self.survey, slices, CHUNK_SLICES):
            images = torch.from_numpy(images_NMhw)
            with torch.inference_mode():
                batch = images.contiguous(memory_format=torch.channels_last).to(self.task.device)
                output = to_regions(self.network(batch).float(), self.task.card)
                logits_NRyx = _fit_to(output, sides).cpu() - _limit(self.task)
                seen = [_fit_to(each.float(), sides).cpu() for each in self.maps.values()]
                scans_NMyx = _fit_to(images[:, : len(modalities)], sides)
                values_NCyx = torch.cat([*seen, scans_NMyx[:, own]], dim=1)
            for number, z in enumerate(chunk):
                mask = torch.from_numpy(self.inside[z])
                logits_VR = _clip(logits_NRyx[number][:, mask].T, self.task)
                scans_VM = np.zeros((logits_VR.shape[0], len(MODALITIES)), np.float16)
                for column, modality in enumerate(modalities):
                    if modality in MODALITIES:
                        scans_VM[:, MODALITIES.index(modality)] = scans_NMyx[number, column][mask].numpy()
                yield int(z), logits_VR, values_NCyx[number][:, mask].T, scans_VM


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions in which features vary most.

    Attributes
    ----------
    mean, deviation
        ``(C,)``, of each channel.
    axes
        ``(C, K)``, orthogonal.
    """

    mean: Tensor
    deviation: Tensor
    axes: Tensor

    @classmethod
    def of(cls, values_VC: Tensor, most: int) -> Directions:
        """Find them in samples ``(V, C)``: principal components of the channels, each scaled to deviation 1."""
        mean, deviation = values_VC.mean(0), values_VC.std(0).clamp_min(1e-4)
        scaled = (values_VC - mean) / deviation
        _, axes = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        return cls(mean, deviation, axes.flip(1)[:, :most])

    def reduce(self, values_VC: Tensor) -> NDArray[np.float16]:
        """Return what features ``(V, C)`` are along the directions: float16 ``(V, K)``."""
        reduced: NDArray[np.float16] = (((values_VC - self.mean) / self.deviation) @ self.axes).half().numpy()
        return reduced


def choose_factor(survey: Survey, task: SegmentTask) -> int:
    """Return how many voxels of the crop, in-plane, become one of the features' grid: 1, 2, 4 ..."""
    sides_mm = [
        own * size / frame
        for own, size, frame in zip(task.volume.spacing[1:], survey.shape[1:], survey.frame[1:], strict=True)
    ]
    factor = 1
    while 2 * factor * max(sides_mm) <= 1.25 * GRID_MM and not any(
        side % (2 * factor) for side in survey.foreground.shape[1:]
    ):
        factor *= 2
    return factor


def shrink_mask(mask_zhw: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """Return a mask on a grid that is coarser in-plane: a voxel is inside if any part of it is."""
    z, h, w = mask_zhw.shape
    return np.asarray(mask_zhw.reshape(z, h // factor, factor, w // factor, factor).any((2, 4)))


def _fit_to(maps_NChw: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Resample maps in-plane, by averaging where the grid is coarser."""
    if maps_NChw.shape[2:] == sides:
        return maps_NChw
    return functional.interpolate(maps_NChw, sides, mode="bilinear", antialias=True, align_corners=False)


def _limit(task: SegmentTask) -> float:
    return float(np.log(task.threshold / (1 - task.threshold)))


def _clip(logits_VR: Tensor, task: SegmentTask) -> NDArray[np.float32]:
    nested = count_nested(task.card.regions)
    agreeing = torch.cat([nest_logits(logits_VR[:, :nested, None, None])[..., 0, 0], logits_VR[:, nested:]], dim=1)
    clipped: NDArray[np.float32] = agreeing.clamp(-MOST_LOGIT, MOST_LOGIT).numpy()
    return clipped


def _describe(
    task: SegmentTask,
    survey: Survey,
    inside_zyx: NDArray[np.bool_],
    logits_VR: NDArray[np.float32],
    values_VC: NDArray[np.float16],
    adapts: bool,
) -> CaseFeatures:
    factors = np.array(survey.foreground.shape) / inside_zyx.shape
    scale = np.array(survey.shape) / survey.frame
    corner = np.array([side.start for side in survey.box])
    note = f"{task.card.name} does not show what its last layers see, so a stroke changes only what is near it."
    return CaseFeatures(
        regions=task.card.regions,
        shape=survey.shape,
        spacing=task.volume.spacing,
        grid=inside_zyx.shape,
        start=tuple((corner + factors / 2) * scale - 0.5),
        step=tuple(factors * scale),
        places=np.flatnonzero(inside_zyx),
        logits=logits_VR,
        values=values_VC,
        adapts=adapts,
        notes=() if adapts else (note,),
    )
