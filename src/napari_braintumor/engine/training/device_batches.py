"""Batches drawn and varied on the GPU: all slices lie on the card, and a whole batch moves in one interpolation.

The distributions are those of `SliceDataset` and `build_augmentation`, the draws are others: they depend on the plan's
seed and the step. Patches are cut and moved at once, so what a rotation brings in at a patch's border is the head
beside it and not zeros. On a CPU this would be slower; there everything stays with `SliceDataset`, bit by bit.
"""

# N batch, M modality, R region, K mask (the regions and the head), S slice, H height, W width; h, w of a patch

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.preparing.context import NONE, find_neighbors
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.device_variation import draw_variation, place, vary_intensities
from napari_braintumor.engine.training.drawing import CONTEXT_DROPOUT, SliceDataset, choose_workers, make_loader
from napari_braintumor.engine.training.mixing import draw_mixture, mix_tumors
from napari_braintumor.engine.training.prepared import TrainingCase
from napari_braintumor.engine.training.training_cases import Part

MOST_SHARE = 0.25
"""Share of a card's free memory that slices may take; larger sets are prepared by processes instead."""


def make_batches(dataset: SliceDataset, first_step: int, steps: int, device: torch.device) -> Iterable[list[Tensor]]:
    """Return this process's batches of steps `first_step` to `steps`, made where that is fastest.

    Parameters
    ----------
    dataset
        The slices to draw from.
    first_step, steps
        The steps still to be done.
    device
        Where the network learns.

    Returns
    -------
    iterable of list of Tensor
        For each step a batch as `Fit.take_step` takes it.
    """
    own = {"rank": processes.rank(), "processes": processes.count()}
    if fits(dataset, device):
        return make_device_batches(dataset, first_step, steps, device, **own)
    on_gpu = device.type == "cuda"
    workers = choose_workers(dataset.plan, on_gpu)
    return make_loader(dataset, dataset.plan, first_step, steps, workers=workers, pin_memory=on_gpu, **own)


