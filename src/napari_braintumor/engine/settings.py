"""Settings: their base class, how wrong values are described, and the settings of segmenting and evaluating."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT_MODEL = "glioma-unet"
"""The model with the best accuracy for its running time, see docs/models.md."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Runtime = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "float32", "bfloat16"]
Skull = Literal["auto", "keep", "strip"]


LONGEST_SHOWN = 80
"""Longest wrong value that is shown in a message, in characters."""


class Frozen(BaseModel):
    """An immutable value that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_problem(error: ValidationError) -> str:
    """Describe the first problem: where it is, the value if it is short, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if not where:
        return first["msg"]
    value = repr(first["input"])
    is_shown = first["type"] != "missing" and len(value) <= LONGEST_SHOWN
    return f"{where} = {value}: {first['msg']}" if is_shown else f"{where}: {first['msg']}"


class SegmentConfig(Frozen):
    """How a volume is segmented."""

    model: str = Field(DEFAULT_MODEL, description="Name of a model in the store, or path to a model file.")
    device: Device = Field("auto", description="Where the network runs; auto takes CUDA, then MPS, then the CPU.")
    runtime: Runtime = Field(
        "auto", description="What runs the network; auto takes OpenVINO on the CPU if it is installed."
    )
    precision: Precision = Field(
        "auto",
        description="auto is float32 on the CPU and reduced precision on GPUs; bfloat16 takes half the time on CPUs "
        "that support it, and changes a few voxels.",
    )
    skull: Skull = Field(
        "auto",
        description="auto leaves out scans with the skull that the model has only seen without it; keep uses all scans "
        "as they are; strip extracts the brain first, which needs the package deepbet.",
    )
    n4: bool = Field(
        False,
        description="Correct slow changes of brightness across each scan first (N4); takes seconds for each. The "
        "bundled models learned from scans as they are.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Probability above which a voxel belongs to a region; leave empty for the model's own."
    )
    min_volume_ml: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None, description="Connected components smaller than this are removed; leave empty for the model's own."
    )
    search_step_mm: Annotated[float, Field(ge=0, le=20)] = Field(
        3.0,
        description="Search for tumor only in slices this far apart, then in all slices around what is found. Up to 3 "
        "mm the labels are the same as with every slice, because thinner tumor is not kept; beyond that, thin tumor is "
        "lost. 0 searches every slice.",
    )
    keep_largest: bool = Field(False, description="Keep only the largest connected component.")
    test_time_mirroring: bool = Field(
        False, description="Average with the result of the left-right mirrored scan; takes twice the time."
    )
    probabilities: bool = Field(False, description="Also return the probability of each region.")
    batch_size: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Slices at a time; leave empty to choose by device."
    )


class AlignConfig(Frozen):
    """How scans on different grids are brought onto one."""

    reference: str = Field(
        "auto",
        description="The modality whose grid the others are brought onto; auto takes FLAIR if its axial slices are "
        "fine, then T1ce, T2, T1; finest takes the smallest voxels.",
    )
    registration: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto registers scans that have different grids, and keeps scanner coordinates where registration "
        "finds nothing better; never trusts the headers; always also registers scans that share one grid.",
    )
    interpolation: Literal["linear", "cubic"] = Field(
        "linear", description="How scans are resampled; cubic keeps more detail and takes ten times as long."
    )


class EvaluateConfig(Frozen):
    """How a model is compared with reference masks."""

    segmentation: SegmentConfig = Field(default_factory=SegmentConfig, description="The model and how to run it.")
    aligning: AlignConfig = Field(
        default_factory=AlignConfig, description="How scans on different grids are brought onto one."
    )
    modalities: tuple[str, ...] | None = Field(
        None,
        description="Use only these modalities of each case; cases that have none of them are left out with a note.",
    )
    held_out: bool = Field(False, description="Use only patients that the model's card lists as held out.")
    side: Mapping[str, tuple[int, ...] | None] | None = Field(
        None,
        description="Use only the cases with these names, and only these slices along Z of each; None is all slices.",
    )
    pooled: bool = Field(
        False,
        description="Also measure over the voxels of all cases together: Dice as the original project measured it, and "
        "how well calibrated the probabilities are.",
    )
    every_score: bool = Field(
        False,
        description="Also measure surface Dice, missed and false lesions, and lesion by lesion as BraTS does.",
    )
    no_tumor: bool = Field(
        False, description="The cases show no tumor, so everything found is a false positive. References are not read."
    )
