"""What a case is made of: the files of one patient at one time point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.files.choosing_series.rows import SeriesRow
from napari_braintumor.engine.files.series import Series


@dataclass(frozen=True)
class ImageFile:
    """The file or files that store one modality of a case.

    Attributes
    ----------
    paths
        One file, or the slices in order.
    modality
        One of `MODALITIES`.
    channel
        The channel, for a file that contains several modalities; otherwise None.
    series
        What the headers of the series say, for images of a scanner and those chosen from a table of series.
    """

    paths: tuple[Path, ...]
    modality: str
    channel: int | None = None
    series: Series | None = None


@dataclass(frozen=True)
class CaseFiles:
    """The files of one patient at one time point.

    Attributes
    ----------
    name
        The case's name; no two cases found together share a name.
    patient
        The same for all time points of a patient.
    group
        The naming scheme: ``lgg``, ``brats`` (and data sets prepared like it), ``btp``, ``brisc``, ``decathlon`` (and
        nnU-Net's layout), ``bids`` or ``other``; ``corrected`` for cases that this program wrote,
        ``dicom`` for series of a scanner.
    images
        The modalities, in the order of `MODALITIES`.
    reference
        The mask drawn by people: one file, the slices in order, or empty.
    convention
        The label convention of the mask, a key of `CONVENTIONS`; None if the names do not say.
    reviewed
        Slices along Z that a person has reviewed, in a case that this program wrote; None means all.
    spacing_known
        False if this program noted that the voxel size is a guess.
    notes
        What the user should know about its files, one sentence each: which were left out, and why.
    problem
        Why the case cannot be read, worded like a `DataError`; None if it can. A bad case is returned like the others,
        so that a run over all cases reports it and goes on.
    rows
        The table of series that the images were chosen from: all series of the examination, used or not. Empty for
        files that name their modality, until `offer_series` fills it.
    """

    name: str
    patient: str
    group: str
    images: tuple[ImageFile, ...]
    reference: tuple[Path, ...] = ()
    convention: str | None = None
    reviewed: tuple[int, ...] | None = None
    spacing_known: bool = True
    notes: tuple[str, ...] = ()
    problem: str | None = None
    rows: tuple[SeriesRow, ...] = ()