def fits(dataset: SliceDataset, device: torch.device) -> bool:
    """Whether batches can be made on a device: a CUDA card with room for all slices."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return _count_bytes(dataset) <= MOST_SHARE * free


def make_device_batches(
    dataset: SliceDataset, first_step: int, steps: int, device: torch.device, *, rank: int = 0, processes: int = 1
) -> Iterator[list[Tensor]]:
    """Yield the batches of steps `first_step` to `steps`, each made while the network learns from the one before.

    Parameters
    ----------
    dataset
        The slices to draw from.
    first_step, steps
        The steps still to be done.
    device
        Where the slices and the batches lie.
    rank, processes
        Which part of each step's batch is drawn.

    Yields
    ------
    list of Tensor
        As `stack_batch` makes them: image ``(N, M, h, w)``, regions ``(N, R, h, w)``, known regions ``(N, R)``.
    """
    slices = DeviceSlices(dataset, device)
    numbers = range(first_step * processes + rank, steps * processes + rank, processes)
    if device.type != "cuda":
        yield from map(slices.make_batch, numbers)
        return
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))

    def make(number: int) -> tuple[list[Tensor], torch.cuda.Event]:
        with torch.cuda.stream(aside):
            return slices.make_batch(number), aside.record_event()

    coming = make(numbers[0]) if numbers else None
    for after in (*numbers[1:], None):
        if coming is None:
            return
        batch, made = coming
        coming = make(after) if after is not None else None
        here = torch.cuda.current_stream(device)
        here.wait_event(made)
        for tensor in batch:
            tensor.record_stream(here)
        yield batch


class DeviceSlices:
    """All slices of a training on its device.

    Parameters
    ----------
    dataset
        The slices to draw from, with the plan.
    device
        Where the slices lie.
    """

    def __init__(self, dataset: SliceDataset, device: torch.device) -> None:
        self.plan, self.device = dataset.plan, device
        self.old_share = dataset.old_share
        cases = _cases_of(dataset)
        height, width = _canvas_of(cases)
        modalities, masks = len(self.plan.modalities), len(self.plan.regions) + 1
        count = sum(len(case.slices) for case in cases)
        self.images_SMHW = torch.zeros((count, modalities, height, width), dtype=torch.float16, device=device)
        self.masks_SKHW = torch.zeros((count, masks, height, width), dtype=torch.uint8, device=device)
        self.case_of_slice = np.repeat(np.arange(len(cases)), [len(case.slices) for case in cases])
        self.sizes = np.array([case.prepared.foreground.shape[1:] for case in cases])
        self.present = np.array([case.prepared.present for case in cases])
        self.known = np.array([case.known for case in cases])
        first = 0
        starts: dict[int, int] = {}
        for case in cases:
            starts[id(case)] = first
            part = slice(first, first := first + len(case.slices))
            y, x = case.prepared.foreground.shape[1:]
            shares_KSHW = np.concatenate(
                [case.regions, case.prepared.foreground[None]], dtype=np.float32, casting="unsafe"
            )
            image = torch.from_numpy(np.ascontiguousarray(case.prepared.data)).transpose(0, 1)
            mask = torch.from_numpy(np.rint(shares_KSHW * 255).astype(np.uint8)).transpose(0, 1)
            self.images_SMHW[part, :, :y, :x] = image.to(device)
            self.masks_SKHW[part, :, :y, :x] = mask.to(device)
        self.new = _SliceTables(dataset.new.groups, dataset.new.weights, starts)
        self.old = _SliceTables(dataset.old.groups, dataset.old.weights, starts) if dataset.old else None
        self.seen = np.concatenate(
            [
                np.where(seen == NONE, NONE, seen + starts[id(case)])
                for case in cases
                for seen in [find_neighbors(np.arange(len(case.slices)), case.prepared.context_step, len(case.slices))]
            ],
            axis=1,
        )
        self.random = torch.Generator(device)

    def make_batch(self, number: int) -> list[Tensor]:
        """Draw batch `number` of a training and vary it: image ``(N, M, h, w)``, regions and known regions."""
        random = np.random.default_rng([self.plan.seed, number, 1])
        self.random.manual_seed(int(random.integers(2**62)))
        chosen = self._choose(number, random)
        cases = self.case_of_slice[chosen]
        shape = (len(chosen), len(self.plan.modalities))
        drawn = draw_variation(self.plan, shape, random)
        patch = np.array(self.plan.patch)
        spare = self.sizes[cases] - patch
        start = random.integers(np.minimum(spare, 0), np.maximum(spare, 0) + 1)
        present, mixture = self.present[cases], None
        if self.plan.tumor_mixing:
            mixture = draw_mixture(present, self.plan.tumor_mixing, random)
            present = present & present[mixture.donors]
        there = keep_modalities(present, self.plan.modality_dropout, random)
        seen_NS = self.seen[:, chosen].T
        shown_NS = seen_NS != NONE
        if seen_NS.shape[1] > 1:
            shown_NS[random.random(len(chosen)) < CONTEXT_DROPOUT, 1:] = False
        if mixture is not None:
            shown_NS = shown_NS & shown_NS[mixture.donors]
        on_card = _upload(
            {
                "seen": np.where(shown_NS, seen_NS, chosen[:, None]),
                "shown": shown_NS[:, :, None] & there[:, None, :],
                "middles": start + (patch - 1) / 2,
                "known": self.known[cases],
                **({"donors": mixture.donors} if mixture is not None else {}),
                **drawn.arrays(),
            },
            self.device,
        )
        index = on_card["seen"].long()
        grid = place(drawn, on_card, self.plan.patch, tuple(self.images_SMHW.shape[2:]))
        image = self.images_SMHW[index].flatten(1, 2).float()
        # The regions are those of the slice itself, the head is that of each slice seen.
        masks = torch.cat([self.masks_SKHW[index[:, 0], :-1], self.masks_SKHW[index, -1]], dim=1).float()
        image = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
        masks = functional.grid_sample(masks, grid, mode="nearest", align_corners=False) / 255
        count = len(self.plan.regions)
        regions, heads, known = masks[:, :count], masks[:, count:] > 0.5, on_card["known"] > 0
        if mixture is not None:
            donors, names = on_card["donors"].long(), self.plan.regions
            mixed = mix_tumors(image, regions, known, heads[:, 0], donors, mixture.margin_px, names)
            image, regions, known = mixed
        image = vary_intensities(image, drawn, on_card, self.random)
        shown = on_card["shown"] > 0
        image = (image.unflatten(1, shown.shape[1:]) * (heads[:, :, None] & shown[..., None, None])).flatten(1, 2)
        return [image, regions, known]

    def _choose(self, number: int, random: np.random.Generator) -> NDArray[np.intp]:
        """Return which slices make up a batch."""
        size = self.plan.batch_size
        chosen = self.new.draw(size, self.plan.tumor_share, random)
        if self.old is None:
            return chosen
        place = number * size + np.arange(size)
        is_old = np.floor((place + 1) * self.old_share) > np.floor(place * self.old_share)
        return np.where(is_old, self.old.draw(size, self.plan.tumor_share, random), chosen)


class _SliceTables:
    """What a pool of slices draws from, as tables: many are drawn at once."""

    def __init__(
        self,
        groups: Mapping[str, Sequence[tuple[Part, NDArray[np.intp]]]],
        weights: NDArray[np.float64],
        starts: Mapping[int, int],
    ) -> None:
        self.weights = weights
        members = [one for group in groups.values() for one in group]
        ends = np.cumsum([len(group) for group in groups.values()])
        self.groups = _NumberLists(np.split(np.arange(len(members)), ends[:-1]))
        self.all = _NumberLists([part.slices + starts[id(part.case)] for part, _ in members])
        self.with_tumor = _NumberLists([tumor + starts[id(part.case)] for part, tumor in members])

    def draw(self, size: int, tumor_share: float, random: np.random.Generator) -> NDArray[np.intp]:
        """Draw groups by their weights, a part of each evenly, then a slice of it, more often one with tumor."""
        parts = self.groups.draw(random.choice(len(self.weights), size, p=self.weights), random)
        wants_tumor = (random.random(size) < tumor_share) & (self.with_tumor.lengths[parts] > 0)
        tumor = self.with_tumor.draw(np.where(wants_tumor, parts, self.with_tumor.longest), random)
        return np.where(wants_tumor, tumor, self.all.draw(parts, random))


class _NumberLists:
    """Lists of numbers, one behind the other."""

    def __init__(self, lists: Sequence[NDArray[np.intp]]) -> None:
        self.lengths = np.array([len(one) for one in lists])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.longest = int(self.lengths.argmax())
        self.values = np.concatenate([*lists, np.zeros(1, np.intp)])  # never empty

    def draw(self, lists: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
        """Draw one number of each of these lists."""
        drawn: NDArray[np.intp] = self.values[
            self.starts[lists] + (random.random(len(lists)) * self.lengths[lists]).astype(np.intp)
        ]
        return drawn


def keep_modalities(present: NDArray[np.bool_], chance: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Blank, by chance, a random subset of the modalities of each slice, never all: `drop_modalities`, many at once."""
    count = present.sum(1)
    kept = random.integers(1, np.maximum(count, 2))
    order = np.where(present, random.random(present.shape), 2.0).argsort(1).argsort(1)
    drops = (count > 1) & (random.random(len(present)) < chance)
    result: NDArray[np.bool_] = np.where(drops[:, None], order < kept[:, None], present)
    return result


