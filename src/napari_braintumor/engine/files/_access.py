"""Checks shared by the readers and writers of all formats."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.grid import SourceGrid

MOST_PACKED = 1032
"""The highest compression ratio of deflate, which limits how much data can come out of a file."""

_CHUNK = 1 << 20


def check_file(path: Path, content: _foreign.FileKind | None) -> None:
    """Raise an error if a path is not a file, is empty, or has other content than its name says.

    Parameters
    ----------
    path
        The file.
    content
        The kind of file by its name; None if the name does not say.

    Raises
    ------
    DataError
        Naming the file.
    """
    if not path.is_file():
        raise DataError(f"'{path}' {'is a folder' if path.is_dir() else 'does not exist'}. Expected an image file.")
    try:
        found = _foreign.describe(path)
    except OSError as error:
        raise DataError(
            f"{capitalize(call_file(path))} cannot be opened: {error.strerror}. Check its permissions."
        ) from error
    if found and found != content:
        raise DataError(f"{capitalize(call_file(path))} is {found.name}. {found.remedy}")
    if path.stat().st_size == 0:
        raise DataError(f"{capitalize(call_file(path))} is empty. Expected an image. Copy or download it again.")


def check_labels(labels_ZYX: NDArray[Any], source: SourceGrid) -> None:
    """Raise an error if labels are not on the grid of their scan.

    Raises
    ------
    DataError
        Naming both shapes.
    """
    expected = tuple(source.shape[axis] for axis in source.axes)
    if labels_ZYX.shape != expected:
        raise DataError(
            f"Labels {labels_ZYX.shape} and their scan {expected} differ in shape. "
            "Expected one label for each voxel. Draw the labels on the grid of the scan."
        )


def unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip file in parts; data appended to it is ignored."""
    rest = file.read(_CHUNK)
    while rest[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)  # raises if a checksum is wrong
        while not member.eof:
            rest = rest or file.read(_CHUNK)
            part = member.decompress(rest, _CHUNK)
            if not part and not rest:
                raise EOFError("it ends too early")
            yield part
            rest = member.unconsumed_tail
        rest = member.unused_data + (b"" if len(member.unused_data) > 1 else file.read(_CHUNK))


def take(parts: Iterator[bytes], most: int) -> bytes:
    """Return the first bytes of data that comes in parts."""
    taken = bytearray()
    while len(taken) < most and (part := next(parts, None)) is not None:
        taken += part
    return bytes(taken[:most])
