"""What a file is called in messages. Scanners and archives name DICOM files after the patient, so those are counted."""

from __future__ import annotations

import re
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from napari_braintumor.engine.files import _foreign

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_LOOKED_INTO = 50


def may_name_patient(path: Path) -> bool:
    """Whether a name must not be shown: that of a DICOM file, by suffix or content, or of what holds such files."""
    if path.is_dir():
        return any(may_name_patient(file) for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() == ".zip":
        return _may_pack_dicom(path)
    return path.suffix.lower() in DICOM_SUFFIXES or _foreign.is_dicom(path)


def call_file(path: Path) -> str:
    """Return what a file is called within a sentence; see `capitalize` for its beginning.

    Returns
    -------
    str
        Its name in quotes; for DICOM ``file 7 of 24 in its folder``, as a list of the folder shows them by name.
    """
    if not may_name_patient(path):
        return f"'{path.name}'"
    try:
        places = _number_files(str(path.parent), path.parent.stat().st_mtime_ns)
    except OSError:
        return "a DICOM file"
    return f"file {places[path.name]} of {len(places)} in its folder" if path.name in places else "a DICOM file"


def capitalize(text: str) -> str:
    """Return a text that begins a sentence; unlike `str.capitalize`, the rest stays as it is."""
    return text[:1].upper() + text[1:]


def natural_sort_key(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text.lower())]


def _may_pack_dicom(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in [each for each in packed.infolist() if not each.is_dir()][:_LOOKED_INTO]:
                with packed.open(member) as file:
                    if _foreign.starts_as_dicom(file.read(132)):
                        return True
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError):
        return True  # nobody knows
    return False


@lru_cache(maxsize=8)
def _number_files(folder: str, changed: int) -> dict[str, int]:
    """Return the number of each file in a folder, from 1; another time of its last change has it listed anew."""
    names = (path.name for path in Path(folder).iterdir() if not path.name.startswith(".") and path.is_file())
    return {name: number for number, name in enumerate(sorted(names, key=natural_sort_key), start=1)}
