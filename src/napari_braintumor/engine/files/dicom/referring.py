"""The images that a DICOM object made of a scan refers to, and what it takes over from their headers.

DICOM wants objects made of a series to carry its patient and examination, so that an archive files them together. Both
are copied from header to header, and go nowhere else.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._foreign import is_dicom
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.dicom.headers import damaged, read_dataset
from napari_braintumor.engine.files.dicom.listing import list_dicom
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard
from napari_braintumor.engine.files.dicom.scanning import find_stacks, grid_of
from napari_braintumor.engine.files.dicom.stacking import Stack
from napari_braintumor.engine.grid import TOLERANCE_VOX, SourceGrid, corner_distance_vox

PROGRAM = "napari-braintumor"
CHARACTERS = "ISO_IR 192"
"""UTF-8: names of regions may hold any letter, and text of the scan's header is written anew."""

_OWED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""What must be there, if only empty (type 2 in the modules Patient and General Study)."""
_KEPT = (
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "PatientBirthTime",
    "EthnicGroup", "QualityControlSubject", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "PatientSpeciesDescription", "ResponsiblePerson", "ResponsibleOrganization",
    "StudyDescription", "ProcedureCodeSequence", "ConsultingPhysicianName", "IssuerOfAccessionNumberSequence",
    "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
)  # fmt: skip
"""What is copied if it is there."""
_NEEDED = {
    "SOPClassUID": "kind",
    "SOPInstanceUID": "identity",
    "SeriesInstanceUID": "series",
    "StudyInstanceUID": "examination",
    "FrameOfReferenceUID": "frame of reference",
}


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a series.

    Attributes
    ----------
    headers
        The header of each file, without pixels; of all but the first only what names them.
    stack
        Where their planes lie.
    """

    headers: dict[Path, Dataset]
    stack: Stack

    @property
    def first(self) -> Dataset:
        """The header that speaks for all."""
        return next(iter(self.headers.values()))

    @property
    def grid(self) -> SourceGrid:
        """The grid of the stack: source axes column, row and slice."""
        return grid_of(self.stack, next(iter(self.headers)))

    def is_grid_of(self, grid: SourceGrid) -> bool:
        """Whether a grid is that of the images."""
        own = self.grid
        return own.shape_ZYX == grid.shape_ZYX and corner_distance_vox(own, grid) <= TOLERANCE_VOX

    def reference_to(self, slice_number: int) -> Dataset | None:
        """Return the reference to the image of a slice of the stack; None where it is missing from the series."""
        plane = self.stack.planes[slice_number]
        if plane is None:
            return None
        header = self.headers[plane.path]
        reference = make_reference(header)
        if "NumberOfFrames" in header and int(header.NumberOfFrames) > 1:
            reference.ReferencedFrameNumber = plane.frame + 1
        return reference

    def copy_patient(self, made: Dataset) -> None:
        """Copy what names the patient and the examination into an object made of the images."""
        with unheard():
            made.SpecificCharacterSet = CHARACTERS
            for keyword in (*_OWED, *_KEPT):
                if keyword in self.first:
                    made[keyword] = deepcopy(self.first[keyword])
                elif keyword in _OWED:
                    setattr(made, keyword, None)


