"""Decode the pixels of DICOM files; compressed ones in a process of its own, which a damaged file can only end.

Every decoder of JPEG that is at hand ends or stops its process on some damaged images. So compressed files are decoded
by ``python -m napari_braintumor.engine.files.dicom.decoding``: it reads paths as JSON, and writes an array for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from napari_braintumor.engine.files.dicom.codestreams import check_sizes
from napari_braintumor.engine.files.dicom.headers import read_dataset
from napari_braintumor.engine.files.dicom.quiet import FAULTS, silence_gdcm, unheard

_MODULE = "napari_braintumor.engine.files.dicom.decoding"

_LENGTH = 8
"""Bytes that say how long the next answer is."""

MOST_SECONDS = 60.0
"""A file that takes longer to decode is given up; some damaged ones would take forever."""


def decode_files(paths: Sequence[Path]) -> Generator[tuple[FileDataset, NDArray[Any]], None, None]:
    """Decode files one after the other.

    Parameters
    ----------
    paths
        Files with an image each.

    Yields
    ------
    FileDataset
        The header and its elements.
    NDArray
        The stored numbers, ``(frame, row, column)``, before they are rescaled.

    Raises
    ------
    ValueError
        If a file is damaged; also other errors of `quiet.FAULTS`.
    """
    child: subprocess.Popen[bytes] | None = None
    try:
        for number, path in enumerate(paths):
            data = read_dataset(path, pixels=True)
            if _is_plain(data):
                with unheard():
                    pixels = _decode(data)
            else:
                check_sizes(data, int(data.Rows), int(data.Columns))
                child = child or _start(paths[number:])
                pixels = _receive(child)
            if pixels.ndim == 2:
                pixels = pixels[None]
            if pixels.ndim != 3:
                raise ValueError("not a stack of gray images")
            yield data, pixels
    finally:
        if child is not None:
            _end(child)


def answer(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Decode the compressed files that are asked for, in order: what the process of its own does."""
    silence_gdcm()
    for path in json.loads(asked.read()):
        try:
            data = read_dataset(Path(path), pixels=True)
            if _is_plain(data):
                continue
            with unheard():
                pixels = _decode(data)
        except FAULTS:
            pixels = np.empty(0)
        packed = BytesIO()
        np.save(packed, pixels, allow_pickle=False)
        answers.write(len(packed.getbuffer()).to_bytes(_LENGTH, "little") + packed.getbuffer())
        answers.flush()


def _is_plain(data: FileDataset) -> bool:
    """Return whether pixels are stored as they are, or so that Python alone decodes them."""
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    syntax = data.file_meta.TransferSyntaxUID
    return not syntax.is_compressed or syntax == RLELossless


def _decode(data: FileDataset) -> NDArray[Any]:
    """Return the stored numbers, with the sign that the header states; some decoders leave it out."""
    bits, allocated = int(data.get("BitsStored", data.BitsAllocated)), int(data.BitsAllocated)
    if data.file_meta.TransferSyntaxUID == RLELossless:
        data.pixel_array_options(decoding_plugin="pydicom")
    with np.errstate(all="ignore"):
        pixels = np.asarray(data.pixel_array)
        if pixels.dtype.kind not in "iu" or not 0 < bits < allocated:
            return pixels
        signed = int(data.get("PixelRepresentation", 0)) == 1
        low = pixels & ((1 << bits) - 1)
        return np.where(low >> (bits - 1) & 1, low - (1 << bits), low) if signed else low


def _start(paths: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Start a process that decodes those of these files that are compressed."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE],  # -P: nothing is imported from the folder that it is started in
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders complain there, and may name the patient
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows only
    )
    assert child.stdin is not None
    with suppress(OSError):  # if it has ended already, that is seen when its answer is read
        child.stdin.write(json.dumps([str(path.absolute()) for path in paths]).encode())
        child.stdin.close()
    return child


def _receive(child: subprocess.Popen[bytes]) -> NDArray[Any]:
    """Return the next array of the process; an empty one stands for a file that it could not decode."""
    assert child.stdout is not None
    patience = Timer(MOST_SECONDS, child.kill)
    patience.daemon = True
    patience.start()
    try:
        packed = child.stdout.read(int.from_bytes(child.stdout.read(_LENGTH), "little"))
    finally:
        patience.cancel()
    pixels: NDArray[Any] = np.load(BytesIO(packed), allow_pickle=False)  # EOFError if the process has ended
    if not pixels.size:
        raise ValueError("the image cannot be decoded")
    return pixels


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    child.wait()


if __name__ == "__main__":
    answer(sys.stdin.buffer, sys.stdout.buffer)
