"""Scores of many cases in the terminal: their means, and whether two sets differ on the same cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from napari_braintumor.cli._console import console
from napari_braintumor.engine.atomic import find_free_path
from napari_braintumor.engine.measuring.folders import Scored, compare_scored, summarize

Figure = Annotated[
    Path | None,
    typer.Option(help="Also write a page of all cases: points, means with intervals, a table (PNG, PDF or SVG)."),
]


def save_page(sets: Mapping[str, Scored], path: Path | None, overwrite: bool) -> None:
    """Write a page of the sets that have cases; nothing without a path."""
    there = {name: scored for name, scored in sets.items() if scored}
    if path is None or not there:
        return
    from napari_braintumor.engine.measuring.summary_page import save_summary_page  # matplotlib takes long to import

    target = path if overwrite else find_free_path(path, path.suffix)
    save_summary_page(there, target)
    console.print(f"The page of all cases is in '{target}'.")


def print_means(scored: Scored) -> None:
    """Print the mean of each score of each region, with its interval; nothing for a single case."""
    if len(scored) < 2:
        return
    table = Table("region", "n", "", Column("mean", justify="right"), Column("95 % interval", justify="right"))
    for each in summarize(scored):
        show = each.score.show
        interval = f"{show(each.low)} to {show(each.high)}"
        table.add_row(each.region, str(each.count), each.score.heading, show(each.mean), interval)
    console.print(table)
    console.print("Means over cases; intervals by a bootstrap over cases.", style="dim")


def print_paired(scored: Scored, others: Scored) -> None:
    """Print whether a set of scores differs from another one on the cases of both; nothing without another one."""
    if not (scored and others):
        return
    table = Table("region", "n", "", "mean difference", "95 % interval", "p (Wilcoxon)")
    for each in compare_scored(scored, others):
        difference, low, high = map(each.score.show, (each.test.difference, each.test.low, each.test.high))
        table.add_row(
            each.region,
            str(each.test.count),
            each.score.heading,
            difference,
            f"{low} to {high}",
            f"{each.test.p_value:.3g}",
        )
    console.print(table)
    console.print("The first minus the other, case by case.", style="dim")
