"""Events that the engine reports while it works: frozen, named in the past tense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Comparison, Segmentation


@dataclass(frozen=True)
class Noted:
    """Something that the user should know, in one sentence."""

    text: str


@dataclass(frozen=True)
class PhaseReached:
    """A run began a phase without steps of its own, as ``preparing 69 cases``; `total` is 0 where it has no parts."""

    phase: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Started:
    """A network is ready. `device` is in words (a GPU with its free memory); `runtime` is ``openvino`` or ``torch``."""

    device: str
    runtime: str


@dataclass(frozen=True)
class SlicesDone:
    """The network has finished a batch of slices.

    Attributes
    ----------
    done, total
        How many slices.
    labels
        uint8 ``(Y, X)`` for the slices along Z in which tumor was found so far: before small components are removed,
        only to be looked at. Empty for 3-D networks, which find nothing slice by slice.
    """

    done: int
    total: int
    labels: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Segmented:
    """The segmentation is complete."""

    segmentation: Segmentation


SegmentEvent = Noted | PhaseReached | Started | SlicesDone | Segmented


@dataclass(frozen=True, eq=False)
class ModelSegmented:
    """One of the compared models has segmented the case. `model` is its name in the comparison."""

    model: str
    segmentation: Segmentation


@dataclass(frozen=True, eq=False)
class Compared:
    """All models were compared with each other."""

    comparison: Comparison


CompareEvent = Noted | PhaseReached | Started | SlicesDone | ModelSegmented | Compared


@dataclass(frozen=True)
class BatchDone:
    """A training step is done.

    Attributes
    ----------
    loss
        Loss of the batch.
    learning_rate
        Learning rate of the step.
    share
        Share of the training that is done, 0 to 1, by steps or by the time limit, whichever is further; None in runs of
        earlier versions.
    left_s
        Estimated seconds left, if known.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    share: float | None = None
    left_s: float | None = None


@dataclass(frozen=True)
class EpochDone:
    """An epoch ended, and the model was measured on the validation patients.

    Attributes
    ----------
    dice
        Mean volume Dice of each region over the validation cases that define it, 0 to 1.
    score
        The mean of `dice`, by which the best weights are chosen. None if there is nothing to choose by.
    best
        True if these weights are kept as the best so far.
    seconds
        Time since the training began.
    replay
        Mean Dice on the replay set when fine-tuning, if there is one.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    dice: Mapping[str, float]
    score: float | None
    best: bool
    seconds: float
    replay: float | None = None


@dataclass(frozen=True)
class Verified:
    """One training and one validation batch ran, so the settings work. The fields say what they need.

    Attributes
    ----------
    parameters
        Number of learned parameters.
    memory_mb
        Estimated memory besides the cached data: weights, gradients, weight averages and activations.
    data_mb
        Memory that the prepared cases take.
    seconds_per_step
        Measured with two batches.
    minutes
        Rough duration of the whole training.
    device
        In words.
    """

    parameters: int
    memory_mb: float
    data_mb: float
    seconds_per_step: float
    minutes: float
    device: str


@dataclass(frozen=True, eq=False)
class Aligned:
    """The scans of a case lie on one grid.

    Attributes
    ----------
    images
        For each modality an array ``(Z, Y, X)`` on the grid: float32, or as it was if it already lay there.
    grid
        The reference's grid.
    alignment
        How each scan got there, and so the way back; None if all of them lay there already.
    notes
        What was done, one sentence each.
    """

    images: Mapping[str, NDArray[Any]]
    grid: SourceGrid
    alignment: Alignment | None
    notes: tuple[str, ...]


AlignEvent = PhaseReached | Aligned


@dataclass(frozen=True)
class LabelsWritten:
    """Labels are on disk. `files` are the labels, and what was written beside them."""

    files: tuple[Path, ...]


ExportEvent = PhaseReached | LabelsWritten


@dataclass(frozen=True)
class CaseLeftOut(Noted):
    """A case is not used; `text` says why. `damaged` is True if its files should have been usable."""

    case: str
    damaged: bool = False


@dataclass(frozen=True)
class Resumed:
    """A run resumed from its last checkpoint; any later steps that were reported are repeated."""

    step: int


@dataclass(frozen=True)
class PreviewDone:
    """The preview slice was predicted again; it is in the run's folder."""

    epoch: int


