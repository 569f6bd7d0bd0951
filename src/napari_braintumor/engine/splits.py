"""Which cases, and which of their slices, training learns from and which it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.plan import TrainPlan


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


def split_patients(cases: Sequence[CaseFiles], plan: TrainPlan) -> Split:
    """Split the patients of cases as a plan says, leaving out those it holds out; time points stay together.

    Raises
    ------
    DataError
        If a named patient is not there, or one side would be empty.
    """
    patients = sorted({case.patient for case in cases})
    named = plan.held_out + (plan.validation if isinstance(plan.validation, tuple) else ())
    if missing := sorted(set(named) - set(patients)):
        raise DataError(
            f"The plan names patients that are not among its cases: {', '.join(missing)}. Correct their names."
        )
    available = [patient for patient in patients if patient not in plan.held_out]
    if (plan.split_by == "slice" or keeps_slices_back(plan)) and available:
        return Split(tuple(available), tuple(available), by_slice=True)
    shuffled: list[str] = np.random.default_rng(plan.seed).permutation(np.array(available, dtype=object)).tolist()
    if plan.fold is not None:
        part, parts = plan.fold
        chosen = set(shuffled[part - 1 :: parts])
    elif isinstance(plan.validation, tuple):
        chosen = set(plan.validation) - set(plan.held_out)
    else:
        chosen = set(shuffled[: max(1, round(plan.validation * len(available)))])
    training = tuple(patient for patient in available if patient not in chosen)
    validation = tuple(patient for patient in available if patient in chosen)
    if not training or not validation:
        raise DataError(
            f"{len(patients)} patients with a usable mask were found, which leaves {len(training)} for training and "
            f"{len(validation)} for validation. At least one is needed on each side: add cases, or fine-tune a model, "
            "for which slices of one case are enough."
        )
    return Split(training, validation)


def keeps_slices_back(plan: TrainPlan) -> bool:
    """Whether a plan is judged by slices kept back from cases that it also learns from: fine-tuning is."""
    return plan.fine_tuning is not None and not isinstance(plan.validation, tuple) and plan.fold is None


def split_slices(slices: NDArray[np.intp], plan: TrainPlan, case: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the slices of one case.

    Fine-tuning keeps every third back, the second first, so that of three reviewed slices the middle one judges; a
    single slice stays with training. A split by slice draws the plan's share, whatever lies beside it.

    Parameters
    ----------
    slices
        Those that count, rising.
    plan
        Its seed and share are used.
    case
        The case's name, which makes the draw differ from case to case.

    Returns
    -------
    tuple
        The slices to learn from and those to judge by.
    """
    if keeps_slices_back(plan):
        back = np.zeros(len(slices), np.bool_)
        back[1::3] = True
    else:
        share = plan.validation if isinstance(plan.validation, float) else 0.2
        random = np.random.default_rng([plan.seed, *case.encode()])
        back = np.zeros(len(slices), np.bool_)
        back[random.permutation(len(slices))[: round(share * len(slices))]] = True
    return slices[~back], slices[back]
