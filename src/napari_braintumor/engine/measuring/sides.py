"""On which side of the head a lesion lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["left", "right", "both"]

ACROSS = 0.05
"""A lesion with more than this share of its volume on the other side lies on both."""

_WIDE = 0.5
"""Rows of the head narrower than this share of the widest say little about its middle."""

_ROUNDS = 3
_SPREAD = 2.5


@dataclass(frozen=True)
class Midline:
    """The plane between left and right: ``x = x0 + dz * z + dy * y``, by index.

    Attributes
    ----------
    x0, dz, dy
        The numbers of the plane.
    how
        How it was found, in words.
    """

    x0: float
    dz: float = 0.0
    dy: float = 0.0
    how: str = "the middle of the image"

    def find_side(self, voxels_N3: NDArray[np.integer]) -> Side:
        """Return the side of the patient on which voxels lie, by their indices ``(N, 3)``: z, y, x."""
        z, y, x = voxels_N3.T
        left = float(np.mean(x > self.x0 + self.dz * z + self.dy * y))  # x grows to the patient's left
        return "both" if ACROSS < left < 1 - ACROSS else "left" if left > 0.5 else "right"


def center_line(shape_ZYX: tuple[int, ...]) -> Midline:
    """Return the middle of an image, for labels without a scan."""
    return Midline((shape_ZYX[2] - 1) / 2)


def find_midline(head_ZYX: NDArray[np.bool_]) -> Midline:
    """Fit the plane between left and right through the middles of the rows of a head.

    Parameters
    ----------
    head_ZYX
        bool ``(Z, Y, X)``, True in the head or the brain.

    Returns
    -------
    Midline
        By least squares over the middle of each row from side to side, without rows far off, so that a head that is
        turned or shifted in the image is halved all the same; the middle of the image if there is no head.
    """
    filled = head_ZYX.any(axis=2)
    if not filled.any():
        return center_line(head_ZYX.shape)
    z, y = np.nonzero(filled)
    rows = head_ZYX[z, y]
    first, last = rows.argmax(axis=1), rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    wide = last - first >= _WIDE * (last - first).max()
    z, y, middle = z[wide], y[wide], (first[wide] + last[wide]) / 2
    terms = np.column_stack([np.ones(len(z)), z - z.mean(), y - y.mean()])
    used = np.ones(len(z), np.bool_)
    numbers = np.array([middle.mean(), 0.0, 0.0])
    for _ in range(_ROUNDS):
        numbers = np.linalg.lstsq(terms[used], middle[used], rcond=None)[0]
        off = np.abs(middle - terms @ numbers)
        used = off <= max(_SPREAD * float(np.median(off)), 1.0)
    x0, dz, dy = (float(number) for number in numbers)
    return Midline(x0 - dz * float(z.mean()) - dy * float(y.mean()), dz, dy, "the middle of the head")
