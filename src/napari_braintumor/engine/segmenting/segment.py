"""Segment a volume: volume and settings in, events and a segmentation out. `segment` shows the whole flow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from napari_braintumor.engine.anatomy import labels_by_region
from napari_braintumor.engine.devices import describe_device
from napari_braintumor.engine.events import Noted, PhaseReached, Segmented, SegmentEvent, Started
from napari_braintumor.engine.inspecting.inspection import find_misplaced
from napari_braintumor.engine.models.calibration import find_calibration
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.prepare import survey_for
from napari_braintumor.engine.preparing.refining import refine
from napari_braintumor.engine.segmenting.cleaning import clean
from napari_braintumor.engine.segmenting.conversion import load_converted
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.segmenting.regions import RegionMaps
from napari_braintumor.engine.segmenting.resolve import SegmentTask, choose_where, resolve
from napari_braintumor.engine.segmenting.runtime import FallbackRunner
from napari_braintumor.engine.segmenting.slices import segment_slices
from napari_braintumor.engine.segmenting.trust import judge_case
from napari_braintumor.engine.segmenting.windows import choose_window, segment_windows
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import AnyVolume, Segmentation, Volume


def segment(volume: AnyVolume, config: SegmentConfig, all_regions: bool = False) -> Iterator[SegmentEvent]:
    """Segment a volume.

    Regions that these modalities cannot show, according to the model's card, are not drawn;
    `Segmentation.not_measurable` lists them.

    Parameters
    ----------
    volume
        One or more of the model's modalities, on one grid.
    config
        The model and how to run it.
    all_regions
        Draw every region anyway: for the measurements that the card is based on.

    Yields
    ------
    SegmentEvent
        `Noted` for anything the user should know, `PhaseReached` before the brain is extracted or brightness is
        corrected, `Started` when the network is ready, `SlicesDone` after each chunk, and `Segmented` last.

    Raises
    ------
    BrainTumorError
        If the volume or the settings do not fit the model.
    """
    started = time.perf_counter()
    task = resolve(volume, config, all_regions)
    yield from map(Noted, task.notes)
    for event in refine_task(task):
        if isinstance(event, PhaseReached):
            yield event
        else:
            yield from map(Noted, event.notes[len(task.notes) :])
            task = event

    survey = survey_for(task.card, task.volume, task.divisor)
    findings = find_misplaced(survey.thumbnails)
    yield from map(Noted, findings)

    network = Network(task, choose_window(task.card, survey.foreground.shape, task.divisor))
    runner = network.runner
    yield from map(Noted, runner.notes)
    reported = len(runner.notes)
    yield Started(describe_device(runner.device), runner.runtime)

    maps = RegionMaps.empty(task)
    look_through = segment_windows if task.card.spatial_dims == 3 else segment_slices
    for done in look_through(task, survey, network, maps):
        yield from map(Noted, runner.notes[reported:])
        reported = len(runner.notes)
        yield done

    volumes_ml, found = clean(maps.depth, task)
    yield from map(Noted, found)
    notes = [*task.notes, *findings, *runner.notes, *found]
    yield Segmented(
        Segmentation(
            labels=maps.depth,
            label_names={region.label: region.label_name for region in task.card.regions},
            label_colors={region.label: region.color for region in task.card.regions},
            regions=labels_by_region(task.card.regions),
            volumes_ml=volumes_ml,
            source=volume.source,
            name=volume.name,
            provenance={
                **_describe(task, runner, notes, time.perf_counter() - started),
                **_judge(task, maps.certainty.describe(task), volumes_ml),
            },
            probabilities=maps.probabilities,
            not_measurable=task.not_measurable,
            alignment=volume.alignment,
        )
    )


def refine_task(task: SegmentTask) -> Iterator[PhaseReached | SegmentTask]:
    """Do to the scans of a task what its settings ask for.

    Yields
    ------
    PhaseReached or SegmentTask
        Last the task on the scans as they are now, with the notes that say so last; itself if nothing was asked for.
    """
    if not (task.extracts_brain or task.config.n4):
        yield task
        return
    assert isinstance(task.volume, Volume)
    known = len(task.volume.notes)
    for event in refine(task.volume, strip=task.extracts_brain, n4=task.config.n4):
        if isinstance(event, Volume):
            yield replace(task, volume=event, notes=(*task.notes, *event.notes[known:]))
        else:
            yield event


def refine_now(task: SegmentTask) -> SegmentTask:
    """Do to the scans of a task what its settings ask for, without reporting phases."""
    *_, last = refine_task(task)
    assert not isinstance(last, PhaseReached)
    return last


def _describe(task: SegmentTask, runner: FallbackRunner, notes: list[str], seconds: float) -> dict[str, Any]:
    """Describe for the record how a segmentation was made: JSON values only."""
    return {
        "program": "napari-braintumor",
        "model": task.card.name,
        "model_version": task.card.version,
        "model_sha256": task.sha256,
        "modalities_used": list(_used(task)),
        "settings": task.config.model_dump(mode="json"),
        "device": runner.device.type,
        "runtime": runner.runtime,
        "seconds": round(seconds, 2),
        "notes": notes,
        "not_measurable": dict(task.not_measurable),
        "intended_use": task.card.intended_use,
    }


def _judge(
    task: SegmentTask, certainty: dict[str, dict[str, float]], volumes_ml: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Say for the record how sure the network is, and how far that can be trusted if that is known."""
    trust = judge_case(find_calibration(task.path), _used(task), certainty, volumes_ml)
    return {"certainty": certainty, **({} if trust is None else {"trust": trust.describe()})}


def _used(task: SegmentTask) -> tuple[str, ...]:
    return tuple(name for name in task.card.modalities if name in task.volume.modalities)


def warm_up(config: SegmentConfig) -> None:
    """Load the runtime, and convert the model if needed, so that the first segmentation starts sooner.

    Raises
    ------
    BrainTumorError
        If the settings do not fit this computer, or the model does not exist.
    """
    model = ModelStore().find(config.model)
    assert model.card is not None
    if choose_where(model.card, config)[1] == "openvino":
        load_converted(model.path, file_sha256(model.path))
