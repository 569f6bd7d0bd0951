"""``score``: labels against a reference, file by file or folder by folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Column, Table

from napari_braintumor.cli._console import Failures, Overwrite, Verbose, console, report_errors
from napari_braintumor.cli._meanings import AsJson, LabelsMean, ReferenceMeans
from napari_braintumor.cli._paired import Figure, print_means, print_paired, save_page
from napari_braintumor.cli._rows import open_rows
from napari_braintumor.engine.events import CaseFailed, Noted
from napari_braintumor.engine.measuring.folders import (
    CaseScored,
    Regions,
    list_columns,
    list_rows,
    read_scores,
    score_files,
)
from napari_braintumor.engine.measuring.scores import list_scores


def score(
    labels: Annotated[Path, typer.Argument(help="A label file, or a folder of them.", show_default=False)],
    reference: Annotated[
        Path, typer.Argument(help="The reference, or a folder of files with the same names.", show_default=False)
    ],
    labels_mean: LabelsMean = None,
    reference_means: ReferenceMeans = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a CSV file, a row for each region of a case.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The CSV file of other labels' scores: test whether the two differ on the same cases."),
    ] = None,
    figure: Figure = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Score labels against a reference: Dice, HD95, surface Dice, mL, missed and false lesions, BraTS lesion-wise."""
    failures, scored = Failures(verbose), dict[str, Regions]()
    with report_errors(), open_rows(output, list_columns(), overwrite) as write:
        others = read_scores(against) if against is not None else {}
        for event in score_files(labels, reference, labels_mean, reference_means):
            match event:
                case Noted(text):
                    console.print(text, style="dim")
                case CaseFailed(case, reason, details):
                    failures.add(case, reason, details)
                case CaseScored(case, regions):
                    scored[case] = regions
                    write(*list_rows(case, regions))
                    if not as_json:
                        _print_scores(case, regions)
        save_page({"labels": scored, "other labels": others}, figure, overwrite)
    if as_json:
        typer.echo(json.dumps({name: _without_nan(scores) for name, scores in scored.items()}, indent=1))
    else:
        print_means(scored)
        print_paired(scored, others)
        failures.print_all(len(scored) + len(failures.reasons))
    raise typer.Exit(1 if failures.reasons else 0)


def _without_nan(scores: Regions) -> dict[str, dict[str, float | None]]:
    return {
        region: {name: None if np.isnan(value) else value for name, value in values.items()}
        for region, values in scores.items()
    }


def _print_scores(name: str, scores: Regions) -> None:
    table = Table("", *(Column(region, justify="right") for region in scores))
    for each in list_scores():
        table.add_row(each.heading, *(each.show(values[each.name]) for values in scores.values()))
    console.print(name, style="bold")
    console.print(table)
