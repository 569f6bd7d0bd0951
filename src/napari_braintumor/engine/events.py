"""What the engine reports while it works: frozen events in the past tense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_braintumor.engine.volumes import Comparison, Segmentation


@dataclass(frozen=True)
class Noted:
    """Something the user should know happened, in one sentence."""

    text: str


@dataclass(frozen=True)
class Started:
    """A network is ready: `device` in words (a GPU with its free memory), `runtime` ``openvino`` or ``torch``."""

    device: str
    runtime: str


@dataclass(frozen=True)
class SlicesDone:
    """A batch of slices came out of the network."""

    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Segmented:
    """The segmentation is complete."""

    segmentation: Segmentation


SegmentEvent = Noted | Started | SlicesDone | Segmented


@dataclass(frozen=True, eq=False)
class ModelSegmented:
    """One of the models that are compared has segmented the case. `model` is what it is called among them."""

    model: str
    segmentation: Segmentation


@dataclass(frozen=True, eq=False)
class Compared:
    """All models were held against each other."""

    comparison: Comparison


CompareEvent = Noted | Started | SlicesDone | ModelSegmented | Compared


@dataclass(frozen=True)
class BatchDone:
    """A training step was taken.

    Attributes
    ----------
    loss
        The batch's.
    learning_rate
        What it used.
    share
        How much of the training is done, 0 to 1, by steps or by a limit of time, whichever is further; None in runs of
        earlier versions.
    left_s
        Seconds that are left, as far as is known.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    share: float | None = None
    left_s: float | None = None


@dataclass(frozen=True)
class EpochDone:
    """An epoch ended and the validation patients were measured.

    Attributes
    ----------
    dice
        Mean volume Dice over the validation cases for each region they define, 0 to 1.
    score
        The one number by which the best weights are chosen: the mean of `dice`. None if there is nothing to choose by.
    best
        True if these weights are kept as the best so far.
    seconds
        Since the training began.
    replay
        Mean Dice on the replay set of a fine-tuning, where there is one.
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
    """One training and one validation batch went through, so the settings work and this is what they need.

    Attributes
    ----------
    parameters
        Numbers that are learnt.
    memory_mb
        Estimate of what training needs beside the cached data: weights, their gradients and averages, activations.
    data_mb
        What the prepared cases take in memory.
    seconds_per_step
        Measured, with two batches.
    minutes
        Roughly how long the whole training takes.
    device
        In words.
    """

    parameters: int
    memory_mb: float
    data_mb: float
    seconds_per_step: float
    minutes: float
    device: str


@dataclass(frozen=True)
class PhaseReached:
    """A training begins with something that is not a step, or is further with it.

    `phase` says with what, for instance ``preparing 69 cases``; `done` of `total` parts of it are over, where `total`
    is not 0.
    """

    phase: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class CaseLeftOut(Noted):
    """A case is not used, and `text` says why; `damaged` if its files should have been usable."""

    case: str
    damaged: bool = False


@dataclass(frozen=True)
class Resumed:
    """A run goes on from its last checkpoint; what was told of later steps is done again."""

    step: int


@dataclass(frozen=True)
class PreviewDone:
    """The preview slice was predicted anew; it lies in the run's folder."""

    epoch: int


@dataclass(frozen=True)
class Judged:
    """A tuned version was compared with its parent.

    Attributes
    ----------
    accepted
        True if it is better on the slices kept back and has not forgotten more than the plan allows.
    reason
        Why, in one sentence.
    before, after
        Mean Dice over the regions, on the slices kept back from training, of the parent and of the new version.
    replay_before, replay_after
        The same on the replay set; None where there is none.
    """

    accepted: bool
    reason: str
    before: float
    after: float
    replay_before: float | None = None
    replay_after: float | None = None


@dataclass(frozen=True)
class Stopped:
    """Training ended before its plan's end, with the reason in one sentence. What it learnt is kept."""

    reason: str


@dataclass(frozen=True)
class Trained:
    """The training is over; the kept weights are in `path` with their card, or nowhere if the new version was refused.

    `score` is that of the kept weights on the validation cases, None if they were never validated.
    """

    path: Path | None
    score: float | None


@dataclass(frozen=True)
class Failed:
    """A run broke off with an error, told in one sentence; it can be resumed from its last checkpoint."""

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
        For each metric of `metrics.METRICS`, by its name, the figure of each region that the reference defines and the
        model predicts.
    held_out
        True if the model's card lists the patient as a validation patient, False if it was trained on, None if
        the card does not know the patient.
    missed, lesions
        Connected parts of the reference that the prediction does not touch, and all of them, per region.
    modalities
        Those of the case that were used.
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


@dataclass(frozen=True)
class CaseFailed:
    """One case of several could not be evaluated; the others go on.

    Attributes
    ----------
    case
        What it is called.
    reason
        Why, in one line.
    details
        The traceback of an error that was not expected, else nothing.
    """

    case: str
    reason: str
    details: str = ""


@dataclass(frozen=True)
class SeedEvaluated:
    """All cases together by the original project's measure, see `napari_braintumor.engine.measuring.metrics.seed_dice`.

    `dice` is that of the outermost region, over the `slices` whose reference holds it.
    """

    region: str
    dice: float
    slices: int


@dataclass(frozen=True)
class CalibrationEvaluated:
    """How honest a region's probabilities are over all cases, see `calibration_error`.

    Attributes
    ----------
    region
        The region.
    error
        Expected calibration error, 0 to 1.
    bins
        For each of ten bins of probability: voxels, mean probability, share of them that the reference holds.
    """

    region: str
    error: float
    bins: tuple[tuple[int, float, float], ...]


EvaluationEvent = Noted | SlicesDone | CaseEvaluated | CaseFailed | SeedEvaluated | CalibrationEvaluated


@dataclass(frozen=True)
class Downloaded:
    """So many of a file's bytes are there; told several times a second, also while none come."""

    done: int
    total: int


@dataclass(frozen=True)
class Installed:
    """A model is in the store: its name there, and its file."""

    name: str
    path: Path


DownloadEvent = Noted | Downloaded | Installed
