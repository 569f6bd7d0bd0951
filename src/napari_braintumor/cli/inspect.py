"""``inspect``: the table of series of each case, and what is used of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.table import Column, Table
from rich.text import Text

from napari_braintumor.cli._console import (
    Cases,
    Channels,
    Failures,
    console,
    follow_phases,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import CaseOptions, expand_groups
from napari_braintumor.cli._meanings import AsJson
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.choosing_series.changing import label_patients, label_rows
from napari_braintumor.engine.files.choosing_series.rows import SeriesRow
from napari_braintumor.engine.files.looking import look_at_unsure


@expand_groups
def inspect(
    cases: Cases,
    which: CaseOptions,
    modalities: Channels = None,
    as_json: AsJson = False,
) -> None:
    """Print what each series of a case is, which are used, and why the others are not; nothing is segmented.

    A question mark behind a modality asks for a look; those series are compared with one that is sure, and the table
    says what their images show. --series T1=3 uses series 3 for T1, T1=none leaves T1 out, and auto drops what was
    chosen before; the choice is remembered for the case.
    """
    failures = Failures()
    with report_errors():
        found = which.find(cases, split_modalities(modalities), failures, offer=True)
    found = [follow_phases(look_at_unsure(case), shown=not as_json) for case in found]
    patients = label_patients(found)
    if as_json:
        listed = [_describe(*pair) for pair in zip(found, patients, strict=True)]
        typer.echo(json.dumps(listed, indent=1))
    else:
        for case, patient in zip(found, patients, strict=True):
            _print_case(case, patient)
    bad = [case for case in found if case.problem is not None]
    if not as_json:
        failures.print_all(len(found) + len(failures.reasons))
    raise typer.Exit(1 if failures.reasons or bad else 0)


def _print_case(case: CaseFiles, patient: str) -> None:
    details = "  ".join(part for part in (patient, _date_of(case)) if part and part != case.name)
    console.print(Text(case.name, "bold").append(f"  {details}", "not bold"))
    if case.rows:
        table = Table("no.", Column("series", overflow="fold"), "modality", "use", "plane", "mm (Z x Y x X)", "why")
        for label, row in zip(label_rows(case.rows), case.rows, strict=True):
            modality = f"{row.modality or ''}{'' if row.sure else '?'}"
            why = row.reason if row.used else row.why_not
            cells = (
                label,
                row.series.description,
                modality,
                "yes" if row.used else "no",
                row.plane,
                row.voxel_size,
                why,
            )
            table.add_row(*(Text(cell, "" if row.used else "dim") for cell in cells))
        console.print(table)
    if case.problem is not None:
        console.print(f"  {case.problem}", style="red")
    for note in case.notes:
        if not any(_says(row, note) for row in case.rows):
            console.print(f"  {note}")


def _says(row: SeriesRow, note: str) -> bool:
    """Whether a note only repeats what the table says of a series that is left out."""
    return not row.used and (note == row.series.problem or (row.title.lower() in note.lower() and "left out" in note))


def _date_of(case: CaseFiles) -> str:
    return next((row.series.date for row in case.rows if row.series.date), "")


def _describe(case: CaseFiles, patient: str) -> dict[str, Any]:
    return {
        "case": case.name,
        "patient": patient,
        "date": _date_of(case) or None,
        "problem": case.problem,
        "notes": list(case.notes),
        "series": _describe_rows(case.rows),
    }


def _describe_rows(rows: Sequence[SeriesRow]) -> list[dict[str, Any]]:
    return [
        {
            "key": row.key,
            "label": label,
            "number": row.series.number,
            "description": row.series.description,
            "modality": row.modality,
            "reason": row.reason,
            "sure": row.sure,
            "chosen": row.choice is not None,
            "used": row.used,
            "why_not": row.why_not or None,
            "plane": row.plane or None,
            "spacing_zyx_mm": None if row.series.grid is None else [round(side, 4) for side in row.series.grid.spacing],
            "slices": row.series.slices,
        }
        for label, row in zip(label_rows(rows), rows, strict=True)
    ]
