"""Read the header of a DICOM file: what it says of its series, and where each of its planes lies.

What names a patient is hashed here, and goes no further.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.dicom.identity import find_identity
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard

_TAGS: list[BaseTag | int | str | tuple[int, int]] = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SpecificCharacterSet",
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "OtherPatientIDs", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "StudyDate", "SeriesDate", "AcquisitionDate",
    "SeriesNumber", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "InstanceNumber",
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle",
    "DiffusionBValue", "DiffusionGradientOrientation", "MRAcquisitionType", "EchoNumbers",
    "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "ComplexImageComponent", "ImagesInAcquisition",
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    (0x0019, 0x0010), (0x0019, 0x100C), (0x2001, 0x0010), (0x2001, 0x1003), (0x0043, 0x0010), (0x0043, 0x1039),
]  # fmt: skip
"""All that is read; the last lines are where Siemens, Philips and GE keep the b-value."""

_Kind = TypeVar("_Kind")

_MOST_FRAMES = 20_000
_MOST_LETTERS = 64
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
    rows, columns = _whole(data, "Rows") or 0, _whole(data, "Columns") or 0
    bits, frames = _whole(data, "BitsAllocated") or 8, _whole(data, "NumberOfFrames") or 1
    if rows * columns * frames * bits // 8 > max(_LEAST_DECODED, _MOST_DECODED * path.stat().st_size):
        raise ValueError("more pixels than the file can hold")
    shared = _item(data, "SharedFunctionalGroupsSequence")
    first = next(iter(_items(data, "PerFrameFunctionalGroupsSequence")), Dataset())
    timing = _group("MRTimingAndRelatedParametersSequence", first, shared)
    planes = tuple(_planes(data, path, (rows, columns), shared)) if rows and columns else ()
    date = next((d for key in ("StudyDate", "SeriesDate", "AcquisitionDate") if (d := _date(_text(data, key)))), "")
    kind = str(getattr(data.get("SOPClassUID"), "name", ""))
    identity = find_identity(data)  # some scanners and people put it into what describes the series
    return Header(
        path=path,
        series=_text(data, "SeriesInstanceUID") or f"folder {path.parent}",
        kind=_text(data, "Modality").upper(),
        stored="" if re.match(r"[\d.]*$", kind) else kind,
        samples=(_whole(data, "SamplesPerPixel") or 1) if planes else 0,
        patient=_patient_of(data),
        study=digest(_text(data, "StudyInstanceUID")),
        frame_of_reference=digest(_text(data, "FrameOfReferenceUID")),
        date=date,
        number=_whole(data, "SeriesNumber"),
        description=identity.strip_from(_text(data, "SeriesDescription")),
        protocol=identity.strip_from(_text(data, "ProtocolName")),
        sequence_name=_text(data, "SequenceName") or _text(data, "PulseSequenceName"),
        image_type=tuple(_texts(data, "ImageType")),
        contrast=_contrast_of(data),
        echo_time_ms=_first(
            _number(data, "EchoTime"), _number(_group("MREchoSequence", first, shared), "EffectiveEchoTime")
        ),
        repetition_time_ms=_first(_number(data, "RepetitionTime"), _number(timing, "RepetitionTime")),
        inversion_time_ms=_first(
            _number(data, "InversionTime"), _number(_group("MRModifierSequence", first, shared), "InversionTimes")
        ),
        flip_angle_deg=_first(_number(data, "FlipAngle"), _number(timing, "FlipAngle")),
        b_value=_first(_number(_group("MRDiffusionSequence", first, shared), "DiffusionBValue"), _b_value(data)),
        volumetric={"3D": True, "2D": False}.get(_text(data, "MRAcquisitionType").upper()),
        stated=_whole(data, "ImagesInAcquisition"),
        planes=planes,
    )


def _planes(data: Dataset, path: Path, shape: tuple[int, int], shared: Dataset) -> Iterator[Plane]:
    own = _items(data, "PerFrameFunctionalGroupsSequence")
    number = _whole(data, "NumberOfFrames") or 1
    if not 0 < number <= _MOST_FRAMES or (own and len(own) != number):
        raise ValueError("frames that cannot be")
    whole = Plane(
        path=path,
        frame=0,
        uid=digest(_text(data, "SOPInstanceUID")),
        instance=_whole(data, "InstanceNumber") or 0,
        shape=shape,
        position=_numbers(data, "ImagePositionPatient", 3) if number == 1 else None,  # of which frame nobody knows
        orientation=_numbers(data, "ImageOrientationPatient", 6),
        spacing=_numbers(data, "PixelSpacing", 2),
        thickness=_first(_number(data, "SpacingBetweenSlices"), _number(data, "SliceThickness")),
        traits={
            "kind": (tuple(_texts(data, "ImageType")), _text(data, "ComplexImageComponent")),
            "stack": "",
            "b": _b_value(data),
            "echo": _number(data, "EchoTime"),
            "inversion": _number(data, "InversionTime"),
            "phase": _whole(data, "TemporalPositionIdentifier"),
            "direction": _numbers(data, "DiffusionGradientOrientation", 3),
            "acquisition": _whole(data, "AcquisitionNumber"),
            "trigger": _number(data, "TriggerTime"),
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
    measures = _group("PixelMeasuresSequence", frame, shared)
    content = _group("FrameContentSequence", frame, shared)
    diffusion = _group("MRDiffusionSequence", frame, shared)
    gradient = _item(diffusion, "DiffusionGradientDirectionSequence")
    kind = _group("MRImageFrameTypeSequence", frame, shared)
    types, component = tuple(_texts(kind, "FrameType")), _text(kind, "ComplexImageComponent")
    own: dict[str, Hashable] = {
        "kind": (types, component) if types else None,
        "stack": _text(content, "StackID"),
        "b": _number(diffusion, "DiffusionBValue"),
        "echo": _number(_group("MREchoSequence", frame, shared), "EffectiveEchoTime"),
        "inversion": _number(_group("MRModifierSequence", frame, shared), "InversionTimes"),
        "phase": _whole(content, "TemporalPositionIndex"),
        "direction": _numbers(gradient, "DiffusionGradientOrientation", 3),
        "acquisition": _whole(content, "FrameAcquisitionNumber"),
    }
    position = _numbers(_group("PlanePositionSequence", frame, shared), "ImagePositionPatient", 3)
    orientation = _numbers(_group("PlaneOrientationSequence", frame, shared), "ImageOrientationPatient", 6)
    return replace(
        whole,
        position=_first(position, whole.position),
        orientation=_first(orientation, whole.orientation),
        spacing=_first(_numbers(measures, "PixelSpacing", 2), whole.spacing),
        thickness=_first(
            _number(measures, "SpacingBetweenSlices"), _number(measures, "SliceThickness"), whole.thickness
        ),
        traits={**whole.traits, **{name: value for name, value in own.items() if value is not None}},
    )


def _patient_of(data: Dataset) -> str:
    """Return a digest that is the same at all visits: of the number and date of birth, or else of the name."""
    number, born = _text(data, "PatientID"), _text(data, "PatientBirthDate")
    if number:
        return digest("number", number, _text(data, "IssuerOfPatientID"), born)
    name = _text(data, "PatientName")
    return digest("name", name, born) if name.strip("^ ") else ""


def _contrast_of(data: Dataset) -> bool | None:
    if _items(data, "ContrastBolusAgentSequence"):
        return True
    if "ContrastBolusAgent" not in data:
        return None
    return _text(data, "ContrastBolusAgent").upper() not in _AGENT_NONE


def _b_value(data: Dataset) -> float | None:
    value = _number(data, "DiffusionBValue")
    makers = {
        0x00190010: ("SIEMENS", 0x0019100C),
        0x20010010: ("PHILIPS", 0x20011003),
        0x00430010: ("GEMS", 0x00431039),
    }
    for creator, (maker, tag) in makers.items():
        if value is None and maker in str(data[creator].value if creator in data else "").upper():
            value = _number(data, tag)
            value = value % 100_000 if value is not None and maker == "GEMS" else value
    return value


# ------------------------------------------------------------------------------------------------- values of elements


def _first(*values: _Kind | None) -> _Kind | None:
    return next((value for value in values if value is not None), None)


def _value(data: Dataset, key: str | int) -> Any:
    """Return an element's value; None if it is missing, empty or cannot be understood."""
    try:
        value = data.get(key) if isinstance(key, str) else data[Tag(key)].value
    except FAULTS:
        return None
    return None if value in ("", b"") else value


