"""Batches drawn and varied on the GPU: all slices lie on the card, and a whole batch moves in one interpolation.

The distributions are those of `SliceDataset` and `build_augmentation`, the draws are others: they depend on the plan's
seed and the step. Patches are cut and moved at once, so what a rotation brings in at a patch's border is the head
beside it and not zeros. On a CPU this would be slower; there everything stays with `SliceDataset`, bit by bit.
"""

# N batch, M modality, R region, K mask (the regions and the head), S slice, H height, W width; h, w of a patch

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.training import augmentation
from napari_braintumor.engine.training.data import Part, SliceDataset
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.prepared import TrainingCase

MOST_SHARE = 0.25
"""Share of a card's free memory that slices may take; larger sets are prepared by processes instead."""

SMOOTHING_REACH = 4
"""Pixels: four deviations of the widest smoothing."""

BIAS_DEGREE = 3


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
        What is drawn from.
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
        What is drawn from, and by which plan.
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
        self.sizes = np.array([case.prepared.head.shape[1:] for case in cases])
        self.present = np.array([case.prepared.present for case in cases])
        self.known = np.array([case.known for case in cases])
        first = 0
        starts: dict[int, int] = {}
        for case in cases:
            starts[id(case)] = first
            part = slice(first, first := first + len(case.slices))
            y, x = case.prepared.head.shape[1:]
            shares_KSHW = np.concatenate([case.regions, case.prepared.head[None]], dtype=np.float32, casting="unsafe")
            image = torch.from_numpy(np.ascontiguousarray(case.prepared.data)).transpose(0, 1)
            mask = torch.from_numpy(np.rint(shares_KSHW * 255).astype(np.uint8)).transpose(0, 1)
            self.images_SMHW[part, :, :y, :x] = image.to(device)
            self.masks_SKHW[part, :, :y, :x] = mask.to(device)
        self.new = _Tables(dataset.new.groups, dataset.new.weights, starts)
        self.old = _Tables(dataset.old.groups, dataset.old.weights, starts) if dataset.old else None
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
        there = keep_modalities(self.present[cases], self.plan.modality_dropout, random)
        on_card = _upload(
            {
                "chosen": chosen,
                "middles": start + (patch - 1) / 2,
                "there": there,
                "known": self.known[cases],
                **drawn.arrays(),
            },
            self.device,
        )
        index = on_card["chosen"].long()
        grid = place(drawn, on_card, self.plan.patch, tuple(self.images_SMHW.shape[2:]))
        image = self.images_SMHW[index].float()
        masks = self.masks_SKHW[index].float()
        image = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
        masks = functional.grid_sample(masks, grid, mode="nearest", align_corners=False) / 255
        image = vary_intensities(image, drawn, on_card, self.random)
        image = image * ((masks[:, -1:] > 0.5) & (on_card["there"] > 0)[:, :, None, None])
        return [image, masks[:, :-1], on_card["known"] > 0]

    def _choose(self, number: int, random: np.random.Generator) -> NDArray[np.intp]:
        """Return which slices make up a batch."""
        size = self.plan.batch_size
        chosen = self.new.draw(size, self.plan.tumor_share, random)
        if self.old is None:
            return chosen
        place = number * size + np.arange(size)
        is_old = np.floor((place + 1) * self.old_share) > np.floor(place * self.old_share)
        return np.where(is_old, self.old.draw(size, self.plan.tumor_share, random), chosen)


class _Tables:
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
        self.groups = _Lists(np.split(np.arange(len(members)), ends[:-1]))
        self.all = _Lists([part.slices + starts[id(part.case)] for part, _ in members])
        self.with_tumor = _Lists([tumor + starts[id(part.case)] for part, tumor in members])

    def draw(self, size: int, tumor_share: float, random: np.random.Generator) -> NDArray[np.intp]:
        """Draw groups by their weights, a part of each evenly, then a slice of it, more often one with tumor."""
        parts = self.groups.draw(random.choice(len(self.weights), size, p=self.weights), random)
        wants_tumor = (random.random(size) < tumor_share) & (self.with_tumor.lengths[parts] > 0)
        tumor = self.with_tumor.draw(np.where(wants_tumor, parts, self.with_tumor.longest), random)
        return np.where(wants_tumor, tumor, self.all.draw(parts, random))


