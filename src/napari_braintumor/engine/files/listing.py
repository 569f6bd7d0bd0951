"""List the files at or below the paths that a user gives, split into possible scans and other files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files.calling import may_name_patient
from napari_braintumor.engine.files.formats import FORMATS, check_readable, find_format, is_listed
from napari_braintumor.engine.files.walking import walk_folders
from napari_braintumor.engine.files.written import SIDECAR, is_sidecar

_LOOKED_AT = 200


def list_files(path: Path) -> tuple[list[Path], list[Path]]:
    """List the image files at or below a path, and the other files.

    Returns
    -------
    images
        Files of the `FORMATS`, and the sidecars of cases that this program wrote; other files in the folders of such
        cases are left out.
    others
        All other files except hidden ones.

    Raises
    ------
    DataError
        If the path does not exist, or is a file that is not an image.
    """
    if not path.is_dir():
        check_readable(path)
        return [path], []
    images: list[Path] = []
    others: list[Path] = []
    for folder, subfolders, names in walk_folders(path):
        if SIDECAR in names and is_sidecar(folder / SIDECAR):
            subfolders.clear()
            images.append(folder / SIDECAR)
            continue
        for name in names:
            (images if is_listed(folder / name) else others).append(folder / name)
    return images, others


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; files of another format by their suffix are not opened."""
    form = find_format(path)
    if form is not None and form.name != "dicom":
        return False
    try:
        return _foreign.describe(path) is _foreign.DICOM and path.is_file()
    except OSError:
        return False


def holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or an archive that may hold DICOM files."""
    return path.is_file() and (is_dicom(path) or (find_format(path) is None and zipfile.is_zipfile(path)))


def list_neighbors(path: Path) -> list[Path]:
    """List the other image files in a file's folder, and those in the Decathlon's label folder."""
    labels = path.parent.parent / path.parent.name.replace("images", "labels")
    return [
        sibling
        for near in dict.fromkeys((path.parent, labels))
        for sibling in (sorted(near.iterdir()) if near.is_dir() else ())
        if is_listed(sibling) and not sibling.name.startswith(".") and sibling != path and not may_name_patient(sibling)
    ]


def describe_others(paths: Iterable[Path]) -> list[tuple[Path, _foreign.FileKind]]:
    """Describe files that are not supported, if their kind is known: pictures, archives and others."""
    found = []
    for path in list(paths)[:_LOOKED_AT]:
        try:
            what = _foreign.describe(path)
        except OSError:
            continue
        if what and what not in [each.content for each in FORMATS]:
            found.append((path, what))
    return found
