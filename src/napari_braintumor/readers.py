"""Open scans in napari: thin calls into `engine.files` and `layers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from napari.utils.notifications import show_warning

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.dicom.headers import read_header
from napari_braintumor.engine.files.dicom.labels import holds_labels, read_labels
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import find_series_of, scan_series
from napari_braintumor.engine.files.formats import check_readable, find_format, strip_suffix
from napari_braintumor.engine.files.labels import looks_like_labels
from napari_braintumor.engine.files.listing import describe_others, list_files
from napari_braintumor.engine.files.naming import may_be_mask
from napari_braintumor.engine.files.schemes import is_result
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.walking import walk_folders
from napari_braintumor.layers import (
    CaseRead,
    LayerData,
    make_image_layer,
    make_label_layer,
    make_own_label_layer,
    placement_among_shown,
    read_layers_of,
    reopen_result,
)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

MOST_SERIES = 12
"""Most DICOM series opened at once that make no case."""

MOST_CASES = 4
"""Most cases opened at once; more would fill memory and the layer list."""


def find_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return a reader for scans, and for TIFF files and folders that are cases; napari's reader entry point.

    Parameters
    ----------
    path
        A file, a folder, or several.

    Returns
    -------
    callable or None
        None leaves the path to other readers: for ordinary TIFF pictures, and for folders without medical images.
        Folders of formats that are recognized but not read raise an error that explains their content.
    """
    paths = _as_paths(path)
    folders = [item for item in paths if item.is_dir()]
    if not all(item in folders or find_format(item) is not None for item in paths):
        return None
    if all(_is_scan(item) for item in paths) or any(_holds_scan(folder) for folder in folders):
        return read_layers  # from here on, errors are reported, not left to other readers
    try:
        cases = find_cases(paths)
        if len(cases) > MOST_CASES:
            return read_layers
        layers = read_layers(path)
    except DataError:
        return read_layers if any(_holds_foreign(folder) for folder in folders) else None
    flat = any(data.shape[0] == 1 for data, _, _ in layers) and all(case.group == "other" for case in cases)
    return None if flat else lambda _: layers


def read_layers(path: Paths) -> list[LayerData]:
    """Read a case folder, its files, or single files.

    Parameters
    ----------
    path
        A file, a folder, or several. A scan that is not part of a case becomes a plain image layer, or a label layer if
        its name and content are those of a mask. A DICOM file stands for the whole series in its folder, or for the
        labels in it.

    Returns
    -------
    list of LayerData
        One image layer for each modality, and the mask of a case folder as a hidden label layer. Notes for the user are
        shown as one warning for each case.

    Raises
    ------
    DataError
        If no file can be read, or a folder contains more than `MOST_CASES` cases.
    """
    given = _as_paths(path)
    drawn = [item for item in given if _is_dicom(item) and holds_labels(item)]
    if drawn:
        rest = [item for item in given if item not in drawn]
        return [*(read_layers(rest) if rest else ()), *(_read_drawn(item) for item in drawn)]
    paths = _with_whole_series(given)
    try:
        cases = find_cases(paths)
    except DataError as error:
        if all(_is_scan_file(item) for item in paths):
            return _read_all_plain(paths)
        return _read_unnamed_series(paths, error)
    if len(cases) > MOST_CASES:
        raise DataError(
            f"{capitalize(_call(paths, cases))} contains {len(cases)} cases, from '{cases[0].name}' to "
            f"'{cases[-1].name}'. At most {MOST_CASES} can be open at once. Open the folder of one case."
        )
    sound = [case for case in cases if case.problem is None]
    used = {file.absolute() for case in sound for file in _files_of(case)}
    alone = [item for item in paths if _is_scan_file(item) and item.absolute() not in used]
    folders = any(item.is_dir() for item in paths)
    layers: list[LayerData] = []
    for case in cases:
        if case.problem is not None and alone and not folders:
            show_warning(f"{case.problem} The files are opened as separate layers.")
            continue
        try:
            layers += _read_case(case, folders or set(case.reference) <= set(paths), alone)
        except DataError as error:
            if len(cases) == 1 and case.problem is None:
                raise
            if len(cases) == 1:
                return _read_unnamed_series(paths, error)
            show_warning(f"Case '{case.name}' was not opened. {error}")
    layers += _read_all_plain(alone)
    if not layers:
        problem = cases[0].problem or ""
        reason = DataError(f"None of the cases in {_call(paths, cases)} can be read. {problem}")
        return _read_unnamed_series(paths, reason)
    return layers


def _read_case(case: CaseFiles, with_reference: bool, alone: Iterable[Path]) -> list[LayerData]:
    """Read a case, and show its notes for the user in one warning."""
    *_, read = read_layers_of(case, with_mask=with_reference)
    assert isinstance(read, CaseRead)
    opened = [f"'{path.name}'" for path in alone]
    if notes := [note for note in read.notes if not any(name in note for name in opened)]:
        show_warning(f"{case.name}: {' '.join(notes)}")
    return list(read.layers)


