"""Settings: what all of them are made from, what is said of a wrong one, and those of segmenting and evaluating."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT_MODEL = "glioma-u2net"
"""The one that measures best for its time, see docs/models.md."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Runtime = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]


LONGEST_SHOWN = 80
"""Characters of a wrong value that are worth showing."""


class Frozen(BaseModel):
    """A value that never changes and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong, in words: where, the value if it is short, and why."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if not where:
        return first["msg"]
    value = repr(first["input"])
    is_shown = first["type"] != "missing" and len(value) <= LONGEST_SHOWN
    return f"{where} = {value}: {first['msg']}" if is_shown else f"{where}: {first['msg']}"


class SegmentConfig(Frozen):
    """How a volume is segmented."""

    model: str = Field(DEFAULT_MODEL, description="Name of a model in the store, or path of a model file.")
    device: Device = Field("auto", description="Where the network runs; auto takes CUDA, then MPS, then the CPU.")
    runtime: Runtime = Field("auto", description="What runs it; auto takes OpenVINO on the CPU when it is installed.")
    precision: Precision = Field(
        "auto",
        description="auto is float32 on the CPU and reduced precision on GPUs; bfloat16 takes half the time on CPUs "
        "that have instructions for it, and changes a few voxels.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Probability above which a voxel belongs to a region; empty takes the model's own."
    )
    min_volume_ml: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None, description="Connected tumors smaller than this are removed; empty takes the model's own."
    )
    search_step_mm: Annotated[float, Field(ge=0, le=20)] = Field(
        3.0,
        description="Only slices this far apart are searched for tumor, and all of them around what is found. Up to "
        "3 mm the labels are those of a look at every slice, as what is thinner is not kept; with more, thin tumor is "
        "lost. 0 looks at every slice.",
    )
    keep_largest: bool = Field(False, description="Keep only the largest connected tumor.")
    test_time_mirroring: bool = Field(False, description="Average with the left-right mirrored scan; twice the time.")
    probabilities: bool = Field(False, description="Also return the probability of each region.")
    batch_size: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Slices at a time; empty chooses by device."
    )


class EvaluateConfig(Frozen):
    """How a model is compared with reference masks."""

    segmentation: SegmentConfig = Field(default_factory=SegmentConfig, description="The model and how to run it.")
    modalities: tuple[str, ...] | None = Field(
        None, description="Only these of each case are used; cases that have none of them are left out with a note."
    )
    held_out: bool = Field(False, description="Only patients that the model's card lists as held out.")
    side: Mapping[str, tuple[int, ...] | None] | None = Field(
        None, description="Only the cases of these names, and of each only these slices along Z; None is all slices."
    )
    pooled: bool = Field(
        False,
        description="Also measure over the voxels of all cases together: as the original project did, and how well "
        "calibrated probabilities are.",
    )
    no_tumor: bool = Field(
        False, description="The cases show no tumor: all that is found is false. Their references are not read."
    )
