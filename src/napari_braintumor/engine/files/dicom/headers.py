"""Read the header of a DICOM file: what it says of its series, and where each of its planes lies.

What names a patient is hashed here, and goes no further.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.dicom.elements import (
    find_group,
    first_given,
    format_date,
    read_item,
    read_items,
    read_number,
    read_numbers,
    read_text,
    read_texts,
    read_whole_number,
)
from napari_braintumor.engine.files.dicom.identity import find_identity
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard
from napari_braintumor.engine.files.dicom.techniques import TAGS as TECHNIQUE_TAGS
from napari_braintumor.engine.files.dicom.techniques import Technique, find_techniques, read_b_value, read_component

_TAGS: list[BaseTag | int | str | tuple[int, int]] = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SpecificCharacterSet",
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "StudyDate", "SeriesDate", "AcquisitionDate",
    "SeriesNumber", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "InstanceNumber",
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle",
    "DiffusionGradientOrientation", "MRAcquisitionType", "EchoNumbers",
    "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "ComplexImageComponent", "ImagesInAcquisition",
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *TECHNIQUE_TAGS,
]  # fmt: skip
"""All that is read."""

_MOST_FRAMES = 20_000
_MOST_DECODED = 2000
"""How many times larger than its file an image may be when it is decoded."""
_LEAST_DECODED = 64 << 20
_AGENT_NONE = {"", "NO", "NONE", "N", "WITHOUT", "OFF", "NO CONTRAST"}


@dataclass(frozen=True)
class Plane:
    """One plane of pixels: a classic file, or a frame of a multi-frame file.

    Attributes
    ----------
    path, frame
        Its file, and its number in the file from 0.
    uid
        A digest of the file's SOPInstanceUID, or empty.
    instance
        InstanceNumber, or the frame's number.
    shape
        Rows and columns.
    position, orientation
        ImagePositionPatient and ImageOrientationPatient, LPS; None if not stated or not numbers.
    spacing
        mm between rows, and between columns; None if not stated.
    thickness
        mm between slices as stated, by SpacingBetweenSlices or SliceThickness; None if not stated.
    traits
        What may tell it from another plane in the same place, in the order in which series are split by it.
    """

    path: Path
    frame: int
    uid: str
    instance: int
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    traits: Mapping[str, Hashable] = field(hash=False)


@dataclass(frozen=True)
class Header:
    """What a DICOM file says of itself; see `Series` for the fields that are not described here.

    Attributes
    ----------
    series
        SeriesInstanceUID; where it is missing, the folder.
    kind
        Modality.
    stored
        What SOPClassUID calls it, such as ``MR Image Storage``; or empty.
    samples
        Numbers a pixel: 1 for gray values, 3 for colors, 0 if it holds no picture.
    stated
        How many images the series has by its header; None if not stated.
    planes
        Its planes in the order of the file.
    """

    path: Path
    series: str
    kind: str
    stored: str
    samples: int
    patient: str
    study: str
    frame_of_reference: str
    date: str
    number: int | None
    description: str
    protocol: str
    sequence_name: str
    image_type: tuple[str, ...]
    contrast: bool | None
    echo_time_ms: float | None
    repetition_time_ms: float | None
    inversion_time_ms: float | None
    flip_angle_deg: float | None
    b_value: float | None
    techniques: frozenset[Technique]
    volumetric: bool | None
    stated: int | None
    planes: tuple[Plane, ...]


def digest(*words: str) -> str:
    """Return a short digest of words, the same for good; empty if all words are empty."""
    if not any(words):
        return ""
    return hashlib.blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=8, person=b"braintumor").hexdigest()


def read_dataset(path: Path, *, pixels: bool) -> FileDataset:
    """Parse a DICOM file, with or without its preamble.

    Parameters
    ----------
    path
        The file.
    pixels
        Whether everything is read; otherwise only what `Header` needs.

    Returns
    -------
    FileDataset
        pydicom's form of it.

    Raises
    ------
    DataError
        If it is damaged, or not DICOM.
    """
    options: dict[str, Any] = {} if pixels else {"stop_before_pixels": True, "specific_tags": _TAGS}
    try:
        with unheard(), path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            # Of a map no more is read than there is, whatever lengths a header declares.
            try:
                return dcmread(cast(BinaryIO, content), **options)
            except InvalidDicomError:
                content.seek(0)
                return dcmread(cast(BinaryIO, content), force=True, **options)
    except FAULTS as error:
        raise damaged(path) from error


def digest_pixels(path: Path) -> str:
    """Return a digest of a file's pixels as stored; of its path if it cannot be read."""
    try:
        return hashlib.blake2b(read_dataset(path, pixels=True).PixelData, digest_size=8).hexdigest()
    except (DataError, *FAULTS):
        return str(path)


