"""Drawing: slices from cases and batches from slices, varied at random.

What is drawn depends on the plan's seed and the number of the slice alone, never on what was drawn before. So a run
that was killed goes on exactly, workers may prepare batches in any order, and each of several processes draws its own
part.
"""

# N batch, M modality, C channel, R region, H height, W width

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.preparing.context import find_neighbors, gather
from napari_braintumor.engine.training.augmentation import build_augmentation, vary
from napari_braintumor.engine.training.mixing import draw_mixture, mix_tumors
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.training_cases import Part

CONTEXT_DROPOUT = 0.1
"""Share of slices learned from without those beside them, so that a network also knows what to do with a single one."""


class SliceDataset(Dataset[Any]):
    """Slice number n of a training, drawn and varied from the plan's seed and n alone.

    Groups of cases are drawn by their weights, a case of the group evenly, then a slice of it, more often one with
    tumor; the slice is cut to the plan's patch, varied, and some of its modalities are blanked. Where there is old
    knowledge to hold on to, a share of the numbers, evenly spread, draws from it instead.

    Parameters
    ----------
    new
        The slices to learn from.
    old
        What must not be forgotten; may be empty.
    plan
        Its patch, shares, weights, augmentation and seed are used.
    """

    def __init__(self, new: Sequence[Part], old: Sequence[Part], plan: TrainPlan) -> None:
        self.plan = plan
        self.new, self.old = _Pool(new, plan), _Pool(old, plan) if old else None
        self.old_share = plan.fine_tuning.replay_share if plan.fine_tuning and old else 0.0
        self.augment = build_augmentation(plan)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image ``(C, H, W)``, regions ``(R, H, W)`` from 0 to 1 and known regions ``(R,)``."""
        random = np.random.default_rng([self.plan.seed, number])
        is_old = int((number + 1) * self.old_share) > int(number * self.old_share)
        pool = self.old if self.old and is_old else self.new
        with _use_one_thread():
            one = self._draw_slice(pool, random)
            if self.plan.tumor_mixing and random.random() < self.plan.tumor_mixing:
                one = self._mix(one, self._draw_slice(pool, random), random)
            present = drop_modalities(one.present, self.plan.modality_dropout, random)
            shown = np.outer(drop_context(len(one.heads), random), present)
            image = one.image.unflatten(0, shown.shape)
            image = image * (one.heads[:, None] & torch.from_numpy(shown)[:, :, None, None])
        return image.flatten(0, 1), one.regions, torch.from_numpy(one.known)

    def _draw_slice(self, pool: _Pool, random: np.random.Generator) -> _Slice:
        """Draw a slice, cut it to the patch and vary it."""
        part, z = pool.draw(random)
        case = part.case
        head_Czyx = case.prepared.foreground[None]
        seen = find_neighbors(np.array([z]), case.prepared.context_step, head_Czyx.shape[1])
        planes = (gather(case.prepared.data, seen)[:, 0], case.regions[:, z], gather(head_Czyx, seen)[:, 0])
        stacked = torch.from_numpy(cut_patch(planes, self.plan.patch, random))
        channels, regions = len(planes[0]), len(planes[1])
        item = {"image": stacked[:channels], "masks": stacked[channels:]}
        item = vary(self.augment, item, int(random.integers(2**31)), stacked_slices=len(seen))
        masks = item["masks"]
        regions_RHW, heads_KHW = masks[:regions].clamp(0, 1), masks[regions:] > 0.5
        return _Slice(item["image"], regions_RHW, heads_KHW, case.prepared.present, case.known)

    def _mix(self, one: _Slice, other: _Slice, random: np.random.Generator) -> _Slice:
        """Put the tumor of another slice into a slice, unless they have no modality in common."""
        mixture = draw_mixture(np.stack([one.present, other.present]), 1.0, random)
        if mixture.donors[0] == 0 or one.image.shape != other.image.shape:
            return one
        image, regions, known = mix_tumors(
            torch.stack([one.image, other.image]),
            torch.stack([one.regions, other.regions]),
            torch.from_numpy(np.stack([one.known, other.known])),
            torch.stack([one.heads[0], other.heads[0]]),
            torch.from_numpy(mixture.donors),
            mixture.margin_px,
            self.plan.regions,
        )
        exist_S11 = other.heads.flatten(1).any(1)[:, None, None]  # beyond the ends of its stack there is nothing to put
        return _Slice(image[0], regions[0], one.heads & exist_S11, one.present & other.present, known[0].numpy())


@dataclass(frozen=True, eq=False)
class _Slice:
    """A drawn slice: image ``(C, H, W)``, regions ``(R, H, W)``, heads ``(S, H, W)`` of the slices seen."""

    image: Tensor
    regions: Tensor
    heads: Tensor
    present: NDArray[np.bool_]
    known: NDArray[np.bool_]


class _Pool:
    """Parts to draw slices from."""

    def __init__(self, parts: Sequence[Part], plan: TrainPlan) -> None:
        self.tumor_share = plan.tumor_share
        self.groups: dict[str, list[tuple[Part, NDArray[np.intp]]]] = {}
        for part in parts:
            with_tumor = (np.asarray(part.case.regions)[:, part.slices] > 0.5).any((0, 2, 3))
            self.groups.setdefault(part.case.group, []).append((part, part.slices[with_tumor]))
        weights = np.array([plan.group_weights.get(name, 1.0) for name in self.groups])
        if weights.sum() == 0:
            raise DataError("Every group of cases has the weight 0 in the plan. Give at least one a weight above 0.")
        self.weights = weights / weights.sum()

    def draw(self, random: np.random.Generator) -> tuple[Part, int]:
        group = list(self.groups.values())[random.choice(len(self.groups), p=self.weights)]
        part, with_tumor = group[random.integers(len(group))]
        slices = with_tumor if len(with_tumor) and random.random() < self.tumor_share else part.slices
        return part, int(slices[random.integers(len(slices))])


def make_loader(
    dataset: SliceDataset,
    plan: TrainPlan,
    first_step: int,
    steps: int,
    *,
    rank: int,
    processes: int,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    """Return the batches of steps `first_step` to `steps` for one of several processes.

    Parameters
    ----------
    dataset
        Where slices come from.
    plan
        Its batch size is used.
    first_step, steps
        The steps still to be done.
    rank, processes
        Which part of each batch is drawn.
    workers
        Processes that prepare batches ahead; 0 prepares them as they are needed.
    pin_memory
        Lets a GPU fetch batches while it computes.

    Returns
    -------
    DataLoader
        Yields this process's part of one batch after another.
    """
    size = plan.batch_size

    def first_of(step: int) -> int:
        return (step * processes + rank) * size

    batches = [range(first_of(step), first_of(step) + size) for step in range(first_step, steps)]
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=stack_batch,
        pin_memory=pin_memory,
    )


def stack_batch(items: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Make a batch of slices as `SliceDataset` gives them."""
    with _use_one_thread():
        batch: list[Tensor] = default_collate(items)
    return batch


