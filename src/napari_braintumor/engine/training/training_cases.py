"""The cases of a training: found, read, prepared once, and split into those to learn from and those to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseLeftOut, Noted, PhaseReached
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.patients import WhoIsWho
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.inspecting.skull import see_skull
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.preparing.prepare import prepare
from napari_braintumor.engine.preparing.working_grid import resize
from napari_braintumor.engine.training.case_cache import CaseCache
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

    def can_choose(self, plan: TrainPlan) -> bool:
        """Whether the validation side can distinguish better weights from worse ones.

        Without tumor it cannot; a tuned model is judged by such slices, too, as its parent may have found tumor there.

        Returns
        -------
        bool
            False if there is no validation side.
        """
        return bool(self.validation) and (plan.fine_tuning is not None or self.shows_tumor)

    @property
    def summary(self) -> str:
        """How much there is of what, in a sentence or two."""

        def count(parts: Sequence[Part]) -> str:
            return (
                f"{sum(len(part.slices) for part in parts)} slices of {len({p.case.patient for p in parts})} patients"
            )

        text = f"{count(self.training)} to learn from, {count(self.validation)} to choose the best weights by"
        if self.replay:
            text += f", {count(self.replay)} to hold on to, {count(self.replay_judged)} to measure what is forgotten"
        return text + (". Both sides hold slices of the same patients." if self.split.by_slice else ".")

    @property
    def megabytes(self) -> float:
        """The bytes held in memory."""
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
    cache = CaseCache(plan.cache_gb * 1e9, cache_folder)
    cases: list[TrainingCase] = []
    reasons: list[str] = []
    for event in _prepare_all(found, plan, who, cache, "preparing"):
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
    for event in _prepare_all(old, plan, who, cache, "preparing the replay set:"):
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
    files: Sequence[CaseFiles], plan: TrainPlan, who: WhoIsWho, cache: CaseCache, doing: str
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
        yield cache.keep(replace(loaded, patient=who.patient_of(case.name)), case)


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

    Returns
    -------
    TrainingCase
        The case on the plan's working grid.

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
    prepared = prepare(
        volume,
        plan.modalities,
        plan.spacing,
        divisor,
        margin_vox=TRAINING_MARGIN_VOX,
        context_mm=plan.context_mm,
    )
    regions = np.zeros((len(plan.regions), *prepared.foreground.shape), bool)
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
    skull = see_skull(volume)
    return TrainingCase(case.name, case.patient, case.group, half, regions, known, slices, counted, notes, skull)


def _spread(parts: Sequence[Part], count: int) -> list[Part]:
    """Return so many of a list, evenly spread over it."""
    if len(parts) <= count:
        return list(parts)
    return [parts[round(index)] for index in np.linspace(0, len(parts) - 1, count)]


def count_groups(parts: Sequence[Part]) -> Mapping[str, int]:
    """Return how many patients each group has."""
    patients: dict[str, set[str]] = {}
    for part in parts:
        patients.setdefault(part.case.group, set()).add(part.case.patient)
    return {name: len(members) for name, members in patients.items()}
