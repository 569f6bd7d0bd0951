"""A volume and a model in, events and a segmentation out; logits are thresholded chunk by chunk to bound memory."""

# N batch, M modality, R region, Z slice, Y row, X column

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.inspection import inspect_images
from napari_braintumor.engine.registry import find_architecture
from napari_braintumor.engine.runtime import (
    CPU_BATCH,
    GPU_BATCH,
    Ladder,
    choose_device,
    choose_runtime,
    describe_device,
    start_runner,
)
from napari_braintumor.engine.store import ModelStore, file_sha256
from napari_braintumor.engine.transforms import Prepared, prepare_for
from napari_braintumor.engine.types import Noted, Segmentation, Segmented, SegmentEvent, SlicesDone, Started, Volume

CHUNK_SLICES = 8
"""Slices whose logits are in memory at once on their way back to the case's grid."""


def segment(volume: Volume, config: SegmentConfig) -> Iterator[SegmentEvent]:
    """Segment a volume.

    Parameters
    ----------
    volume
        One to all of the model's modalities on one grid.
    config
        The model and how to run it.

    Yields
    ------
    SegmentEvent
        `Noted` for what the user should know, `Started` when the network is ready, `SlicesDone` after each chunk, and
        `Segmented` last.

    Raises
    ------
    BrainTumorError
        If the volume or the settings do not fit the model.
    """
    started = time.perf_counter()
    model = ModelStore().find(config.model)
    card = model.card
    assert card is not None
    check_modalities(card, volume)
    device = choose_device(config.device)
    runtime = choose_runtime(config.runtime, device)
    ignored = [name for name in volume.modalities if name not in card.modalities]
    if ignored:
        yield Noted(f"The model does not use {', '.join(ignored)}.")
    if not volume.source.spacing_known:
        yield Noted("The voxel size is not known, so mm and mL are guesses.")

    for text in inspect_images(dict(zip(volume.modalities, volume.data, strict=True))).findings:
        yield Noted(text)

    prepared = prepare_for(card, volume, find_architecture(card.architecture).divisor)
    shape = (len(card.modalities), *prepared.head.shape[1:])
    batch_size = config.batch_size or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
    sha256 = file_sha256(model.path)
    ladder = Ladder(
        start_runner(model.path, sha256, runtime, device, shape),
        batch_size,
        lambda: start_runner(model.path, sha256, "torch", torch.device("cpu"), shape),
    )
    yield Started(describe_device(device), ladder.runner.runtime)
    threshold = config.threshold or card.threshold
    regions = np.zeros((len(card.regions), *volume.shape), bool)
    probabilities = np.zeros(regions.shape, np.float16) if config.probabilities else None
    slices = np.flatnonzero(prepared.head.any((1, 2)))
    noted = 0
    for start in range(0, len(slices), CHUNK_SLICES):
        chunk = slices[start : start + CHUNK_SLICES]
        logits_RZYX = predict_slices(prepared, chunk, ladder, config.test_time_mirroring)
        where = chunk + prepared.box[0].start
        regions[:, where] = (logits_RZYX > _logit(threshold)).numpy()
        if probabilities is not None:
            probabilities[:, where] = logits_RZYX.sigmoid().half().numpy()
        for text in ladder.notes[noted:]:
            yield Noted(text)
        noted = len(ladder.notes)
        yield SlicesDone(min(start + CHUNK_SLICES, len(slices)), len(slices))

    voxel_ml = float(np.prod(volume.spacing)) / 1000
    min_volume_ml = card.min_volume_ml if config.min_volume_ml is None else config.min_volume_ml
    regions = remove_islands(regions, round(min_volume_ml / voxel_ml), config.keep_largest)
    regions = drop_small_regions(regions, card, voxel_ml)
    labels = paint_labels(regions, card)
    yield Segmented(
        Segmentation(
            labels=labels,
            label_names={region.label: region.label_name for region in card.regions},
            label_colors={region.label: region.color for region in card.regions},
            regions=tuple(region.name for region in card.regions),
            volumes_ml={r.name: float(regions[i].sum()) * voxel_ml for i, r in enumerate(card.regions)},
            source=volume.source,
            name=volume.name,
            provenance={
                "program": "napari-braintumor",
                "model": card.name,
                "model_version": card.version,
                "model_sha256": sha256,
                "modalities_used": [name for name in card.modalities if name in volume.modalities],
                "settings": config.model_dump(mode="json"),
                "device": ladder.runner.device.type,
                "runtime": ladder.runner.runtime,
                "seconds": round(time.perf_counter() - started, 2),
                "notes": ladder.notes,
                "intended_use": card.intended_use,
            },
            probabilities=probabilities,
        )
    )


