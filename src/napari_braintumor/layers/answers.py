"""What a model drew, as it is stored with the layer, however the labels there are corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_braintumor.engine.measuring.record import describe_segmentation
from napari_braintumor.engine.tally import SliceTally, pack_slice
from napari_braintumor.engine.volumes import Segmentation


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model produced: stored in the metadata of its layer, however the labels there are edited.

    Attributes
    ----------
    record
        The record from `describe_segmentation`.
    label_names, label_colors
        The name and color of each label that the model can produce.
    regions
        The labels that make up each region, outermost first.
    volumes_ml
        The volume of each region that was drawn.
    not_measurable
        The reason for each region that the scans cannot show.
    notes
        Notes shown to the user during the run.
    voxel_ml
        The voxel volume of the grid it was made on.
    slices
        The content of each slice along Z; of another model's slice if that was kept because it had been reviewed.
    packed
        The labels of each slice along Z that is not empty, compressed.
    """

    record: Mapping[str, Any]
    label_names: Mapping[int, str]
    label_colors: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    volumes_ml: Mapping[str, float]
    not_measurable: Mapping[str, str]
    notes: tuple[str, ...]
    voxel_ml: float
    slices: tuple[SliceTally, ...]
    packed: Mapping[int, bytes] = field(default_factory=dict)


def answer_of(segmentation: Segmentation, notes: Iterable[str] = ()) -> Answer:
    """Return the part of a segmentation that is stored with its layer."""
    return Answer(
        record=describe_segmentation(segmentation),
        label_names=dict(segmentation.label_names),
        label_colors=dict(segmentation.label_colors),
        regions=dict(segmentation.regions),
        volumes_ml=dict(segmentation.volumes_ml),
        not_measurable=dict(segmentation.not_measurable),
        notes=tuple(notes) or tuple(segmentation.provenance.get("notes", ())),
        voxel_ml=segmentation.source.voxel_ml,
        slices=segmentation.tallies,
        packed={
            z: pack_slice(np.asarray(segmentation.labels[z]))
            for z, tally in enumerate(segmentation.tallies)
            if tally.voxels
        },
    )
