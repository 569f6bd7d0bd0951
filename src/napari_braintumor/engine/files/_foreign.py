"""What a file is, by its first bytes or its name, and what to do with it if that is not what its name says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class FileKind(NamedTuple):
    """What a file is, as in "a DICOM file", and what to do with it, in a sentence or two."""

    name: str
    remedy: str


def _unread(name: str, article: str = "a") -> FileKind:
    return FileKind(f"{article} {name} file", f"{name} is not supported yet. Convert it to NIfTI (.nii.gz) first.")


def _picture(kind: str) -> FileKind:
    return FileKind(
        f"a {kind} picture, not a scan",
        "Pictures have no depth and no true gray values. Open the scan it was made from.",
    )


def _packed(kind: str) -> FileKind:
    return FileKind(f"a {kind} file", "Unpack it first, then open its contents.")


DICOM = FileKind("a DICOM file", "Give it a name ending in .dcm, or copy or export the series again.")
PAIR = FileKind("half of an Analyze or NIfTI pair (.hdr and .img)", "Give its two files names ending in .hdr and .img.")
NRRD = FileKind("an NRRD file", "Give it a name ending in .nrrd, or .nhdr if its voxels are in another file.")
META = FileKind("a MetaImage file", "Give it a name ending in .mha, or .mhd if its voxels are in another file.")
MGH = FileKind("an MGH file", "Give it a name ending in .mgz or .mgh.")
NIFTI = FileKind("a NIfTI file", "Give it a name ending in .nii or .nii.gz.")
TIFF = FileKind("a TIFF file", "Give it a name ending in .tif or .tiff.")
_WEB_PAGE = FileKind("a web page, not a scan", "Download the file again; the site may want you to log in first.")
_LFS = FileKind("a Git LFS pointer, not the file itself", "Download the file with 'git lfs pull'.")

_WITHOUT_PREAMBLE = tuple(b"\x08\0" + bytes((element, 0)) for element in (0x00, 0x01, 0x05, 0x08, 0x12, 0x16, 0x18))
"""A DICOM file without its preamble begins with group 0008."""

_PAIR_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
"""348, the length of a header, which it begins with."""

_STARTS: dict[bytes, FileKind] = {
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"\x89PNG": _picture("PNG"),
    b"\xff\xd8\xff": _picture("JPEG"),
    b"\0\0\0\x0cjP": _picture("JPEG 2000"),
    b"GIF8": _picture("GIF"),
    b"BM": _picture("BMP"),
    b"PK\x03\x04": _packed("zip"),
    b"7z\xbc\xaf": _packed("7z"),
    b"Rar!": _packed("RAR"),
    b"BZh": _packed("bzip2"),
    b"\xfd7zXZ": _packed("xz"),
    b"\x28\xb5\x2f\xfd": _packed("zstd"),
    b"NRRD0": NRRD,
    b"ObjectType": META,
    b"NDims": META,
    b"\x89HDF": _unread("HDF5 or MINC", "an"),
    b"CDF\x01": _unread("MINC"),
    b"version https://git-lfs": _LFS,
    b"<!doctype html": _WEB_PAGE,
    b"<!DOCTYPE html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    **dict.fromkeys(_WITHOUT_PREAMBLE, DICOM),
}

_SUFFIXES: dict[str, FileKind] = {
    **dict.fromkeys((".dcm", ".ima", ".dicom"), DICOM),
    **dict.fromkeys((".hdr", ".img"), PAIR),
    **dict.fromkeys((".mha", ".mhd"), META),
    **dict.fromkeys((".nrrd", ".nhdr"), NRRD),
    **dict.fromkeys((".mgz", ".mgh"), MGH),
    ".mnc": _unread("MINC"),
    **{f".{kind}": _picture(kind.upper()) for kind in ("png", "gif", "bmp", "webp", "svg")},
    **dict.fromkeys((".jpg", ".jpeg"), _picture("JPEG")),
    **{f".{kind}": _packed(kind) for kind in ("zip", "tar", "tgz", "rar", "7z", "bz2", "xz", "zst")},
}


def describe(path: Path) -> FileKind | None:
    """Return what a file is, if that is known.

    Parameters
    ----------
    path
        A file. Its first bytes decide; if they are not recognized, its suffix.

    Returns
    -------
    FileKind or None
        `NIFTI` and `TIFF` among others, whatever the name says; a gzip file counts as NIfTI.
    """
    suffix = path.suffix.lower()
    if suffix == ".img" and (header := path.with_suffix(".hdr")).is_file():
        return describe(header)  # voxels may begin with any bytes
    with path.open("rb") as file:
        start = file.read(352)
    if start[128:132] == b"DICM":
        return DICOM
    if start[:2] == b"\x1f\x8b":
        return _SUFFIXES.get(suffix, NIFTI)
    if start[:4] in _PAIR_SIZES and len(start) > 347:
        return NIFTI if start[344:348] == b"n+1\0" else PAIR
    if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):  # 540, that of NIfTI-2
        return NIFTI if start[4:8] == b"n+2\0" else PAIR
    known = next((what for beginning, what in _STARTS.items() if start.startswith(beginning)), None)
    return known or _SUFFIXES.get(suffix)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; False if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return starts_as_dicom(file.read(132))
    except OSError:
        return False


def starts_as_dicom(start: bytes) -> bool:
    """Whether a file is DICOM by its first 132 bytes, with or without a preamble."""
    return start[128:132] == b"DICM" or start.startswith(_WITHOUT_PREAMBLE)


def may_be_pair(path: Path) -> bool:
    """Whether a file named .hdr or .img is half of a pair by its header; True if it is empty or there is none."""
    header = path if path.suffix.lower() == ".hdr" else path.with_suffix(".hdr")
    try:
        with header.open("rb") as file:
            return file.read(4) in (b"", *_PAIR_SIZES)
    except OSError:
        return not path.is_file()


def may_be_anything(path: Path) -> bool:
    """Whether a file's suffix says nothing, as with scanners' names: ``IM0001``, ``MR.1.2.840.113``."""
    return not re.fullmatch(r"\.[A-Za-z][\w-]*", path.suffix) and path.is_file()
