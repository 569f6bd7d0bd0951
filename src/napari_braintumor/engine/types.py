"""The values that travel between files, models and layers. NumPy only; all of them frozen.

Axis order everywhere: M modality, R region, Z inferior to superior, Y anterior to posterior, X patient's right to
left (LPS with axes reversed), so that an axial slice shows as radiologists see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.tally import SliceTally, tally_slices

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
"""The MRI sequences known by name, in the order in which they are offered."""

REGIONS = ("whole tumor", "tumor core", "enhancing tumor")
"""The nested regions, outermost first."""

LABELS: Mapping[int, str] = {1: "necrotic / non-enhancing core", 2: "edema", 3: "enhancing tumor"}
"""What an integer in a label layer means (BraTS 2023 numbers)."""

REGION_LABELS: Mapping[str, tuple[int, ...]] = {
    "whole tumor": (1, 2, 3),
    "tumor core": (1, 3),
    "enhancing tumor": (3,),
}
"""The labels that together make each region."""

FileFormat = Literal["nifti", "tiff", "array"]

POSSIBLE_SIDES_MM = (0.05, 30.0)
"""Between these lie the sides of a voxel in any scan of a head."""

LONGEST_SCAN_MM = 600.0
"""No scan of a head is longer along any axis."""


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid an image had before its axes were reordered: all that is needed to write labels back onto it.

    Attributes
    ----------
    shape
        Voxels along the three spatial axes, in the source's own order.
    affine
        ``(4, 4)`` float64, source voxel index to RAS millimetres.
    axes
        For each of our axes Z, Y, X the source axis it came from.
    flips
        For each of our axes Z, Y, X whether it runs against the source axis.
    path
        The file the first modality came from, or None for arrays made in memory.
    format
        What the source was, so that labels are written in the same kind of file.
    header
        The binary NIfTI header of the source, or empty: keeps qform and sform codes exact.
    spacing_known
        False where the file states no voxel size, or an impossible one: millimeters and milliliters are guesses.
    orientation_known
        False where the file does not say how the head lies in it, so that its axes were taken as stored.
    spacing_note
        What was guessed of the voxel size and why, one sentence; empty where nothing was.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    path: Path | None = None
    format: FileFormat = "array"
    header: bytes = b""
    spacing_known: bool = True
    orientation_known: bool = True
    spacing_note: str = ""

    def with_spacing(self, spacing: tuple[float, float, float]) -> SourceGrid:
        """Return the same grid with the voxel size that a user states.

        Labels are still written on the grid of the file, so that they lie where the scan lies.

        Parameters
        ----------
        spacing
            mm along Z, Y, X.

        Raises
        ------
        SettingsError
            If no scan of a head has such voxels.
        """
        if not is_possible_spacing(self.shape_ZYX, spacing):
            sides = " x ".join(f"{side:g}" for side in spacing)
            low, high = POSSIBLE_SIDES_MM
            raise SettingsError(
                f"Voxels of {sides} mm (Z x Y x X) cannot be those of a scan of {_by(self.shape_ZYX)} voxels. Expected "
                f"sides of {low:g} to {high:g} mm and at most {LONGEST_SCAN_MM:g} mm in all. Give the voxel size in mm."
            )
        return replace(self.rescaled(spacing), spacing_known=True, spacing_note="")

    def rescaled(self, spacing: tuple[float, float, float]) -> SourceGrid:
        """Return the same grid with its steps stretched to these mm along Z, Y, X, whatever is known of them."""
        affine = self.affine.copy()
        for axis, old, new in zip(self.axes, self.spacing, spacing, strict=True):
            affine[:3, axis] *= new / old
        return replace(self, affine=affine)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the file's header, a sentence each."""
        notes = [self.spacing_note] if self.spacing_note else []
        if self.format == "nifti" and not self.orientation_known:
            name = self.path.name if self.path else "The scan"
            notes.append(
                f"'{name}' does not state its orientation (neither qform nor sform), so left and right, front and back "
                "are a guess: check them against the scanner's own pictures."
            )
        return tuple(notes)

    @property
    def shape_ZYX(self) -> tuple[int, int, int]:
        """Voxels along our axes Z, Y, X."""
        z, y, x = (self.shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def affine_ZYX(self) -> NDArray[np.float64]:
        """``(4, 4)``, from our own index (z, y, x) to RAS mm."""
        reorder = np.zeros((4, 4))
        reorder[3, 3] = 1
        for ours, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            reorder[axis, ours] = -1 if flip else 1
            reorder[axis, 3] = self.shape[axis] - 1 if flip else 0
        return self.affine @ reorder

    def to_source(self, array_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Put an array with axes (Z, Y, X) back into the source's own axis order and directions."""
        if self.is_in_order:
            return array_ZYX
        flipped = array_ZYX[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        return np.transpose(flipped, np.argsort(self.axes))

    def from_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorder a source array, whose last three axes are spatial, to (..., Z, Y, X)."""
        if self.is_in_order:
            return array
        first = array.ndim - 3
        order = (*range(first), *(first + axis for axis in self.axes))
        index = (*(slice(None),) * first, *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))
        return np.transpose(array, order)[index]

    @property
    def is_in_order(self) -> bool:
        """Whether the source's own axes are Z, Y, X already, so that lazy arrays stay as they are."""
        return self.axes == (0, 1, 2) and not any(self.flips)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        z, y, x = (float(lengths[axis]) for axis in self.axes)
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL: of the parallelepiped, which in a sheared grid is less than its sides' product."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def origin(self) -> tuple[float, float, float]:
        """Position of our voxel (0, 0, 0) in mm: superior, posterior, left."""
        corner = np.zeros(3)
        for axis, flip in zip(self.axes, self.flips, strict=True):
            corner[axis] = self.shape[axis] - 1 if flip else 0
        right, anterior, superior = self.affine[:3, :3] @ corner + self.affine[:3, 3]
        return float(superior), float(-anterior), float(-right)


def is_possible_spacing(shape_ZYX: tuple[int, int, int], spacing: tuple[float, float, float]) -> bool:
    """Return whether a scan of a head can have so many voxels of so many mm along Z, Y, X."""
    low, high = POSSIBLE_SIDES_MM
    return all(low <= side <= high and side * n <= LONGEST_SCAN_MM for side, n in zip(spacing, shape_ZYX, strict=True))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def grid_from_affine(shape: tuple[int, int, int], affine: NDArray[np.floating[Any]], **extra: Any) -> SourceGrid:
    """Find how the axes of a grid are to be reordered to come closest to (Z, Y, X) in LPS.

    Parameters
    ----------
    shape
        Voxels along the three axes of the source.
    affine
        ``(4, 4)``, source voxel index to RAS mm; may be oblique. It must be invertible.
    **extra
        Further fields of `SourceGrid`.
    """
    affine = np.asarray(affine, dtype=np.float64)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # The assignment of source axes to world axes with the largest total alignment; six ways, so try them all.
    world = max(
        ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
        key=lambda p: sum(abs(directions[p[axis], axis]) for axis in range(3)),
    )
    axes = (world.index(2), world.index(1), world.index(0))
    wanted_sign = {0: -1.0, 1: -1.0, 2: 1.0}  # left, posterior, superior in RAS coordinates
    flips = tuple(bool(directions[w, axis] * wanted_sign[w] < 0) for w, axis in zip((2, 1, 0), axes, strict=True))
    return SourceGrid(tuple(shape), affine, axes, flips, **extra)  # type: ignore[arg-type]


def default_grid(
    shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1), **extra: Any
) -> SourceGrid:
    """Return the grid of an array that already has axes (Z, Y, X), with voxel (0, 0, 0) at the world's origin."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    return SourceGrid(shape, affine, **extra)


@dataclass(frozen=True, eq=False)
class Volume:
    """A case in memory: its modalities on one grid.

    Attributes
    ----------
    data
        float32 ``(M, Z, Y, X)``, finite.
    modalities
        The names of the M channels, for instance ``("T1", "FLAIR")``.
    source
        The grid the data came from.
    name
        What the case is called.
    notes
        What the user should know of its files, a sentence each: files left out and why, headers that were guessed.
    """

    data: NDArray[np.float32]
    modalities: tuple[str, ...]
    source: SourceGrid
    name: str = "case"
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X."""
        z, y, x = self.data.shape[1:]
        return z, y, x

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X."""
        return self.source.spacing

    @property
    def slab_slices(self) -> int:
        """How many neighboring slices are best read together: any one alone, they are in memory."""
        return 1

    def read(self, modality: int, slices: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return some slices of one modality, by its number: float32 ``(n, Y, X)``."""
        read: NDArray[np.float32] = self.data[modality][_as_index(slices)]
        return read

    def with_spacing(self, spacing: tuple[float, float, float]) -> Volume:
        """Return the same case with the voxel size that a user states; see `SourceGrid.with_spacing`."""
        notes = tuple(note for note in self.notes if note != self.source.spacing_note)
        return replace(self, source=self.source.with_spacing(spacing), notes=notes)

    def with_modalities(self, wanted: tuple[str, ...]) -> Volume:
        """Return the same case with only these of its modalities, in this order."""
        index = [self.modalities.index(name) for name in wanted]
        return replace(self, data=self.data[index], modalities=tuple(wanted))


@dataclass(frozen=True, eq=False)
class StreamedVolume:
    """A case that is read slice by slice while it is used, for scans larger than memory.

    Attributes
    ----------
    images
        For each modality an array ``(Z, Y, X)`` of real numbers that is read when it is indexed: memory-mapped, or of
        dask.
    modalities
        The names of the M images.
    source
        The grid the images came from.
    name
        What the case is called.
    slab_slices
        How many neighboring slices are best read together: those that are stored together.
    notes
        As in `Volume`.
    """

    images: tuple[Any, ...]
    modalities: tuple[str, ...]
    source: SourceGrid
    name: str = "case"
    slab_slices: int = 1
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X."""
        z, y, x = self.images[0].shape
        return z, y, x

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X."""
        return self.source.spacing

    def read(self, modality: int, slices: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return some slices of one modality, by its number: float32 ``(n, Y, X)``.

        Raises
        ------
        DataError
            If one holds NaN or infinity.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            read = np.array(self.images[modality][_as_index(slices)], np.float32)
        if not np.isfinite(read).all():
            raise DataError(
                f"Image '{self.modalities[modality]}' has voxels that are NaN or infinite in slices {slices[0]} to "
                f"{slices[-1]}. Expected were finite numbers. Replace them, for instance by 0 outside the head."
            )
        return read

    def with_spacing(self, spacing: tuple[float, float, float]) -> StreamedVolume:
        """Return the same case with the voxel size that a user states; see `SourceGrid.with_spacing`."""
        notes = tuple(note for note in self.notes if note != self.source.spacing_note)
        return replace(self, source=self.source.with_spacing(spacing), notes=notes)


AnyVolume = Volume | StreamedVolume
"""A case, in memory or not: `read` gives its slices either way."""


def _as_index(slices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return slices in a row as a range, which is read without looking for each."""
    first, last = int(slices[0]), int(slices[-1])
    return slice(first, last + 1) if last - first + 1 == len(slices) else slices


@dataclass(frozen=True, eq=False)
class Reference:
    """A mask drawn by people, as regions: a mask may define only some of them.

    Attributes
    ----------
    regions
        For each region that the mask's convention defines, bool ``(Z, Y, X)``.
    convention
        The name of the label convention by which the file was read.
    source
        The grid of the mask's file, or of the scan where that file does not state its place.
    notes
        What the user should know of how it was read, a sentence each.
    """

    regions: Mapping[str, NDArray[np.bool_]]
    convention: str
    source: SourceGrid
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 ``(Z, Y, X)`` with the numbers of `LABELS`, painted outermost first."""
        return labels_from_regions(self.regions)


def labels_from_regions(regions: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Paint nested regions into one label array, outermost first: 2 edema, 1 core, 3 enhancing."""
    shape = next(iter(regions.values())).shape
    labels = np.zeros(shape, np.uint8)
    for name, label in (("whole tumor", 2), ("tumor core", 1), ("enhancing tumor", 3)):
        if name in regions:
            labels[regions[name]] = label
    return labels


def region_from_labels(labels: NDArray[np.integer[Any]], region: str) -> NDArray[np.bool_]:
    """Return where labels belong to a region, a key of `REGION_LABELS`; the way back from `labels_from_regions`."""
    return np.isin(labels, REGION_LABELS[region])


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of a model on a volume.

    Attributes
    ----------
    labels
        uint8 ``(Z, Y, X)``, on the volume's grid; of a streamed volume a compressed zarr array in memory, which is
        indexed alike.
    label_names
        What each label that the model can give is called, in the order of its regions.
    label_colors
        ``#rrggbb`` for each label.
    regions
        The regions the model predicts, outermost first.
    volumes_ml
        Millilitres of each region that is drawn.
    source
        The grid of the volume it was made from.
    name
        The case's name.
    provenance
        Model, version, sha256, settings, device, runtime, seconds: JSON values only.
    probabilities
        float16 ``(R, Z, Y, X)`` in 0 to 1, where asked for.
    not_measurable
        Regions that these modalities cannot show, each with the reason; they are not drawn, and have no volume.
    """

    labels: NDArray[np.uint8]
    label_names: Mapping[int, str]
    label_colors: Mapping[int, str]
    regions: tuple[str, ...]
    volumes_ml: Mapping[str, float]
    source: SourceGrid
    name: str = "case"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    probabilities: NDArray[np.float16] | None = None
    not_measurable: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tallies(self) -> tuple[SliceTally, ...]:
        """What each slice along Z holds. Counting a large case takes a second, so do it in a worker."""
        return tally_slices(self.labels)

    @property
    def label_volumes_ml(self) -> dict[int, float]:
        """Millilitres of each label: of its region what lies in no region within."""
        found: dict[int, float] = {}
        within = 0.0
        for label, region in reversed(list(zip(self.label_names, self.regions, strict=True))):
            ml = self.volumes_ml.get(region, within)  # what is not drawn counts as the region around it
            found[label] = max(0.0, ml - within)
            within = ml
        return {label: found[label] for label in self.label_names}


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
class Comparison:
    """What several models found in one case, held against each other.

    Attributes
    ----------
    models
        What the models are called; other fields count them from 0.
    regions
        Those that any of them finds, outermost first.
    volumes_ml, seconds
        Of each model.
    dice
        For each pair of models the volume Dice of the regions that both find, 0 to 1.
    reference_ml, reference_dice, reference_hd95_mm
        Of the regions that a reference defines, the latter two for each model; empty where there is no reference.
    disagreement
        uint8 ``(Z, Y, X)``, of a streamed volume a zarr array: how many models do not go with the majority, in the
        region where most of them do not. Only regions that all models find count.
    disagreement_ml
        Where it is not 0.
    source, name
        Of the case.
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    volumes_ml: tuple[Mapping[str, float], ...]
    seconds: tuple[float, ...]
    dice: Mapping[tuple[int, int], Mapping[str, float]]
    reference_ml: Mapping[str, float]
    reference_dice: tuple[Mapping[str, float], ...]
    reference_hd95_mm: tuple[Mapping[str, float], ...]
    disagreement: NDArray[np.uint8]
    disagreement_ml: float
    source: SourceGrid
    name: str = "case"


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
    dice
        Volume Dice per region, 0 to 1; only the regions that the reference defines and the model predicts.
    hd95_mm
        95th percentile of the symmetric surface distance per region, mm.
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
    dice: Mapping[str, float]
    hd95_mm: Mapping[str, float]
    predicted_ml: Mapping[str, float]
    reference_ml: Mapping[str, float]
    held_out: bool | None
    seconds: float
    missed: Mapping[str, int] = field(default_factory=dict)
    lesions: Mapping[str, int] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()


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
    """All cases together by the original project's measure, see `napari_braintumor.engine.metrics.seed_dice`.

    `dice` is that of the outermost region, over the `slices` whose reference holds it.
    """

    region: str
    dice: float
    slices: int


@dataclass(frozen=True)
class CalibrationEvaluated:
    """How honest a region's probabilities are over all cases, see `napari_braintumor.engine.metrics.calibration_error`.

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
