"""The scans of a case before they are aligned: what is needed of each, whether they fit, which is the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.grid import SourceGrid, check_same_grid

PREFERRED = ("FLAIR", "T1ce", "T2", "T1")
"""The order in which modalities are tried as the reference: whole tumor and its core show best in the first two."""

FINE_MM = 2.0
"""Axial slices are fine if their pixels are at most this large: networks look at them at about this size."""

ONE_GRID = (
    "Scans are brought onto one grid by where their files say that they lie. Choose files that state their voxel size "
    "and orientation, or resample one of them first."
)


@dataclass(frozen=True, eq=False)
class Scan:
    """One image of a case, on its own grid.

    Attributes
    ----------
    data
        Finite real numbers, axes (Z, Y, X).
    grid
        Where its voxels lie.
    name
        Its name in messages, for instance ``'t1.nii.gz'`` in quotes.
    frame_of_reference
        Equal for scans of one scanner coordinate system; empty if not known.
    notes
        What the user should know of it, or of scans that were left out beside it, one sentence each.
    """

    data: NDArray[Any]
    grid: SourceGrid
    name: str
    frame_of_reference: str = ""
    notes: tuple[str, ...] = ()


def fit_as_stored(
    grids: Mapping[str, SourceGrid], names: Mapping[str, str], reference: str
) -> tuple[bool, tuple[str, ...]]:
    """Check whether all scans lie on the reference's grid already.

    Parameters
    ----------
    grids, names
        For each modality its grid, and its name in messages.
    reference
        One of the modalities.

    Returns
    -------
    fits, notes
        Whether they do, and notes about how they were matched.

    Raises
    ------
    DataError
        If one does not, and its file or the reference's does not say where it lies, so that it cannot be brought there.
    """
    one, notes, fits = grids[reference], [], True
    for modality, grid in grids.items():
        if grid is one:
            continue
        try:
            note = check_same_grid(one, grid, names[reference], names[modality], ONE_GRID)
        except DataError:
            if not (_is_placed(one) and _is_placed(grid)):
                raise
            fits = False
        else:
            notes += [note] if note else []
    return fits, tuple(notes)


def lie_alike(one: SourceGrid, two: SourceGrid) -> bool:
    """Return whether the voxels of two images lie in the same places."""
    try:
        check_same_grid(one, two, "one", "two", "")
    except DataError:
        return False
    return True


def choose_reference(grids: Mapping[str, SourceGrid], wanted: str = "auto") -> str:
    """Choose the modality whose grid the others are brought onto.

    Parameters
    ----------
    grids
        The grid of each modality.
    wanted
        A modality; ``finest`` for the smallest voxels; or ``auto`` for the first of `PREFERRED` whose axial pixels are
        fine, and else the smallest voxels.

    Returns
    -------
    str
        The modality.

    Raises
    ------
    SettingsError
        If the case does not have that modality.
    """
    finest = min(grids, key=lambda modality: grids[modality].voxel_ml)
    if wanted == "finest":
        return finest
    if wanted != "auto":
        if wanted not in grids:
            raise SettingsError(
                f"The scans cannot be brought onto the grid of '{wanted}': the case has {', '.join(grids)}. Choose one "
                "of these, or auto."
            )
        return wanted
    fine = [each for each in PREFERRED if each in grids and max(grids[each].spacing[1:]) <= FINE_MM]
    return fine[0] if fine else finest


def _is_placed(grid: SourceGrid) -> bool:
    return grid.orientation_known and grid.spacing_known
