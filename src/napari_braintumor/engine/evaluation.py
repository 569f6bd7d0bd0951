"""A model against reference masks, case by case: split by patient, volume Dice, thresholded, empty masks stated."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.inference import segment
from napari_braintumor.engine.metrics import (
    CALIBRATION_BINS,
    calibration_error,
    calibration_sums,
    count_missed_lesions,
    hd95_mm,
    region_volume_ml,
    seed_dice,
    seed_sums,
    volume_dice,
)
from napari_braintumor.engine.patients import WhoIsWho
from napari_braintumor.engine.store import ModelStore
from napari_braintumor.engine.types import (
    CalibrationEvaluated,
    CaseEvaluated,
    EvaluationEvent,
    Noted,
    Reference,
    SeedEvaluated,
    Segmentation,
    Segmented,
    Volume,
    region_from_labels,
)

Side = Mapping[str, Sequence[int] | None]
"""The cases of one side of a run's split by name, each with its slices along Z, or None for all."""


def evaluate(
    cases: Sequence[CaseFiles],
    config: SegmentConfig,
    modalities: tuple[str, ...] | None = None,
    held_out: bool = False,
    side: Side | None = None,
    pooled: bool = False,
    no_tumor: bool = False,
) -> Iterator[EvaluationEvent]:
    """Segment cases and compare each with its reference.

    Parameters
    ----------
    cases
        Found by `find_cases`; those without a reference are passed over with a note, unless they show no tumor.
    config
        The model and how to run it.
    modalities
        Use only these of each case; cases that have none of them are passed over with a note.
    held_out
        Use only patients that the model's card lists as held out.
    side
        Use only these cases, and of each only these slices.
    pooled
        Also measure over the voxels of all cases together: as the original project did, and how well calibrated
        probabilities are.
    no_tumor
        The cases show no tumor: all that is found is false. Their references, if any, are not read.

    Yields
    ------
    EvaluationEvent
        `CaseEvaluated` for each case, and `Noted`; `SeedEvaluated` and a `CalibrationEvaluated` for each region last,
        where asked for. Dice is 1 where both masks are empty, 0 where one is.

    Raises
    ------
    BrainTumorError
        If nothing is left to evaluate, or a case cannot be read.
    """
    card = ModelStore().find(config.model).card
    assert card is not None
    who = WhoIsWho({case.name: case.patient for case in cases}, card.patients)
    wanted = [case for case in cases if not held_out or _is_held_out(case, card, who)]
    if side is not None:
        wanted = [case for case in wanted if case.name in side]
    regions = tuple(region.name for region in card.regions)
    outermost = regions[0]
    seed: list[NDArray[np.float64]] = []
    calibration: dict[str, NDArray[np.float64]] = {}
    measured = 0
    for case in wanted:
        names = tuple(image.modality for image in case.images)
        chosen = names if modalities is None else tuple(name for name in names if name in modalities)
        if not (case.reference or no_tumor) or not chosen:
            lacking = "none of the modalities" if case.reference or no_tumor else "no reference"
            yield Noted(f"{case.name} is passed over: it has {lacking}.")
            continue
        started = time.perf_counter()
        volume = read_case(case)
        if not (chosen := tuple(name for name in volume.modalities if name in chosen)):
            yield Noted(f"{case.name} is passed over: none of the wanted modalities is usable.")
            continue
        reference = _empty_reference(volume, regions) if no_tumor else read_reference(case)
        assert reference is not None
        result = _segment(volume.with_modalities(chosen), config, pooled)
        slices = side[case.name] if side is not None else None
        only = np.arange(volume.shape[0]) if slices is None else np.array(slices)
        measured += 1
        yield _compare(case, volume, chosen, reference, result, card, who, only, time.perf_counter() - started)
        if result.probabilities is None:
            continue
        for probability, name in zip(result.probabilities, regions, strict=True):
            if name in reference.regions:
                truth = reference.regions[name][only]
                calibration[name] = calibration.get(name, np.zeros((CALIBRATION_BINS, 3))) + calibration_sums(
                    probability[only], truth
                )
                if name == outermost:
                    seed.append(seed_sums(probability[only], truth)[truth.any((1, 2))])
    if not measured:
        raise DataError(
            f"None of the {len(cases)} cases found can be evaluated: they need a reference mask"
            + (", and must be among the model's held-out patients." if held_out else ".")
        )
    if sum(map(len, seed)):
        together = np.concatenate(seed)
        yield SeedEvaluated(outermost, seed_dice(together), len(together))
    for name, sums in calibration.items():
        bins = tuple((int(n), p / max(n, 1), t / max(n, 1)) for n, p, t in sums.tolist())
        yield CalibrationEvaluated(name, calibration_error(sums), bins)


def _empty_reference(volume: Volume, regions: Sequence[str]) -> Reference:
    """Return the reference of a case without a tumor."""
    return Reference({name: np.zeros(volume.shape, bool) for name in regions}, "none", volume.source)


def _segment(volume: Volume, config: SegmentConfig, with_probabilities: bool) -> Segmentation:
    config = config.model_copy(update={"probabilities": with_probabilities})
    return next(
        event.segmentation for event in segment(volume, config, all_regions=True) if isinstance(event, Segmented)
    )


def _compare(
    case: CaseFiles,
    volume: Volume,
    modalities: tuple[str, ...],
    reference: Reference,
    result: Segmentation,
    card: ModelCard,
    who: WhoIsWho,
    slices: NDArray[np.intp],
    seconds: float,
) -> CaseEvaluated:
    """Compare a result with its reference on some slices."""
    dice: dict[str, float] = {}
    hd95: dict[str, float] = {}
    predicted_ml: dict[str, float] = {}
    reference_ml: dict[str, float] = {}
    missed: dict[str, int] = {}
    lesions: dict[str, int] = {}
    for name in (region.name for region in card.regions if region.name in reference.regions):
        predicted, truth = region_from_labels(result.labels, name)[slices], reference.regions[name][slices]
        dice[name] = volume_dice(predicted, truth)
        hd95[name] = hd95_mm(predicted, truth, volume.source)
        predicted_ml[name] = region_volume_ml(predicted, volume.source)
        reference_ml[name] = region_volume_ml(truth, volume.source)
        missed[name], lesions[name] = count_missed_lesions(predicted, truth)
    used = tuple(name for name in modalities if name in card.modalities)
    return CaseEvaluated(
        case.name,
        case.group,
        dice,
        hd95,
        predicted_ml,
        reference_ml,
        _is_held_out(case, card, who),
        seconds,
        missed,
        lesions,
        used,
    )


def _is_held_out(case: CaseFiles, card: ModelCard, who: WhoIsWho) -> bool | None:
    """Whether training never saw a case's patient, by whichever name; None where the card does not know."""
    patient = who.patient_of(case.name)
    if patient in who.find((*card.training_patients, *card.validation_patients)):
        return False
    return True if patient in who.find(card.held_out_patients) else None
