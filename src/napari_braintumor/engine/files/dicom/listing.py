"""Which files are DICOM: in folders, as a DICOMDIR lists them, and in zip archives, which are unpacked beside nothing.

Names in an archive or an index are never used to write, and never lead out of their folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._foreign import is_dicom, starts_as_dicom
from napari_braintumor.engine.files.dicom.headers import damaged, read_dataset
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard
from napari_braintumor.engine.files.walking import walk_folders

_PREAMBLE = 132
_MOST_FILES = 20_000
_MOST_BYTES = 8 << 30
_MOST_PACKED = 200
"""How much larger the content of an archive may be than the archive; scans are packed to a third or so."""
_LEAST_BYTES = 64 << 20
"""What an archive may hold however small it is: slices without anything in them are packed well."""

_UNPACKED: dict[tuple[str, int, int], Path] = {}
_ORIGINS: dict[str, Path] = {}


def list_dicom(paths: Sequence[Path]) -> list[Path]:
    """List the DICOM files at or below paths, each once.

    Returns
    -------
    list of Path
        In order of folders and names; members of an archive as unpacked files.

    Raises
    ------
    DataError
        If an archive or a DICOMDIR cannot be read, or an archive is suspiciously large.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for file in _files_at(path):
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def origin_of(path: Path) -> Path:
    """Return the archive that a file was unpacked from, or the file itself."""
    return _ORIGINS.get(str(path.parent), path)


def _files_at(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _files_below(path)
    elif path.name.upper() == "DICOMDIR" and is_dicom(path):
        yield from _files_of_index(path)
    elif zipfile.is_zipfile(path):
        yield from _unpack(path)
    elif is_dicom(path):
        yield path


def _files_below(folder: Path) -> Iterator[Path]:
    for below, _, names in walk_folders(folder):
        for name in names:
            path = below / name
            if name.upper() != "DICOMDIR" and path.is_file() and is_dicom(path):
                yield path


def _files_of_index(index: Path) -> Iterator[Path]:
    """Yield the files that a DICOMDIR lists, if they are in its folder."""
    home = index.parent.resolve()
    try:
        with unheard():
            records: Any = read_dataset(index, pixels=True).DirectoryRecordSequence
            names = [
                [str(part) for part in ([given] if isinstance(given, str) else given)]
                for record in records
                if (given := record.get("ReferencedFileID")) is not None
            ]
    except FAULTS as error:
        raise damaged(index) from error
    missing = 0
    for parts in names:
        path = _find_below(home, parts)
        if path is not None and is_dicom(path):
            yield path
        else:
            missing += 1
    if names and missing == len(names):
        raise DataError(
            f"The DICOMDIR lists {len(names)} files, but none of them is there. Copy the folder again with all files."
        )


def _find_below(home: Path, parts: Sequence[str]) -> Path | None:
    """Return a listed file in its folder, whatever the case of its name; None if it is not there or lies outside."""
    path = home
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or ":" in part:
            return None
        here = path / part
        if not here.exists() and path.is_dir():
            here = next((each for each in path.iterdir() if each.name.lower() == part.lower()), here)
        path = here
    return path if path.is_file() and path.resolve().is_relative_to(home) else None


def _unpack(archive: Path) -> list[Path]:
    """Unpack the DICOM files of a zip archive into a private folder that is removed at the end of the process."""
    status = archive.stat()
    key = (os.path.realpath(archive), status.st_mtime_ns, status.st_size)
    if key not in _UNPACKED:
        folder = Path(tempfile.mkdtemp(prefix="napari-braintumor-"))  # readable by the user alone
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        try:
            _unpack_into(archive, folder, max(_LEAST_BYTES, min(_MOST_BYTES, status.st_size * _MOST_PACKED)))
        except (zipfile.BadZipFile, zlib.error, *FAULTS) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, DataError):
                raise
            raise DataError(
                "The zip archive is damaged, locked by a password or packed in a way that is not read. "
                "Unpack it yourself, then open the folder."
            ) from error
        _UNPACKED[key] = folder
        _ORIGINS[str(folder)] = archive
    return sorted(_UNPACKED[key].iterdir())


def _unpack_into(archive: Path, folder: Path, most: int) -> None:
    """Write the DICOM files of an archive as numbered files."""
    with zipfile.ZipFile(archive) as packed:
        members = [each for each in packed.infolist() if not each.is_dir()]
        too_large = DataError(
            f"The zip archive holds more than {min(most, _MOST_BYTES) >> 20:,} MB or {_MOST_FILES:,} files. "
            "Unpack it yourself, then open the folder."
        )
        if len(members) > _MOST_FILES or sum(each.file_size for each in members) > most:
            raise too_large
        taken = 0
        for number, member in enumerate(members):
            if Path(member.filename).name.upper() == "DICOMDIR":
                continue
            with packed.open(member) as file:
                start = file.read(_PREAMBLE)
                if not starts_as_dicom(start):
                    continue
                with (folder / f"{number:06}.dcm").open("wb") as copy:
                    copy.write(start)
                    while part := file.read(1 << 20):
                        taken += len(part)
                        if taken > most:  # sizes in an archive's index may be false
                            raise too_large
                        copy.write(part)
