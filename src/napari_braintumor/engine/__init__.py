"""The engine's face: generators of events (`segment`, `gather_features` and others), and `warm_up`. No napari, no Qt.

Nothing heavy is imported here: a generator's body starts at the first `next()`, and only there the torch half is
imported, so that it loads in whichever thread drives the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from napari_braintumor.engine.events import CompareEvent, EvaluationEvent, SegmentEvent, SlicesDone, TrainingEvent
from napari_braintumor.engine.preload import preload_torch
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.volumes import AnyVolume, Reference

if TYPE_CHECKING:
    from napari_braintumor.engine.cohorts.cohort_events import CohortEvent
    from napari_braintumor.engine.cohorts.plan import CohortPlan
    from napari_braintumor.engine.correcting.features import CaseFeatures
    from napari_braintumor.engine.files.cases import CaseFiles
    from napari_braintumor.engine.segmenting.preview import SlicePreview

__all__ = [
    "compare",
    "evaluate",
    "gather_features",
    "prepare_preview",
    "segment",
    "segment_cohort",
    "segment_on_cluster",
    "train",
    "warm_up",
    "watch_cohort",
]


def warm_up(config: SegmentConfig) -> None:
    """Do what can be done before a volume is known; see `napari_braintumor.engine.segmenting.segment.warm_up`."""
    preload_torch()
    from napari_braintumor.engine.segmenting.segment import warm_up as run

    run(config)


def segment(volume: AnyVolume, config: SegmentConfig) -> Iterator[SegmentEvent]:
    """Segment a volume; see `napari_braintumor.engine.segmenting.segment.segment`.

    Yields
    ------
    SegmentEvent
        `Segmented` last.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_braintumor.engine import segment
    >>> from napari_braintumor.engine.files.cases import find_cases
    >>> from napari_braintumor.engine.files.reading import read_case
    >>> from napari_braintumor.engine.settings import SegmentConfig
    >>> case = find_cases(Path("cases"))[0]
    >>> *_, last = segment(read_case(case), SegmentConfig(model="my-model.safetensors", device="cpu"))
    >>> sorted(last.segmentation.volumes_ml)
    ['enhancing tumor', 'tumor core', 'whole tumor']
    """
    preload_torch()
    from napari_braintumor.engine.segmenting.segment import segment as run

    yield from run(volume, config)


def segment_cohort(plan: CohortPlan) -> Generator[CohortEvent, None, None]:
    """Segment many cases, see `napari_braintumor.engine.cohorts.running.segment_cohort`.

    Yields
    ------
    CohortEvent
        `CohortDone` last.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_braintumor.engine import segment_cohort
    >>> from napari_braintumor.engine.cohorts.plan import CohortConfig, CohortPlan
    >>> from napari_braintumor.engine.files.cases import find_cases
    >>> from napari_braintumor.engine.settings import SegmentConfig
    >>> config = CohortConfig(segmentation=SegmentConfig(model="my-model.safetensors", device="cpu"))
    >>> *_, last = segment_cohort(CohortPlan(find_cases(Path("cases")), Path("results"), config))
    >>> last.segmented, last.failed, last.table.name
    (3, 0, 'volumes.csv')
    """
    preload_torch()
    from napari_braintumor.engine.cohorts import running

    yield from running.segment_cohort(plan)


def prepare_preview(volume: AnyVolume, config: SegmentConfig) -> SlicePreview:
    """Make a model ready for any slice of a case; see `engine.segmenting.preview.SlicePreview`."""
    preload_torch()
    from napari_braintumor.engine.segmenting import preview

    return preview.SlicePreview(volume, config)


def watch_cohort(find: Callable[[], Sequence[CaseFiles]], plan: CohortPlan) -> Generator[CohortEvent, None, None]:
    """Segment cases as they arrive; see `napari_braintumor.engine.cohorts.watching.watch_cohort`."""
    preload_torch()
    from napari_braintumor.engine.cohorts import watching

    yield from watching.watch_cohort(find, plan)


def segment_on_cluster(
    plan: CohortPlan, workers: int | None = None, scheduler: str | None = None
) -> Generator[CohortEvent, None, None]:
    """Segment many cases on several workers; see `napari_braintumor.engine.cohorts.cluster.segment_on_cluster`."""
    preload_torch()
    from napari_braintumor.engine.cohorts import cluster

    yield from cluster.segment_on_cluster(plan, workers, scheduler)


def gather_features(volume: AnyVolume, config: SegmentConfig) -> Iterator[SlicesDone | CaseFeatures]:
    """Gather what a model sees in a case, for `correct`; see `engine.correcting.gathering.gather_features`.

    Yields
    ------
    SlicesDone or CaseFeatures
        The features last.
    """
    preload_torch()
    from napari_braintumor.engine.correcting import gathering

    yield from gathering.gather_features(volume, config)


def compare(
    volume: AnyVolume, configs: Sequence[SegmentConfig], reference: Reference | None = None
) -> Iterator[CompareEvent]:
    """Segment a volume with several models; see `napari_braintumor.engine.measuring.comparison.compare`."""
    preload_torch()
    from napari_braintumor.engine.measuring import comparison

    yield from comparison.compare(volume, configs, reference)


def train(plan_or_run: TrainPlan | Run) -> Generator[TrainingEvent, None, None]:
    """Train a model by a plan, or go on with a run; see `napari_braintumor.engine.training.training.train`.

    Yields
    ------
    TrainingEvent
        `Trained` last.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_braintumor.engine import train
    >>> from napari_braintumor.engine.training.plan import TrainPlan
    >>> plan = TrainPlan(
    ...     name="mine", cases=["cases"], output="runs", epochs=1, steps_per_epoch=2, patch=(64, 64), device="cpu"
    ... )
    >>> *_, last = train(plan)
    >>> last.path.name, Path("runs/mine/plan.json").is_file()
    ('model.safetensors', True)
    """
    preload_torch()
    from napari_braintumor.engine.training import training

    yield from training.train(plan_or_run)


def evaluate(cases: Sequence[CaseFiles], config: EvaluateConfig) -> Generator[EvaluationEvent, None, None]:
    """Compare a model with reference masks; see `napari_braintumor.engine.measuring.evaluation.evaluate`.

    Yields
    ------
    EvaluationEvent
        `CaseEvaluated` or `CaseFailed` for each case.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_braintumor.engine import evaluate
    >>> from napari_braintumor.engine.files.cases import find_cases
    >>> from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
    >>> model = SegmentConfig(model="my-model.safetensors", device="cpu")
    >>> config = EvaluateConfig(segmentation=model, modalities=("T1ce", "FLAIR"))
    >>> for result in evaluate(find_cases(Path("cases")), config):
    ...     print(result.case, result.modalities, 0 <= result.dice["whole tumor"] <= 1)
    case0 ('T1ce', 'FLAIR') True
    case1 ('T1ce', 'FLAIR') True
    case2 ('T1ce', 'FLAIR') True
    """
    preload_torch()
    from napari_braintumor.engine.measuring import evaluation

    yield from evaluation.evaluate(cases, config)