def damaged(path: Path) -> DataError:
    """Return the error for a file that cannot be parsed or decoded. It says no more, as headers name patients."""
    return DataError(
        f"{capitalize(call_file(path))} is damaged, truncated or not a readable DICOM file. Copy or export the series "
        "again."
    )


def read_header(path: Path) -> Header:
    """Read the header of a DICOM file.

    Returns
    -------
    Header
        What it says, without its pixels.

    Raises
    ------
    DataError
        If the file is damaged, or not DICOM.
    """
    data = read_dataset(path, pixels=False)
    try:
        with unheard():
            return _describe(data, path)
    except FAULTS as error:
        raise damaged(path) from error


def _describe(data: FileDataset, path: Path) -> Header:
    if "SOPClassUID" not in data and "Rows" not in data:
        raise ValueError("neither a class nor an image")
    rows, columns = read_whole_number(data, "Rows") or 0, read_whole_number(data, "Columns") or 0
    bits, frames = read_whole_number(data, "BitsAllocated") or 8, read_whole_number(data, "NumberOfFrames") or 1
    if rows * columns * frames * bits // 8 > max(_LEAST_DECODED, _MOST_DECODED * path.stat().st_size):
        raise ValueError("more pixels than the file can hold")
    shared = read_item(data, "SharedFunctionalGroupsSequence")
    first = next(iter(read_items(data, "PerFrameFunctionalGroupsSequence")), Dataset())
    modifier = find_group("MRModifierSequence", first, shared)
    timing = find_group("MRTimingAndRelatedParametersSequence", first, shared)
    planes = tuple(_planes(data, path, (rows, columns), shared)) if rows and columns else ()
    dates = (format_date(read_text(data, key)) for key in ("StudyDate", "SeriesDate", "AcquisitionDate"))
    date = next(filter(None, dates), "")
    kind = str(getattr(data.get("SOPClassUID"), "name", ""))
    identity = find_identity(data)  # some scanners and people put it into what describes the series
    return Header(
        path=path,
        series=read_text(data, "SeriesInstanceUID") or f"folder {path.parent}",
        kind=read_text(data, "Modality").upper(),
        stored="" if re.match(r"[\d.]*$", kind) else kind,
        samples=(read_whole_number(data, "SamplesPerPixel") or 1) if planes else 0,
        patient=_patient_of(data),
        study=digest(read_text(data, "StudyInstanceUID")),
        frame_of_reference=digest(read_text(data, "FrameOfReferenceUID")),
        date=date,
        number=read_whole_number(data, "SeriesNumber"),
        description=identity.strip_from(read_text(data, "SeriesDescription")),
        protocol=identity.strip_from(read_text(data, "ProtocolName")),
        sequence_name=read_text(data, "SequenceName") or read_text(data, "PulseSequenceName"),
        image_type=tuple(read_texts(data, "ImageType")),
        contrast=_contrast_of(data),
        echo_time_ms=first_given(
            read_number(data, "EchoTime"), read_number(find_group("MREchoSequence", first, shared), "EffectiveEchoTime")
        ),
        repetition_time_ms=first_given(read_number(data, "RepetitionTime"), read_number(timing, "RepetitionTime")),
        inversion_time_ms=first_given(read_number(data, "InversionTime"), read_number(modifier, "InversionTimes")),
        flip_angle_deg=first_given(read_number(data, "FlipAngle"), read_number(timing, "FlipAngle")),
        b_value=read_b_value(data, first, shared),
        techniques=find_techniques(data, first, shared),
        volumetric={"3D": True, "2D": False}.get(read_text(data, "MRAcquisitionType").upper()),
        stated=read_whole_number(data, "ImagesInAcquisition"),
        planes=planes,
    )


