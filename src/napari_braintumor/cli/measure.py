"""``measure``: sizes, lesions and places of the regions of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from napari_braintumor.cli._console import (
    Failures,
    Overwrite,
    Verbose,
    console,
    errors,
    find_all,
    report_errors,
)
from napari_braintumor.cli._meanings import AsJson, LabelsMean
from napari_braintumor.cli._rows import open_rows
from napari_braintumor.engine.anatomy import LABEL_COLORS, name_labels
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.drawn import read_drawn
from napari_braintumor.engine.files.formats import strip_suffix
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.inspecting.inspection import find_foreground
from napari_braintumor.engine.measuring.export import CaseReport, export_case
from napari_braintumor.engine.measuring.measurements import MEASUREMENTS, MOST_LESIONS, Measured, measure_regions
from napari_braintumor.engine.measuring.sides import Midline, center_line, find_midline
from napari_braintumor.engine.volumes import Reference, Volume

_OF_LESIONS = ("volume_ml", "product_mm2", "longest_mm", "side", "slice_z")
"""What is printed of single lesions; files have everything."""

_SHOWN = ("T1ce", "FLAIR", "T2", "T1")
"""The modality below the labels of a figure: the first that there is."""


def measure(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Label files, or folders of cases with their masks.", show_default=False),
    ],
    labels: LabelsMean = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a CSV file, a row for each region and lesion.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Also write what a paper needs into a folder: a row, lesions, a figure, methods and a record."
        ),
    ] = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Measure labels: mL, diameters as in RANO, lesions as in BraTS, surface, side, center; by region and lesion."""
    failures, measured = Failures(verbose), []
    columns = ("case", "region", "lesion", *(each.name for each in MEASUREMENTS))
    with report_errors(), open_rows(output, columns, overwrite) as write:
        for name, reference, midline, volume in _read_all(paths, labels, failures):
            with failures.catch(name):
                rows = measure_regions(reference.regions, reference.source, midline)
                if export is not None:
                    made = export_case(_report(name, reference, rows, volume), export)
                    console.print(f"Row, lesions, figure, methods and record are in '{made}'.")
                measured.append((name, rows))
                for row in rows:
                    values = (each.write(row.values.get(each.name)) for each in MEASUREMENTS)
                    write((name, row.region, row.lesion or "", *values))
                if not as_json:
                    _print_rows(name, rows, reference, midline)
    if as_json:
        typer.echo(json.dumps([_describe(*pair) for pair in measured], indent=1))
    else:
        failures.print_all(len(measured) + len(failures.reasons))
    raise typer.Exit(1 if failures.reasons else 0)


def _read_all(
    paths: list[Path], labels: str | None, failures: Failures
) -> Iterator[tuple[str, Reference, Midline, Volume | None]]:
    """Yield the name, the labels and the midline of each label file and of each case of a folder."""
    for path in paths:
        if not path.is_dir():
            with failures.catch(str(path)):
                reference = read_drawn(path, labels)
                shape = next(iter(reference.regions.values())).shape
                yield strip_suffix(path), reference, center_line(shape), None
            continue
        for case in find_all([path], None, failures):
            with failures.catch(case.name):
                yield case.name, *_read_case(case if labels is None else replace(case, convention=labels))


def _read_case(case: CaseFiles) -> tuple[Reference, Midline, Volume | None]:
    reference = read_reference(case)
    if reference is None:
        raise DataError("The case has no labels. Segment it first, or give a file of labels.")
    shape = next(iter(reference.regions.values())).shape
    volume = read_case(case)
    if volume.shape != shape:
        return reference, center_line(shape), None
    return reference, find_midline(find_foreground(volume.data[0])), volume


def _report(name: str, reference: Reference, rows: tuple[Measured, ...], volume: Volume | None) -> CaseReport:
    shown = next((each for each in _SHOWN if volume is not None and each in volume.modalities), "")
    scan = volume.data[volume.modalities.index(shown)] if volume is not None and shown else None
    names = name_labels(reference.regions)
    return CaseReport(name, rows, reference.labels, reference.source, names, LABEL_COLORS, scan, shown)


def _print_rows(name: str, rows: tuple[Measured, ...], reference: Reference, midline: Midline) -> None:
    console.print(name, style="bold")
    whole, single = [row for row in rows if not row.lesion], [row for row in rows if row.lesion]
    table = Table("", *(Column(row.region, justify="right") for row in whole))
    for each in MEASUREMENTS:
        table.add_row(each.heading, *(each.show(row.values.get(each.name)) for row in whole))
    console.print(table)
    if single:
        listed = [each for each in MEASUREMENTS if each.name in _OF_LESIONS]
        table = Table("region", "lesion", *(Column(each.heading, justify="right") for each in listed))
        for row in single:
            cells = (each.show(row.values.get(each.name)) for each in listed)
            table.add_row(row.region, str(row.lesion), *cells)
        console.print(table)
    console.print(f"Left and right are the patient's, divided by {midline.how}.", style="dim")
    if any(int(row.values["lesions"]) > MOST_LESIONS for row in rows if not row.lesion):
        console.print(f"Only the {MOST_LESIONS} largest lesions of a region are listed.", style="dim")
    if not reference.source.spacing_known:
        console.print("The voxel size is not known, so mL and mm are guesses.", style="yellow")
    for note in (*reference.notes, *reference.source.notes):
        errors.print(note, style="dim")


def _describe(name: str, rows: tuple[Measured, ...]) -> dict[str, object]:
    return {
        "case": name,
        "measured": [{"region": row.region, "lesion": row.lesion or None, **row.values} for row in rows],
    }
