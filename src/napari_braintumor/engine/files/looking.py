"""Look at the images of series whose headers and names leave open what they show: a reason for the table of series.

Headers count more than images: what is seen is added to the reason of a row that asks for a look anyway, and neither
its modality nor its use changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.resampling import resample
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.choosing_series.changing import with_rows
from napari_braintumor.engine.files.choosing_series.rows import SeriesRow
from napari_braintumor.engine.files.reading import read_scans
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine
from napari_braintumor.engine.inspecting.witness import judge_fluid

_COARSE_MM = 1.5
_BEST_KNOWN = ("T1", "T1ce", "FLAIR", "T2")
"""In T1 fluid is darkest compared with the rest."""


def look_at_unsure(case: CaseFiles) -> Iterator[PhaseReached | CaseFiles]:
    """Compare the series of a case that are unsure with one that is sure.

    Parameters
    ----------
    case
        A case with its table of series.

    Yields
    ------
    PhaseReached or CaseFiles
        A phase before each series is read; last the case, with what was seen in the reasons of its table. It is the
        case itself if no series is unsure, or none is sure.
    """
    unsure = [row for row in case.rows if row.usable and not row.sure]
    known = min(
        (row for row in case.rows if row.used and row.sure and row.modality in _BEST_KNOWN),
        key=lambda row: _BEST_KNOWN.index(row.modality or ""),
        default=None,
    )
    if known is None or not unsure:
        yield case
        return
    assert known.modality is not None
    yield PhaseReached(f"looking at {case.name}", 0, len(unsure))
    rows = {row.key: row for row in case.rows}
    other = _read(case, known)
    for done, row in enumerate(unsure, start=1):
        scan = None if other is None or not _may_share_place(row, known) else _read(case, row)
        if other is not None and scan is not None and _is_comparable(scan.grid, other.grid):
            fluid = judge_fluid(*_bring_together(scan, other), known.modality)
            if fluid is not None:
                reason = f"{row.guess.reason}; {_say(fluid, row.modality)}"
                rows[row.key] = replace(row, guess=replace(row.guess, reason=reason))
        yield PhaseReached(f"looking at {case.name}", done, len(unsure))
    yield with_rows(case, tuple(rows.values())) if tuple(rows.values()) != case.rows else case


def _say(fluid: str, modality: str | None) -> str:
    if fluid == "bright":
        seen, fits = "fluid is bright in its image, as in T2", modality in ("T2", None)
    else:
        seen, fits = "fluid is dark in its image, as in T1, T1ce and FLAIR", modality != "T2"
    return seen if fits else f"but {seen}"


def _read(case: CaseFiles, row: SeriesRow) -> Scan | None:
    image = ImageFile(row.series.paths, row.modality or "T1", row.series.channel, row.series)
    try:
        *_, scans = read_scans(replace(case, images=(image,), problem=None))
    except DataError:
        return None
    assert not isinstance(scans, PhaseReached)
    return scans[image.modality]


def _may_share_place(row: SeriesRow, known: SeriesRow) -> bool:
    """Whether headers do not say that two series have different scanner coordinates."""
    frames = row.series.frame_of_reference, known.series.frame_of_reference
    return "" in frames or frames[0] == frames[1]


def _is_comparable(grid: SourceGrid, other: SourceGrid) -> bool:
    """Whether two files say where they lie, or neither does and their voxels correspond."""
    if grid.orientation_known and other.orientation_known:
        return True
    return not grid.orientation_known and not other.orientation_known and grid.shape == other.shape


def _bring_together(scan: Scan, other: Scan) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return two scans on one coarse grid, that of the second, by their headers."""
    onto, stay = _coarsen(other.grid), np.eye(4)
    return resample(scan.data, scan.grid, onto, stay), resample(other.data, other.grid, onto, stay)


def _coarsen(grid: SourceGrid) -> SourceGrid:
    """Return a grid of larger voxels over the same place."""
    sides = np.linalg.norm(grid.affine[:3, :3], axis=0)
    steps = np.maximum(1, np.round(_COARSE_MM / sides))
    affine = grid.affine.copy()
    affine[:3, :3] *= steps
    affine[:3, 3] += grid.affine[:3, :3] @ ((steps - 1) / 2)
    shape = np.maximum(1, np.array(grid.shape) // steps).astype(int).tolist()
    return grid_from_affine(tuple(shape), affine, format=grid.format)
