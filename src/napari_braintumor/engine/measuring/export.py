"""What a paper or a chart needs of a case, in one folder: a CSV row, lesions, a figure, a paragraph and a record."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import find_free_path
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS, Measured
from napari_braintumor.engine.measuring.methods import describe_methods
from napari_braintumor.engine.measuring.record import name_result
from napari_braintumor.engine.models.card import ModelCard

ROW, LESIONS, FIGURE, METHODS, RECORD = "row.csv", "lesions.csv", "figure.png", "methods.txt", "record.json"


@dataclass(frozen=True, eq=False)
class CaseReport:
    """What is exported of a case.

    Attributes
    ----------
    case
        Its name.
    measured
        From `measure_regions`.
    labels_ZYX, grid
        The labels and their grid.
    names, colors
        The name and the color of each label.
    scan_ZYX, modality
        The scan below them in the figure, on the same grid, and its name; no figure without one.
    record
        Of the result; empty for labels that were drawn by hand.
    card
        Of its model.
    """

    case: str
    measured: Sequence[Measured]
    labels_ZYX: NDArray[np.integer[Any]]
    grid: SourceGrid
    names: Mapping[int, str]
    colors: Mapping[int, str]
    scan_ZYX: NDArray[Any] | None = None
    modality: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    card: ModelCard | None = None


def list_row(measured: Sequence[Measured]) -> dict[str, str]:
    """Return one row for a case: each measurement of each whole region, by ``region_measurement``."""
    return {
        f"{row.region.replace(' ', '_')}_{each.name}": each.write(row.values.get(each.name))
        for row in measured
        if not row.lesion
        for each in MEASUREMENTS
    }


def export_case(report: CaseReport, folder: Path) -> Path:
    """Write the files of a case into a new folder.

    Parameters
    ----------
    report
        What to write.
    folder
        Where the new folder goes, ``<case>_tumor_export``; with a number if that exists.

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        made = find_free_path(folder / f"{name_result(report.case)}_export")
        made.mkdir(parents=True)
        _write_rows(made / ROW, [{"case": report.case, **list_row(report.measured)}])
        _write_rows(
            made / LESIONS,
            [
                {
                    "case": report.case,
                    "region": row.region,
                    "lesion": str(row.lesion or ""),
                    **{each.name: each.write(row.values.get(each.name)) for each in MEASUREMENTS},
                }
                for row in report.measured
            ],
        )
        if report.scan_ZYX is not None:
            from napari_braintumor.engine.measuring.plate import save_plate  # matplotlib takes long to import

            caption = f"{report.modality}. Research only; not a medical device."
            scan = np.asarray(report.scan_ZYX, np.float32)
            save_plate(scan, report.labels_ZYX, report.grid, report.names, report.colors, made / FIGURE, caption)
        (made / METHODS).write_text(describe_methods(report.record, report.card), encoding="utf-8")
        measured = [{"region": row.region, "lesion": row.lesion or None, **row.values} for row in report.measured]
        record = {"case": report.case, **report.record, "measured": measured}
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"'{folder}' cannot be written to: {error.strerror or error}. Choose a folder that you can write to."
        ) from error
    return made


def _write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
