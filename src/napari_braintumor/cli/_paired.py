"""A model against another one, on the cases that both were evaluated on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from napari_braintumor.cli._console import console
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseEvaluated
from napari_braintumor.engine.measuring.metrics import METRICS
from napari_braintumor.engine.measuring.statistics import LEAST_PAIRS, compare_pairs

OtherTable = Mapping[tuple[str, str], Mapping[str, str]]


def read_table(path: Path) -> OtherTable:
    """Read the rows of a table that `evaluate` wrote, by case and region."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {(row["case"], row["region"]): row for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(
            f"'{path.name}' cannot be read as a table of an evaluation. Expected a file that 'evaluate --output' "
            "wrote, with the columns case and region."
        ) from error


def print_paired(results: Sequence[CaseEvaluated], others: OtherTable) -> None:
    """Print whether this model differs from another one on the cases that both have; nothing without another one."""
    if not (results and others):
        return
    table = Table("region", "n", "", "mean difference", "95 % interval", "p (Wilcoxon)")
    for region in dict.fromkeys(name for result in results for name in result.dice):
        rows = [result for result in results if region in result.dice and (result.case, region) in others]
        for metric in (each for each in METRICS if each.needs == "both"):
            try:
                theirs = [float(others[row.case, region][metric.name]) for row in rows]
            except (KeyError, ValueError):
                continue  # a table of an earlier version has fewer columns
            if len(theirs) < LEAST_PAIRS:
                continue
            found = compare_pairs([float(metric.write(row.figures[metric.name][region])) for row in rows], theirs)
            figures = (metric.show(value) for value in (found.difference, found.low, found.high))
            difference, low, high = figures
            table.add_row(
                region, str(found.count), metric.heading, difference, f"{low} to {high}", f"{found.p_value:.3g}"
            )
    console.print(table)
    console.print("This model minus the other one, case by case.", style="dim")
