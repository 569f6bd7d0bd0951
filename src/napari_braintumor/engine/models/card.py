"""The model card: everything needed to use and to judge a model, stored inside its weights file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, Region
from napari_braintumor.engine.settings import Frozen

Spacing = tuple[float | None, float | None, float | None]
"""Voxel size in mm along Z, Y, X that a network works at; None leaves that axis on the case's own grid."""

Normalization = Literal["head z-score", "nonzero z-score", "percentile z-score"]
"""How intensities are prepared for a network.

- ``head z-score``: clipped to the head's percentiles 0.5 to 99.5, mean 0 and deviation 1 over the head, zero outside.
- ``nonzero z-score``: mean 0 and deviation 1 over all nonzero voxels; zeros stay zero; as in MONAI's bundles.
- ``percentile z-score``: clipped to the percentiles 10 to 99 of all images together, then mean 0 and deviation 1 over
  each whole image; as in Buda's U-Net.
"""


class DataSource(Frozen):
    """A data set a model was trained on."""

    name: str
    patients: Annotated[int, Field(ge=0)]
    license: Annotated[str, Field(validation_alias=AliasChoices("license", "licence"))]
    defines: tuple[str, ...] = Field(description="The regions its annotation defines.")
    note: str = ""


ContextMm = Annotated[float, Field(gt=0, le=50)]


def name_inputs(modalities: Sequence[str], context_mm: float | None) -> tuple[str, ...]:
    """Return the names of a network's input channels: the modalities, with context also those above and below."""
    places = ("",) if context_mm is None else ("", " above", " below")
    return tuple(f"{name}{place}" for place in places for name in modalities)


OWN_SLICES = "validation slices"
"""The data of a figure that was measured on slices of training scans, and says nothing about other patients."""

_OWN_SLICES_NAMES = (OWN_SLICES, "slices held out", "slices kept back")  # earlier versions wrote the latter two

VOLUME_DICE = "volume Dice"

MIN_MEASURABLE_DICE = 0.3
"""Below this Dice, most of a drawn region is wrong."""

_KINDS = {
    "BraTS": "glioblastoma",
    "LGG": "lower-grade glioma",
    "Brain-Tumor-Progression": "treated glioblastoma",
}
"""The kind of case in each data set that the bundled models are measured on."""


class Metric(Frozen):
    """A figure measured on named cases."""

    data: str
    region: str
    modalities: tuple[str, ...]
    measure: str = VOLUME_DICE
    mean: float
    median: float | None = None
    low: float | None = Field(None, description="Lower end of the mean's 95 % confidence interval, over cases.")
    high: float | None = Field(None, description="Its upper end.")
    n: Annotated[int, Field(ge=1)]
    held_out: bool = Field(description="True if training saw none of these patients.")

    @property
    def kind(self) -> str:
        """The kind of case in words, or the name of the data if the kind is unknown."""
        return _KINDS.get(self.data, self.data)


class SolidCore(Frozen):
    """What is core where a network finds hardly any: all of the tumor but a rim, by depth inside the whole tumor.

    Readers of BraTS mark the solid middle of a glioma that does not enhance as its core. In a single slice it looks
    like the edema of one that does.
    """

    below_share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="The rule holds where the network's core is a smaller share of the whole tumor than this."
    )
    rim_share: Annotated[float, Field(ge=0, lt=1)] = Field(description="The rim, as a share of the greatest depth.")
    rim_mm: Annotated[float, Field(ge=0, le=100)] = Field(description="The rim is at least so many mm.")


Side = Annotated[int, Field(ge=16, le=1024)]


FINISHED_SHARE = 0.99
"""A training that was stopped behind this share of its plan had nothing left to learn: its rate was almost zero."""


