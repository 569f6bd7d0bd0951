"""The size that a compressed image states itself: decoders believe it, whatever the DICOM header says."""

from __future__ import annotations

from struct import unpack_from

from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames

_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Start of a frame in JPEG (ITU-T T.81, table B.1) and in JPEG-LS."""


def check_sizes(data: FileDataset, rows: int, columns: int) -> None:
    """Raise an error if a compressed frame is not of the size in its header.

    Raises
    ------
    ValueError
        If the sizes differ, so that the decoder might take any amount of memory.
    """
    for frame in generate_frames(data.PixelData, number_of_frames=int(data.get("NumberOfFrames") or 1)):
        size = find_size(frame)
        if size is not None and size != (rows, columns):
            raise ValueError("a compressed image of another size than its header says")


def find_size(frame: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream states; None if it is none of these."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:  # ITU-T T.800, A.5.1
        width, height, left, top = unpack_from(">4I", frame, 8)
        return height - top, width - left
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
        elif marker in _FRAME_MARKERS:
            height, width = unpack_from(">2H", frame, at + 5)
            return height, width
        else:
            at += 2 + unpack_from(">H", frame, at + 2)[0]
    return None
