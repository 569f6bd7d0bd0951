"""Save what a person corrected in a case of a cohort: labels beside the model's, and a case to learn from."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from napari.layers import Labels, Layer

from napari_braintumor.engine.anatomy import OWN_CONVENTION
from napari_braintumor.engine.cohorts.marks import (
    Mark,
    find_corrected_cases,
    name_correction,
    note_correction,
    read_correction,
)
from napari_braintumor.engine.cohorts.results import MEASURED, Result, measure_masks
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import LabelsWritten, PhaseReached
from napari_braintumor.layers import figures_of, find_scans, labels_for, reviewed_slices, select_layers
from napari_braintumor.widgets.training.starting import OpenCase, write_open_case
from napari_braintumor.writers import TakenLabels, take_labels, write_taken

CAVITY_CONVENTION, CAVITY_LABEL = "brats2024", 4


@dataclass(frozen=True, eq=False)
class Correction:
    """The labels of a case as they were when they were to be saved.

    Attributes
    ----------
    case
        Its name.
    output
        The folder of results.
    result
        What the model made of it.
    taken
        The labels.
    regions
        The labels that make up each region.
    lesson
        The scans with the labels, to learn from.
    """

    case: str
    output: Path
    result: Result
    taken: TakenLabels
    regions: dict[str, tuple[int, ...]]
    lesson: OpenCase


@dataclass(frozen=True, eq=False)
class CorrectionSaved:
    """A correction is saved: the mark of the case, and its result now."""

    case: str
    mark: Mark
    result: Result
    labels: Path


def take_correction(layer: Labels, layers: Iterable[Layer], case: str, output: Path, result: Result) -> Correction:
    """Take the labels out of a layer, to save them in another thread.

    Returns
    -------
    Correction
        A copy of the labels, with the scans to learn from.

    Raises
    ------
    DataError
        If the scans of the case are no longer all open.
    """
    layers = list(layers)
    taken = take_labels(layer, name_correction(result), layers)
    scans = find_scans(layers, layer)
    answer = figures_of(layer).answer
    if not scans or answer is None:
        raise DataError(f"The scans of '{case}' are no longer all open. Open the case again.")
    selection = select_layers(scans)
    values = np.array(labels_for(selection, layer))
    convention = CAVITY_CONVENTION if (values == CAVITY_LABEL).any() else OWN_CONVENTION
    lesson = OpenCase(selection, values, convention, reviewed_slices(layer))
    return Correction(case, output, result, taken, dict(answer.regions), lesson)


def save_correction(correction: Correction) -> Generator[PhaseReached | CorrectionSaved, None, None]:
    """Write corrected labels beside the model's, and the case among those to learn from; runs in a worker thread.

    Yields
    ------
    PhaseReached or CorrectionSaved
        The latter last.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    taken, output = correction.taken, correction.output
    yield PhaseReached("measuring the corrected labels")
    masks = {region: np.isin(taken.labels_ZYX, labels) for region, labels in correction.regions.items()}
    record = {**(taken.record or {}), MEASURED: measure_masks(masks, taken.grid)}
    labels = taken.path
    for event in write_taken(replace(taken, record=record)):
        if isinstance(event, LabelsWritten):
            labels = event.files[0]
        else:
            yield event
    mark = note_correction(output, correction.case, labels)
    if correction.lesson.labels.any() or correction.lesson.reviewed:
        yield PhaseReached("writing the case to learn from")
        write_open_case(find_corrected_cases(output), correction.lesson)
    yield CorrectionSaved(correction.case, mark, read_correction(correction.result, labels), labels)
