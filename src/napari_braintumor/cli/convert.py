"""``convert-labels``: label files from one convention to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_braintumor.cli._console import Overwrite, console, report_errors
from napari_braintumor.cli._meanings import NAMES, LabelsMean, check
from napari_braintumor.engine.anatomy import CONVENTIONS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.converting import values_from_regions
from napari_braintumor.engine.files.drawn import read_drawn
from napari_braintumor.engine.files.labels import write_labels


def convert(
    labels: Annotated[Path, typer.Argument(help="A label file.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    to: Annotated[
        str, typer.Option("--to", callback=check, help=f"The convention to write: {NAMES}.", show_default=False)
    ],
    given: LabelsMean = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert labels between the conventions of data sets, such as the years of BraTS, or to a single region."""
    with report_errors():
        if output.exists() and not overwrite:
            raise DataError(f"'{output}' already exists. Choose another name, or replace it with --overwrite.")
        reference = read_drawn(labels, given)
        values, notes = values_from_regions(reference.regions, to)
        write_labels(values, reference.source, output)
    for note in (*reference.notes, *notes):
        console.print(note, style="dim")
    console.print(f"{CONVENTIONS[reference.convention].meaning} became {CONVENTIONS[to].meaning}: '{output}'.")
