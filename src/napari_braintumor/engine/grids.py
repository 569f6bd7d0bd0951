"""What holds of grids whatever they came from: whether two are one, and whether a head can be as large as one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import floor, log10

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.types import SourceGrid, is_possible_spacing

_LEAST_HEAD_MM = 60.0
_FINEST_CROP_MM = 0.5

TOLERANCE_VOX = 0.1
"""Grids whose corners lie closer than this are one: headers are rounded, each program in its own way."""


def check_same_grid(first: SourceGrid, second: SourceGrid, one: str, two: str, remedy: str) -> str | None:
    """Refuse two images whose voxels, in (Z, Y, X), do not lie in the same places.

    Parameters
    ----------
    first, second
        Their grids.
    one, two
        What to call them, for instance ``'t1.nii.gz'`` in quotes.
    remedy
        What to do about it, a sentence.

    Returns
    -------
    str or None
        One sentence where the second image does not say where it lies, or the first does not, so that they were put
        together voxel by voxel.

    Raises
    ------
    DataError
        If the shapes differ, or a corner of the second is more than `TOLERANCE_VOX` voxels from that of the first. What
        a file does not state, its voxel size or how the head lies in it, is not compared.
    """
    if first.shape_ZYX != second.shape_ZYX:
        raise DataError(f"{one} {first.shape_ZYX} and {two} {second.shape_ZYX} differ in shape. {remedy}")
    if not (first.orientation_known or second.orientation_known) and first.format == second.format:
        _check_size(first, second, one, two, remedy)
        return None  # stored alike, as far as anyone can tell
    if not (first.orientation_known and second.orientation_known):
        if first.format == second.format == "nifti":
            silent, other = (two, one) if first.orientation_known else (one, two)
            raise DataError(
                f"{silent} does not state its orientation (neither qform nor sform), but {other} does, so nobody can "
                f"know whether they lie alike. {remedy}"
            )
        _check_size(first, second, one, two, remedy)
        silent = two if first.orientation_known else one
        return f"{silent} does not say how the head lies in it; it was put on the other image slice by slice."
    if first.spacing_known != second.spacing_known:
        if _turned(first, second) > TOLERANCE_VOX:
            raise DataError(f"{one} and {two} are turned against each other. {remedy}")
        silent, other = (two, one) if first.spacing_known else (one, two)
        return f"The voxel size of {silent} is not known; it was put on {other} voxel by voxel."
    _check_size(first, second, one, two, remedy)
    apart_mm = np.linalg.norm(_corners(second) - _corners(first), axis=1)
    if corner_distance_vox(first, second) > TOLERANCE_VOX:
        raise DataError(f"{one} and {two} lie up to {apart_mm.max():.3g} mm apart. {remedy}")
    return None


def corner_distance_vox(first: SourceGrid, second: SourceGrid) -> float:
    """Return how far the corners of two grids of one shape are apart, in voxels of the first: the farthest."""
    apart = np.linalg.solve(first.affine_ZYX[:3, :3], (_corners(second) - _corners(first)).T)
    return float(np.linalg.norm(apart, axis=0).max())


def _check_size(first: SourceGrid, second: SourceGrid, one: str, two: str, remedy: str) -> None:
    """Refuse voxel sizes that both are known and do not come to the same over the whole scan."""
    sides = np.array([first.spacing, second.spacing])
    drift_vox = np.abs(sides[1] / sides[0] - 1) * (np.array(first.shape_ZYX) - 1)
    if first.spacing_known and second.spacing_known and drift_vox.max() > TOLERANCE_VOX:
        of_one, of_two = (by_text(grid.spacing) for grid in (first, second))
        raise DataError(f"{one} ({of_one} mm) and {two} ({of_two} mm) differ in voxel size. {remedy}")


def _turned(first: SourceGrid, second: SourceGrid) -> float:
    """Return how far the corners are apart, in voxels, of grids with one center and one voxel size."""
    steps = [grid.affine_ZYX[:3, :3] / np.array(grid.spacing) for grid in (first, second)]
    corners = _indices(first) - (np.array(first.shape_ZYX) - 1) / 2
    return float(np.linalg.norm(corners @ (steps[0] - steps[1]).T, axis=1).max())


def _corners(grid: SourceGrid) -> NDArray[np.float64]:
    """Return where the corner voxels lie: ``(8, 3)`` RAS mm."""
    affine = grid.affine_ZYX
    return _indices(grid) @ affine[:3, :3].T + affine[:3, 3]


def _indices(grid: SourceGrid) -> NDArray[np.float64]:
    """Return the indices (z, y, x) of the corner voxels: ``(8, 3)``."""
    return np.array(list(product(*((0.0, size - 1.0) for size in grid.shape_ZYX))))


def replace_impossible_spacing(grid: SourceGrid) -> SourceGrid:
    """Return a grid as it is where a head can be so large; else one with a voxel size that is a guess, and a note.

    The guess is what the file states, by the power of ten that makes the scan 60 to 600 mm long, whatever unit was
    meant; or 1 mm where that does not help.
    """
    if _is_a_head(grid.shape_ZYX, grid.spacing):
        return grid
    name = f"'{grid.path.name}'" if grid.path else "The scan"
    longest = max(side * n for side, n in zip(grid.spacing, grid.shape_ZYX, strict=True))
    stated = f"{name} states voxels of {by_text(grid.spacing)} mm (Z x Y x X), a scan {longest:.3g} mm long"
    factor = 10.0 ** -floor(log10(longest / _LEAST_HEAD_MM))
    z, y, x = (float(f"{side * factor:.6g}") for side in grid.spacing)
    return guess_spacing(grid, (z, y, x), stated)


def guess_spacing(grid: SourceGrid, guess: tuple[float, float, float], stated: str) -> SourceGrid:
    """Return a grid with a voxel size that is a guess, and 1 mm where even that is not possible.

    Parameters
    ----------
    grid
        As the file states it.
    guess
        mm along Z, Y, X.
    stated
        What the file states, the beginning of the note.
    """
    guess = guess if _is_a_head(grid.shape_ZYX, guess) else (1.0, 1.0, 1.0)
    note = (
        f"{stated}, which cannot be right; {by_text(guess)} mm were assumed, so mm and mL are a guess. "
        "Enter the right voxel size, or correct the file's header."
    )
    return replace(grid.rescaled(guess), spacing_known=False, spacing_note=note)


def by_text(sides: Sequence[float]) -> str:
    """Return sizes as text, as in ``5 x 0.9 x 0.9``."""
    return " x ".join(f"{side:.4g}" for side in sides)


def _is_a_head(shape_ZYX: tuple[int, int, int], spacing: tuple[float, float, float]) -> bool:
    """Return whether a scan may have such voxels: not larger than a head can be, nor so small that none is in it.

    A small part of a scan, cut out, has voxels of the usual size.
    """
    longest = max(side * n for side, n in zip(spacing, shape_ZYX, strict=True))
    small = longest < _LEAST_HEAD_MM and min(spacing) < _FINEST_CROP_MM
    return is_possible_spacing(shape_ZYX, spacing) and not small
