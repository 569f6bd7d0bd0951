"""A model against reference masks, case by case: split by patient, volume Dice, thresholded, empty masks stated."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, read_case, read_reference
from napari_braintumor.engine.inference import segment
from napari_braintumor.engine.metrics import hd95_mm, region_volume_ml, volume_dice
from napari_braintumor.engine.store import ModelStore
from napari_braintumor.engine.types import CaseEvaluated, EvaluationEvent, Noted, Segmented, region_from_labels


def evaluate(
    cases: Sequence[CaseFiles], config: SegmentConfig, modalities: tuple[str, ...] | None = None, held_out: bool = False
) -> Iterator[EvaluationEvent]:
    """Segment cases and compare each with its reference.

    Parameters
    ----------
    cases
        Found by `find_cases`; those without a reference are passed over with a note.
    config
        The model and how to run it.
    modalities
        Use only these of each case; cases that have none of them are passed over with a note.
    held_out
        Use only patients that the model's card lists as held out.

    Yields
    ------
    EvaluationEvent
        `CaseEvaluated` for each case, and `Noted`. Dice is 1 where both masks are empty, 0 where one is.

    Raises
    ------
    BrainTumorError
        If nothing is left to evaluate, or a case cannot be read.
    """
    card = ModelStore().find(config.model).card
    assert card is not None
    wanted = [case for case in cases if not held_out or case.patient in card.held_out_patients]
    measured = 0
    for case in wanted:
        names = tuple(image.modality for image in case.images)
        chosen = names if modalities is None else tuple(name for name in names if name in modalities)
        if not case.reference or not chosen:
            lacking = "none of the modalities" if case.reference else "no reference"
            yield Noted(f"{case.name} is passed over: it has {lacking}.")
            continue
        result = evaluate_case(case, config, card, modalities)
        if result is None:
            yield Noted(f"{case.name} is passed over: none of the wanted modalities is usable.")
            continue
        measured += 1
        yield result
    if not measured:
        raise DataError(
            f"None of the {len(cases)} cases found can be evaluated: they need a reference mask"
            + (", and must be among the model's held-out patients." if held_out else ".")
        )


def evaluate_case(
    case: CaseFiles, config: SegmentConfig, card: ModelCard, modalities: tuple[str, ...] | None = None
) -> CaseEvaluated | None:
    """Segment one case and compare it with its reference; None if it has none of the modalities.

    Raises
    ------
    BrainTumorError
        If the case cannot be read or does not fit the model.
    """
    started = time.perf_counter()
    volume = read_case(case)
    if modalities is not None:
        chosen = tuple(name for name in volume.modalities if name in modalities)
        if not chosen:
            return None
        volume = volume.with_modalities(chosen)
    reference = read_reference(case)
    assert reference is not None
    labels = next(event.segmentation.labels for event in segment(volume, config) if isinstance(event, Segmented))
    seconds = time.perf_counter() - started
    dice: dict[str, float] = {}
    hd95: dict[str, float] = {}
    predicted_ml: dict[str, float] = {}
    reference_ml: dict[str, float] = {}
    for name in (region.name for region in card.regions if region.name in reference.regions):
        predicted = region_from_labels(labels, name)
        dice[name] = volume_dice(predicted, reference.regions[name])
        hd95[name] = hd95_mm(predicted, reference.regions[name], volume.spacing)
        predicted_ml[name] = region_volume_ml(predicted, volume.spacing)
        reference_ml[name] = region_volume_ml(reference.regions[name], volume.spacing)
    seen = case.patient in card.training_patients or case.patient in card.validation_patients
    held_out = True if case.patient in card.held_out_patients else False if seen else None
    return CaseEvaluated(case.name, case.group, dice, hd95, predicted_ml, reference_ml, held_out, seconds)
