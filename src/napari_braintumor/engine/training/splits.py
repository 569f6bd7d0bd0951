"""Which cases, and which of their slices, training learns from and which it is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.patients import WhoIsWho
from napari_braintumor.engine.training.plan import TrainPlan

FEWEST_TUNING_SLICES = 3
"""Fine-tuning needs two slices to learn from and one to judge by."""


@dataclass(frozen=True)
class Split:
    """The patients of a plan, none on both sides.

    Attributes
    ----------
    training, validation
        Patients, sorted. Where slices are split and not patients, both hold all.
    by_slice
        True where a patient's slices go to both sides.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    by_slice: bool = False


def know_patients(cases: Sequence[CaseFiles], plan: TrainPlan) -> WhoIsWho:
    """Return who the patients of cases are, by their names and by what the plan states."""
    return WhoIsWho({case.name: case.patient for case in cases}, plan.patients)


def check_names(plan: TrainPlan, who: WhoIsWho) -> Iterator[str]:
    """Look for the patients that a plan names, since a slip in a name would put a patient on the wrong side.

    Yields
    ------
    str
        What the user should know: patients held out that are not among the cases at all.

    Raises
    ------
    DataError
        If a name is almost that of a patient who is there, a patient to learn from or to validate on is not there, or
        one patient is named on two sides, be it by two names.
    """
    validation = plan.validation if isinstance(plan.validation, tuple) else ()
    sides = {"held_out": plan.held_out, "validation": validation, "training": plan.training}
    for name in dict.fromkeys((*plan.patients, *(name for names in sides.values() for name in names))):
        if similar := who.find_similar(name):
            raise DataError(
                f"The plan names '{name}', which is not among its cases, but '{similar}' is. Correct the name. If it "
                f"is another person, who is not among these cases, say so in the plan: "
                f'"patients": {{"{name}": "{name}"}}.'
            )
    if missing := sorted({name for name in (*validation, *plan.training) if not who.knows(name)}):
        raise DataError(
            f"The plan names patients that are not among its cases: {', '.join(missing)}. Correct their names."
        )
    for one, other in (("held_out", "validation"), ("held_out", "training"), ("validation", "training")):
        if both := sorted(who.find(sides[one]) & who.find(sides[other])):
            raise DataError(
                f"The plan names the patient '{both[0]}' in both {one} and {other}. Expected every patient, by "
                "whichever name, on one side. Take one of the names out."
            )
    if absent := [name for name in plan.held_out if not who.knows(name)]:
        yield (
            f"These patients are held out but not among the cases: {', '.join(absent)}. If one of the names is "
            "misspelled, that patient is being learned from: then stop, and correct the plan."
        )


def split_patients(cases: Sequence[CaseFiles], plan: TrainPlan, who: WhoIsWho | None = None) -> Split:
    """Split the patients of cases as a plan says, leaving out those it holds out; time points stay together.

    Parameters
    ----------
    cases
        Those that can be used.
    plan
        Its sides.
    who
        Who is who; left out, what the names of these cases and the plan say.

    Returns
    -------
    Split
        The cases of both sides.

    Raises
    ------
    DataError
        If a named patient is not there, or one side would be empty.
    """
    if who is None:
        who = know_patients(cases, plan)
        list(check_names(plan, who))
    patients = {who.patient_of(case.name) for case in cases}
    available = sorted(patients - who.find(plan.held_out))
    if (plan.split_by == "slice" or holds_slices_out(plan)) and available:
        return Split(tuple(available), tuple(available), by_slice=True)
    to_draw = [patient for patient in available if patient not in who.find(plan.training)]
    shuffled: list[str] = np.random.default_rng(plan.seed).permutation(np.array(to_draw, dtype=object)).tolist()
    if plan.fold is not None:
        part, parts = plan.fold
        chosen = set(shuffled[part - 1 :: parts])
    elif isinstance(plan.validation, tuple):
        chosen = who.find(plan.validation)
    else:
        chosen = set(shuffled[: max(1, round(plan.validation * len(available)))])
    training = tuple(patient for patient in available if patient not in chosen)
    validation = tuple(patient for patient in available if patient in chosen)
    if not training or not validation:
        raise DataError(
            f"{len(patients)} patients with a usable mask were found, which leaves {len(training)} for training and "
            f"{len(validation)} for validation. At least one is needed on each side: add cases, name fewer patients "
            "for one side, or fine-tune a model, for which slices of one case are enough."
        )
    return Split(training, validation)


def holds_slices_out(plan: TrainPlan) -> bool:
    """Whether a plan is judged by slices held out of cases that it also learns from: fine-tuning is."""
    return plan.fine_tuning is not None and not isinstance(plan.validation, tuple) and plan.fold is None


def split_slices(
    slices: NDArray[np.intp], plan: TrainPlan, case: str, lone: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the slices of one case.

    Fine-tuning holds every third out, the second first, so that of three reviewed slices the middle one judges; where
    cases have a single slice, every third such case judges. A split by slice draws the plan's share, of three or more
    at least one, whatever lies beside it.

    Parameters
    ----------
    slices
        Those that count, rising.
    plan
        Its seed and share are used.
    case
        The case's name, which makes the draw differ from case to case.
    lone
        How many cases of a single slice came before this one.

    Returns
    -------
    tuple
        The slices to learn from and those to judge by.
    """
    out = np.zeros(len(slices), np.bool_)
    if holds_slices_out(plan):
        out[1::3] = True
        if len(slices) == 1 and lone % 3 == 1:
            out[:] = True
    else:
        share = plan.validation if isinstance(plan.validation, float) else 0.2
        random = np.random.default_rng([plan.seed, *case.encode()])
        count = max(round(share * len(slices)), 1) if len(slices) > 2 else 0
        count = min(count, len(slices) - 1)
        out[random.permutation(len(slices))[:count]] = True
    return slices[~out], slices[out]


def check_tuning(to_learn: int, to_judge: int) -> None:
    """Refuse a fine-tuning of too few slices: better could not be distinguished from worse.

    Raises
    ------
    DataError
        With how many are needed.
    """
    if to_learn + to_judge < FEWEST_TUNING_SLICES:
        raise DataError(describe_too_few(to_learn + to_judge))
    if to_learn < 2 or to_judge < 1:
        raise DataError(
            f"{describe_too_few(to_learn + to_judge)} The plan's sides leave {to_learn} to learn from and {to_judge} "
            "to judge by."
        )


def describe_too_few(count: int) -> str:
    """Return why so many slices cannot be fine-tuned on, and what to do."""
    return (
        f"Fine-tuning needs at least {FEWEST_TUNING_SLICES} reviewed slices: two to learn from and one to judge by. "
        f"There {'is' if count == 1 else 'are'} {count}. Mark more slices as reviewed, or mark none, so that all of "
        "them count as they are drawn."
    )