def _call(paths: Sequence[Path], cases: Sequence[CaseFiles]) -> str:
    """Return the name of what was opened; that of a folder of DICOM files may be the patient's."""
    return "the folder" if any(case.group == "dicom" for case in cases) else f"'{paths[0].name}'"


def _files_of(case: CaseFiles) -> list[Path]:
    return [path for image in case.images for path in image.paths] + list(case.reference)


def _read_all_plain(paths: Sequence[Path]) -> list[LayerData]:
    """Read files that are not part of a case: those of DICOM by series, others one by one."""
    scanned = [item for item in paths if _is_dicom(item)]
    layers = [layer for item in paths if item not in scanned for layer in _read_plain(item)]
    if not scanned:
        return layers
    series = scan_series(scanned)
    usable = [each for each in series if each.problem is None]
    if not usable:
        raise DataError(series[0].problem if series else f"{capitalize(call_file(scanned[0]))} holds no scan.")
    if len(usable) > MOST_SERIES:
        raise DataError(
            f"The files make {len(usable)} series. At most {MOST_SERIES} can be open at once. Open the files of fewer."
        )
    notes = [each.problem for each in series if each.problem is not None]
    notes += [note for each in usable for note in each.notes]
    if notes:
        show_warning(" ".join(notes))
    return layers + [layer for each in usable for layer in _read_series(each)]


def _read_drawn(path: Path) -> LayerData:
    """Read a DICOM segmentation or structure set as a label layer, with the names and colors of the file."""
    image = read_labels(path)
    if image.notes:
        show_warning(" ".join(image.notes))
    place = placement_among_shown(image.grid)
    # Only numbers of our own are held against scans; a role would say that these are.
    role = "mask" if image.own else ""
    name = read_header(path).description or "Segmentation"  # the file's own name may be the patient's
    return make_label_layer(image.labels, place, name, image.names, image.colors, case="", role=role)


def _read_series(series: Series) -> list[LayerData]:
    """Read a DICOM series as a plain image layer, named by its description."""
    data, grid = read_series(series.paths, series.channel)
    place = placement_among_shown(grid)
    name = series.description or f"Series {series.number}"
    return [make_image_layer(data, place, name, f"patient-{series.patient[:8]}" if series.patient else name)]


def _read_unnamed_series(paths: Sequence[Path], reason: DataError) -> list[LayerData]:
    """Read the DICOM series at paths that make no case, and say why they make none.

    Returns
    -------
    list of LayerData
        A plain image layer for each.

    Raises
    ------
    DataError
        The reason, if no series can be read.
    """
    usable = [each for each in scan_series(paths) if each.problem is None]
    if not usable or len(usable) > MOST_SERIES:
        raise reason
    show_warning(f"{reason} The series are opened as separate layers.")
    return [layer for each in usable for layer in _read_series(each)]


def _with_whole_series(paths: list[Path]) -> list[Path]:
    """Return the paths, with the other files of its series for a single DICOM file."""
    if len(paths) != 1 or not _is_dicom(paths[0]):
        return paths
    try:
        return list(find_series_of(paths[0])[0].paths)
    except DataError:
        return paths  # reading it says why


def _is_dicom(path: Path) -> bool:
    form = find_format(path) if path.is_file() else None
    return form is not None and form.name == "dicom" and path.name.upper() != "DICOMDIR"


def _read_plain(path: Path) -> list[LayerData]:
    """Read a file that is not part of a case: a scan of unknown modality, several scans in one file, or a mask."""
    data, grid = check_readable(path).read(path)
    place = placement_among_shown(grid)
    stem = strip_suffix(path)
    if may_be_mask(stem) and data.ndim == 3 and data.max(initial=0) <= 255 and looks_like_labels(data):
        labels = np.rint(data).astype(np.uint8)
        if is_result(path):
            reopened = reopen_result(labels, place, path)
            if reopened is not None:
                return [reopened]
            return [make_own_label_layer(labels, place, stem, case=stem, role="mask")]
        return [(labels, {**place.options, "name": stem, "metadata": place.remember(case=stem, role="mask")}, "labels")]
    channels = data if data.ndim == 4 else data[None]
    names = [stem] if len(channels) == 1 else [f"{stem} channel {i + 1}" for i in range(len(channels))]
    return [make_image_layer(channel, place, name, stem) for name, channel in zip(names, channels, strict=True)]


def _is_scan(path: Path) -> bool:
    """Whether a file can only be a scan or a mask, by its suffix."""
    form = find_format(path)
    return form is not None and form.always_scan


def _is_scan_file(path: Path) -> bool:
    return _is_scan(path) and not path.is_dir()


def _holds_scan(folder: Path) -> bool:
    return any(_is_scan(below / name) for below, _, names in walk_folders(folder) for name in names)


def _holds_foreign(folder: Path) -> bool:
    """Whether a folder contains no supported image, but files of a kind that this program recognizes."""
    images, others = list_files(folder)
    return not images and bool(describe_others(others))


def _as_paths(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | os.PathLike) else [Path(item) for item in path]