def _planes(data: Dataset, path: Path, shape: tuple[int, int], shared: Dataset) -> Iterator[Plane]:
    own = read_items(data, "PerFrameFunctionalGroupsSequence")
    number = read_whole_number(data, "NumberOfFrames") or 1
    if not 0 < number <= _MOST_FRAMES or (own and len(own) != number):
        raise ValueError("frames that cannot be")
    whole = Plane(
        path=path,
        frame=0,
        uid=digest(read_text(data, "SOPInstanceUID")),
        instance=read_whole_number(data, "InstanceNumber") or 0,
        shape=shape,
        position=read_numbers(data, "ImagePositionPatient", 3) if number == 1 else None,  # of which frame nobody knows
        orientation=read_numbers(data, "ImageOrientationPatient", 6),
        spacing=read_numbers(data, "PixelSpacing", 2),
        thickness=first_given(read_number(data, "SpacingBetweenSlices"), read_number(data, "SliceThickness")),
        traits={
            "kind": (tuple(read_texts(data, "ImageType")), read_component(data)),
            "stack": "",
            "b": read_b_value(data),
            "echo": read_number(data, "EchoTime"),
            "inversion": read_number(data, "InversionTime"),
            "dynamic": read_whole_number(data, "TemporalPositionIdentifier"),
            "direction": read_numbers(data, "DiffusionGradientOrientation", 3),
            "acquisition": read_whole_number(data, "AcquisitionNumber"),
            "trigger": read_number(data, "TriggerTime"),
        },
    )
    if not own and not shared:
        yield from (whole if number == 1 else replace(whole, frame=i, instance=i) for i in range(number))
        return
    for index in range(number):
        plane = _plane_of(own[index] if own else Dataset(), shared, whole)
        yield replace(plane, frame=index, instance=index if number > 1 else whole.instance)


def _plane_of(frame: Dataset, shared: Dataset, whole: Plane) -> Plane:
    """Return what the functional groups say of a frame, and otherwise what the file says as a whole."""
    measures = find_group("PixelMeasuresSequence", frame, shared)
    content = find_group("FrameContentSequence", frame, shared)
    diffusion = find_group("MRDiffusionSequence", frame, shared)
    gradient = read_item(diffusion, "DiffusionGradientDirectionSequence")
    kind = find_group("MRImageFrameTypeSequence", frame, shared)
    types, component = tuple(read_texts(kind, "FrameType")), read_text(kind, "ComplexImageComponent")
    own: dict[str, Hashable] = {
        "kind": (types, component) if types else None,
        "stack": read_text(content, "StackID"),
        "b": read_number(diffusion, "DiffusionBValue"),
        "echo": read_number(find_group("MREchoSequence", frame, shared), "EffectiveEchoTime"),
        "inversion": read_number(find_group("MRModifierSequence", frame, shared), "InversionTimes"),
        "dynamic": read_whole_number(content, "TemporalPositionIndex"),
        "direction": read_numbers(gradient, "DiffusionGradientOrientation", 3),
        "acquisition": read_whole_number(content, "FrameAcquisitionNumber"),
    }
    position = read_numbers(find_group("PlanePositionSequence", frame, shared), "ImagePositionPatient", 3)
    orientation = read_numbers(find_group("PlaneOrientationSequence", frame, shared), "ImageOrientationPatient", 6)
    return replace(
        whole,
        position=first_given(position, whole.position),
        orientation=first_given(orientation, whole.orientation),
        spacing=first_given(read_numbers(measures, "PixelSpacing", 2), whole.spacing),
        thickness=first_given(
            read_number(measures, "SpacingBetweenSlices"), read_number(measures, "SliceThickness"), whole.thickness
        ),
        traits={**whole.traits, **{name: value for name, value in own.items() if value is not None}},
    )


def _patient_of(data: Dataset) -> str:
    """Return a digest that is the same at all visits: of the number and date of birth, or else of the name."""
    number, born = read_text(data, "PatientID"), read_text(data, "PatientBirthDate")
    if number:
        return digest("number", number, read_text(data, "IssuerOfPatientID"), born)
    name = read_text(data, "PatientName")
    return digest("name", name, born) if name.strip("^ ") else ""


def _contrast_of(data: Dataset) -> bool | None:
    if read_items(data, "ContrastBolusAgentSequence"):
        return True
    if "ContrastBolusAgent" not in data:
        return None
    return read_text(data, "ContrastBolusAgent").upper() not in _AGENT_NONE
