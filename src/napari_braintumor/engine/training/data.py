"""Cases on disk -> batches of slices: prepared once, kept within a bound of memory, drawn and varied again and again.

What is drawn depends on the plan's seed and the number of the slice alone, never on what was drawn before. So a run
that was killed goes on exactly, workers may prepare batches in any order, and each of several processes draws its own
part.
"""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseLeftOut, Noted, PhaseReached
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.patients import WhoIsWho
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.preparing.transforms import prepare, resize
from napari_braintumor.engine.training.augmentation import build_augmentation, vary
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.prepared import TrainingCase, find_archived, is_archive, read_archived
from napari_braintumor.engine.training.splits import (
    Split,
    check_names,
    check_tuning,
    know_patients,
    split_patients,
    split_slices,
)

TRAINING_MARGIN_VOX = 8
"""Working-grid voxels kept around the head in training: patches should show head, not air."""


class _UnsuitedError(DataError):
    """A case is as it should be, but not what a plan wants."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some slices of a case: what one side of a split has of it."""

    case: TrainingCase
    slices: NDArray[np.intp]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is judged by.

    Attributes
    ----------
    training, validation
        The two sides of the split.
    replay
        Cases that the parent of a tuned model knew, to draw from.
    replay_judged
        Such cases that are not drawn from, to measure what is forgotten.
    split
        The patients on each side.
    who
        Who is who.
    """

    training: tuple[Part, ...]
    validation: tuple[Part, ...]
    replay: tuple[Part, ...]
    replay_judged: tuple[Part, ...]
    split: Split
    who: WhoIsWho

    @cached_property
    def shows_tumor(self) -> bool:
        """Whether the validation side holds any tumor: without it, a network that finds nothing looks perfect."""
        return any(
            bool((np.asarray(part.case.regions)[part.case.known][:, part.slices] > 0.5).any())
            for part in self.validation
        )

    @property
    def megabytes(self) -> float:
        """What is held in memory."""
        parts = (*self.training, *self.validation, *self.replay, *self.replay_judged)
        cases = {id(part.case): part.case for part in parts}
        return sum(c.nbytes for c in cases.values() if not isinstance(c.prepared.data, np.memmap)) / 1e6

    def describe(self) -> dict[str, Any]:
        """Return who is on which side, as JSON; slices are numbered on the case's own grid, None stands for all."""

        def side(parts: Sequence[Part]) -> dict[str, Any]:
            return {
                part.case.name: None
                if len(part.slices) == len(part.case.slices)
                else part.case.slices[part.slices].tolist()
                for part in parts
            }

        return {
            "by": "slice" if self.split.by_slice else "patient",
            "training_patients": list(self.split.training),
            "validation_patients": list(self.split.validation),
            "training": side(self.training),
            "validation": side(self.validation),
            "replay": side(self.replay),
            "replay_judged": side(self.replay_judged),
        }


def load_data(plan: TrainPlan, cache_folder: Path) -> Iterator[Noted | PhaseReached | TrainingData]:
    """Find, read and prepare the cases of a plan; those that cannot be used are left out, and said to be.

    Parameters
    ----------
    plan
        Which cases, and how they are split.
    cache_folder
        Takes the cases that exceed the plan's memory.

    Yields
    ------
    Noted, PhaseReached or TrainingData
        What happens while cases are read, and the data at the end.

    Raises
    ------
    DataError
        If the plan's names do not fit the cases, too little is left to train on, or a case cannot be cached.
    """
    everything = [case for path in plan.cases for case in (find_archived if is_archive(path) else find_cases)(path)]
    names = [case.name for case in everything]
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"'{twins[0]}' was found in more than one of the plan's folders. Expected every case once. "
            "Take one of the folders out of the plan, or rename the case."
        )
    of_parent = [case for folder in plan.fine_tuning.replay for case in find_cases(folder)] if plan.fine_tuning else []
    who = know_patients((*of_parent, *everything), plan)
    yield from (Noted(text) for text in check_names(plan, who))
    held_out = who.find(plan.held_out)
    found = [case for case in everything if who.patient_of(case.name) not in held_out]
    if strange := sorted(set(plan.group_weights) - {case.group for case in found}):
        yield Noted(f"The plan weighs groups that have no cases here: {', '.join(strange)}.")
    room = _Room(plan.cache_gb * 1e9, cache_folder)
    cases: list[TrainingCase] = []
    reasons: list[str] = []
    for event in _prepare_all(found, plan, who, room, "preparing"):
        if isinstance(event, TrainingCase):
            cases.append(event)
            continue
        if isinstance(event, CaseLeftOut):
            reasons.append(event.text)
        yield event
    if not cases:
        raise DataError(
            f"None of the {len(found)} cases found can be trained on. The first: "
            f"{reasons[0] if reasons else 'all of them are held out.'}"
        )
    usable = {case.name for case in cases}
    split = split_patients([case for case in found if case.name in usable], plan, who)
    training, validation = _divide(cases, split, plan, who)
    if not training:
        raise DataError("No slice is left to learn from. Mark more slices as reviewed, or mark none to use all.")
    if plan.fine_tuning is not None:
        check_tuning(*(sum(len(part.slices) for part in side) for side in (training, validation)))
    replay: list[Part] = []
    taken = {*split.training, *split.validation, *held_out}
    old = [case for case in of_parent if who.patient_of(case.name) not in taken]
    if of_parent and not old:
        yield Noted("All cases of the replay set are of patients that are learned from, validated on or held out.")
    for event in _prepare_all(old, plan, who, room, "preparing the replay set:"):
        if isinstance(event, TrainingCase):
            replay.append(Part(event, event.counted))
        else:
            yield event
    # Of a single case both uses must be made.
    drawn, measured = (replay[::2], replay[1::2]) if len(replay) > 1 else (replay, replay)
    if plan.fine_tuning is not None:
        measured = _spread(measured, plan.fine_tuning.replay_cases)
    yield TrainingData(training, validation, tuple(drawn), tuple(measured), split, who)


