"""DICOM segmentations (SEG): written beside the series that labels were drawn on, one segment a region.

Regions overlap as they do in the model: the tumor core lies within the whole tumor. Codes are those of SNOMED CT, or of
the NCI Thesaurus where DICOM names no other (CID 7159).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import MRImageStorage, generate_uid

from napari_braintumor.engine.anatomy import CAVITY, CORE, ENHANCING, EXTRA_COLORS, WHOLE
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import check_labels
from napari_braintumor.engine.files.dicom.quiet import unheard
from napari_braintumor.engine.files.dicom.referring import PROGRAM, Images, find_images, make_reference
from napari_braintumor.engine.files.dicom.saving import save_objects
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Legend

SERIES_NUMBER = 900
"""The number of the series of segmentations; reports and structure sets follow it."""

_TYPES: Mapping[str, Code] = {
    WHOLE: codes.SCT.Lesion,  # with its edema, so more than the neoplasm
    CORE: codes.SCT.Neoplasm,
    ENHANCING: codes.NCIt.EnhancingLesion,
    CAVITY: codes.SCT.PostSurgicalAnatomy,
    "edema": codes.SCT.Edema,
}
_DERIVATION = Code("113076", "DCM", "Segmentation")
_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")
_SQUARE = 1e-3
"""Cosine from which rows and columns are not at right angles."""


@dataclass(frozen=True)
class Segment:
    """One segment: a region, or a label that belongs to none.

    Attributes
    ----------
    number
        Its number, from 1.
    name
        The name of the region or label.
    labels
        The labels that it is made of.
    color
        ``#rrggbb``.
    uid
        Identifies what it shows across objects: the report names it too.
    """

    number: int
    name: str
    labels: tuple[int, ...]
    color: str
    uid: str


@dataclass(frozen=True, eq=False)
class Planes:
    """Labels as planes of a DICOM image.

    Attributes
    ----------
    labels
        ``(plane, row, column)``.
    positions
        The first voxel of each plane, LPS mm.
    orientation
        The directions along a row and along a column.
    spacing, step
        mm between rows and between columns, and between planes.
    references
        The derivation that refers to the image of each plane, or None.
    """

    labels: NDArray[np.uint8]
    positions: NDArray[np.float64]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    step: float
    references: tuple[Dataset | None, ...]


def write_segmentation(
    labels_ZYX: NDArray[np.uint8],
    source: SourceGrid,
    path: Path,
    legend: Legend | None = None,
    series: Path | None = None,
) -> tuple[Dataset, Images, tuple[Segment, ...]]:
    """Write labels as a DICOM segmentation.

    Parameters
    ----------
    path
        The file, which is written completely or not at all. Its name is chosen without looking at the headers.
    labels_ZYX, source, legend, series
        As for `make_segmentation`.

    Returns
    -------
    tuple
        As that of `make_segmentation`.

    Raises
    ------
    DataError
        As that of `make_segmentation`, or if the file cannot be written.
    """
    check_labels(labels_ZYX, source)
    images = find_images(source, series)
    made, segments = make_segmentation(labels_ZYX, source, images, legend)
    save_objects({path: made})
    return made, images, segments


def make_segmentation(
    labels_ZYX: NDArray[np.uint8], source: SourceGrid, images: Images, legend: Legend | None = None
) -> tuple[Dataset, tuple[Segment, ...]]:
    """Make a DICOM segmentation of labels.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``.
    source
        Their grid.
    images
        The series to refer to. On its grid each plane refers to its image, except where that is missing; on another
        grid of its frame of reference, where planes coincide.
    legend
        What the labels mean. Without it every label is a segment of its own.

    Returns
    -------
    tuple
        The object, and its segments, for objects that refer to it.

    Raises
    ------
    DataError
        If the shapes differ, the grid is sheared within a slice, or there is nothing to write.
    """
    check_labels(labels_ZYX, source)
    segments = list_segments(labels_ZYX, legend or Legend())
    planes = lay_out(labels_ZYX, source, images)
    with unheard():
        made = _make(planes, segments, images, (legend or Legend()).provenance)
        images.copy_patient(made)
    return made, segments


def list_segments(labels: NDArray[np.uint8], legend: Legend) -> tuple[Segment, ...]:
    """Return the segments of labels: the regions of the legend, and any label that belongs to none.

    Returns
    -------
    tuple of Segment
        Numbered from 1.

    Raises
    ------
    DataError
        If there is neither.
    """
    inside = {label for members in legend.regions.values() for label in members}
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    found = dict(legend.regions)
    for label in (int(label) for label in present if label and label not in inside):
        found[legend.names.get(label, f"label {label}")] = (label,)
    if not found:
        raise DataError("The labels are empty, so there is nothing to write. Draw something first.")
    return tuple(
        Segment(number, name, members, _color_of(members[0], number, legend), generate_uid())
        for number, (name, members) in enumerate(found.items(), start=1)
    )


def code_of(name: str) -> Code:
    """Return the code for what a region or label shows."""
    return _TYPES.get(name, codes.SCT.Lesion)


def _color_of(label: int, number: int, legend: Legend) -> str:
    return legend.colors.get(label) or EXTRA_COLORS[number % len(EXTRA_COLORS)]


# ------------------------------------------------------------------------------------------------------ planes


def lay_out(labels_ZYX: NDArray[np.uint8], source: SourceGrid, images: Images) -> Planes:
    """Cut labels into planes: those of the images if labels lie on their grid, otherwise slices along Z.

    Returns
    -------
    Planes
        In order along their normal.

    Raises
    ------
    DataError
        If rows and columns of another grid are not at right angles.
    """
    if not images.is_grid_of(source):
        return _lay_out_apart(labels_ZYX, source, images)
    stack = images.stack
    steps, corner = _to_lps(stack.affine)
    positions = corner + np.arange(stack.shape[2])[:, None] * steps[:, 2]
    for number, plane in enumerate(stack.planes):
        if plane is not None and plane.position is not None:
            positions[number] = plane.position  # as stated, so that viewers find the two to be the same
    lengths = np.linalg.norm(steps, axis=0)
    normal = np.cross(steps[:, 0], steps[:, 1])
    return Planes(
        labels=np.ascontiguousarray(np.transpose(images.grid.to_source(labels_ZYX), (2, 1, 0))),
        positions=positions,
        orientation=(*(steps[:, 0] / lengths[0]), *(steps[:, 1] / lengths[1])),
        spacing=(float(lengths[1]), float(lengths[0])),
        step=float(abs(steps[:, 2] @ normal) / np.linalg.norm(normal)),
        references=tuple(_refer(images, number, preserved=True) for number in range(stack.shape[2])),
    )


def _lay_out_apart(labels_ZYX: NDArray[np.uint8], source: SourceGrid, images: Images) -> Planes:
    steps, corner = _to_lps(source.affine_ZYX)
    along, down = (steps[:, axis] / np.linalg.norm(steps[:, axis]) for axis in (2, 1))
    if abs(along @ down) > _SQUARE:
        raise DataError(
            "The rows and columns of these labels are not at right angles, which DICOM cannot store. Save them on the "
            "grid of a scan, or as NIfTI (.nii.gz)."
        )
    down = down - (down @ along) * along
    down /= np.linalg.norm(down)
    normal = np.cross(along, down)
    positions = corner + np.arange(len(labels_ZYX))[:, None] * steps[:, 0]
    own, start = _to_lps(images.stack.affine)
    own_normal = np.cross(own[:, 0], own[:, 1])
    own_normal /= np.linalg.norm(own_normal)
    references: list[Dataset | None] = [None] * len(positions)
    if np.linalg.norm(np.cross(normal, own_normal)) < _SQUARE:
        places = (positions - start) @ own_normal / (own[:, 2] @ own_normal)
        for number, place in enumerate(places):
            nearest = round(float(place))
            if 0 <= nearest < images.stack.shape[2] and abs(place - nearest) < 0.1:
                references[number] = _refer(images, nearest, preserved=False)
    return Planes(
        labels=np.ascontiguousarray(labels_ZYX),
        positions=positions,
        orientation=(*along, *down),
        spacing=(float(np.linalg.norm(steps[:, 1])), float(np.linalg.norm(steps[:, 2]))),
        step=float(abs(steps[:, 0] @ normal)),
        references=tuple(references),
    )


def _to_lps(affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps of the axes as columns, and the place of voxel 0, in LPS mm."""
    turned = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    return turned[:, :3], turned[:, 3]