def check_modalities(card: ModelCard, volume: Volume) -> None:
    """Hold a volume's modalities against what a model accepts.

    Raises
    ------
    ModelError
        If the model needs modalities that the volume lacks, or is three-dimensional.
    """
    if card.spatial_dims != 2:
        raise ModelError(f"The model '{card.name}' is three-dimensional, which cannot be run yet. Choose a 2-D model.")
    if missing := card.lacks(volume.modalities):
        raise ModelError(
            f"The model '{card.name}' needs {', '.join(card.modalities)}, but '{volume.name}' lacks "
            f"{', '.join(missing)}. Add the images, or choose a model that accepts missing modalities."
        )


def predict_slices(prepared: Prepared, slices: NDArray[np.integer], ladder: Ladder, mirroring: bool) -> torch.Tensor:
    """Run some slices of a prepared case through the network.

    Returns
    -------
    Tensor
        Logits ``(R, len(slices), Y, X)`` on the case's own in-plane grid, nested by `nest_logits`.
    """
    batch_NMHW = torch.from_numpy(np.ascontiguousarray(prepared.data[:, slices].swapaxes(0, 1)))
    logits_NRHW = ladder(batch_NMHW)
    if mirroring:
        logits_NRHW = (logits_NRHW + ladder(batch_NMHW.flip(-1)).flip(-1)) / 2
    outside = torch.from_numpy(~prepared.head[slices])[:, None]
    return prepared.restore(nest_logits(logits_NRHW).masked_fill(outside, -30.0).transpose(0, 1))


def nest_logits(logits_NRHW: torch.Tensor) -> torch.Tensor:
    """Make nested regions agree: no inner region is more likely than the one around it.

    Where a network contradicts itself, the logits of the regions concerned are averaged; elsewhere nothing changes.
    Taking the outer region's word alone would lose enhancing tumor where a missing modality hides the rest; taking the
    inner region's word alone would add its false alarms to the whole tumor.

    Parameters
    ----------
    logits_NRHW
        Regions outermost first.

    Returns
    -------
    Tensor
        The closest logits, in the least-squares sense, that do not rise from outer to inner regions.

    References
    ----------
    Barlow et al. 1972, Statistical Inference under Order Restrictions: the min-max formula of isotonic regression.
    """
    regions = logits_NRHW.shape[1]
    sums = torch.nn.functional.pad(logits_NRHW.cumsum(1), (0, 0, 0, 0, 1, 0))

    def mean(first: int, last: int) -> torch.Tensor:
        return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)

    fitted = []
    for region in range(regions):
        highest = [
            torch.stack([mean(outer, inner) for inner in range(region, regions)]).amax(0) for outer in range(region + 1)
        ]
        fitted.append(torch.stack(highest).amin(0))
    return torch.stack(fitted, dim=1)


def remove_islands(regions_RZYX: NDArray[np.bool_], min_vox: int, keep_largest: bool) -> NDArray[np.bool_]:
    """Remove small connected tumors (26-neighborhood) together with what lies in them.

    Parameters
    ----------
    regions_RZYX
        Nested regions; the union over them is what is connected.
    min_vox
        Tumors of fewer voxels are removed.
    keep_largest
        Remove all but the largest.
    """
    if min_vox <= 1 and not keep_largest:
        return regions_RZYX
    parts, count = ndimage.label(regions_RZYX.any(0), structure=np.ones((3, 3, 3)))
    if count == 0:
        return regions_RZYX
    sizes = np.bincount(parts.ravel())
    kept = sizes >= min_vox
    if keep_largest:
        kept &= np.arange(len(sizes)) == 1 + sizes[1:].argmax()
    kept[0] = False
    return regions_RZYX & kept[parts]


def drop_small_regions(regions_RZYX: NDArray[np.bool_], card: ModelCard, voxel_ml: float) -> NDArray[np.bool_]:
    """Empty the regions of which less was found than a model's card says is worth believing, and all within them."""
    for index, region in enumerate(card.regions):
        if region.least_ml and np.count_nonzero(regions_RZYX[index]) * voxel_ml < region.least_ml:
            regions_RZYX = regions_RZYX.copy()
            regions_RZYX[index:] = False
            break
    return regions_RZYX


def paint_labels(regions_RZYX: NDArray[np.bool_], card: ModelCard) -> NDArray[np.uint8]:
    """Paint a model's regions into labels, outermost first."""
    labels = np.zeros(regions_RZYX.shape[1:], np.uint8)
    for mask, region in zip(regions_RZYX, card.regions, strict=True):
        labels[mask] = region.label
    return labels


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