def _prepare_all(
    files: Sequence[CaseFiles], plan: TrainPlan, who: WhoIsWho, room: _Room, doing: str
) -> Iterator[TrainingCase | Noted | PhaseReached]:
    """Read and prepare cases one by one; those that cannot be read cost only themselves."""
    phase = f"{doing} {len(files)} case{'s' * (len(files) != 1)}"
    for number, case in enumerate(files):
        yield PhaseReached(phase, number, len(files))
        try:
            loaded = load_training_case(case, plan)
        except DataError as error:
            damaged = not isinstance(error, _UnsuitedError)
            yield CaseLeftOut(f"{case.name} is left out: {error}", case.name, damaged)
            continue
        yield from (Noted(f"{case.name}: {note}") for note in loaded.notes)
        yield room.keep(replace(loaded, patient=who.patient_of(case.name)), case)


def _divide(
    cases: Sequence[TrainingCase], split: Split, plan: TrainPlan, who: WhoIsWho
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return what there is to learn from and to judge by."""
    training: list[Part] = []
    validation: list[Part] = []
    only_learned = who.find(plan.training)
    lone = 0
    for one in cases:
        if not split.by_slice:
            (training if one.patient in split.training else validation).append(Part(one, one.counted))
        elif one.patient in only_learned:
            training.append(Part(one, one.counted))
        else:
            learned, judged = split_slices(one.counted, plan, one.name, lone)
            lone += len(one.counted) == 1
            training.append(Part(one, learned))
            validation.append(Part(one, judged))
    return tuple(p for p in training if len(p.slices)), tuple(p for p in validation if len(p.slices))


def load_training_case(case: CaseFiles, plan: TrainPlan) -> TrainingCase:
    """Read a case and its reference and prepare both for the plan's network.

    Raises
    ------
    DataError
        If the files cannot be used, or none of the plan's modalities or regions is there.
    """
    if case.problem is not None:
        raise DataError(case.problem)
    if case.reference and is_archive(case.reference[0]):
        return read_archived(case, plan)
    if not case.reference:
        raise _UnsuitedError(
            f"'{case.name}' has no reference mask, so it cannot be trained on. Add one, or leave it out."
        )
    has = tuple(image.modality for image in case.images)
    if not set(has) & set(plan.modalities):
        raise _UnsuitedError(
            f"'{case.name}' has {', '.join(has)}, but the plan wants {', '.join(plan.modalities)}. "
            "At least one must be there."
        )
    volume = read_case(case)
    reference = read_reference(case)
    assert reference is not None
    known = np.array([name in reference.regions for name in plan.regions])
    if not known.any():
        raise _UnsuitedError(
            f"The mask of '{case.name}' defines {', '.join(reference.regions)}, but the plan wants "
            f"{', '.join(plan.regions)}. At least one must be there."
        )
    divisor = find_architecture(plan.architecture).divisor
    prepared = prepare(volume, plan.modalities, plan.spacing, divisor, margin_vox=TRAINING_MARGIN_VOX)
    regions = np.zeros((len(plan.regions), *prepared.head.shape), bool)
    for index, name in enumerate(plan.regions):
        if known[index]:
            mask = torch.from_numpy(reference.regions[name].astype(np.float32))[None]
            regions[index] = prepared.crop(resize(mask, prepared.frame).numpy())[0] >= 0.5
    inside = np.arange(prepared.box[0].start, prepared.box[0].stop)
    slices = ((inside + 0.5) * volume.shape[0] / prepared.frame[0]).astype(np.intp)
    counted = np.arange(len(slices), dtype=np.intp)
    if case.reviewed is not None:
        counted = np.flatnonzero(np.isin(slices, case.reviewed))
    if not len(counted):
        raise _UnsuitedError(
            f"None of the slices of '{case.name}' that were marked as reviewed shows the head. Mark others."
        )
    half = replace(prepared, data=prepared.data.astype(np.float16))
    notes = tuple(dict.fromkeys((*case.notes, *volume.notes, *reference.notes)))
    return TrainingCase(case.name, case.patient, case.group, half, regions, known, slices, counted, notes)


def distilled(part: Part, probabilities_RZHW: NDArray[np.float16]) -> Part | None:
    """Return the slices of a case that nobody reviewed, with a model's probabilities as their target.

    None where every slice was reviewed.
    """
    case = part.case
    rest = np.setdiff1d(np.arange(len(case.slices), dtype=np.intp), case.counted)
    if not len(rest):
        return None
    return Part(replace(case, regions=probabilities_RZHW, known=np.ones_like(case.known)), rest)


def _spread(parts: Sequence[Part], count: int) -> list[Part]:
    """Return so many of a list, evenly spread over it."""
    if len(parts) <= count:
        return list(parts)
    return [parts[round(index)] for index in np.linspace(0, len(parts) - 1, count)]


class _Room:
    """Keeps cases in memory up to a bound, and those beyond it in files that the system maps as it needs them."""

    def __init__(self, limit_bytes: float, folder: Path) -> None:
        self.left = limit_bytes
        self.folder = folder

    def keep(self, case: TrainingCase, files: CaseFiles) -> TrainingCase:
        self.left -= case.nbytes
        if self.left >= 0:
            return case
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data, head, regions = (
                self._map(f"{_identify(files)}-{what}.npy", array)
                for what, array in (
                    ("image", case.prepared.data),
                    ("head", case.prepared.head),
                    ("regions", case.regions),
                )
            )
        except (OSError, DataError) as error:
            raise DataError(
                f"'{case.name}' cannot be cached in '{self.folder}': {error}. Make room there, or raise cache_gb."
            ) from error
        return replace(case, prepared=replace(case.prepared, data=data, head=head), regions=regions)

    def _map(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        path = self.folder / name
        with replacing(path) as temporary:  # another process may have mapped the one before
            np.save(temporary, array)
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped


def _identify(case: CaseFiles) -> str:
    """Return what no two cases share and what every file system can hold, whatever they are called."""
    paths = [*(path for image in case.images for path in image.paths), *case.reference]
    told = "\0".join((case.group, case.name, *(str(path.absolute()) for path in paths)))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class SliceDataset(Dataset[Any]):
    """Slice number n of a training, drawn and varied from the plan's seed and n alone.

    Groups of cases are drawn by their weights, a case of the group evenly, then a slice of it, more often one with
    tumor; the slice is cut to the plan's patch, varied, and some of its modalities are blanked. Where there is old
    knowledge to hold on to, a share of the numbers, evenly spread, draws from it instead.

    Parameters
    ----------
    new
        What is to be learned.
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
        """Return image ``(M, H, W)``, regions ``(R, H, W)`` from 0 to 1 and known regions ``(R,)``."""
        random = np.random.default_rng([self.plan.seed, number])
        is_old = int((number + 1) * self.old_share) > int(number * self.old_share)
        part, z = (self.old if self.old and is_old else self.new).draw(random)
        case = part.case
        planes = (case.prepared.data[:, z], case.regions[:, z], case.prepared.head[None, z])
        stacked = torch.from_numpy(cut_patch(planes, self.plan.patch, random))
        modalities = len(case.prepared.present)
        with _one_thread():
            item = {"image": stacked[:modalities], "masks": stacked[modalities:]}
            item = vary(self.augment, item, int(random.integers(2**31)))
            image, masks = item["image"], item["masks"]
            present = torch.from_numpy(drop_modalities(case.prepared.present, self.plan.modality_dropout, random))
            image = image * ((masks[-1:] > 0.5) & present[:, None, None])
        return image, masks[:-1].clamp(0, 1), torch.from_numpy(case.known)


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
        wanted = with_tumor if len(with_tumor) and random.random() < self.tumor_share else part.slices
        return part, int(wanted[random.integers(len(wanted))])


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
    with _one_thread():
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
    """
    cut = np.zeros((sum(map(len, planes)), *patch), np.float32)
    source: list[slice] = []
    target: list[slice] = []
    for have, want in zip(planes[0].shape[1:], patch, strict=True):
        spare = have - want
        start = int(random.integers(min(spare, 0), max(spare, 0) + 1))
        source.append(slice(max(start, 0), min(start + want, have)))
        target.append(slice(max(-start, 0), max(-start, 0) + source[-1].stop - source[-1].start))
    first = 0
    for plane in planes:
        cut[first : first + len(plane), target[0], target[1]] = plane[:, source[0], source[1]]
        first += len(plane)
    return cut


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from dividing small operations among threads: waiting for a busy core takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def count_groups(parts: Sequence[Part]) -> Mapping[str, int]:
    """Return how many patients each group has."""
    patients: dict[str, set[str]] = {}
    for part in parts:
        patients.setdefault(part.case.group, set()).add(part.case.patient)
    return {name: len(members) for name, members in patients.items()}