def make_reference(header: Dataset) -> Dataset:
    """Return a reference to a DICOM object."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference


def find_images(grid: SourceGrid, path: Path | None = None) -> Images:
    """Find the images of the series that a scan was read from.

    Parameters
    ----------
    grid
        The grid of the scan, or of labels in the same frame of reference.
    path
        A file of the series, or the archive it is in; if left out, the file that the grid names. The other files of
        the series are looked for in its folder.

    Returns
    -------
    Images
        Of several stacks in a series, those on the grid; otherwise the first.

    Raises
    ------
    DataError
        If the scan is not DICOM or its files are gone, they lack what a reference needs, or lie in another frame of
        reference than the grid.
    """
    path = path or grid.path
    if path is None or not path.is_file() or not (files := list_dicom([path])):
        where = f"{capitalize(call_file(path))} is not" if path and path.is_file() else "The labels do not belong to"
        raise DataError(
            f"{where} a DICOM image on this computer. A DICOM segmentation refers to the images it was drawn on. "
            "Save the labels as NIfTI (.nii.gz), or open the DICOM series first."
        )
    if files == [path] and read_uid(path, "Modality") in ("SEG", "RTSTRUCT"):
        path = find_referenced(read_dataset(path, pixels=True), path)
        files = [path]
    if files == [path]:
        files = sorted(file for file in path.parent.iterdir() if file.is_file() and is_dicom(file))
    every = [Images(_read_all(stack), stack) for members in _series_of(files, path) for stack in find_stacks(members)]
    images = next((each for each in every if each.is_grid_of(grid)), every[0])
    _check_can_be_referred_to(images)
    if grid.path is not None and path != grid.path:
        _check_frame(images, grid.path)
    return images


def find_referenced(data: Dataset, path: Path) -> Path:
    """Find an image that a segmentation or structure set refers to.

    Parameters
    ----------
    data
        Its header.
    path
        Its file; the images are looked for in its folder, and in the folders beside that.

    Returns
    -------
    Path
        A file of the series.

    Raises
    ------
    DataError
        If there is none.
    """
    try:
        with unheard():
            series = [*(data.get("ReferencedSeriesSequence") or ())]
            for frame in data.get("ReferencedFrameOfReferenceSequence") or ():
                for study in frame.get("RTReferencedStudySequence") or ():
                    series += study.get("RTReferencedSeriesSequence") or ()
            wanted = {str(each.get("SeriesInstanceUID", "")) for each in series} - {""}
    except FAULTS as error:
        raise damaged(path) from error
    for folders in ([path.parent], sorted(each for each in path.parent.parent.iterdir() if each.is_dir())):
        for file in list_dicom(folders):
            if read_uid(file, "SeriesInstanceUID") in wanted:
                return file
    raise DataError(
        f"The images that {call_file(path)} was drawn on are not in its folder, so it is unknown where its labels lie. "
        "Put the images and this file into one folder."
    )


def _series_of(files: list[Path], path: Path) -> list[list[Path]]:
    """Return the files of the series of a file, or of every series in an archive."""
    series: dict[str, list[Path]] = {}
    for file in files:
        series.setdefault(read_uid(file, "SeriesInstanceUID") or str(file), []).append(file)
    return [members for members in series.values() if path in members] or list(series.values())


def read_uid(path: Path, keyword: str) -> str:
    """Read one identifier of a DICOM file; empty if it is missing or the file cannot be read."""
    try:
        with unheard():
            return str(dcmread(path, force=True, stop_before_pixels=True, specific_tags=[keyword]).get(keyword, ""))
    except FAULTS:
        return ""


def _read_all(stack: Stack) -> dict[Path, Dataset]:
    """Read the headers of a stack's files in the order of its slices: the first whole, of others what names them."""
    headers: dict[Path, Dataset] = {}
    for plane in stack.planes:
        if plane is not None and plane.path not in headers:
            try:
                with unheard():
                    wanted = [*_NEEDED, "NumberOfFrames"] if headers else None
                    headers[plane.path] = dcmread(plane.path, force=True, stop_before_pixels=True, specific_tags=wanted)
            except FAULTS as error:
                raise damaged(plane.path) from error
    return headers


def _check_can_be_referred_to(images: Images) -> None:
    for header in images.headers.values():
        for keyword, what in _NEEDED.items():
            with unheard():
                stated = str(header.get(keyword, ""))
            if not stated:
                raise DataError(
                    f"{images.stack.name} does not state its {what} ({keyword}), so nothing can refer to it in DICOM. "
                    "Save the labels as NIfTI (.nii.gz)."
                )


def _check_frame(images: Images, path: Path) -> None:
    """Raise an error if the scan that labels were drawn on lies in another frame of reference."""
    drawn_on = read_uid(path, "FrameOfReferenceUID") if is_dicom(path) else ""
    if drawn_on != images.first.FrameOfReferenceUID:
        raise DataError(
            f"The labels were drawn on {call_file(path)}, which does not share the frame of reference of "
            f"{images.stack.name}, so DICOM cannot say where they lie in it. Save them on the grid of that series "
            "first, or as NIfTI (.nii.gz)."
        )
