"""What a user may choose. Frozen, bounded, and unknown fields are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_braintumor.engine.card import Spacing
from napari_braintumor.engine.types import MODALITIES, REGIONS

DEFAULT_MODEL = "glioma-unet"

Device = Literal["auto", "cpu", "cuda", "mps"]
Runtime = Literal["auto", "openvino", "torch"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentConfig(_Frozen):
    """How a volume is segmented."""

    model: str = Field(DEFAULT_MODEL, description="Name of a model in the store, or path of a model file.")
    device: Device = Field("auto", description="Where the network runs; auto takes CUDA, then MPS, then the CPU.")
    runtime: Runtime = Field("auto", description="What runs it; auto takes OpenVINO on the CPU when it is installed.")
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Probability above which a voxel belongs to a region; empty takes the model's own."
    )
    min_volume_ml: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None, description="Islands of tumor smaller than this are removed; empty takes the model's own."
    )
    keep_largest: bool = Field(False, description="Keep only the largest connected tumor.")
    test_time_mirroring: bool = Field(False, description="Average with the left-right mirrored scan; twice the time.")
    probabilities: bool = Field(False, description="Also return the probability of each region.")
    batch_size: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Slices at a time; empty chooses by device."
    )


class TrainPlan(_Frozen):
    """How a model is trained: all that is needed to do it again."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = Field(description="The model's name.")
    title: str = Field("", description="One line for people.")
    cases: Annotated[tuple[Path, ...], Field(min_length=1)] = Field(description="Case folders, or folders of them.")
    output: Path = Field(Path("runs"), description="Folder that gets a folder of this run's name.")
    validation: tuple[str, ...] | Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Patients the best weights are chosen by: their names, or the share to draw."
    )
    held_out: tuple[str, ...] = Field((), description="Patients that this training must never look at.")
    architecture: str = Field("unet", description="A row of the registry.")
    options: dict[str, Any] = Field(default_factory=dict, description="The architecture's own options.")
    modalities: Annotated[tuple[str, ...], Field(min_length=1)] = Field(MODALITIES, description="The input channels.")
    regions: Annotated[tuple[str, ...], Field(min_length=1)] = Field(REGIONS, description="The output channels.")
    spacing: Spacing = Field((None, None, None), description="Working grid, mm along Z, Y, X; null leaves an axis.")
    patch: tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]] = Field(
        (96, 96), description="Voxels of a training patch along Y, X, on the working grid."
    )
    tumor_share: Annotated[float, Field(ge=0, le=1)] = Field(0.7, description="Share of slices drawn that hold tumor.")
    group_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How often each group of cases (by naming scheme) is drawn; 1 if absent."
    )
    modality_dropout: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Chance that a random part of a slice's modalities is blanked, never all."
    )
    augmentation: Literal["none", "light", "full"] = Field("full", description="How much slices are varied.")
    loss: Literal["dice", "dice_bce"] = Field("dice_bce", description="What is minimised.")
    optimiser: Literal["adamw", "adam", "sgd"] = Field("adamw", description="How weights are updated.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(2e-3, description="The highest learning rate.")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(1e-4, description="Shrinks weights at each step.")
    schedule: Literal["cyclic", "one_cycle", "constant"] = Field("one_cycle", description="How the rate changes.")
    cycle_steps: Annotated[int, Field(ge=1)] = Field(400, description="Steps of half a cycle of a cyclic rate.")
    averaging: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.998, description="Decay of the running average of the weights (EMA); 0 turns it off."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Which epoch's weights are kept; last is better where few patients are there to choose by."
    )
    epochs: Annotated[int, Field(ge=1)] = Field(50, description="Rounds, each followed by a validation.")
    steps_per_epoch: Annotated[int, Field(ge=1)] = Field(100, description="Batches in a round.")
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Stop after this time even if epochs are left; the rate is scheduled to fit."
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="Slices in a batch.")
    start_from: str | None = Field(None, description="A model whose weights training starts from.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Makes a training repeatable on one machine.")
    device: Device = Field("auto", description="Where training runs.")
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0 leaves the choice to torch.")
    licence: str = Field("", description="Goes onto the model's card.")
    limitations: str = Field("", description="Goes onto the model's card.")
