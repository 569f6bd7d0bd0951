"""Cases whose scans were brought onto one grid, written for other programs: images, and how each got there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.files.written import (
    compact_values,
    name_files,
    naming_folder,
    write_image,
    write_new_folder,
)
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Volume

RECORD = "alignment.json"
"""The file that says how the scans were aligned."""


def write_prepared(volume: Volume, folder: Path) -> Path:
    """Write the images of a case on its one grid, and a record of how they were brought there.

    The images are named by modality, so that `find_cases` finds the case again.

    Parameters
    ----------
    volume
        The case.
    folder
        The parent folder. The case gets a new folder with its name, and a number if there is one already.

    Returns
    -------
    Path
        The case's folder.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    files = name_files(volume.modalities)

    def write(home: Path) -> None:
        for file, channel in zip(files.values(), volume.data, strict=True):
            write_image(home / file, volume, compact_values(channel))
        record = json.dumps(describe_alignment_of(volume, files), indent=1)
        (home / RECORD).write_text(f"{record}\n", encoding="utf-8")

    with naming_folder(folder):
        return write_new_folder(folder, volume.name, write)


def describe_alignment_of(volume: Volume, files: dict[str, str]) -> dict[str, Any]:
    """Describe how the scans of a case were brought onto one grid, as JSON values.

    Matrices are affines in RAS mm, as in NIfTI: ``to_reference`` brings a place in a scan to the same place of the head
    in the reference.

    Parameters
    ----------
    volume
        The case.
    files
        The file of each modality.

    Returns
    -------
    dict
        JSON values; no path of a scan and no patient.
    """
    alignment = volume.alignment
    return {
        "format": 1,
        "case": volume.name,
        "reference": alignment.reference if alignment is not None else None,
        "grid": _describe_grid(volume.source),
        "scans": {
            modality: {"file": file, **(_describe_scan(alignment, modality) if alignment is not None else {})}
            for modality, file in files.items()
        },
        "notes": list(volume.notes),
    }


def _describe_scan(alignment: Alignment, modality: str) -> dict[str, Any]:
    scan = alignment.scans[modality]
    shift_mm, angle_deg = alignment.find_move(modality)
    return {
        "how": scan.how,
        "to_reference": _to_lists(scan.to_reference),
        "shift_mm": round(shift_mm, 3),
        "angle_deg": round(angle_deg, 3),
        "mutual_information": {"before": scan.before, "after": scan.after},
        "coverage": round(scan.coverage, 4),
        "own_grid": _describe_grid(scan.grid),
    }


def _describe_grid(grid: SourceGrid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": _to_lists(grid.affine)}


def _to_lists(matrix: NDArray[Any]) -> list[list[float]]:
    return [[float(value) for value in row] for row in matrix]