def _items(data: Dataset, keyword: str) -> list[Dataset]:
    value = _value(data, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def _item(data: Dataset, keyword: str) -> Dataset:
    return next(iter(_items(data, keyword)), Dataset())


def _group(keyword: str, frame: Dataset, shared: Dataset) -> Dataset:
    """Return a functional group, of the frame or else of all frames; empty if there is none."""
    return next((items[0] for each in (frame, shared) if (items := _items(each, keyword))), Dataset())


def _texts(data: Dataset, keyword: str) -> list[str]:
    value = _value(data, keyword)
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return [_clean(str(each)).upper() for each in values if each is not None]


def _text(data: Dataset, keyword: str) -> str:
    value = _value(data, keyword)
    return "" if value is None else _clean(str(value))


def _clean(text: str) -> str:
    """Return text on one line, without what cannot be printed."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:_MOST_LETTERS]


def _number(data: Dataset, key: str | int) -> float | None:
    """Return an element's first number."""
    value = _value(data, key)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")[0]
    elif hasattr(value, "__iter__") and not isinstance(value, str):
        value = next(iter(value), None)
    try:
        number = float(value)
    except FAULTS:
        return None
    return number if isfinite(number) else None


def _whole(data: Dataset, keyword: str) -> int | None:
    number = _number(data, keyword)
    return None if number is None else int(number)


def _numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value = _value(data, keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__iter__"):
        return None
    try:
        numbers = tuple(float(each) for each in value)
    except FAULTS:
        return None
    return numbers if len(numbers) == count and all(map(isfinite, numbers)) else None


def _date(text: str) -> str:
    match = re.match(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", text)
    return "-".join(match.groups()) if match else ""
