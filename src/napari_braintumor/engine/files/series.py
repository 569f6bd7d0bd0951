"""A series: the images of one acquisition, as their headers describe them. Nothing here names a patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.grid import SourceGrid


@dataclass(frozen=True)
class Series:
    """What the headers of one acquisition say, without its voxels.

    Attributes
    ----------
    paths
        Its files in order along the slices; one for formats that store a volume in a file.
    format
        The name of a row of `formats.FORMATS`.
    key
        Identifies the series for good, to remember a choice; a digest, from which no number of the header can be read.
    patient
        Equal for series of one patient, and a digest; empty where the headers name nobody.
    study, frame_of_reference
        Equal for series of one examination, and of one scanner coordinate system; digests, or empty.
    date
        The day of the examination, ``YYYY-MM-DD``, or empty.
    number
        The number of the series in its examination, or None.
    description
        SeriesDescription, or the file's name without its suffix.
    protocol, sequence_name
        ProtocolName and SequenceName, or empty.
    kind
        DICOM's Modality, such as ``MR``, ``CT``, ``SR`` or ``DOC``; ``MR`` for other formats.
    image_type
        The values of ImageType in upper case, such as ``("ORIGINAL", "PRIMARY", "M")``.
    contrast
        Whether a contrast agent is stated; None if the headers do not say.
    echo_time_ms, repetition_time_ms, inversion_time_ms, flip_angle_deg, b_value
        Acquisition parameters, or None. The b-value is the largest of the images that were taken together.
    techniques
        What the headers say of how it was acquired, in the words of `dicom.techniques`.
    volumetric
        Whether it was acquired as a 3-D volume; None if the headers do not say.
    slices
        How many slices it has.
    channel
        Which of several stacks, if one file holds more than one; otherwise None.
    grid
        Where its voxels lie; None if that cannot be known, and then `problem` says why.
    notes
        What was mended in reading the headers, one sentence each.
    problem
        Why the series cannot be used as a scan, worded like a `DataError`; None if it can.
    """

    paths: tuple[Path, ...]
    format: str
    key: str
    patient: str = ""
    study: str = ""
    frame_of_reference: str = ""
    date: str = ""
    number: int | None = None
    description: str = ""
    protocol: str = ""
    sequence_name: str = ""
    kind: str = "MR"
    image_type: tuple[str, ...] = ()
    contrast: bool | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    b_value: float | None = None
    techniques: frozenset[str] = frozenset()
    volumetric: bool | None = None
    slices: int = 0
    channel: int | None = None
    grid: SourceGrid | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None