@dataclass(frozen=True)
class Judged:
    """A fine-tuned version was compared with its parent.

    Attributes
    ----------
    accepted
        True if it is better on the validation slices and has not forgotten more than the plan allows.
    reason
        The reason, in one sentence.
    before, after
        Mean Dice over the regions of the parent and of the new version, on the validation slices.
    replay_before, replay_after
        The same on the replay set; None if there is none.
    """

    accepted: bool
    reason: str
    before: float
    after: float
    replay_before: float | None = None
    replay_after: float | None = None


@dataclass(frozen=True)
class Stopped:
    """Training ended before its plan was complete, for the reason given. The weights learned so far are kept."""

    reason: str


@dataclass(frozen=True)
class Trained:
    """The training is over. `path` holds the kept weights with their card; None if the new version was rejected.

    `score` is the score of the kept weights on the validation cases, None if they were never validated.
    """

    path: Path | None
    score: float | None


@dataclass(frozen=True)
class Failed:
    """A run failed with an error, described in one sentence; it can be resumed from its last checkpoint."""

    reason: str


TrainingEvent = (
    Noted
    | PhaseReached
    | Verified
    | Resumed
    | BatchDone
    | EpochDone
    | PreviewDone
    | Judged
    | Stopped
    | Trained
    | Failed
)


@dataclass(frozen=True)
class CaseEvaluated:
    """One case was compared with its reference.

    Attributes
    ----------
    figures
        For each metric of `metrics.METRICS`, or if asked for each of `scores.list_scores`, by name, its value for each
        region that the reference defines and the model predicts.
    held_out
        True if the model's card lists the patient as a validation patient, False if it was trained on, None if
        the card does not know the patient.
    missed, lesions
        Connected components of the reference that the prediction does not touch, and all of them, per region.
    modalities
        The modalities of the case that were used.
    """

    case: str
    group: str
    figures: Mapping[str, Mapping[str, float]]
    held_out: bool | None
    seconds: float
    missed: Mapping[str, int] = field(default_factory=dict)
    lesions: Mapping[str, int] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()

    @property
    def dice(self) -> Mapping[str, float]:
        """Volume Dice of each region, 0 to 1."""
        return self.figures["dice"]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The figures the other way around: for each region, the value of each by name."""
        return {region: {name: values[region] for name, values in self.figures.items()} for region in self.dice}


@dataclass(frozen=True)
class CaseFailed:
    """One of several cases could not be evaluated; the evaluation goes on with the others.

    Attributes
    ----------
    case
        Its name.
    reason
        The reason, in one line.
    details
        The traceback of an unexpected error, otherwise empty.
    """

    case: str
    reason: str
    details: str = ""


@dataclass(frozen=True)
class SeedEvaluated:
    """All cases together by the original project's measure, see `napari_braintumor.engine.measuring.metrics.seed_dice`.

    `dice` is the value for the outermost region, over the `slices` whose reference contains it.
    """

    region: str
    dice: float
    slices: int


@dataclass(frozen=True)
class CalibrationEvaluated:
    """How well calibrated the probabilities of a region are over all cases, see `calibration_error`.

    Attributes
    ----------
    region
        The region.
    error
        Expected calibration error, 0 to 1.
    bins
        For each of ten probability bins: voxels, mean probability, and the share of voxels in the reference.
    """

    region: str
    error: float
    bins: tuple[tuple[int, float, float], ...]


EvaluationEvent = Noted | SlicesDone | CaseEvaluated | CaseFailed | SeedEvaluated | CalibrationEvaluated


@dataclass(frozen=True)
class Downloaded:
    """Progress of a download in bytes; reported several times a second, even while no data arrives."""

    done: int
    total: int


@dataclass(frozen=True)
class Installed:
    """A model is in the store: its name there, and its file."""

    name: str
    path: Path


DownloadEvent = Noted | Downloaded | Installed
