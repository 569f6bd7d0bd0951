"""Where voxels lie: the grid of an image as stored in its file, comparing two grids, and checking a grid's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError, SettingsError

FileFormat = str
"""The name of a file format, or ``array``."""

POSSIBLE_SIDES_MM = (0.05, 30.0)
"""The smallest and largest voxel side that a scan of a head can have."""

LONGEST_SCAN_MM = 600.0
"""The greatest length of a scan of a head along any axis."""


_WITHOUT_ORIENTATION = ("array", "tiff")
"""Formats that never state an orientation, so nobody expects one."""


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid of an image before its axes were reordered: everything needed to write labels back onto it.

    Attributes
    ----------
    shape
        Voxels along the three spatial axes, in the source's own order.
    affine
        ``(4, 4)`` float64, source voxel index to RAS mm.
    axes
        The source axis of each of our axes Z, Y, X.
    flips
        Whether each of our axes Z, Y, X runs against its source axis.
    path
        The file the first modality came from, or None for arrays made in memory.
    format
        The format of the source, so that labels are written in the same format.
    header
        The binary NIfTI header of the source, or empty; keeps the qform and sform codes exact.
    spacing_known
        False if the file states no voxel size or an impossible one: millimeters and milliliters are then guesses.
    orientation_known
        False if the file does not state its orientation, so its axes were taken as stored.
    spacing_note
        What was guessed about the voxel size and why, in one sentence; empty if nothing was guessed.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    path: Path | None = None
    format: FileFormat = "array"
    header: bytes = b""
    spacing_known: bool = True
    orientation_known: bool = True
    spacing_note: str = ""

    def with_spacing(self, spacing: tuple[float, float, float]) -> SourceGrid:
        """Return the same grid with the voxel size that the user entered.

        Labels are still written on the grid of the file, so that they line up with the scan.

        Parameters
        ----------
        spacing
            mm along Z, Y, X.

        Returns
        -------
        SourceGrid
            The grid, with `spacing_known` True and no note.

        Raises
        ------
        SettingsError
            If no scan of a head can have such voxels.
        """
        if not is_possible_spacing(self.shape_ZYX, spacing):
            sides = " x ".join(f"{side:g}" for side in spacing)
            low, high = POSSIBLE_SIDES_MM
            raise SettingsError(
                f"Voxels of {sides} mm (Z x Y x X) are not possible for a scan of {_by(self.shape_ZYX)} voxels. "
                f"Expected sides of {low:g} to {high:g} mm and a scan of at most {LONGEST_SCAN_MM:g} mm. Enter the "
                "voxel size in mm."
            )
        return replace(self.rescaled(spacing), spacing_known=True, spacing_note="")

    def rescaled(self, spacing: tuple[float, float, float]) -> SourceGrid:
        """Return the same grid rescaled to this voxel size in mm along Z, Y, X; the notes stay."""
        affine = self.affine.copy()
        for axis, old, new in zip(self.axes, self.spacing, spacing, strict=True):
            affine[:3, axis] *= new / old
        return replace(self, affine=affine)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the file's header, one sentence each."""
        notes = [self.spacing_note] if self.spacing_note else []
        if self.format not in _WITHOUT_ORIENTATION and not self.orientation_known:
            name = name_grid(self, "The scan")
            neither = " (neither qform nor sform)" if self.format == "nifti" else ""
            notes.append(
                f"{name} does not state its orientation{neither}, so left and right, front and back "
                "are guesses. Check them against the scanner's own pictures."
            )
        return tuple(notes)

    @property
    def shape_ZYX(self) -> tuple[int, int, int]:
        """Voxels along our axes Z, Y, X."""
        z, y, x = (self.shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def affine_ZYX(self) -> NDArray[np.float64]:
        """``(4, 4)``, our index (z, y, x) to RAS mm."""
        reorder = np.zeros((4, 4))
        reorder[3, 3] = 1
        for ours, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            reorder[axis, ours] = -1 if flip else 1
            reorder[axis, 3] = self.shape[axis] - 1 if flip else 0
        return self.affine @ reorder

    def to_source(self, array_ZYX: NDArray[Any]) -> NDArray[Any]:
        """Reorder an array with axes (Z, Y, X) to the axis order and directions of the source."""
        if self.is_in_order:
            return array_ZYX
        flipped = array_ZYX[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        return np.transpose(flipped, np.argsort(self.axes))

    def from_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorder a source array, whose last three axes are spatial, to (..., Z, Y, X)."""
        if self.is_in_order:
            return array
        first = array.ndim - 3
        order = (*range(first), *(first + axis for axis in self.axes))
        index = (*(slice(None),) * first, *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))
        return np.transpose(array, order)[index]

    @property
    def is_in_order(self) -> bool:
        """Whether the source's axes are already Z, Y, X, so that lazy arrays stay as they are."""
        return self.axes == (0, 1, 2) and not any(self.flips)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along Z, Y, X."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        z, y, x = (float(lengths[axis]) for axis in self.axes)
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL; in a sheared grid it is a parallelepiped, smaller than the product of its sides."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def origin(self) -> tuple[float, float, float]:
        """Position of our voxel (0, 0, 0) in mm: superior, posterior, left."""
        corner = np.zeros(3)
        for axis, flip in zip(self.axes, self.flips, strict=True):
            corner[axis] = self.shape[axis] - 1 if flip else 0
        right, anterior, superior = self.affine[:3, :3] @ corner + self.affine[:3, 3]
        return float(superior), float(-anterior), float(-right)


def is_possible_spacing(shape_ZYX: tuple[int, int, int], spacing: tuple[float, float, float]) -> bool:
    """Return whether a scan of a head can have this shape and this voxel size in mm along Z, Y, X."""
    low, high = POSSIBLE_SIDES_MM
    return all(low <= side <= high and side * n <= LONGEST_SCAN_MM for side, n in zip(spacing, shape_ZYX, strict=True))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def grid_from_affine(shape: tuple[int, int, int], affine: NDArray[np.floating[Any]], **extra: Any) -> SourceGrid:
    """Find the axis order that brings a grid closest to (Z, Y, X) in LPS.

    Parameters
    ----------
    shape
        Voxels along the three axes of the source.
    affine
        ``(4, 4)``, source voxel index to RAS mm; may be oblique. It must be invertible.
    **extra
        Further fields of `SourceGrid`.

    Returns
    -------
    SourceGrid
        The grid with its axis order and flips.
    """
    affine = np.asarray(affine, dtype=np.float64)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # Assign source axes to world axes with the best total alignment; there are only six ways, so try them all.
    world = max(
        ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
        key=lambda p: sum(abs(directions[p[axis], axis]) for axis in range(3)),
    )
    axes = (world.index(2), world.index(1), world.index(0))
    wanted_sign = {0: -1.0, 1: -1.0, 2: 1.0}  # left, posterior, superior in RAS coordinates
    flips = tuple(bool(directions[w, axis] * wanted_sign[w] < 0) for w, axis in zip((2, 1, 0), axes, strict=True))
    return SourceGrid(tuple(shape), affine, axes, flips, **extra)  # type: ignore[arg-type]


def default_grid(
    shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1), **extra: Any
) -> SourceGrid:
    """Return the grid of an array that already has axes (Z, Y, X), with voxel (0, 0, 0) at the world's origin."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    return SourceGrid(shape, affine, **extra)


_LEAST_HEAD_MM = 60.0
_FINEST_CROP_MM = 0.5

TOLERANCE_VOX = 0.1
"""Grids whose corners are closer than this count as the same: every program rounds headers in its own way."""


def check_same_grid(first: SourceGrid, second: SourceGrid, one: str, two: str, remedy: str) -> str | None:
    """Raise an error if the voxels of two images, in (Z, Y, X), do not lie in the same places.

    Parameters
    ----------
    first, second
        Their grids.
    one, two
        Their names in messages, for instance ``'t1.nii.gz'`` in quotes.
    remedy
        What the user can do, in one sentence.

    Returns
    -------
    str or None
        One sentence if either image does not state its position, so that they were matched voxel by voxel.

    Raises
    ------
    DataError
        If the shapes differ, or a corner of the second is more than `TOLERANCE_VOX` voxels from that of the first. A
        voxel size or an orientation that a file does not state is not compared.
    """
    if first.shape_ZYX != second.shape_ZYX:
        raise DataError(f"{one} {first.shape_ZYX} and {two} {second.shape_ZYX} differ in shape. {remedy}")
    if not (first.orientation_known or second.orientation_known) and first.format == second.format:
        _check_size(first, second, one, two, remedy)
        return None  # stored alike, as far as the files say
    if not (first.orientation_known and second.orientation_known):
        if first.format == second.format == "nifti":
            silent, other = (two, one) if first.orientation_known else (one, two)
            raise DataError(
                f"{silent} does not state its orientation (neither qform nor sform), but {other} does, so it is "
                f"unknown whether they match. {remedy}"
            )
        _check_size(first, second, one, two, remedy)
        silent = two if first.orientation_known else one
        return f"{silent} does not state its orientation; it was matched to the other image slice by slice."
    if first.spacing_known != second.spacing_known:
        if _turned(first, second) > TOLERANCE_VOX:
            raise DataError(f"{one} and {two} are rotated relative to each other. {remedy}")
        silent, other = (two, one) if first.spacing_known else (one, two)
        return f"The voxel size of {silent} is not known; it was matched to {other} voxel by voxel."
    _check_size(first, second, one, two, remedy)
    apart_mm = np.linalg.norm(_corners(second) - _corners(first), axis=1)
    if corner_distance_vox(first, second) > TOLERANCE_VOX:
        raise DataError(f"{one} and {two} lie up to {apart_mm.max():.3g} mm apart. {remedy}")
    return None


def corner_distance_vox(first: SourceGrid, second: SourceGrid) -> float:
    """Return the largest distance between the corners of two grids of the same shape, in voxels of the first."""
    apart = np.linalg.solve(first.affine_ZYX[:3, :3], (_corners(second) - _corners(first)).T)
    return float(np.linalg.norm(apart, axis=0).max())


def _check_size(first: SourceGrid, second: SourceGrid, one: str, two: str, remedy: str) -> None:
    """Raise an error if both voxel sizes are known and add up to different lengths over the whole scan."""
    sides = np.array([first.spacing, second.spacing])
    drift_vox = np.abs(sides[1] / sides[0] - 1) * (np.array(first.shape_ZYX) - 1)
    if first.spacing_known and second.spacing_known and drift_vox.max() > TOLERANCE_VOX:
        of_one, of_two = (format_sides(grid.spacing) for grid in (first, second))
        raise DataError(f"{one} ({of_one} mm) and {two} ({of_two} mm) differ in voxel size. {remedy}")


def _turned(first: SourceGrid, second: SourceGrid) -> float:
    """Return how far the corners of two grids are apart, in voxels, if they had the same center and voxel size."""
    steps = [grid.affine_ZYX[:3, :3] / np.array(grid.spacing) for grid in (first, second)]
    corners = _indices(first) - (np.array(first.shape_ZYX) - 1) / 2
    return float(np.linalg.norm(corners @ (steps[0] - steps[1]).T, axis=1).max())


def _corners(grid: SourceGrid) -> NDArray[np.float64]:
    """Return the positions of the corner voxels: ``(8, 3)`` RAS mm."""
    affine = grid.affine_ZYX
    return _indices(grid) @ affine[:3, :3].T + affine[:3, 3]


def _indices(grid: SourceGrid) -> NDArray[np.float64]:
    """Return the indices (z, y, x) of the corner voxels: ``(8, 3)``."""
    return np.array(list(product(*((0.0, size - 1.0) for size in grid.shape_ZYX))))


def name_grid(grid: SourceGrid, otherwise: str) -> str:
    """Return the name of a grid's file in quotes; `otherwise` for DICOM, whose files may be named after a patient."""
    return otherwise if grid.path is None or grid.format == "dicom" else f"'{grid.path.name}'"


def replace_impossible_spacing(grid: SourceGrid, name: str = "The scan") -> SourceGrid:
    """Return a grid unchanged if a head can be that large, otherwise with a guessed voxel size and a note.

    The guess is the stated size times the power of ten that makes the scan 60 to 600 mm long, whatever unit was
    meant; or 1 mm if that does not help.

    Returns
    -------
    SourceGrid
        The same grid, or one with `spacing_known` False and a note.
    """
    if _is_a_head(grid.shape_ZYX, grid.spacing):
        return grid
    name = name_grid(grid, name)
    longest = max(side * n for side, n in zip(grid.spacing, grid.shape_ZYX, strict=True))
    stated = f"{name} states voxels of {format_sides(grid.spacing)} mm (Z x Y x X), a scan {longest:.3g} mm long"
    factor = 10.0 ** -floor(log10(longest / _LEAST_HEAD_MM))
    z, y, x = (float(f"{side * factor:.6g}") for side in grid.spacing)
    return guess_spacing(grid, (z, y, x), stated)


def guess_spacing(grid: SourceGrid, guess: tuple[float, float, float], stated: str) -> SourceGrid:
    """Return a grid with a guessed voxel size, or 1 mm if even the guess is not possible.

    Parameters
    ----------
    grid
        The grid as the file states it.
    guess
        mm along Z, Y, X.
    stated
        What the file states; the note begins with it.

    Returns
    -------
    SourceGrid
        The grid with the guess, `spacing_known` False, and a note.
    """
    guess = guess if _is_a_head(grid.shape_ZYX, guess) else (1.0, 1.0, 1.0)
    note = (
        f"{stated}, which cannot be right. {format_sides(guess)} mm was assumed, so mm and mL are guesses. "
        "Enter the right voxel size, or correct the file's header."
    )
    return replace(grid.rescaled(guess), spacing_known=False, spacing_note=note)


def format_sides(sides: Sequence[float]) -> str:
    """Format sizes as text, for instance ``5 x 0.9 x 0.9``."""
    return " x ".join(f"{side:.4g}" for side in sides)


def _is_a_head(shape_ZYX: tuple[int, int, int], spacing: tuple[float, float, float]) -> bool:
    """Return whether a scan of this shape and voxel size can hold a head: not larger than a head, and not too small."""
    longest = max(side * n for side, n in zip(spacing, shape_ZYX, strict=True))
    # A small crop of a scan has voxels of the usual size.
    small = longest < _LEAST_HEAD_MM and min(spacing) < _FINEST_CROP_MM
    return is_possible_spacing(shape_ZYX, spacing) and not small