def _refer(images: Images, number: int, *, preserved: bool) -> Dataset | None:
    """Return the reference of a plane to the image of a slice, as a derivation."""
    if (image := images.reference_to(number)) is None:
        return None
    image.PurposeOfReferenceCodeSequence = [_code(_PURPOSE)]
    image.SpatialLocationsPreserved = "YES" if preserved else "NO"
    derivation = Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [_code(_DERIVATION)]
    return derivation


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


# ------------------------------------------------------------------------------------------------------ the object


def _make(planes: Planes, segments: tuple[Segment, ...], images: Images, provenance: Mapping[str, Any]) -> Dataset:
    import highdicom as hd

    inside = np.zeros((256, len(segments)), np.uint8)
    for place, segment in enumerate(segments):
        inside[list(segment.labels), place] = 1
    made: Dataset = hd.seg.Segmentation(
        source_images=make_stand_ins(images),
        pixel_array=inside[planes.labels],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(segment, provenance) for segment in segments],
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=PROGRAM,
        manufacturer_model_name=PROGRAM,
        software_versions=version(PROGRAM),
        device_serial_number="0",
        content_label="TUMOR",
        content_description="Brain tumor regions",
        series_description="Brain tumor segmentation",
        pixel_measures=hd.PixelMeasuresSequence(planes.spacing, planes.step, planes.step),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", planes.orientation),
        plane_positions=[hd.PlanePositionSequence("PATIENT", place) for place in planes.positions],
        omit_empty_frames=False,  # so that it can be read back on the whole grid without the scan
    )
    made.SourceImageSequence = [make_reference(header) for header in images.headers.values()]
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [
        make_reference(header) for header in images.headers.values()
    ]
    _refer_from_frames(made, planes)
    return made


