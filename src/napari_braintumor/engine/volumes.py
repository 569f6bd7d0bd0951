"""The values passed between files, models and layers. NumPy only; all of them frozen.

Axis order everywhere: M modality, R region, Z inferior to superior, Y anterior to posterior, X patient's right to
left (LPS with axes reversed), so that an axial slice looks as radiologists are used to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.anatomy import labels_from_regions
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.tally import SliceTally, tally_slices


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
        The case's name.
    notes
        What the user should know about its files, one sentence each: files left out and why, header values guessed.
    alignment
        How its scans were brought onto one grid; None if their files share one.
    """

    data: NDArray[np.float32]
    modalities: tuple[str, ...]
    source: SourceGrid
    name: str = "case"
    notes: tuple[str, ...] = ()
    alignment: Alignment | None = None

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
        """How many neighboring slices are best read together: one, because they are in memory."""
        return 1

    def read(self, modality: int, slices: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return some slices of one modality, by its number: float32 ``(n, Y, X)``."""
        read: NDArray[np.float32] = self.data[modality][_as_index(slices)]
        return read

    def with_spacing(self, spacing: tuple[float, float, float]) -> Volume:
        """Change the voxel size to what the user entered; see `SourceGrid.with_spacing`.

        Returns
        -------
        Volume
            The same case with that voxel size.

        Raises
        ------
        SettingsError
            If no scan of a head can have such voxels, or the scans were aligned by the voxel sizes of their files.
        """
        if self.alignment is not None:
            raise SettingsError(
                f"The scans of '{self.name}' have different grids and were aligned by the voxel sizes that their files "
                "state. Leave the voxel size out, or correct it in the files."
            )
        notes = tuple(note for note in self.notes if note != self.source.spacing_note)
        return replace(self, source=self.source.with_spacing(spacing), notes=notes)

    def with_modalities(self, modalities: tuple[str, ...]) -> Volume:
        """Return the same case with only these of its modalities, in this order."""
        index = [self.modalities.index(name) for name in modalities]
        return replace(self, data=self.data[index], modalities=tuple(modalities))


@dataclass(frozen=True, eq=False)
class StreamedVolume:
    """A case that is read slice by slice as needed, for scans larger than memory.

    Attributes
    ----------
    images
        For each modality an array ``(Z, Y, X)`` of real numbers that is read when indexed: memory-mapped, or a dask
        array.
    modalities
        The names of the M images.
    source
        The grid the images came from.
    name
        The case's name.
    slab_slices
        How many neighboring slices are best read together: those that are stored together.
    notes
        As in `Volume`.
    alignment
        Always None: scans on different grids are read into memory.
    """

    images: tuple[Any, ...]
    modalities: tuple[str, ...]
    source: SourceGrid
    name: str = "case"
    slab_slices: int = 1
    notes: tuple[str, ...] = ()
    alignment: None = None

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
        """Return some slices of one modality, by its number.

        Returns
        -------
        array
            float32 ``(n, Y, X)``, in the order of `slices`.

        Raises
        ------
        DataError
            If a slice contains NaN or infinity.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            read = np.array(self.images[modality][_as_index(slices)], np.float32)
        if not np.isfinite(read).all():
            raise DataError(
                f"Image '{self.modalities[modality]}' has voxels that are NaN or infinite in slices {slices[0]} to "
                f"{slices[-1]}. All values must be finite. Replace them, for instance by 0 outside the head."
            )
        return read

    def with_spacing(self, spacing: tuple[float, float, float]) -> StreamedVolume:
        """Return the same case with the voxel size that the user entered; see `SourceGrid.with_spacing`."""
        notes = tuple(note for note in self.notes if note != self.source.spacing_note)
        return replace(self, source=self.source.with_spacing(spacing), notes=notes)

    def with_modalities(self, modalities: tuple[str, ...]) -> StreamedVolume:
        """Return the same case with only these of its modalities, in this order."""
        images = tuple(self.images[self.modalities.index(name)] for name in modalities)
        return replace(self, images=images, modalities=tuple(modalities))


AnyVolume = Volume | StreamedVolume
"""A case, in memory or not: `read` gives its slices either way."""


def _as_index(slices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return consecutive slices as a range, which is faster to read than an index array."""
    first, last = int(slices[0]), int(slices[-1])
    return slice(first, last + 1) if last - first + 1 == len(slices) else slices


@dataclass(frozen=True, eq=False)
class Reference:
    """A mask drawn by people, as regions; it may define only some of them.

    Attributes
    ----------
    regions
        For each region that the mask's convention defines, bool ``(Z, Y, X)``.
    convention
        The name of the label convention by which the file was read.
    source
        The grid of the mask file, or of the scan if that file does not state its position.
    notes
        What the user should know about how it was read, one sentence each.
    """

    regions: Mapping[str, NDArray[np.bool_]]
    convention: str
    source: SourceGrid
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 ``(Z, Y, X)`` with the numbers of `LABELS`, painted outermost first."""
        return labels_from_regions(self.regions)


@dataclass(frozen=True, eq=False)
class Legend:
    """What the numbers of labels mean, for formats that say so.

    Attributes
    ----------
    names, colors
        The name of each label, and its color as ``#rrggbb``.
    regions
        The labels that make up each region, its own first; outermost first.
    provenance
        How the labels were made, as in a record: model, version and what a person changed; empty if drawn by hand.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How large a region is.

    Attributes
    ----------
    volume_ml
        mL.
    axial_mm, across_mm
        The longest diameter in an axial slice, and the longest one at right angles to it there; None if it is empty.
    longest_mm
        The longest diameter in space; None if the region is empty.
    """

    volume_ml: float
    axial_mm: float | None = None
    across_mm: float | None = None
    longest_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of a model on a volume.

    Attributes
    ----------
    labels
        uint8 ``(Z, Y, X)``, on the volume's grid; for a streamed volume a compressed zarr array in memory, which is
        indexed the same way.
    label_names
        The name of each label that the model can produce, in the order of its regions.
    label_colors
        ``#rrggbb`` for each label.
    regions
        For each region that the model predicts, the labels that make it up, its own first. Regions are in painting
        order, outermost first.
    volumes_ml
        Volume in mL of each region that is drawn.
    source
        The grid of the volume it was made from.
    name
        The case's name.
    provenance
        Model, version, sha256, settings, device, runtime, seconds: JSON values only.
    probabilities
        float16 ``(R, Z, Y, X)``, 0 to 1, if requested.
    not_measurable
        Regions that these modalities cannot show, each with the reason; they are not drawn and have no volume.
    alignment
        That of the volume, by which `aligning.returning.labels_on` returns the labels to any scan's own grid.
    """

    labels: NDArray[np.uint8]
    label_names: Mapping[int, str]
    label_colors: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    volumes_ml: Mapping[str, float]
    source: SourceGrid
    name: str = "case"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    probabilities: NDArray[np.float16] | None = None
    not_measurable: Mapping[str, str] = field(default_factory=dict)
    alignment: Alignment | None = None

    @cached_property
    def tallies(self) -> tuple[SliceTally, ...]:
        """The content of each slice along Z. Counting a large case takes a second, so do it in a worker thread."""
        return tally_slices(self.labels)

    @property
    def label_volumes_ml(self) -> dict[int, float]:
        """Volume in mL of each label: its region without the regions inside it."""
        found: dict[int, float] = {}
        for region, (label, *inner) in reversed(list(self.regions.items())):
            within = sum(found[each] for each in inner)
            # A region that is not drawn counts as the region around it.
            found[label] = max(0.0, self.volumes_ml.get(region, within) - within)
        return {label: found[label] for label in self.label_names}

    @property
    def legend(self) -> Legend:
        """What the labels mean, without regions that could not be measured."""
        drawn = {name: labels for name, labels in self.regions.items() if name not in self.not_measurable}
        return Legend(self.label_names, self.label_colors, drawn, self.provenance)

    def mask_of(self, region: str, slab: slice = slice(None)) -> NDArray[np.bool_]:
        """Return the mask of a region, bool ``(Z, Y, X)``, in some slices along Z."""
        inside = np.zeros(256, np.bool_)
        inside[list(self.regions[region])] = True
        mask: NDArray[np.bool_] = inside[np.asarray(self.labels[slab])]
        return mask


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several models found in one case, compared with each other.

    Attributes
    ----------
    models
        The models' names; other fields number them from 0.
    regions
        The regions that any model predicts, outermost first.
    volumes_ml, seconds
        Volumes and running times of each model.
    dice
        For each pair of models, the volume Dice of the regions that both predict, 0 to 1.
    reference_ml
        Volumes of the regions that the reference defines; empty if there is no reference.
    against_reference
        For each model and each metric that compares two masks, by name, its value for each region that the reference
        defines and the model predicts.
    disagreement
        uint8 ``(Z, Y, X)``, for a streamed volume a zarr array: how many models disagree with the majority, in the
        region where most do. Only regions that all models predict count.
    disagreement_ml
        Volume in mL where `disagreement` is not 0.
    source, name
        Grid and name of the case.
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    volumes_ml: tuple[Mapping[str, float], ...]
    seconds: tuple[float, ...]
    dice: Mapping[tuple[int, int], Mapping[str, float]]
    reference_ml: Mapping[str, float]
    against_reference: tuple[Mapping[str, Mapping[str, float]], ...]
    disagreement: NDArray[np.uint8]
    disagreement_ml: float
    source: SourceGrid
    name: str = "case"
