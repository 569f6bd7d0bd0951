"""Compare a model with reference masks, case by case: thresholded, volume Dice, with defined values for empty masks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.returning import segmentation_on
from napari_braintumor.engine.aligning.scans import lie_alike
from napari_braintumor.engine.errors import BrainTumorError, DataError, describe_failure, describe_origin
from napari_braintumor.engine.events import (
    CalibrationEvaluated,
    CaseEvaluated,
    CaseFailed,
    EvaluationEvent,
    Noted,
    SeedEvaluated,
    Segmented,
)
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.patients import WhoIsWho, is_held_out
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.metrics import (
    METRICS,
    calibration_error,
    calibration_sums,
    count_missed_lesions,
    seed_dice,
    seed_sums,
)
from napari_braintumor.engine.measuring.scores import score_regions
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.segment import segment
from napari_braintumor.engine.settings import EvaluateConfig
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume


def evaluate(cases: Sequence[CaseFiles], config: EvaluateConfig) -> Iterator[EvaluationEvent]:
    """Segment cases and compare each with its reference.

    Parameters
    ----------
    cases
        Found by `find_cases`. Cases without a reference are skipped with a note, unless they are known to show no
        tumor. An error in one case affects only that case.
    config
        The model, the cases and slices to use, and what to measure.

    Yields
    ------
    EvaluationEvent
        `CaseEvaluated` or `CaseFailed` for each case, and `Noted`; finally, if requested, `SeedEvaluated` and a
        `CalibrationEvaluated` for each region. Dice is 1 if both masks are empty, 0 if one is.

    Raises
    ------
    BrainTumorError
        If the model does not exist, or no case could be evaluated.
    """
    card = ModelStore().find(config.segmentation.model).card
    assert card is not None
    who = WhoIsWho({case.name: case.patient for case in cases}, card.patients)
    chosen_cases = [case for case in cases if not config.held_out or is_held_out(case.name, card, who)]
    if config.side is not None:
        chosen_cases = [case for case in chosen_cases if case.name in config.side]
    regions = tuple(region.name for region in card.regions)
    together = _PooledFigures(regions)
    measured = failed = 0
    for case in chosen_cases:
        if lacking := _find_lack(case, config):
            yield Noted(f"{case.name} is skipped: {lacking}.")
            continue
        try:
            started = time.perf_counter()
            volume = read_case(case, config.aligning)
            chosen = tuple(name for name in volume.modalities if config.modalities is None or name in config.modalities)
            if not chosen:
                yield Noted(f"{case.name} is skipped: none of the requested modalities is usable.")
                continue
            volume = volume.with_modalities(chosen)
            reference = _empty_reference(volume, regions) if config.no_tumor else read_reference(case)
            assert reference is not None
            result = _place_on(reference.source, _segment(volume, config), case.name)
            slices = config.side[case.name] if config.side is not None else None
            only = np.arange(len(result.labels)) if slices is None else np.array(slices)
            seconds = time.perf_counter() - started
            compared = _compare(case, volume, reference, result, card, who, only, seconds, config.every_score)
            together.add(result, reference, only)
        except Exception as error:  # noqa: BLE001  an error in one case must not stop the others
            failed += 1
            expected = isinstance(error, BrainTumorError)
            yield CaseFailed(case.name, describe_failure(error), "" if expected else describe_origin(error))
            continue
        measured += 1
        for note in (*volume.notes, *reference.notes):
            yield Noted(f"{case.name}: {note}")
        if config.pooled and result.probabilities is None:
            yield Noted(f"{case.name} is left out of the pooled measures: its mask lies on another grid.")
        yield compared
    if not measured:
        need = " and must be among the model's held-out patients" if config.held_out else ""
        why = f"{failed} failed" if failed else f"they need a reference mask{need}"
        raise DataError(f"None of the {len(cases)} cases found can be evaluated: {why}.")
    yield from together.events()


class _PooledFigures:
    """Metrics over the voxels of all cases together, which need probabilities.

    Parameters
    ----------
    regions
        The model's regions, outermost first.
    """

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions
        self._seed: list[NDArray[np.float64]] = []
        self._calibration: dict[str, NDArray[np.float64]] = {}

    def add(self, result: Segmentation, reference: Reference, slices: NDArray[np.intp]) -> None:
        """Add a case."""
        if result.probabilities is None:
            return
        for probability, name in zip(result.probabilities, self._regions, strict=True):
            if name in reference.regions:
                truth, before = reference.regions[name][slices], self._calibration.get(name)
                sums = calibration_sums(probability[slices], truth)
                self._calibration[name] = sums if before is None else before + sums
                if name == self._regions[0]:
                    self._seed.append(seed_sums(probability[slices], truth)[truth.any((1, 2))])

    def events(self) -> Iterator[EvaluationEvent]:
        """Yield the results."""
        if sum(map(len, self._seed)):
            sums = np.concatenate(self._seed)
            yield SeedEvaluated(self._regions[0], seed_dice(sums), len(sums))
        for name, bin_sums in self._calibration.items():
            bins = tuple((int(n), p / max(n, 1), t / max(n, 1)) for n, p, t in bin_sums.tolist())
            yield CalibrationEvaluated(name, calibration_error(bin_sums), bins)


def _find_lack(case: CaseFiles, config: EvaluateConfig) -> str:
    """Return why a case is to be skipped, or an empty string; an unreadable case is not skipped, but fails."""
    if case.problem is not None:
        return ""
    if not (case.reference or config.no_tumor):
        return "it has no reference"
    modalities = config.modalities
    if modalities is not None and not any(image.modality in modalities for image in case.images):
        return "it has none of the modalities"
    return ""


def _empty_reference(volume: Volume, regions: Sequence[str]) -> Reference:
    """Return an empty reference, for a case without a tumor."""
    return Reference({name: np.zeros(volume.shape, bool) for name in regions}, "none", volume.source)


def _segment(volume: Volume, config: EvaluateConfig) -> Segmentation:
    segmentation = config.segmentation.model_copy(update={"probabilities": config.pooled})
    return next(
        event.segmentation for event in segment(volume, segmentation, all_regions=True) if isinstance(event, Segmented)
    )


def _place_on(mask: SourceGrid, result: Segmentation, name: str) -> Segmentation:
    """Return a result on the grid of the mask, which is that of one of the scans."""
    if result.alignment is None or lie_alike(result.source, mask):
        return result
    scans = result.alignment.scans
    modality = next((modality for modality, scan in scans.items() if lie_alike(scan.grid, mask)), None)
    if modality is None:
        raise DataError(
            f"The mask of '{name}' lies on the grid of none of {', '.join(scans)}, which were used. Expected the grid "
            "of one of them. Choose the series on which it was drawn."
        )
    return segmentation_on(result, modality)


def _compare(
    case: CaseFiles,
    volume: Volume,
    reference: Reference,
    result: Segmentation,
    card: ModelCard,
    who: WhoIsWho,
    slices: NDArray[np.intp],
    seconds: float,
    every_score: bool,
) -> CaseEvaluated:
    """Compare a result with its reference on some slices."""
    figures: dict[str, dict[str, float]] = {}
    missed: dict[str, int] = {}
    lesions: dict[str, int] = {}
    names = [region.name for region in card.regions if region.name in reference.regions]
    predicted = {name: result.mask_of(name)[slices] for name in names}
    truth = {name: reference.regions[name][slices] for name in names}
    for metric in METRICS:
        values = {name: metric.measure(predicted[name], truth[name], result.source) for name in names}
        figures[metric.name] = values
    if every_score and names:
        for name, scores in score_regions(predicted, truth, result.source).items():
            for score, value in scores.items():
                figures.setdefault(score, {})[name] = value
    for name in names:
        missed[name], lesions[name] = count_missed_lesions(predicted[name], truth[name])
    used = tuple(name for name in volume.modalities if name in result.provenance["modalities_used"])
    return CaseEvaluated(
        case.name, case.group, figures, is_held_out(case.name, card, who), seconds, missed, lesions, used
    )