def make_stand_ins(images: Images) -> list[Dataset]:
    """Return headers of single images as highdicom expects them, without what names anybody: it logs odd names."""
    first_plane = next(plane for plane in images.stack.planes if plane is not None)
    stand_ins = []
    for header in images.headers.values():
        image = Dataset()
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            setattr(image, keyword, header[keyword].value)
        image.SOPClassUID = MRImageStorage
        image.FrameOfReferenceUID = images.first.FrameOfReferenceUID
        image.PositionReferenceIndicator = images.first.get("PositionReferenceIndicator")
        image.Modality = "MR"
        image.Rows, image.Columns = first_plane.shape
        image.ImagePositionPatient = list(first_plane.position or (0, 0, 0))
        image.ImageOrientationPatient = list(first_plane.orientation or (1, 0, 0, 0, 1, 0))
        image.PixelSpacing = list(first_plane.spacing or (1, 1))
        image.SliceThickness = first_plane.thickness
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            setattr(image, keyword, None)
        for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            setattr(image, keyword, None)
        stand_ins.append(image)
    return stand_ins


def _describe(segment: Segment, provenance: Mapping[str, Any]) -> Any:
    import highdicom as hd
    from highdicom.color import CIELabColor

    model = str(provenance.get("model") or "")
    edited = bool(provenance.get("edited_slices_z"))
    algorithm = None
    if model:
        algorithm = hd.AlgorithmIdentificationSequence(
            name=model,
            family=codes.DCM.ArtificialIntelligence,
            version=str(provenance.get("model_version") or "unknown"),
            source=PROGRAM,
        )
    return hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=code_of(segment.name),
        algorithm_type="MANUAL" if not model else "SEMIAUTOMATIC" if edited else "AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=segment.uid,
        tracking_id=segment.name[:64],
        anatomic_regions=[codes.SCT.Brain],
        display_color=CIELabColor.from_string(segment.color),
    )


def _refer_from_frames(made: Dataset, planes: Planes) -> None:
    """Let each frame refer to its own image, and to no other."""
    for frame in made.PerFrameFunctionalGroupsSequence:
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        reference = planes.references[int(np.linalg.norm(planes.positions - place, axis=1).argmin())]
        frame.DerivationImageSequence = [] if reference is None else [reference]
