"""Cases on disk -> slices to train on: split by patient, prepared once, drawn and varied again and again."""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import (
    Compose,
    OneOf,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from numpy.typing import NDArray
from torch import Tensor

from napari_braintumor.engine.config import TrainPlan
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases, read_case, read_reference
from napari_braintumor.engine.registry import find_architecture
from napari_braintumor.engine.transforms import prepare, resize

TRAINING_MARGIN_VOX = 8
"""Working-grid voxels kept around the head in training: patches should show head, not air."""


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case with its reference on the network's working grid, kept small for the cache.

    Attributes
    ----------
    image
        float16 ``(M, z, y, x)``, z-scores, zero outside the head and where a modality is absent.
    regions
        bool ``(R, z, y, x)`` in the plan's order.
    head
        bool ``(z, y, x)``.
    present
        bool ``(M,)``: the modalities the case has.
    known
        bool ``(R,)``: the regions its annotation defines.
    """

    name: str
    patient: str
    group: str
    image: NDArray[np.float16]
    regions: NDArray[np.bool_]
    head: NDArray[np.bool_]
    present: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """The cases of a plan, no patient on both sides."""

    training: tuple[CaseFiles, ...]
    validation: tuple[CaseFiles, ...]

    @property
    def training_patients(self) -> tuple[str, ...]:
        """The patients training sees, sorted."""
        return tuple(sorted({case.patient for case in self.training}))

    @property
    def validation_patients(self) -> tuple[str, ...]:
        """The patients the best weights are chosen by, sorted."""
        return tuple(sorted({case.patient for case in self.validation}))


def split_cases(plan: TrainPlan) -> Split:
    """Find the plan's cases and split them by patient, leaving out those the plan holds out.

    Raises
    ------
    DataError
        If a named patient is not there, or one side would be empty.
    """
    cases = [case for folder in plan.cases for case in find_cases(folder) if case.reference]
    patients = sorted({case.patient for case in cases})
    named = plan.held_out + (plan.validation if isinstance(plan.validation, tuple) else ())
    if missing := sorted(set(named) - set(patients)):
        raise DataError(
            f"The plan names patients that are not among its cases: {', '.join(missing)}. Correct their names."
        )
    available = [patient for patient in patients if patient not in plan.held_out]
    if isinstance(plan.validation, tuple):
        chosen = set(plan.validation) - set(plan.held_out)
    else:
        count = max(1, round(plan.validation * len(available)))
        chosen = set(np.random.default_rng(plan.seed).permutation(available)[:count].tolist())
    training = tuple(case for case in cases if case.patient in available and case.patient not in chosen)
    validation = tuple(case for case in cases if case.patient in chosen)
    if not training or not validation:
        raise DataError(
            f"{len(patients)} patients with a reference mask were found, which leaves {len(training)} cases for "
            f"training and {len(validation)} for validation. Training needs at least one patient on each side."
        )
    return Split(training, validation)


def load_training_case(case: CaseFiles, plan: TrainPlan) -> TrainingCase:
    """Read a case and its reference and prepare both for the plan's network.

    Raises
    ------
    DataError
        If the files cannot be used.
    """
    volume = read_case(case)
    reference = read_reference(case)
    if reference is None:
        raise DataError(f"'{case.name}' has no reference mask, so it cannot be trained on. Add one, or leave it out.")
    divisor = find_architecture(plan.architecture).divisor
    prepared = prepare(volume, plan.modalities, plan.spacing, divisor, margin_vox=TRAINING_MARGIN_VOX)
    regions = np.zeros((len(plan.regions), *prepared.head.shape), bool)
    known = np.array([name in reference.regions for name in plan.regions])
    for index, name in enumerate(plan.regions):
        if known[index]:
            mask = torch.from_numpy(reference.regions[name].astype(np.float32))[None]
            regions[index] = prepared.crop(resize(mask, prepared.frame).numpy())[0] >= 0.5
    return TrainingCase(
        case.name,
        case.patient,
        case.group,
        prepared.data.astype(np.float16),
        regions,
        prepared.head,
        prepared.present,
        known,
    )


class DropModalitiesd:
    """Blank a random subset of the modalities that are there, never all of them.

    Reads and writes ``image`` ``(M, H, W)``; reads ``present`` ``(M,)``.
    """

    def __init__(self, chance: float, random: np.random.Generator) -> None:
        self.chance = chance
        self.random = random

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the item with some modalities set to zero."""
        there = np.flatnonzero(data["present"])
        if len(there) > 1 and self.random.random() < self.chance:
            kept = self.random.permutation(there)[: self.random.integers(1, len(there))]
            dropped = np.setdiff1d(there, kept)
            data["image"][dropped] = 0
        return data


def build_augmentation(plan: TrainPlan) -> Compose:
    """Return the plan's random variation of one slice: a dictionary of ``image`` (M, H, W) and ``masks`` (R + 1, H, W).

    Image and masks always move together; masks are moved without blending. The last mask is the head.
    """
    keys, modes = ["image", "masks"], ["bilinear", "nearest"]
    affine = {"rotate_range": np.pi / 8, "scale_range": (0.2, 0.2), "translate_range": (6, 6), "padding_mode": "zeros"}
    steps: list[Any] = []
    if plan.augmentation != "none":
        steps += [RandFlipd(keys, prob=0.5, spatial_axis=1), RandAffined(keys, prob=0.8, mode=modes, **affine)]
    if plan.augmentation == "full":
        # 10-pixel displacements at the nodes of a coarse grid, bicubic in between (Ronneberger et al. 2015).
        elastic = Rand2DElasticd(keys, spacing=(32, 32), magnitude_range=(0, 5), prob=1.0, mode=modes, **affine)
        steps[-1] = OneOf([steps[-1], elastic], weights=[0.75, 0.25])
    if plan.augmentation != "none":
        steps += [
            RandScaleIntensityd("image", factors=0.2, prob=0.5, channel_wise=True),
            RandShiftIntensityd("image", offsets=0.3, prob=0.5, channel_wise=True),
        ]
    if plan.augmentation == "full":
        steps += [
            RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.3, retain_stats=True),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), prob=0.15),
            RandGaussianNoised("image", std=0.15, prob=0.2),
        ]
    return Compose(steps).set_random_state(plan.seed)


