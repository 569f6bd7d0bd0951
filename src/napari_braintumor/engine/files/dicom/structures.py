"""DICOM structure sets (RTSTRUCT) for planning systems: the outlines of regions, plane by plane.

Outlines run halfway between voxels inside and outside, so that planning systems find the same volume and reading gives
the same voxels. A hole is an outline within an outline. What makes up a structure set comes from rt-utils.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.dicom.labels import LabelImage, Part, paint
from napari_braintumor.engine.files.dicom.quiet import unheard
from napari_braintumor.engine.files.dicom.referring import PROGRAM, Images, find_images, find_referenced
from napari_braintumor.engine.files.dicom.segmentation import SERIES_NUMBER, Planes, Segment, lay_out, make_stand_ins
from napari_braintumor.engine.grid import SourceGrid

Outline = NDArray[np.float64]
"""The corners of a closed outline: ``(N, 2)``, column and row."""


def make_structures(
    labels_ZYX: NDArray[np.uint8], source: SourceGrid, segments: Sequence[Segment], images: Images,
    *, by_hand: bool = False,
) -> Dataset:  # fmt: skip
    """Make a DICOM structure set of labels, a structure for each segment.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``.
    source
        Their grid.
    segments
        From `make_segmentation`.
    images
        The series that it refers to.
    by_hand
        Whether a person drew them.

    Returns
    -------
    Dataset
        The structure set, with the patient of the series.

    Raises
    ------
    SettingsError
        If rt-utils is not installed.
    """
    helper, roi = require_rt_utils()
    planes = lay_out(labels_ZYX, source, images)
    with unheard():
        made: Dataset = helper.create_rtstruct_dataset(make_stand_ins(images))
        for segment in segments:
            described = roi(
                mask=None,
                color=[int(segment.color[i : i + 2], 16) for i in (1, 3, 5)],
                number=segment.number,
                name=segment.name[:64],
                frame_of_reference_uid=images.first.FrameOfReferenceUID,
                roi_generation_algorithm="MANUAL" if by_hand else "AUTOMATIC",
            )
            made.StructureSetROISequence.append(helper.create_structure_set_roi(described))
            observation = helper.create_rtroi_observation(described)
            del observation.ROIObservationDescription
            made.RTROIObservationsSequence.append(observation)
            made.ROIContourSequence.append(_draw(segment, described.color, planes))
        made.StructureSetLabel, made.SeriesDescription = "TUMOR", "Brain tumor contours"
        made.SeriesNumber, made.InstanceNumber = SERIES_NUMBER + 2, 1
        made.Manufacturer = made.ManufacturerModelName = PROGRAM
        made.SoftwareVersions = version(PROGRAM)
        made.FrameOfReferenceUID = images.first.FrameOfReferenceUID
        made.PositionReferenceIndicator = images.first.get("PositionReferenceIndicator")
        made.OperatorsName = None
        for keyword in ("InstitutionName", "SeriesDate", "SeriesTime", "StudyDescription"):
            if keyword in made:
                delattr(made, keyword)
        for keyword in ("PatientAge", "PatientSize", "PatientWeight"):
            if keyword in made:
                delattr(made, keyword)
        images.copy_patient(made)
    return made


def require_rt_utils() -> tuple[ModuleType, Any]:
    """Return what this module uses of rt-utils.

    Returns
    -------
    tuple
        Its functions that make parts of a data set, and its class that describes a structure.

    Raises
    ------
    SettingsError
        If it is not installed.
    """
    try:
        from rt_utils import ds_helper
        from rt_utils.utils import ROIData
    except ImportError as error:
        raise SettingsError(
            "Structure sets need the package rt-utils, which is not installed. Install it with: "
            "pip install 'napari-braintumor[rtstruct]'"
        ) from error
    return ds_helper, ROIData


def _draw(segment: Segment, color: list[int], planes: Planes) -> Dataset:
    drawn = Dataset()
    drawn.ROIDisplayColor = color
    drawn.ReferencedROINumber = segment.number
    contours = []
    along, down = np.array(planes.orientation[:3]), np.array(planes.orientation[3:])
    row_mm, column_mm = planes.spacing
    for labels_YX, place, reference in zip(planes.labels, planes.positions, planes.references, strict=True):
        for outline in trace_outlines(np.isin(labels_YX, segment.labels)):
            points = place + outline[:, :1] * column_mm * along + outline[:, 1:] * row_mm * down
            contour = Dataset()
            if reference is not None:
                image = reference.SourceImageSequence[0]
                contour.ContourImageSequence = [_without_purpose(image)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{part:.4f}" for part in points.ravel()]
            contours.append(contour)
    drawn.ContourSequence = contours
    return drawn


def _without_purpose(image: Dataset) -> Dataset:
    plain = Dataset()
    for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedFrameNumber"):
        if keyword in image:
            setattr(plain, keyword, image[keyword].value)
    return plain


def trace_outlines(mask_YX: NDArray[np.bool_]) -> Iterator[Outline]:
    """Yield the outlines of a mask, halfway between voxels inside and outside: corners (column, row), not repeated."""
    from contourpy import LineType, contour_generator

    if not mask_YX.any():
        return
    padded = np.pad(mask_YX, 1).astype(np.float64)
    for line in contour_generator(z=padded, line_type=LineType.Separate).lines(0.5):
        corners = np.asarray(line, np.float64)[:-1] - 1
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        yield corners[np.abs(turns) > 1e-9]


def fill_outlines(outlines: Sequence[Outline], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the voxels whose center lies inside an odd number of outlines: bool (row, column)."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    if outlines:
        start = np.concatenate(outlines)
        end = np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])
        # An edge crosses the rows from its lower end up to, but without, its higher end.
        first = np.maximum(np.ceil(np.minimum(start[:, 1], end[:, 1])), 0).astype(np.intp)
        last = np.minimum(np.ceil(np.maximum(start[:, 1], end[:, 1])) - 1, shape[0] - 1).astype(np.intp)
        times = np.maximum(last - first + 1, 0)
        edge = np.repeat(np.arange(len(start)), times)
        rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times)
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        columns = start[edge, 0] + (rows - start[edge, 1]) * slope
        np.add.at(crossed, (rows, np.clip(np.ceil(columns), 0, shape[1]).astype(np.intp)), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1
    return inside


# ------------------------------------------------------------------------------------------------------ reading


def read_structures(data: FileDataset, path: Path) -> LabelImage:
    """Read a structure set onto the grid of its images.

    Returns
    -------
    LabelImage
        A voxel is inside if its center lies within an odd number of contours.

    Raises
    ------
    DataError
        If the images are not found, or contours do not lie in their planes.
    """
    images = find_images(SourceGrid((1, 1, 1), np.eye(4)), find_referenced(data, path))
    grid = images.grid
    to_index = np.linalg.inv(images.stack.affine)
    columns, rows, slices = grid.shape
    names = {int(item.ROINumber): str(item.get("ROIName", "")) for item in data.StructureSetROISequence}
    parts, masks, outside = [], [], 0
    for item in data.ROIContourSequence:
        number = int(item.ReferencedROINumber)
        outlines: dict[int, list[Outline]] = {}
        for contour in item.get("ContourSequence") or ():
            if str(contour.ContourGeometricType) not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                continue
            points = np.array(contour.ContourData, np.float64).reshape(-1, 3) * (-1, -1, 1)
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            at = round(float(index[:, 2].mean()))
            if np.abs(index[:, 2] - at).max() > 0.5 or not 0 <= at < slices:
                outside += 1
                continue
            outlines.setdefault(at, []).append(index[:, :2])
        mask = np.zeros((slices, rows, columns), np.bool_)
        for at, lines in outlines.items():
            mask[at] = fill_outlines(lines, (rows, columns))
        masks.append(grid.from_source(np.transpose(mask, (2, 1, 0))))
        color = [int(part) for part in item.get("ROIDisplayColor") or ()]
        text = "#{:02x}{:02x}{:02x}".format(*color) if len(color) == 3 else ""
        parts.append(Part(number, names.get(number, "") or f"structure {number}", text))
    if not parts:
        raise DataError(f"{capitalize(call_file(path))} holds no contours. Expected outlines of regions.")
    notes = (f"{outside} contours of {call_file(path)} lie in none of the planes of its images and are left out.",)
    return paint(masks, parts, grid, notes if outside else ())
