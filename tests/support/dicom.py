"""DICOM series made of arrays, as scanners write them, with the patient's tags marked so that a leak is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.pixels.encoders.base import get_encoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

SYNTAXES: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg": JPEGLosslessSV1,
    "jpegls": JPEGLSLossless,
    "jpeg2000": JPEG2000Lossless,
}

MARKED: dict[str, str] = {
    "PatientName": "SECRET^NAME",
    "PatientID": "SECRET-ID-4711",
    "PatientBirthDate": "19010203",
    "PatientAddress": "SECRET STREET 5",
    "OtherPatientIDs": "SECRET-OTHER-12",
    "AccessionNumber": "SECRETACC99",
    "InstitutionName": "SECRET HOSPITAL",
    "ReferringPhysicianName": "SECRET^DOCTOR",
    "OperatorsName": "SECRET^OPERATOR",
    "StationName": "SECRETSTATION",
    "StudyID": "SECRETSTUDY",
    "DeviceSerialNumber": "SECRETSERIAL",
    "PatientComments": "SECRET COMMENT",
}
"""What must never leave the program; each value holds ``SECRET``, but for the date of birth."""


@dataclass(frozen=True)
class Acquisition:
    """What a series says of itself beside its voxels.

    Attributes
    ----------
    description
        SeriesDescription; unlike `MARKED`, it may be shown.
    patient, study
        Any words; series with equal words share the patient or the examination.
    frame_of_reference
        Any word; series with equal words share the scanner's coordinates. Of the study if left out.
    tags
        Further tags by keyword, over all others; None removes a tag.
    """

    description: str = "t1_mprage_tra"
    number: int = 1
    patient: str = "one"
    study: str = "first"
    frame_of_reference: str | None = None
    date: str = "20240229"
    echo_time: float | None = 4.0
    repetition_time: float | None = 2000.0
    inversion_time: float | None = None
    contrast: str | None = None
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "NORM")
    volumetric: bool = True
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return _uid("series", self.patient, self.study, str(self.number), self.description)


@dataclass(frozen=True)
class Storage:
    """How the voxels of a series are stored.

    Attributes
    ----------
    enhanced
        One multi-frame file in place of a file for each slice.
    syntax
        A key of `SYNTAXES`.
    slope, intercept
        Stored numbers are ``(value - intercept) / slope``; both None leaves the tags out.
    left_out
        Slices that are missing.
    shuffle
        Seed of the order in which files are named, and frames stored; None names them in order.
    suffix
        Of the files' names.
    """

    enhanced: bool = False
    syntax: str = "explicit"
    bits: int = 16
    signed: bool = False
    slope: float | None = None
    intercept: float | None = None
    left_out: tuple[int, ...] = ()
    shuffle: int | None = None
    suffix: str = ".dcm"


def write_series(
    folder: Path,
    values: NDArray[Any],
    affine: NDArray[np.floating[Any]],
    acquisition: Acquisition | None = None,
    storage: Storage | None = None,
) -> list[Path]:
    """Write values as a DICOM series.

    Parameters
    ----------
    folder
        Made if it is missing.
    values
        ``(slices, rows, columns)``, such as a scan in (Z, Y, X).
    affine
        ``(4, 4)``, index (slice, row, column) to RAS mm, such as `SourceGrid.affine_ZYX`; rows and columns must be at
        right angles, slices may be sheared.
    acquisition, storage
        What the headers say, and how the voxels are stored.

    Returns
    -------
    list of Path
        The files in the order of the slices.
    """
    acquisition, storage = acquisition or Acquisition(), storage or Storage()
    folder.mkdir(parents=True, exist_ok=True)
    stored = to_stored(values, storage)
    kept = [z for z in range(len(stored)) if z not in storage.left_out]
    order = list(range(len(kept)))
    if storage.shuffle is not None:
        np.random.default_rng(storage.shuffle).shuffle(order)
    if storage.enhanced:
        path = folder / f"series{acquisition.number}{storage.suffix}"
        _save(_enhanced(stored, [kept[i] for i in order], affine, acquisition, storage), path, storage)
        return [path]
    paths = []
    for place, z in enumerate(kept):
        path = folder / f"MR{acquisition.number:03}_{order[place]:04}{storage.suffix}"
        _save(_classic(stored[z], z, affine, acquisition, storage), path, storage)
        paths.append(path)
    return paths


def write_case(
    folder: Path, series: Sequence[tuple[NDArray[Any], NDArray[np.floating[Any]], Acquisition, Storage]]
) -> Path:
    """Write several series of one patient into a folder each, and return the folder above them."""
    for values, affine, acquisition, storage in series:
        write_series(folder / f"{acquisition.number:03}", values, affine, acquisition, storage)
    return folder


def write_pdf(folder: Path, acquisition: Acquisition) -> Path:
    """Write a PDF in DICOM, as some scanners add to an examination."""
    data = _base(acquisition, EncapsulatedPDFStorage, 0)
    data.Modality, data.MIMETypeOfEncapsulatedDocument = "DOC", "application/pdf"
    data.EncapsulatedDocument = b"%PDF-1.4 SECRET TEXT"
    data.EncapsulatedDocumentLength = 20
    return _write_alone(data, folder / f"document{acquisition.number}.dcm")


def write_capture(folder: Path, acquisition: Acquisition) -> Path:
    """Write a secondary capture: a color picture of a screen, without a place in the scanner."""
    data = _base(acquisition, SecondaryCaptureImageStorage, 0)
    data.Modality, data.ConversionType = "MR", "WSD"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.Rows, data.Columns = 16, 24
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = bytes(16 * 24 * 3)
    return _write_alone(data, folder / f"capture{acquisition.number}.dcm")


def write_dicomdir(folder: Path, paths: Sequence[Path]) -> Path:
    """Copy files into a folder as on a CD, and return the index that lists them."""
    files = FileSet()
    for path in paths:
        files.add(path)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder)
    files._stage["t"].cleanup()  # else Python warns that it is left
    return folder / "DICOMDIR"


def to_stored(values: NDArray[Any], storage: Storage) -> NDArray[Any]:
    """Return the numbers that are stored for values, clipped to what the bits hold."""
    slope = 1.0 if storage.slope is None else storage.slope
    raw = np.rint((np.asarray(values, np.float64) - (storage.intercept or 0.0)) / slope)
    low, high = (
        (-(1 << storage.bits - 1), (1 << storage.bits - 1) - 1) if storage.signed else (0, (1 << storage.bits) - 1)
    )
    width = 8 if storage.bits <= 8 else 16
    return np.clip(raw, low, high).astype(np.dtype(f"{'i' if storage.signed else 'u'}{width // 8}"))


def affine_of(
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0),
    *,
    turn: float = 0.0,
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
    shape: tuple[int, int, int],
    tilt: float = 0.0,
) -> NDArray[np.float64]:
    """Return an affine, index (slice, row, column) to RAS mm, of slices across a direction.

    Parameters
    ----------
    normal
        The direction of the slices in RAS, of any length.
    turn
        Turn of rows and columns within the slice, in radians.
    spacing
        mm between slices, rows and columns.
    center
        The middle of the scan in RAS mm.
    shape
        Slices, rows, columns.
    tilt
        mm that each slice is moved along its rows, as a tilted gantry does.
    """
    along = np.asarray(normal, np.float64) / np.linalg.norm(normal)
    aside = np.eye(3)[np.argmin(np.abs(along))]
    first = (aside @ along) * along - aside  # axial slices are as scanners have them
    first /= np.linalg.norm(first)
    second = np.cross(along, first)
    columns = np.cos(turn) * first + np.sin(turn) * second
    rows = np.cross(along, columns)
    affine = np.eye(4)
    affine[:3, 0] = along * spacing[0] + rows * tilt
    affine[:3, 1] = rows * spacing[1]
    affine[:3, 2] = columns * spacing[2]
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def with_tags(acquisition: Acquisition, **tags: Any) -> Acquisition:
    """Return what a series says, with further tags."""
    return replace(acquisition, tags={**acquisition.tags, **tags})


# ----------------------------------------------------------------------------------------------------------- headers


def _uid(*words: str) -> str:
    return str(generate_uid(entropy_srcs=["napari-braintumor tests", *words]))


def _base(acquisition: Acquisition, kind: UID, instance: int) -> Dataset:
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = list(acquisition.image_type)
    data.SOPClassUID = kind
    data.SOPInstanceUID = _uid("instance", acquisition.uid, str(instance))
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(data, keyword, acquisition.date)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(data, keyword, "101112")
    for keyword, value in MARKED.items():
        setattr(data, keyword, value)
    if acquisition.patient != "one":
        data.PatientID = f"SECRET-ID-{acquisition.patient}"
        data.PatientName = f"SECRET^{acquisition.patient}"
    data.PatientSex, data.PatientAge = "F", "063Y"
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "MR", "ACME", "Field 3"
    data.SoftwareVersions = "1"
    data.BodyPartExamined, data.PatientPosition = "BRAIN", "HFS"
    data.StudyDescription = "Brain"
    data.SeriesDescription, data.ProtocolName = acquisition.description, acquisition.description
    data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = acquisition.number, instance + 1, 1
    data.StudyInstanceUID = _uid("study", acquisition.patient, acquisition.study)
    data.SeriesInstanceUID = acquisition.uid
    data.FrameOfReferenceUID = _uid("frame", acquisition.patient, acquisition.frame_of_reference or acquisition.study)
    data.PositionReferenceIndicator = None
    block = data.private_block(0x0029, "SECRET PRIVATE", create=True)
    block.add_new(0x10, "LO", "SECRET PRIVATE VALUE")
    return data


def _finish(data: Dataset, acquisition: Acquisition) -> Dataset:
    for keyword, value in acquisition.tags.items():
        if value is None:
            if keyword in data:
                delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def _with_pixels(data: Dataset, storage: Storage, shape: tuple[int, ...]) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = shape
    data.BitsAllocated = 8 if storage.bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = storage.bits, storage.bits - 1, int(storage.signed)


def _lps(ras: NDArray[np.float64]) -> list[float]:
    return [float(f"{number:.10g}") for number in np.asarray(ras) * (-1, -1, 1)]


def _directions(affine: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Return ImageOrientationPatient and PixelSpacing."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    steps = affine[:3, :3] / sides
    orientation = [*_lps(steps[:, 2]), *_lps(steps[:, 1])]
    return [round(each, 12) for each in orientation], [float(f"{side:.10g}") for side in sides[1:]]


def _thickness(affine: NDArray[Any]) -> float:
    """The distance between slices along their normal."""
    rows, columns = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    return float(f"{abs(np.cross(rows, columns) @ affine[:3, 0]):.10g}")


def _position(affine: NDArray[Any], z: int) -> list[float]:
    return _lps(affine[:3, 3] + z * affine[:3, 0])


def _classic(plane: NDArray[Any], z: int, affine: NDArray[Any], acquisition: Acquisition, storage: Storage) -> Dataset:
    data = _base(acquisition, MRImageStorage, z)
    data.ScanningSequence = ["GR", "IR"] if acquisition.inversion_time else "GR"
    data.SequenceVariant, data.ScanOptions = "SP", None
    data.MRAcquisitionType = "3D" if acquisition.volumetric else "2D"
    data.SequenceName = "*tfl3d1"
    data.EchoTime, data.RepetitionTime = acquisition.echo_time, acquisition.repetition_time
    data.EchoTrainLength, data.FlipAngle, data.MagneticFieldStrength = 1, 9, 3
    if acquisition.inversion_time is not None:
        data.InversionTime = acquisition.inversion_time
    if acquisition.contrast is not None:
        data.ContrastBolusAgent = acquisition.contrast
    orientation, spacing = _directions(affine)
    data.ImageOrientationPatient, data.PixelSpacing = orientation, spacing
    data.ImagePositionPatient = _position(affine, z)
    data.SliceThickness = data.SpacingBetweenSlices = _thickness(affine)
    _with_pixels(data, storage, plane.shape)
    if storage.slope is not None:
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = storage.slope, storage.intercept or 0, "US"
    _fill(data, [plane], storage)
    return _finish(data, acquisition)


def _enhanced(
    stored: NDArray[Any], order: Sequence[int], affine: NDArray[Any], acquisition: Acquisition, storage: Storage
) -> Dataset:
    data = _base(acquisition, EnhancedMRImageStorage, 0)
    data.ImageType = [*acquisition.image_type[:3], "NONE"]
    data.NumberOfFrames = len(order)
    data.PixelPresentation, data.VolumetricProperties, data.VolumeBasedCalculationTechnique = (
        "MONOCHROME",
        "VOLUME",
        "NONE",
    )
    data.ComplexImageComponent, data.AcquisitionContrast = "MAGNITUDE", "T1"
    data.MRAcquisitionType = "3D" if acquisition.volumetric else "2D"
    data.PulseSequenceName, data.MagneticFieldStrength = "tfl", 3
    if acquisition.contrast is not None:
        agent = Dataset()
        agent.ContrastBolusAgentNumber, agent.ContrastBolusAdministrationRouteSequence = 1, Items([])
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-17800", "SRT", acquisition.contrast
        agent.update(code)
        data.ContrastBolusAgentSequence = Items([agent])
    organization = Dataset()
    organization.DimensionOrganizationUID = _uid("dimensions", acquisition.uid)
    data.DimensionOrganizationSequence = Items([organization])
    index = Dataset()
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    data.DimensionIndexSequence = Items([index])
    orientation, spacing = _directions(affine)
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(
        PixelSpacing=spacing, SliceThickness=_thickness(affine), SpacingBetweenSlices=_thickness(affine)
    )
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=orientation)
    shared.PixelValueTransformationSequence = _item(
        RescaleIntercept=storage.intercept or 0, RescaleSlope=storage.slope or 1, RescaleType="US"
    )
    timing = {"RepetitionTime": acquisition.repetition_time, "FlipAngle": 9, "EchoTrainLength": 1}
    shared.MRTimingAndRelatedParametersSequence = _item(**timing)
    shared.MREchoSequence = _item(EffectiveEchoTime=acquisition.echo_time)
    if acquisition.inversion_time is not None:
        shared.MRModifierSequence = _item(InversionRecovery="YES", InversionTimes=[acquisition.inversion_time])
    data.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for z in order:
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=_position(affine, z))
        frame.FrameContentSequence = _item(StackID="1", InStackPositionNumber=z + 1, DimensionIndexValues=[z + 1])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    _with_pixels(data, storage, stored.shape[1:])
    _fill(data, [stored[z] for z in order], storage)
    return _finish(data, acquisition)


def _item(**tags: Any) -> Items:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Items([item])


# ------------------------------------------------------------------------------------------------------------ pixels


def _fill(data: Dataset, planes: Sequence[NDArray[Any]], storage: Storage) -> None:
    if storage.syntax in ("explicit", "implicit"):
        content = b"".join(plane.astype(plane.dtype.newbyteorder("<")).tobytes() for plane in planes)
        data.PixelData = content + bytes(len(content) % 2)
        data["PixelData"].VR = "OB" if storage.bits <= 8 and storage.syntax == "explicit" else "OW"
        return
    data.PixelData = encapsulate([_packed(plane, data, storage) for plane in planes])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True


def _packed(plane: NDArray[Any], data: Dataset, storage: Storage) -> bytes:
    """Compress a plane, with other libraries than those that read it where there are any."""
    plane = np.ascontiguousarray(plane)
    if storage.syntax == "rle":
        options = {keyword: data.get(tag) for keyword, tag in _ENCODER.items()}
        encoder = get_encoder(RLELossless)
        return bytes(encoder.encode(plane, number_of_frames=1, encoding_plugin="pydicom", **options))
    if storage.syntax == "jpeg2000":
        return bytes(imagecodecs.jpeg2k_encode(plane, level=0, reversible=True, codecformat="j2k"))
    mask = (1 << storage.bits) - 1  # signed numbers are stored as their bits
    bits = (plane.astype(np.int64) & mask).astype(np.uint8 if plane.itemsize == 1 else np.uint16)
    if storage.syntax == "jpeg":
        return bytes(imagecodecs.ljpeg_encode(bits, bitspersample=storage.bits))
    return bytes(imagecodecs.jpegls_encode(bits, level=0))


_ENCODER = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric_interpretation": "PhotometricInterpretation",
}


def _save(data: Dataset, path: Path, storage: Storage) -> None:
    _write(data, path, SYNTAXES[storage.syntax])


def _write_alone(data: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(data, path, ExplicitVRLittleEndian)
    return path


def _write(data: Dataset, path: Path, syntax: UID) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    dcmwrite(path, data, enforce_file_format=True)