class SliceSampler:
    """An endless, repeatable stream of training batches.

    Groups of cases are drawn by their weights, a case of the group evenly, then a slice of it, more often one with
    tumor; the slice is cut to the plan's patch, varied, and some of its modalities are blanked.

    Parameters
    ----------
    cases
        Prepared training cases.
    plan
        The plan's patch, shares, weights, augmentation, batch size and seed are used.
    """

    def __init__(self, cases: Sequence[TrainingCase], plan: TrainPlan) -> None:
        self.plan = plan
        self.random = np.random.default_rng(plan.seed)
        self.groups: dict[str, list[TrainingCase]] = {}
        for case in cases:
            self.groups.setdefault(case.group, []).append(case)
        weights = np.array([plan.group_weights.get(name, 1.0) for name in self.groups])
        if weights.sum() == 0:
            raise DataError("Every group of cases has the weight 0 in the plan. Give at least one a weight above 0.")
        self.weights = weights / weights.sum()
        self.tumor_slices = {case.name: np.flatnonzero(case.regions.any((0, 2, 3))) for case in cases}
        self.augment = build_augmentation(plan)
        self.drop = DropModalitiesd(plan.modality_dropout, self.random)

    def draw_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch: image ``(N, M, H, W)``, regions ``(N, R, H, W)`` as 0 and 1, known regions ``(N, R)``."""
        items = [self._draw_slice() for _ in range(self.plan.batch_size)]
        images, regions, known = zip(*items, strict=True)
        return torch.stack(images), torch.stack(regions), torch.from_numpy(np.stack(known))

    def _draw_slice(self) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        group = list(self.groups.values())[self.random.choice(len(self.groups), p=self.weights)]
        case = group[self.random.integers(len(group))]
        with_tumor = self.tumor_slices[case.name]
        if len(with_tumor) and self.random.random() < self.plan.tumor_share:
            z = int(with_tumor[self.random.integers(len(with_tumor))])
        else:
            z = int(self.random.integers(case.image.shape[1]))
        masks = np.concatenate([case.regions[:, z], case.head[None, z]])
        stacked = self._cut_patch(np.concatenate([case.image[:, z].astype(np.float32), masks.astype(np.float32)]))
        modalities = case.image.shape[0]
        item: dict[str, Any] = {
            "image": torch.from_numpy(stacked[:modalities]),
            "masks": torch.from_numpy(stacked[modalities:]),
            "present": case.present,
        }
        item = self.augment(item)
        image, moved = plain_tensor(item["image"]), plain_tensor(item["masks"])
        image = image * (moved[-1:] > 0.5) * torch.from_numpy(case.present)[:, None, None]
        item = self.drop({"image": image, "present": case.present})
        return item["image"], (moved[:-1] > 0.5).float(), case.known

    def _cut_patch(self, array_CYX: NDArray[np.float32]) -> NDArray[np.float32]:
        patch = np.zeros((array_CYX.shape[0], *self.plan.patch), np.float32)
        source: list[slice] = []
        target: list[slice] = []
        for have, want in zip(array_CYX.shape[1:], self.plan.patch, strict=True):
            spare = have - want
            start = int(self.random.integers(min(spare, 0), max(spare, 0) + 1))
            source.append(slice(max(start, 0), min(start + want, have)))
            target.append(slice(max(-start, 0), max(-start, 0) + source[-1].stop - source[-1].start))
        patch[:, target[0], target[1]] = array_CYX[:, source[0], source[1]]
        return patch


def plain_tensor(array: NdarrayOrTensor) -> Tensor:
    """Strip what MONAI's transforms wrap around a tensor."""
    return torch.as_tensor(array).as_subclass(Tensor).to(torch.float32)


def count_groups(cases: Sequence[TrainingCase]) -> Mapping[str, int]:
    """Return how many patients each group has."""
    patients: dict[str, set[str]] = {}
    for case in cases:
        patients.setdefault(case.group, set()).add(case.patient)
    return {name: len(members) for name, members in patients.items()}