class _Lists:
    """Lists of numbers, one behind the other."""

    def __init__(self, lists: Sequence[NDArray[np.intp]]) -> None:
        self.lengths = np.array([len(one) for one in lists])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.longest = int(self.lengths.argmax())
        self.values = np.concatenate([*lists, np.zeros(1, np.intp)])  # never empty

    def draw(self, which: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
        """Draw one number of each of these lists."""
        drawn: NDArray[np.intp] = self.values[
            self.starts[which] + (random.random(len(which)) * self.lengths[which]).astype(np.intp)
        ]
        return drawn


@dataclass(frozen=True)
class Variation:
    """What was drawn to vary a batch; lists of members are empty where a step does not touch it.

    Attributes
    ----------
    affine
        ``(N, 2, 3)``: where a pixel's value comes from, pixels along Y and X from the patch's middle.
    deformed, nodes
        Who is deformed, and displacements at the nodes of a coarse grid, ``(n, 2, y, x)``.
    scale, shift
        ``(N, M)``.
    contrast, gamma
        Who gets another gamma, and which.
    biased, coefficients
        Who gets a bias field, and its polynomial, ``(n, 10)``.
    smoothed, sigma
        Who is smoothed, by deviations along Y and X, ``(n, 2)``.
    coarsened, zooms
        Whose resolution falls, and to which share.
    noisy, noise
        Who gets noise, and of which deviation.
    """

    affine: NDArray[np.float64]
    deformed: NDArray[np.intp]
    nodes: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    contrast: NDArray[np.intp]
    gamma: NDArray[np.float64]
    biased: NDArray[np.intp]
    coefficients: NDArray[np.float64]
    smoothed: NDArray[np.intp]
    sigma: NDArray[np.float64]
    coarsened: NDArray[np.intp]
    zooms: NDArray[np.float64]
    noisy: NDArray[np.intp]
    noise: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was drawn, by name."""
        return vars(self)


def draw_variation(plan: TrainPlan, shape: tuple[int, int], random: np.random.Generator) -> Variation:
    """Draw how a batch is varied, with the chances and ranges of `build_augmentation`.

    Parameters
    ----------
    plan
        Its augmentation and patch are used.
    shape
        Slices in the batch, and modalities.
    random
        Draws.
    """
    size = shape[0]
    varies, fully = plan.augmentation != "none", plan.augmentation == "full"

    def some(chance: float) -> NDArray[np.intp]:
        return np.flatnonzero(random.random(size) < chance)

    deformed = some(augmentation.DEFORMED_SHARE if fully and plan.elastic_px > 0 else 0.0)
    moves = random.random(size) < (augmentation.MOVED_SHARE if varies else 0.0)
    moves[deformed] = True
    angle = np.where(moves, random.uniform(-augmentation.ROTATION, augmentation.ROTATION, size), 0.0)
    zoom = np.where(moves[:, None], random.uniform(1 - augmentation.ZOOM, 1 + augmentation.ZOOM, (size, 2)), 1.0)
    shift = np.where(moves[:, None], random.uniform(-augmentation.SHIFT_PX, augmentation.SHIFT_PX, (size, 2)), 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    affine = np.concatenate([rotation * zoom[:, None, :], (rotation @ shift[:, :, None])], axis=2)
    affine[random.random(size) < (0.5 if varies else 0.0), 1] *= -1  # mirrored left and right
    scaled, shifted = (random.random((size, 1)) < (0.5 if varies else 0.0) for _ in range(2))
    contrast, biased, smoothed, coarsened, noisy = (
        some(chance if fully else 0.0) for chance in (0.25, 0.15, 0.15, 0.1, 0.2)
    )
    y, x = (augmentation.cubic_weights(side).shape[1] for side in plan.patch)
    return Variation(
        affine=affine,
        deformed=deformed,
        nodes=random.normal(0, plan.elastic_px, (len(deformed), 2, y, x)),
        scale=np.where(scaled, random.uniform(0.8, 1.2, shape), 1.0),
        shift=np.where(shifted, random.uniform(-0.3, 0.3, shape), 0.0),
        contrast=contrast,
        gamma=random.uniform(0.7, 1.5, len(contrast)),
        biased=biased,
        coefficients=random.uniform(0.0, 0.1, (len(biased), (BIAS_DEGREE + 1) * (BIAS_DEGREE + 2) // 2)),
        smoothed=smoothed,
        sigma=random.uniform(0.3, 1.0, (len(smoothed), 2)),
        coarsened=coarsened,
        zooms=random.uniform(0.5, 1.0, len(coarsened)),
        noisy=noisy,
        noise=random.uniform(0.0, 0.15, len(noisy)),
    )


def place(drawn: Variation, on_card: Mapping[str, Tensor], patch: tuple[int, int], canvas: tuple[int, ...]) -> Tensor:
    """Return where the pixels of patches lie in their slices, as `grid_sample` wants it: ``(N, h, w, 2)``.

    Parameters
    ----------
    drawn
        How the batch is varied.
    on_card
        The same on the device, and ``middles`` ``(N, 2)``, where patches lie: pixels along Y and X.
    patch
        Its size.
    canvas
        The size that slices are stored in.
    """
    affine, device = on_card["affine"], on_card["affine"].device
    places = _places(patch, device).expand(len(affine), -1, -1, -1)
    if len(drawn.deformed):
        y, x = (_cubic_weights(side, device) for side in patch)
        places = places.index_add(0, on_card["deformed"].long(), y @ on_card["nodes"] @ x.T)
    moved = torch.baddbmm(affine[:, :, 2:], affine[:, :, :2], places.flatten(2)).unflatten(2, patch)
    pixels = moved + on_card["middles"][:, :, None, None]
    height, width = canvas
    return torch.stack([(2 * pixels[:, 1] + 1) / width - 1, (2 * pixels[:, 0] + 1) / height - 1], dim=-1)


def vary_intensities(
    image_NMHW: Tensor, drawn: Variation, on_card: Mapping[str, Tensor], random: torch.Generator
) -> Tensor:
    """Vary the z-scores of a batch, step by step as `build_augmentation` lists them.

    Parameters
    ----------
    image_NMHW
        Patches; may be changed.
    drawn
        How they are varied.
    on_card
        The same on the device.
    random
        Draws the noise.
    """
    image = image_NMHW * on_card["scale"][:, :, None, None] + on_card["shift"][:, :, None, None]

    def those(name: str) -> Tensor:
        return on_card[name].long()

    if len(drawn.contrast):
        image[those("contrast")] = _change_contrast(image[those("contrast")], on_card["gamma"])
    if len(drawn.biased):
        height, width = image.shape[2:]
        basis = _bias_basis(height, width, image.device)
        field = torch.einsum("nb,bhw->nhw", on_card["coefficients"], basis)
        image[those("biased")] = image[those("biased")] * field.exp()[:, None]
    if len(drawn.smoothed):
        image[those("smoothed")] = _smooth(image[those("smoothed")], on_card["sigma"])
    for member, zoom in zip(drawn.coarsened, drawn.zooms, strict=True):
        image[member] = _coarsen(image[member], float(zoom))
    if len(drawn.noisy):
        some = image[those("noisy")]
        noise = torch.randn(some.shape, generator=random, device=some.device)
        image[those("noisy")] = some + noise * on_card["noise"][:, None, None, None]
    return image


def keep_modalities(present: NDArray[np.bool_], chance: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Blank, by chance, a random subset of the modalities of each slice, never all: `drop_modalities`, many at once."""
    count = present.sum(1)
    kept = random.integers(1, np.maximum(count, 2))
    order = np.where(present, random.random(present.shape), 2.0).argsort(1).argsort(1)
    drops = (count > 1) & (random.random(len(present)) < chance)
    result: NDArray[np.bool_] = np.where(drops[:, None], order < kept[:, None], present)
    return result


def _change_contrast(image_NMHW: Tensor, gamma_N: Tensor) -> Tensor:
    """Apply a gamma to each slice and give it back its mean and deviation."""
    flat = image_NMHW.flatten(1)
    least, most = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    curved = ((flat - least) / (most - least + 1e-7)) ** gamma_N[:, None] * (most - least) + least
    deviation, mean = torch.std_mean(flat, 1, keepdim=True)
    own_deviation, own_mean = torch.std_mean(curved, 1, keepdim=True)
    changed: Tensor = (curved - own_mean) / (own_deviation + 1e-8) * deviation + mean
    return changed.view_as(image_NMHW)


def _smooth(image_NMHW: Tensor, sigma_N2: Tensor) -> Tensor:
    """Smooth each slice by its own Gaussian, zeros around."""
    count, modalities = image_NMHW.shape[:2]
    reach = torch.arange(-SMOOTHING_REACH, SMOOTHING_REACH + 1, device=image_NMHW.device, dtype=torch.float32)
    scale = 1 / (math.sqrt(2) * sigma_N2[..., None])
    kernels = 0.5 * (((reach + 0.5) * scale).erf() - ((reach - 0.5) * scale).erf())
    kernels_CT = kernels.repeat_interleave(modalities, 0)
    one = image_NMHW.flatten(0, 1)[None]
    groups = count * modalities
    one = functional.conv2d(one, kernels_CT[:, 0, None, :, None], padding=(SMOOTHING_REACH, 0), groups=groups)
    one = functional.conv2d(one, kernels_CT[:, 1, None, None, :], padding=(0, SMOOTHING_REACH), groups=groups)
    smoothed: Tensor = one[0].unflatten(0, (count, modalities))
    return smoothed


def _coarsen(image_MHW: Tensor, zoom: float) -> Tensor:
    """Bring a slice to a coarser grid and back."""
    size = image_MHW.shape[1:]
    coarse = functional.interpolate(image_MHW[None], [max(1, round(side * zoom)) for side in size], mode="area")
    return functional.interpolate(coarse, size, mode="bilinear", align_corners=False)[0]


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
    height, width = np.max([case.prepared.head.shape[1:] for case in cases], axis=0)
    return int(height), int(width)


def _count_bytes(dataset: SliceDataset) -> int:
    """Return what the slices take on a device, which stores all of them in the size of the largest."""
    cases = _cases_of(dataset)
    slices = sum(len(case.slices) for case in cases)
    return slices * math.prod(_canvas_of(cases)) * (2 * len(dataset.plan.modalities) + len(dataset.plan.regions) + 1)


@cache
def _places(patch: tuple[int, int], device: torch.device) -> Tensor:
    return augmentation.places_in(patch).to(device)


@cache
def _cubic_weights(side: int, device: torch.device) -> Tensor:
    return augmentation.cubic_weights(side).to(device)


@cache
def _bias_basis(height: int, width: int, device: torch.device) -> Tensor:
    """Return products of Legendre polynomials along Y and X up to a degree: ``(10, h, w)``."""
    y, x = (
        np.polynomial.legendre.legvander(np.linspace(-1, 1, side), BIAS_DEGREE).astype(np.float32)
        for side in (height, width)
    )
    rows, columns = np.tril_indices(BIAS_DEGREE + 1)
    return torch.from_numpy(np.ascontiguousarray(y.T[rows][:, :, None] * x.T[columns][:, None])).to(device)
