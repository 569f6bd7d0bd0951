"""Find the DICOM series among files and folders, by their headers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._foreign import is_dicom
from napari_braintumor.engine.files.calling import DICOM_SUFFIXES
from napari_braintumor.engine.files.dicom.headers import Header, Plane, digest, read_header
from napari_braintumor.engine.files.dicom.listing import list_dicom, origin_of
from napari_braintumor.engine.files.dicom.stacking import Part, Stack, name_plane, split_planes, stack_planes
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine, is_possible_spacing, replace_impossible_spacing

_NOT_IMAGES = {
    "DOC": "a document (PDF)",
    "SR": "a report",
    "SEG": "a segmentation",
    "RTSTRUCT": "a set of contours for radiotherapy",
    "RTPLAN": "a plan for radiotherapy",
    "RTDOSE": "a dose for radiotherapy",
    "PR": "a display setting",
    "KO": "a list of key images",
    "REG": "a registration",
    "FID": "a set of landmarks",
    "RWV": "a table of values",
}


_PARTS_OF_SIGNAL = ("PHASE", "REAL", "IMAGINARY")
"""Values of ComplexImageComponent that are not magnitude."""

_ALL_PLANES = {"axial", "coronal", "sagittal"}


def scan_series(paths: Sequence[Path]) -> list[Series]:
    """Find the series in DICOM files, reading headers only.

    Parameters
    ----------
    paths
        Files, folders at any depth, DICOMDIR files and zip archives. Files that are not DICOM are passed
        over, unless they are named like it.

    Returns
    -------
    list of Series
        In the order of their numbers. A series that holds several stacks (directions, echoes, b-values, phases) is
        split into one for each. What cannot be used as a scan is included, with its `problem`.

    Raises
    ------
    DataError
        If an archive or a DICOMDIR cannot be read.
    """
    headers: dict[str, list[Header]] = defaultdict(list)
    series: list[Series] = []
    named = [path for path in paths if path.suffix.lower() in DICOM_SUFFIXES and path.is_file()]
    for path in dict.fromkeys([*list_dicom(paths), *named]):
        try:
            header = read_header(path)
        except DataError as error:
            series.append(Series((path,), "dicom", digest("broken", str(path)), description="", problem=str(error)))
            continue
        headers[header.series].append(header)
    for members in headers.values():
        series += _series_of(members)
    return sorted(series, key=lambda each: (each.patient, each.study, each.number is None, each.number or 0))


def find_series_of(path: Path) -> list[Series]:
    """Find the series that a file belongs to, among the files in its folder.

    Returns
    -------
    list of Series
        With all its files, for scanners that write a file for each slice; several if it holds several stacks. A file
        that is damaged is a series with a problem.

    Raises
    ------
    DataError
        If the file is not DICOM.
    """
    named = [
        each for each in path.parent.iterdir() if not each.name.startswith(".") and each.name.upper() != "DICOMDIR"
    ]
    beside = [each for each in named if each.is_file() and is_dicom(each)]
    found = [series for series in scan_series(beside) if path in series.paths]
    return found or _series_of([read_header(path)])  # a copy of another image of its series


def find_stacks(paths: Sequence[Path]) -> list[Stack]:
    """Order the files of one series.

    Returns
    -------
    list of Stack
        One for each stack, in the order in which `scan_series` lists them.

    Raises
    ------
    DataError
        If a file is damaged, or the files make no stack.
    """
    headers = [read_header(path) for path in paths]
    name = name_series(headers[0])
    planes = [plane for header in headers for plane in header.planes]
    if (problem := _find_problem(headers, name)) is not None:
        raise DataError(problem)
    parts = split_planes(planes, name)
    for part in parts:
        if part.problem:
            raise DataError(part.problem)
    return [stack_planes(part.planes, name) for part in parts]


def name_series(of: Header | Series) -> str:
    """Return what a series is called in messages: ``Series 3 'flair'``."""
    number = f" {of.number}" if of.number is not None else ""
    return f"Series{number} '{of.description}'" if of.description else f"Series{number or ' without a number'}"


def grid_of(stack: Stack, path: Path) -> SourceGrid:
    """Return the grid of a stack: source axes column, row and slice."""
    grid = grid_from_affine(stack.shape, stack.affine, path=origin_of(path), format="dicom")
    if stack.spacing_known and is_possible_spacing(grid.shape_ZYX, grid.spacing):
        return grid  # however small: DICOM leaves no doubt about the unit
    if stack.spacing_known:
        return replace_impossible_spacing(grid, stack.name)
    note = f"{stack.name} does not state how thick its slice is. 1 mm was assumed, so mL are a guess."
    return replace(grid, spacing_known=False, spacing_note=note)


def _series_of(headers: Sequence[Header]) -> list[Series]:
    """Return the series of files that share a SeriesInstanceUID."""
    headers = sorted(headers, key=lambda each: str(each.path))
    first, name = headers[0], name_series(headers[0])
    whole = _describe(first, [each.path for each in headers], digest(first.series))
    if (problem := _find_problem(headers, name)) is not None:
        return [replace(whole, problem=problem, slices=sum(len(each.planes) for each in headers))]
    incomplete = _find_missing(headers, name)
    by_plane = {(plane.path, plane.frame): header for header in headers for plane in header.planes}
    planes = [plane for header in headers for plane in header.planes]
    parts = split_planes(planes, name)
    b_values = [float(b) for plane in planes if isinstance(b := plane.traits["b"], float | int)]
    techniques = frozenset().union(*(each.techniques for each in headers))
    if {name_plane(part.planes[0].orientation) for part in parts} >= _ALL_PLANES:
        techniques |= {"scout"}
    found = []
    for number, part in enumerate(parts):
        many = len(parts) > 1
        header = by_plane[part.planes[0].path, part.planes[0].frame]
        one_file = many and len({plane.path for plane in part.planes}) == 1 and len(header.planes) > 1
        series = replace(
            _describe(header, _paths_of(part.planes), digest(first.series, part.title if many else "")),
            description=f"{header.description} ({part.title})".strip() if part.title else header.description,
            channel=number if one_file else None,
            notes=(*incomplete, *part.notes),
            slices=len(part.planes),
            techniques=techniques,
            b_value=max(b_values, default=header.b_value),
        )
        found.append(_place(series, part, header))
    return found


def _place(series: Series, part: Part, header: Header) -> Series:
    """Return a series with its grid, or with the reason why it has none."""
    traits = part.planes[0].traits
    echo, inversion = traits["echo"], traits["inversion"]
    types, component = kind if isinstance(kind := traits["kind"], tuple) else ((), "")
    types = types or series.image_type
    if component in _PARTS_OF_SIGNAL:
        types = (*types, *[""] * (2 - len(types)), component)
    series = replace(
        series,
        image_type=types,
        echo_time_ms=echo if isinstance(echo, float) and echo else header.echo_time_ms,
        inversion_time_ms=inversion if isinstance(inversion, float) else header.inversion_time_ms,
    )
    if part.problem is not None:
        return replace(series, problem=part.problem)
    try:
        stack = stack_planes(part.planes, name_series(series))
    except DataError as error:
        return replace(series, problem=str(error))
    ordered = [plane for plane in stack.planes if plane is not None]
    paths = _paths_of(ordered)
    grid = grid_of(stack, paths[0])
    return replace(
        series, paths=paths, grid=grid, slices=len(stack.planes), notes=(*series.notes, *stack.notes, *grid.notes)
    )


def _paths_of(planes: Iterable[Plane]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(plane.path for plane in planes))


def _describe(header: Header, paths: Iterable[Path], key: str) -> Series:
    return Series(
        paths=tuple(paths),
        format="dicom",
        key=key,
        patient=header.patient,
        study=header.study,
        frame_of_reference=header.frame_of_reference,
        date=header.date,
        number=header.number,
        description=header.description,
        protocol=header.protocol,
        sequence_name=header.sequence_name,
        kind=header.kind,
        image_type=header.image_type,
        contrast=header.contrast,
        echo_time_ms=header.echo_time_ms,
        repetition_time_ms=header.repetition_time_ms,
        inversion_time_ms=header.inversion_time_ms,
        flip_angle_deg=header.flip_angle_deg,
        b_value=header.b_value,
        techniques=header.techniques,
        volumetric=header.volumetric,
    )


def _find_problem(headers: Sequence[Header], name: str) -> str | None:
    """Return why files are no scan at all, whatever their places."""
    first = headers[0]
    what = _NOT_IMAGES.get(first.kind)
    if what is None and all(not header.planes for header in headers):
        what = f"not an image ({first.stored})" if first.stored else "not an image"
    if what is not None:
        return f"{name} is {what}, not a scan."
    if any(header.samples > 1 for header in headers):
        return f"{name} is a color picture, such as a screen capture, not a scan."
    if "Secondary Capture" in first.stored and all(plane.position is None for each in headers for plane in each.planes):
        return f"{name} is a secondary capture (a picture of a screen), not a scan."
    if any("mosaic" in header.techniques for header in headers):
        return f"{name} stores volumes as mosaics of slices, as functional and diffusion scans do, and is not read."
    return None


def _find_missing(headers: Sequence[Header], name: str) -> tuple[str, ...]:
    """Return a note if headers speak of more images than there are."""
    there = sum(len(header.planes) for header in headers)
    stated = max((header.stated or 0 for header in headers), default=0)
    if len(headers) > 1 and there < stated:
        return (f"{name} has {there} of the {stated} images that its headers speak of; the folder may be half copied.",)
    return ()
