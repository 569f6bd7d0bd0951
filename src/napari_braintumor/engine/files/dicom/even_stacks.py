"""Where the slices of a stack lie: at even distances, but for some that are missing, and along one line."""

from __future__ import annotations

from math import degrees

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.headers import Plane

SAME_PLACE_MM = 0.02
"""Slices that are nearer to each other lie in one place."""

_ROUNDED = 0.01
"""Part of a slice's distance by which headers may be off without a word; they round positions."""
_UNEVEN = 0.1
"""Part of a slice's distance by which a slice may lie off its place in an even stack."""
_ASIDE_MM = 0.5
_LEAST_TILT_DEG = 0.5
_MOST_TILT_DEG = 60.0
_MOST_MISSING = 0.1
_MOST_IN_A_ROW = 2


def number_slices(heights: NDArray[np.float64], name: str) -> tuple[NDArray[np.intp], list[str]]:
    """Find each slice's place in an even stack.

    Parameters
    ----------
    heights
        ``(slice,)``: where the slices lie along the normal, mm, rising.
    name
        The series, for messages.

    Returns
    -------
    index
        ``(slice,)``: the places, from 0; a place that is left out is a missing slice.
    notes
        What is missing or uneven.

    Raises
    ------
    DataError
        If the slices make no even stack, or too many are missing.
    """
    if len(heights) == 1:
        return np.zeros(1, np.intp), []
    steps = np.diff(heights)
    tried = [_fit_steps(heights, float(guess)) for guess in (np.median(steps), steps.min()) if guess > SAME_PLACE_MM]
    if not tried:
        raise _uneven(steps, name)
    index, step, off = next((each for each in tried if each[2] <= _UNEVEN), tried[0])
    gaps = np.diff(index) - 1
    missing = int(gaps.sum())
    if off > _UNEVEN or (missing and len(heights) < 4):
        raise _uneven(steps, name)
    notes = []
    if missing:
        after = [int(i) + 1 for i in np.flatnonzero(gaps)]
        where = f"after slice {', '.join(map(str, after[:4]))}{' and others' if len(after) > 4 else ''}"
        are = "slice is" if missing == 1 else "slices are"
        total = len(heights) + missing
        if gaps.max() > _MOST_IN_A_ROW or missing > max(1, _MOST_MISSING * total):
            raise DataError(
                f"{name} is incomplete: {missing} of {total} {are} missing ({where}). Copy or export it again."
            )
        notes.append(
            f"{missing} {are} missing from {name} ({where}); interpolated between the neighbors. Copy or export it "
            "again if you can."
        )
    if off > _ROUNDED:
        close, far = (steps / np.diff(index)).min(), (steps / np.diff(index)).max()
        notes.append(
            f"The slices of {name} are {close:.4g} to {far:.4g} mm apart; their mean of {step:.4g} mm is used."
        )
    return index, notes


def _fit_steps(heights: NDArray[np.float64], step: float) -> tuple[NDArray[np.intp], float, float]:
    """Return places in an even stack of about this step, the step, and how far off a slice is, in steps."""
    steps = np.diff(heights)
    index = np.concatenate([[0], np.cumsum(np.maximum(np.rint(steps / step), 1))]).astype(np.intp)
    start = float(heights[0])
    for _ in range(2):  # the first step may be of rounded positions: fit once more over all
        step, start = (float(each) for each in np.polyfit(index, heights, 1))
        fresh = np.rint((heights - start) / step).astype(np.intp)
        index = fresh - fresh[0] if (np.diff(fresh) > 0).all() else index
    return index, step, float(np.abs(heights - (start + step * index)).max() / step)


def _uneven(steps: NDArray[np.float64], name: str) -> DataError:
    return DataError(
        f"{name} makes no even stack: its slices are {steps.min():.3g} to {steps.max():.3g} mm apart. Expected equal "
        "distances. Slices may be missing, or belong to another series. Export it again."
    )


def fit_line(
    index: NDArray[np.intp], places: NDArray[np.float64], normal: NDArray[np.float64], first: Plane, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Find the step from slice to slice.

    Parameters
    ----------
    index
        ``(slice,)``: each slice's place in the stack.
    places
        ``(slice, 3)``: the corners of the slices, LPS mm.
    normal
        ``(3,)``: across the slices, of length 1.
    first
        The first slice, whose thickness is the step of a lone slice.
    name
        The series, for messages.

    Returns
    -------
    step
        ``(3,)``: from slice to slice, LPS mm.
    corner
        ``(3,)``: of the first slice, LPS mm.
    notes
        That the gantry was tilted, if it was.

    Raises
    ------
    DataError
        If the slices are shifted sideways.
    """
    if len(places) == 1:
        return normal * (first.thickness or 1.0), places[0], []
    step, corner = np.polyfit(index, places, 1)
    aside = places - (corner + index[:, None] * step)
    aside -= np.outer(aside @ normal, normal)
    tilt = degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if np.linalg.norm(aside, axis=1).max() > _ASIDE_MM or tilt > _MOST_TILT_DEG:
        raise DataError(
            f"{name} makes no even stack: its slices are shifted sideways, by up to "
            f"{np.linalg.norm(aside, axis=1).max():.3g} mm. Images of several series may be mixed. Export it again."
        )
    if tilt < _LEAST_TILT_DEG:
        return step, corner, []
    return (
        step,
        corner,
        [f"The slices of {name} are tilted by {tilt:.1f} degrees (gantry tilt); positions allow for it."],
    )