def choose_workers(plan: TrainPlan, on_gpu: bool) -> int:
    """Return how many processes prepare batches: they take only cores that the network leaves idle."""
    if plan.workers is not None:
        return plan.workers
    cores = _count_cores()
    if on_gpu:
        return min(8, cores - 1)
    # One prepares more than forty cores learn from; where cores are few it would save too little for its memory.
    return 1 if cores > max(4, torch.get_num_threads()) else 0


def _count_cores() -> int:
    """Return how many cores this process may use: processes that train together share the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def drop_modalities(present: NDArray[np.bool_], chance: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Blank, by chance, a random subset of the modalities that are there, never all of them."""
    there = np.flatnonzero(present)
    if len(there) < 2 or random.random() >= chance:
        return present.copy()
    kept = np.zeros_like(present)
    kept[random.permutation(there)[: random.integers(1, len(there))]] = True
    return kept


def drop_context(seen: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of the slices that a network sees are shown: by chance only the first, the slice itself."""
    shown = np.ones(seen, bool)
    if seen > 1:
        shown[1:] = random.random() >= CONTEXT_DROPOUT
    return shown


def cut_patch(
    planes: Sequence[NDArray[Any]], patch: tuple[int, int], random: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a patch at a random place, the same out of all planes, and stack it.

    Planes that are smaller lie at a random place in it, zeros around. Only what is cut is read and converted.

    Parameters
    ----------
    planes
        Arrays ``(C, H, W)`` of any type; they may differ in C.
    patch
        Its size.
    random
        Draws the place.

    Returns
    -------
    array
        float32 ``(C, h, w)``, with C summed over the planes.
    """
    cut = np.zeros((sum(map(len, planes)), *patch), np.float32)
    source: list[slice] = []
    target: list[slice] = []
    for length, side in zip(planes[0].shape[1:], patch, strict=True):
        spare = length - side
        start = int(random.integers(min(spare, 0), max(spare, 0) + 1))
        source.append(slice(max(start, 0), min(start + side, length)))
        target.append(slice(max(-start, 0), max(-start, 0) + source[-1].stop - source[-1].start))
    first = 0
    for plane in planes:
        cut[first : first + len(plane), target[0], target[1]] = plane[:, source[0], source[1]]
        first += len(plane)
    return cut


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Keep torch from dividing small operations among threads: waiting for a busy core takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
