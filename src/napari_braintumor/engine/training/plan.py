"""How a model is trained: one value that holds all that is needed to do a training again."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, REGION_NAMES
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.models.card import ContextMm, ModelCard, Spacing, name_inputs
from napari_braintumor.engine.settings import Device, Frozen

LossName = Literal["dice_bce", "dice", "log_cosh_dice", "tversky", "focal_tversky", "seed_dice", "log_cosh_seed_dice"]
ScheduleName = Literal["cosine", "one_cycle", "cyclic", "constant", "plateau"]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


LEAST_MM, MOST_MM = 0.05, 50.0
"""Between these a voxel size of the working grid makes sense."""


class FineTuning(Frozen):
    """How a trained model learns from a few corrected slices without forgetting what it knew."""

    freeze_statistics: bool = Field(
        True, description="Keep the parent's batch-norm statistics: those of a few slices would drift."
    )
    frozen_stages: Annotated[int, Field(ge=0, le=20)] = Field(
        2, description="Early stages of the encoder that do not learn at first."
    )
    unfrozen_by: Share = Field(
        0.5, description="Share of the training by which all stages learn, the deepest first; 1 keeps them frozen."
    )
    replay: tuple[Path, ...] = Field(
        (), description="Folders of cases the parent knew: half of each batch comes from them. Empty: distillation."
    )
    replay_share: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.5, description="Share of each batch that holds on to old knowledge: replayed or distilled slices."
    )
    replay_cases: Annotated[int, Field(ge=1, le=100)] = Field(
        4, description="Cases of the replay set that are measured before and after; they are not learned from."
    )
    allowed_loss: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.01, description="The new version is refused if it loses more Dice than this on the replay set."
    )


class TrainPlan(Frozen):
    """How a model is trained: all that is needed to do it again."""

    # What it is called and where it goes.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = Field(description="The model's name.")
    title: str = Field("", description="One line for people.")
    output: Path = Field(Path("runs"), description="Folder that gets a folder of this run's name.")
    license: str = Field(
        "", validation_alias=AliasChoices("license", "licence"), description="Goes onto the model's card."
    )
    limitations: str = Field("", description="Goes onto the model's card.")

    # What it learns from.
    cases: Annotated[tuple[Path, ...], Field(min_length=1)] = Field(
        description="Case folders, folders of them, or archives of prepared cases (.cases.zip)."
    )
    patients: dict[Name, Name] = Field(
        default_factory=dict,
        description="Who is who where names do not show it: for a case or a patient the patient that it is.",
    )
    training: tuple[Name, ...] = Field((), description="Patients that are never drawn to choose the best weights by.")
    validation: tuple[Name, ...] | Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Patients the best weights are chosen by: their names, or the share to draw."
    )
    fold: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=2)]] | None = Field(
        None, description="Cross-validation: [2, 5] validates on the second of five parts of the patients."
    )
    held_out: tuple[Name, ...] = Field((), description="Patients that this training must never look at.")
    split_by: Literal["patient", "slice"] = Field(
        "patient", description="slice puts one patient on both sides, which flatters; only to repeat old results."
    )
    modalities: Annotated[tuple[str, ...], Field(min_length=1)] = Field(MODALITIES, description="The input channels.")
    regions: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        tuple(region.name for region in GLIOMA_REGIONS),
        description="The output channels, outermost region first, and then those that do not nest.",
    )
    spacing: Spacing = Field((None, None, None), description="Working grid, mm along Z, Y, X; null leaves an axis.")
    context_mm: ContextMm | None = Field(
        None, description="The network also sees the slices this many mm above and below; empty: one slice alone."
    )
    patch: tuple[Annotated[int, Field(ge=16, le=1024)], Annotated[int, Field(ge=16, le=1024)]] = Field(
        (96, 96), description="Voxels of a training patch along Y, X, on the working grid."
    )
    tumor_share: Share = Field(0.7, description="Share of slices drawn that hold tumor.")
    group_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How often each group of cases (by naming scheme) is drawn; 1 if absent."
    )
    modality_dropout: Share = Field(
        0.5, description="Chance that a random part of a slice's modalities is blanked, never all."
    )
    cache_gb: Annotated[float, Field(ge=0, le=1024)] = Field(
        4.0, description="Memory for prepared cases; those beyond it are kept in files of the run folder."
    )
    workers: Annotated[int, Field(ge=0, le=64)] | None = Field(
        None, description="Processes that prepare batches; empty chooses by the machine, 0 where cores are few."
    )

    # What learns.
    architecture: str = Field("unet", description="A row of the registry.")
    options: dict[str, Any] = Field(default_factory=dict, description="The architecture's own options.")
    start_from: str | None = Field(None, description="A model whose weights training starts from: a name or a file.")
    vgg16: Path | None = Field(
        None, description="VGG-16 weights (.safetensors or torchvision's .pth) that FCN's trunk starts from."
    )
    fine_tuning: FineTuning | None = Field(
        None, description="How to keep what the model of start_from knows; null trains all of it freely."
    )

    # How it learns.
    augmentation: Literal["none", "light", "full"] = Field("full", description="How much slices are varied.")
    tumor_mixing: Share = Field(
        0.0, description="Share of slices that also get the tumor of another slice, cut out with a margin (CarveMix)."
    )
    elastic_px: Annotated[float, Field(ge=0, le=50)] = Field(
        10.0, description="Standard deviation of elastic displacements at the nodes of a coarse grid, pixels (full)."
    )
    loss: LossName = Field("dice_bce", description="What is minimized.")
    tversky_alpha: Share = Field(0.7, description="Tversky losses: weight of missed voxels; false ones get the rest.")
    focal_gamma: Annotated[float, Field(gt=0, le=5)] = Field(
        0.75, description="Focal Tversky: exponent of one minus the Tversky index."
    )
    optimizer: Literal["adamw", "adam", "sgd"] = Field(
        "adamw", validation_alias=AliasChoices("optimizer", "optimiser"), description="How weights are updated."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(2e-3, description="The highest learning rate.")
    weight_decay: Share = Field(1e-4, description="Shrinks weights at each step.")
    clipping: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        12.0, description="Gradients longer than this are shortened to it; empty leaves them."
    )
    schedule: ScheduleName = Field("cosine", description="How the learning rate changes from batch to batch.")
    warm_up: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.05, description="Share of the training in which the rate rises (cosine, constant, plateau)."
    )
    cycle_steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(400, description="Cyclic: steps of half a cycle.")
    cycle_mode: Literal["triangular", "triangular2", "exp_range"] = Field(
        "triangular", description="Cyclic: peaks stay, halve each cycle, or shrink by cycle_gamma each step."
    )
    cycle_gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.99994, description="Cyclic: decay of exp_range.")
    lowest_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Cyclic: where cycles start; empty takes a sixth of the learning rate."
    )
    plateau_patience: Annotated[int, Field(ge=1, le=1000)] = Field(
        5, description="Plateau: epochs without a better score before the rate falls to a half."
    )
    averaging: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.998, description="Decay of the running average of the weights (EMA); 0 turns it off."
    )

    # How long, and what is kept.
    keep: Literal["best", "last"] = Field(
        "best", description="Which epoch's weights are kept; last is better where few patients are there to choose by."
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(50, description="Rounds, each followed by a validation.")
    steps_per_epoch: Annotated[int, Field(ge=1, le=1_000_000)] = Field(100, description="Batches in a round.")
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None, description="Stop after this time even if epochs are left; the rate is scheduled to fit."
    )
    patience: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Stop early after this many epochs without a better score; empty goes on to the end."
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="Slices in a batch, in each process.")
    preview_every: Annotated[int, Field(ge=0, le=1000)] = Field(
        1, description="Epochs between previews of one validation slice; 0 makes none."
    )

    # The machine.
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Makes a training repeatable on one machine.")
    device: Device = Field("auto", description="Where training runs.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of convolutions; auto takes bfloat16 on CUDA cards that have it. CPUs with AVX512-BF16 need about "
        "half the time with bfloat16, others many times more.",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="CPU threads; 0 leaves the choice to torch.")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The network's input channels, as `ModelCard.inputs`."""
        return name_inputs(self.modalities, self.context_mm)

    @field_validator("modalities")
    @classmethod
    def _know_modalities(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = tuple(_read_modality(name) for name in names)
        if twice := [name for name in known if known.count(name) > 1]:
            raise ValueError(f"{twice[0]} is there twice. Expected each modality once")
        return known

    @field_validator("regions")
    @classmethod
    def _know_regions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in REGION_NAMES:
                raise ValueError(f"'{name}' is not a region. Expected one or more of {', '.join(REGION_NAMES)}")
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is there twice. Expected each region once")
        if (ordered := tuple(name for name in REGION_NAMES if name in names)) != names:
            raise ValueError(f"the regions are not in order. Expected the outermost first: {', '.join(ordered)}")
        return names

    @field_validator("spacing")
    @classmethod
    def _be_millimeters(cls, spacing: Spacing) -> Spacing:
        for side in spacing:
            if side is not None and not LEAST_MM <= side <= MOST_MM:
                raise ValueError(f"{side} is not a voxel size. Expected {LEAST_MM} to {MOST_MM:g} mm, or null")
        return spacing

    @model_validator(mode="after")
    def _check(self) -> TrainPlan:
        sides = {"training": self.training, "held_out": self.held_out}
        if isinstance(self.validation, tuple):
            sides["validation"] = self.validation
        for (one, ours), (other, theirs) in combinations(sides.items(), 2):
            if both := [name for name in ours if name in theirs]:
                raise ValueError(f"'{both[0]}' is named in both {one} and {other}. Expected every patient on one side")
        if self.fine_tuning is not None and self.start_from is None:
            raise ValueError("fine_tuning needs start_from, the model that is tuned")
        if self.fold is not None and self.fold[0] > self.fold[1]:
            raise ValueError(f"fold is {list(self.fold)}, but there are only {self.fold[1]} parts")
        return self


def _read_modality(name: str) -> str:
    modality = None if set(name) & set(",;/|") else find_modality(name)
    if modality is None:
        raise ValueError(f"'{name}' is not a known modality. Expected {', '.join(MODALITIES)} or a usual other name")
    return modality


def plan_fine_tuning(card: ModelCard, model: str, name: str, cases: tuple[Path, ...], **more: Any) -> TrainPlan:
    """Return a plan that tunes a model to new cases: a tenth of the rate, light variation, a few minutes.

    Parameters
    ----------
    card
        The card of the model that is tuned; architecture, modalities, regions and spacing are taken from it.
    model
        The model's name in the store, or its file.
    name
        Of the new version.
    cases
        Folders of corrected cases.
    **more
        Further fields of `TrainPlan`; they win.

    Returns
    -------
    TrainPlan
        The plan, validated.
    """
    settings: dict[str, Any] = {
        "title": f"{card.title or card.name}, tuned",
        "license": card.license,
        "limitations": card.limitations,
        "architecture": card.architecture,
        "options": card.options,
        "modalities": card.modalities,
        "regions": tuple(region.name for region in card.regions),
        "spacing": card.spacing,
        "context_mm": card.context_mm,
        "patch": (112, 96),
        "modality_dropout": 0.3 if card.accepts_missing else 0.0,
        "augmentation": "light",
        "learning_rate": 1e-4,
        "warm_up": 0.1,
        "clipping": 1.0,
        "averaging": 0.98,
        "tumor_share": 0.5,
        "epochs": 15,
        "steps_per_epoch": 20,
        "batch_size": 8,
        "minutes": 3.0,
        "fine_tuning": FineTuning(),
    }
    return TrainPlan(name=name, cases=cases, start_from=model, **{**settings, **more})
