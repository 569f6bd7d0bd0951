"""Compare several models on one case: what each finds, how well they agree, and how well they fit a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import (
    Compared,
    CompareEvent,
    ModelSegmented,
    Noted,
    PhaseReached,
    Segmented,
    SlicesDone,
    Started,
)
from napari_braintumor.engine.measuring.metrics import list_agreement_metrics
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.resolve import check_modalities, find_left_out
from napari_braintumor.engine.segmenting.segment import segment
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume, Comparison, Reference, Segmentation, Volume

SLAB_SLICES = 16
"""Number of slices whose masks are in memory at once."""


def compare(
    volume: AnyVolume, configs: Sequence[SegmentConfig], reference: Reference | None = None
) -> Iterator[CompareEvent]:
    """Segment a volume with several models, one after another, and compare the results.

    Parameters
    ----------
    volume
        A case with the modalities that every model needs.
    configs
        One for each model, two or more.
    reference
        A mask drawn by people, on the volume's grid.

    Yields
    ------
    CompareEvent
        The events of `segment`, with `SlicesDone` counted over all models; `ModelSegmented` after each model;
        `Compared` last.

    Raises
    ------
    BrainTumorError
        If there are fewer than two models, they have no common region, or the volume does not fit one of them.
    """
    if len(configs) < 2:
        raise SettingsError(f"{len(configs)} model is selected. Comparing needs at least two. Select another one.")
    cards = [card for config in configs if (card := ModelStore().find(config.model).card) is not None]
    for card in cards:
        check_modalities(card, volume)
    drawn = []
    for card, config in zip(cards, configs, strict=True):
        used = set(volume.modalities) - set(find_left_out(card, volume, config))
        drawn.append({region.name for region in card.regions} - set(card.find_unmeasurable(used)))
    if not set.intersection(*drawn):
        each = "; ".join(
            f"{card.name}: {', '.join(sorted(names)) or 'none'}" for card, names in zip(cards, drawn, strict=True)
        )
        raise SettingsError(
            f"The models have no region in common that {', '.join(volume.modalities)} can show ({each}). Choose models "
            "that predict the same regions, or add images."
        )
    names = _tell_apart([card.name for card in cards])
    found: list[Segmentation] = []
    for index, (name, config) in enumerate(zip(names, configs, strict=True)):
        for event in segment(volume, config):
            if isinstance(event, SlicesDone):
                yield SlicesDone(index * event.total + event.done, len(configs) * event.total)
            elif isinstance(event, Segmented):
                found.append(replace(event.segmentation, probabilities=None))
                yield ModelSegmented(name, event.segmentation)
            elif isinstance(event, Noted):
                yield Noted(f"{name}: {event.text}")
            else:
                assert isinstance(event, PhaseReached | Started)
                yield event
    yield Compared(compare_segmentations(volume, names, found, reference))


def compare_segmentations(
    volume: AnyVolume, names: Sequence[str], segmentations: Sequence[Segmentation], reference: Reference | None = None
) -> Comparison:
    """Compare segmentations of one volume, slab by slab.

    Parameters
    ----------
    volume
        The volume that was segmented.
    names
        The name of each model.
    segmentations
        The segmentation of each model, on the volume's grid.
    reference
        A mask drawn by people, on the same grid.

    Returns
    -------
    Comparison
        Volumes and agreement by region, and where models disagree.
    """
    drawn_by = [[region for region in each.regions if region not in each.not_measurable] for each in segmentations]
    regions = tuple(dict.fromkeys(region for drawn in drawn_by for region in drawn))
    shared = [region for region in regions if all(region in drawn for drawn in drawn_by)]
    pairs = list(combinations(range(len(segmentations)), 2))
    voxels = [dict.fromkeys(drawn, 0) for drawn in drawn_by]
    common: dict[tuple[int, int], dict[str, int]] = {
        (i, j): {region: 0 for region in drawn_by[i] if region in drawn_by[j]} for i, j in pairs
    }
    known = reference.regions if reference is not None else {}
    disagreement, disputed_voxels = _like_labels(volume), 0
    step = max(SLAB_SLICES, volume.slab_slices)
    for start in range(0, volume.shape[0], step):
        slab = slice(start, start + step)
        masks = [
            {region: each.mask_of(region, slab) for region in drawn}
            for each, drawn in zip(segmentations, drawn_by, strict=True)
        ]
        for i, mine in enumerate(masks):
            for region, mask in mine.items():
                voxels[i][region] += int(np.count_nonzero(mask))
        for (i, j), both in common.items():
            for region in both:
                both[region] += int(np.count_nonzero(masks[i][region] & masks[j][region]))
        disputed = count_dissenters([np.stack([mine[region] for mine in masks]) for region in shared])
        if disputed.any():
            disagreement[slab] = disputed
            disputed_voxels += int(np.count_nonzero(disputed))
    reference_voxels = {region: int(np.count_nonzero(mask)) for region, mask in known.items()}
    voxel_ml = volume.source.voxel_ml
    return Comparison(
        models=tuple(names),
        regions=regions,
        volumes_ml=tuple({region: count * voxel_ml for region, count in each.items()} for each in voxels),
        seconds=tuple(float(each.provenance.get("seconds", 0)) for each in segmentations),
        dice={
            (i, j): {r: _dice(n, voxels[i][r], voxels[j][r]) for r, n in both.items()}
            for (i, j), both in common.items()
        },
        reference_ml={region: reference_voxels[region] * voxel_ml for region in regions if region in known},
        against_reference=tuple(
            {
                metric.name: {r: metric.measure(each.mask_of(r), known[r], volume.source) for r in drawn if r in known}
                for metric in list_agreement_metrics()
            }
            for each, drawn in zip(segmentations, drawn_by, strict=True)
        ),
        disagreement=disagreement,
        disagreement_ml=disputed_voxels * voxel_ml,
        source=volume.source,
        name=volume.name,
    )


def count_dissenters(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Return for each voxel how many models disagree with the majority, in the region where most do.

    Parameters
    ----------
    masks
        For each region that all models predict, bool ``(models, ...)``.

    Returns
    -------
    ndarray
        uint8, from 0 to half the number of models.
    """
    counts = [mask.sum(0, dtype=np.uint8) for mask in masks]
    fewer: NDArray[np.uint8] = np.max([np.minimum(n, len(masks[0]) - n) for n in counts], axis=0).astype(np.uint8)
    return fewer


def _dice(both: int, one: int, other: int) -> float:
    """Return the Dice of `metrics.volume_dice` from voxel counts."""
    return 2 * both / (one + other) if one + other else 1.0


def _like_labels(volume: AnyVolume) -> Any:
    """Return an array of zeros for labels, compressed if the volume is not in memory."""
    if isinstance(volume, Volume):
        return np.zeros(volume.shape, np.uint8)
    import zarr

    chunks = (1, *volume.shape[1:])
    return zarr.create_array(
        zarr.storage.MemoryStore(), shape=volume.shape, chunks=chunks, dtype=np.uint8, fill_value=0
    )


def _tell_apart(names: Sequence[str]) -> list[str]:
    """Add a number to names that occur more than once."""
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]
