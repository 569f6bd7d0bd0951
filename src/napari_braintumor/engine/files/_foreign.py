"""What a file that is not a NIfTI or TIFF scan is, by its first bytes or its name, and what to do with it."""

from __future__ import annotations

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


DICOM = FileKind(
    "a DICOM file",
    "It belongs to no series that can be read, or its name hides what it is. Copy or export the series again.",
)
PAIR = FileKind(
    "half of an Analyze or NIfTI pair (.hdr and .img)",
    "Pairs are not supported yet. Convert the pair to one NIfTI file (.nii.gz) first.",
)
ANALYZE = FileKind(
    "an Analyze 7.5 file, which does not say where left and right are",
    "Analyze is not supported yet. Convert it to NIfTI (.nii.gz) first.",
)
NIFTI = FileKind("a NIfTI file", "Give it a name ending in .nii or .nii.gz.")
TIFF = FileKind("a TIFF file", "Give it a name ending in .tif or .tiff.")
_WEB_PAGE = FileKind("a web page, not a scan", "Download the file again; the site may want you to log in first.")
_LFS = FileKind("a Git LFS pointer, not the file itself", "Download the file with 'git lfs pull'.")

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
    b"NRRD0": _unread("NRRD", "an"),
    b"ObjectType": _unread("MetaImage"),
    b"NDims": _unread("MetaImage"),
    b"\x89HDF": _unread("HDF5 or MINC", "an"),
    b"CDF\x01": _unread("MINC"),
    b"version https://git-lfs": _LFS,
    b"<!doctype html": _WEB_PAGE,
    b"<!DOCTYPE html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    # A DICOM file without its preamble begins with group 0008.
    **{b"\x08\0" + bytes((element, 0)): DICOM for element in (0x00, 0x01, 0x05, 0x08, 0x12, 0x16, 0x18)},
}

_SUFFIXES: dict[str, FileKind] = {
    **dict.fromkeys((".dcm", ".ima", ".dicom"), DICOM),
    **dict.fromkeys((".hdr", ".img"), PAIR),
    **dict.fromkeys((".mha", ".mhd"), _unread("MetaImage")),
    **dict.fromkeys((".nrrd", ".nhdr"), _unread("NRRD", "an")),
    **dict.fromkeys((".mgz", ".mgh"), _unread("MGZ", "an")),
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
    with path.open("rb") as file:
        start = file.read(352)
    if start[128:132] == b"DICM":
        return DICOM
    if start[:2] == b"\x1f\x8b":
        return _SUFFIXES.get(suffix, NIFTI)
    if start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and len(start) > 347:  # 348, the length of a header
        single = start[344:348] == b"n+1\0"
        return NIFTI if single else PAIR if suffix in (".hdr", ".img") or start[344:348] == b"ni1\0" else ANALYZE
    if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):  # 540, that of NIfTI-2
        return NIFTI if start[4:8] == b"n+2\0" else PAIR
    known = next((what for beginning, what in _STARTS.items() if start.startswith(beginning)), None)
    return known or _SUFFIXES.get(suffix)