class ModelCard(Frozen):
    """What a model is, what it needs, what it was trained on and how well it performs."""

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    version: str = "1"
    title: str = ""
    parent: str | None = None
    architecture: str
    options: dict[str, Any] = Field(default_factory=dict)
    spatial_dims: Literal[2, 3] = 2
    modalities: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)] = MODALITIES
    accepts_missing: bool = Field(False, description="True if any subset of the modalities will do.")
    seen_with_skull: tuple[str, ...] | None = Field(
        None, description="Modalities that training saw with the skull; None if all, or if it is not known."
    )
    regions: Annotated[tuple[Region, ...], Field(min_length=1, max_length=16)] = GLIOMA_REGIONS
    activation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="sigmoid: each channel is a region; softmax: each channel is a class, background too."
    )
    channels: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] | None = Field(
        None, description="For each region, the network's channels that it contains; None: channel n is region n."
    )
    plane: Literal["axial"] = "axial"
    axes: Literal["LPS zyx", "LPS xyz", "RAS xyz"] = Field(
        "LPS zyx",
        description="Orientation and order of the network's axes. Files of BraTS are LPS xyz; MONAI's Orientation "
        "turns them to RAS xyz.",
    )
    spacing: Spacing = Field((None, None, None), description="The grid the network works at, mm along Z, Y, X.")
    context_mm: ContextMm | None = Field(
        None,
        description="A 2-D network also sees the slices this many mm above and below, the nearest ones; beyond the "
        "ends of a scan they are zero. None: it sees one slice alone.",
    )
    window: tuple[Side, Side, Side] | None = Field(
        None, description="Voxels Z, Y, X that a 3-D network sees at once; a 2-D network takes slices of any size."
    )
    normalization: Normalization = Field(
        "head z-score", validation_alias=AliasChoices("normalization", "normalisation")
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    solid_core: SolidCore | None = Field(
        None, description="What else counts as core if hardly any core is found although the scans could show it."
    )
    cpu_seconds_per_slice: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Measured on two CPU cores of the machine that made the model; to estimate the time."
    )
    parameters: Annotated[int, Field(ge=0)] = 0
    trained_on: tuple[DataSource, ...] = ()
    training_patients: tuple[str, ...] = ()
    validation_patients: tuple[str, ...] = Field((), description="Patients used to choose the best weights.")
    held_out_patients: tuple[str, ...] = Field((), description="Patients that training never saw.")
    patients: dict[str, str] = Field(
        default_factory=dict, description="Other names of patients, each with its name on this card."
    )
    metrics: tuple[Metric, ...] = ()
    parent_metrics: tuple[Metric, ...] = Field(
        (), description="Figures of the model that it was tuned from: tuning does not change what a modality can show."
    )
    license: str = Field("", validation_alias=AliasChoices("license", "licence"))
    intended_use: str = "Research. Not a medical device."
    limitations: str = ""
    created: str = ""
    stopped_at: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Share of the plan that was done when training was stopped early; None if it was completed."
    )
    plans: tuple[dict[str, Any], ...] = Field(
        (), description="The trainings behind the weights, first to last: settings of their plans, without file names."
    )

    @field_validator("regions")
    @classmethod
    def _refuse_duplicates(cls, regions: tuple[Region, ...]) -> tuple[Region, ...]:
        for field in ("name", "label"):
            if len({getattr(region, field) for region in regions}) < len(regions):
                raise ValueError(f"two regions have the same {field}")
        if any(after.nested > before.nested for before, after in pairwise(regions)):
            raise ValueError("a region that is not nested must come after the nested ones, to be painted over them")
        return regions

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.spatial_dims == 2 and (self.axes != "LPS zyx" or self.window is not None):
            raise ValueError("only 3-D networks have axes and a window")
        if self.spatial_dims == 3 and self.context_mm is not None:
            raise ValueError("only 2-D networks have context")
        if self.channels is None:
            if self.activation == "softmax":
                raise ValueError("a network with softmax needs the channels of each region")
            return self
        if len(self.channels) != len(self.regions) or not all(self.channels):
            raise ValueError("each region needs channels of its own")
        if self.activation == "sigmoid" and any(len(channels) != 1 for channels in self.channels):
            raise ValueError("with sigmoid each region is one channel")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The network's input channels: the modalities, with context also those of the slices above and below."""
        return name_inputs(self.modalities, self.context_mm)

    @property
    def out_channels(self) -> int:
        """The number of the network's output channels, as far as the regions show."""
        return len(self.regions) if self.channels is None else 1 + max(map(max, self.channels))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons to be careful with the model, one sentence each; empty for a validated model."""
        measured = {metric.data for metric in self.metrics}
        reasons = []
        if not measured:
            reasons.append("It was never validated: nobody has measured how well it finds tumors.")
        elif measured <= set(_OWN_SLICES_NAMES):
            reasons.append(
                "It was measured only on slices of the scans it learned from, so nothing is known about other patients."
            )
        if self._stopped_early:
            reasons.append(f"Its training was stopped early, after {self.stopped_at:.0%} of its plan.")
        return tuple(reasons)

    @property
    def badges(self) -> tuple[str, ...]:
        """The doubts, in two words each, for lists."""
        unproven = {metric.data for metric in self.metrics} <= set(_OWN_SLICES_NAMES)
        return ("not validated",) * unproven + ("stopped early",) * self._stopped_early

    def lacks(self, available: Iterable[str]) -> tuple[str, ...]:
        """Return the modalities that the model needs and does not get; none if any subset will do."""
        there = set(available)
        return () if self.accepts_missing else tuple(name for name in self.modalities if name not in there)

    @property
    def _stopped_early(self) -> bool:
        return self.stopped_at is not None and self.stopped_at < FINISHED_SHARE

    def leaves_out(self, modalities: Collection[str], with_skull: Collection[str]) -> tuple[str, ...]:
        """Return the modalities that had better not be used, because training never saw them with the skull.

        Parameters
        ----------
        modalities, with_skull
            Those of a case, and those among them that show the skull.

        Returns
        -------
        tuple of str
            None if the model needs all of its modalities, or none would remain.
        """
        if self.seen_with_skull is None or not self.accepts_missing:
            return ()
        used = [name for name in self.modalities if name in modalities]
        strange = tuple(name for name in used if name in with_skull and name not in self.seen_with_skull)
        return strange if len(strange) < len(used) else ()

    def expected_dice(self, modalities: Iterable[str]) -> dict[str, tuple[Metric, ...]]:
        """Return how well each region was found with exactly these modalities, one figure for each kind of case.

        Parameters
        ----------
        modalities
            Those of a case; what the model does not use does not count.

        Returns
        -------
        dict
            For each region that was measured, outermost first, its mean volume Dice on each data set (`Metric.kind`
            names the kind of case). Regions that were not measured are left out.
        """
        used = set(modalities) & set(self.modalities)
        dice = [m for m in self.metrics if m.measure == VOLUME_DICE and set(m.modalities) == used]
        of_region = {region.name: tuple(m for m in dice if m.region == region.name) for region in self.regions}
        return {name: metrics for name, metrics in of_region.items() if metrics}

    def find_unmeasurable(self, modalities: Iterable[str]) -> dict[str, str]:
        """Return the regions that a case with these modalities cannot show, each with a short reason.

        A region is measurable if its volume Dice, over all patients that training never saw, is at least
        `MIN_MEASURABLE_DICE`. Where that was not measured with exactly these modalities, the figures of the model it
        was tuned from decide; where there are none either, nothing is claimed.

        Parameters
        ----------
        modalities
            Those of a case; what the model does not use does not count.

        Returns
        -------
        dict
            The reason by region, outermost first; empty if all can be measured.
        """
        used = set(modalities) & set(self.modalities)
        found = {}
        for region in self.regions:
            dice = self._held_out_dice(region.name)
            if dice.get(frozenset(used), 1.0) >= MIN_MEASURABLE_DICE:
                continue
            enough = [subset for subset, value in dice.items() if used < subset and value >= MIN_MEASURABLE_DICE]
            best = min(enough, key=lambda subset: (len(subset), -dice[subset]), default=None)
            lacking = [name for name in self.modalities if best is not None and name in best - used]
            found[region.name] = f"not measurable {f'without {_join(lacking)}' if lacking else 'with this model'}"
        return found

    def _held_out_dice(self, region: str) -> dict[frozenset[str], float]:
        """Return a region's mean volume Dice, over the patients of all data sets, for each subset of modalities."""
        own = {frozenset(m.modalities) for m in self.metrics if m.held_out and m.region == region}
        figures = (*self.metrics, *(m for m in self.parent_metrics if frozenset(m.modalities) not in own))
        dice = [m for m in figures if m.measure == VOLUME_DICE and m.held_out and m.region == region]
        subsets = {frozenset(m.modalities) for m in dice}
        of_subset = {subset: [m for m in dice if set(m.modalities) == subset] for subset in subsets}
        return {subset: sum(m.mean * m.n for m in ms) / sum(m.n for m in ms) for subset, ms in of_subset.items()}


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