def _upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Bring many small arrays to a device in one copy, as float32."""
    flat = torch.from_numpy(np.concatenate([np.ravel(array) for array in arrays.values()]).astype(np.float32))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    pieces = flat.split([array.size for array in arrays.values()])
    return {name: piece.view(array.shape) for (name, array), piece in zip(arrays.items(), pieces, strict=True)}


def _cases_of(dataset: SliceDataset) -> list[TrainingCase]:
    pools = [dataset.new, *([dataset.old] if dataset.old else [])]
    parts = [part for pool in pools for group in pool.groups.values() for part, _ in group]
    return list({id(part.case): part.case for part in parts}.values())


def _canvas_of(cases: Sequence[TrainingCase]) -> tuple[int, int]:
    if not cases:
        raise DataError("No slice is left to learn from.")
    height, width = np.max([case.prepared.foreground.shape[1:] for case in cases], axis=0)
    return int(height), int(width)


def _count_bytes(dataset: SliceDataset) -> int:
    """Return what the slices take on a device, which stores all of them in the size of the largest."""
    cases = _cases_of(dataset)
    slices = sum(len(case.slices) for case in cases)
    return slices * math.prod(_canvas_of(cases)) * (2 * len(dataset.plan.modalities) + len(dataset.plan.regions) + 1)
