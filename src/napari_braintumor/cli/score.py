"""``score``: labels against a reference, file by file or folder by folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Column, Table

from napari_braintumor.cli._console import Failures, Overwrite, Verbose, check_usage, console, report_errors
from napari_braintumor.cli._rows import open_rows
from napari_braintumor.engine.anatomy import CONVENTIONS, check_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.drawn import read_drawn
from napari_braintumor.engine.files.formats import find_format, is_listed, strip_suffix
from napari_braintumor.engine.files.naming import may_be_mask
from napari_braintumor.engine.measuring.metrics import mean_interval
from napari_braintumor.engine.measuring.scores import list_scores, score_labels

_ENDING = re.compile(
    r"(?i)[-_ .]+(?:seg(?:mentation)?|mask|labels?|tumou?r|pred(?:iction)?|gt|reference|truth|\d{0,2}_?brats\w*)$"
)
Scores = Mapping[str, Mapping[str, float]]


def score(
    labels: Annotated[Path, typer.Argument(help="A label file, or a folder of them.", show_default=False)],
    reference: Annotated[
        Path, typer.Argument(help="The reference, or a folder of files with the same names.", show_default=False)
    ],
    labels_mean: Annotated[
        str | None, typer.Option("--labels", help=f"What the numbers in the labels mean: {', '.join(CONVENTIONS)}.")
    ] = None,
    reference_means: Annotated[
        str | None, typer.Option("--reference-labels", help="What the numbers in the reference mean.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write a CSV file, a row for each region of a case.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Score labels against a reference: Dice, HD95, surface Dice, mL, missed and false lesions, BraTS lesion-wise."""
    with check_usage():
        for convention in (labels_mean, reference_means):
            if convention is not None:
                check_convention(convention)
    failures, scored = Failures(verbose), dict[str, Scores]()
    columns = ("case", "region", *(each.name for each in list_scores()))
    with report_errors(), open_rows(output, columns, overwrite) as write:
        for name, one, two in _pair_files(labels, reference):
            with failures.catch(name):
                scores = score_labels(read_drawn(one, labels_mean), read_drawn(two, reference_means))
                scored[name] = scores
                for region, values in scores.items():
                    write((name, region, *(each.write(values[each.name]) for each in list_scores())))
                if not as_json:
                    _print_scores(name, scores)
    if as_json:
        typer.echo(json.dumps({name: _without_nan(scores) for name, scores in scored.items()}, indent=1))
    else:
        if len(scored) > 1:
            _print_means(list(scored.values()))
        failures.print_all(len(scored) + len(failures.reasons))
    raise typer.Exit(1 if failures.reasons else 0)


def _without_nan(scores: Scores) -> dict[str, dict[str, float | None]]:
    return {
        region: {name: None if np.isnan(value) else value for name, value in values.items()}
        for region, values in scores.items()
    }


def _pair_files(labels: Path, reference: Path) -> list[tuple[str, Path, Path]]:
    """Return the name, the labels and the reference of each case."""
    if labels.is_dir() != reference.is_dir():
        raise DataError(
            f"One of '{labels.name}' and '{reference.name}' is a folder, the other is not. Give two files, or two "
            "folders with files of the same names."
        )
    if not labels.is_dir():
        return [(strip_suffix(labels), labels, reference)]
    ours, theirs = _list_labels(labels), _list_labels(reference)
    both = [name for name in ours if name in theirs]
    if not both:
        raise DataError(
            f"No file in '{labels.name}' has the name of one in '{reference.name}', endings such as _seg and _tumor "
            f"left out. Found {', '.join(list(ours)[:3]) or 'no labels'} and "
            f"{', '.join(list(theirs)[:3]) or 'no labels'}. Give the files of a case the same name."
        )
    for name in sorted({*ours} ^ {*theirs}):
        console.print(
            f"{name} is skipped: it is only in '{(labels if name in ours else reference).name}'.", style="dim"
        )
    return [(name, ours[name], theirs[name]) for name in both]


def _list_labels(folder: Path) -> dict[str, Path]:
    """Return the label files below a folder by case: those named as masks, or all if none is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_listed(path) and find_format(path)]
    masks = [path for path in files if may_be_mask(strip_suffix(path)) or strip_suffix(path).endswith("_tumor")]
    return {_name_case(path): path for path in masks or files}


def _name_case(path: Path) -> str:
    name, before = strip_suffix(path), ""
    while name != before:
        name, before = _ENDING.sub("", name), name
    return name


def _print_scores(name: str, scores: Scores) -> None:
    table = Table("", *(Column(region, justify="right") for region in scores))
    for each in list_scores():
        table.add_row(each.heading, *(each.show(values[each.name]) for values in scores.values()))
    console.print(name, style="bold")
    console.print(table)


def _print_means(scored: list[Scores]) -> None:
    table = Table("region", "n", "", Column("mean", justify="right"), Column("95 % interval", justify="right"))
    for region in dict.fromkeys(name for scores in scored for name in scores):
        rows = [scores[region] for scores in scored if region in scores]
        for each in list_scores():
            found = [row[each.name] for row in rows if not np.isnan(row[each.name])]
            if found:
                low, high = mean_interval(found)
                mean = each.show(float(np.mean(found)))
                table.add_row(region, str(len(found)), each.heading, mean, f"{each.show(low)} to {each.show(high)}")
    console.print(table)
    console.print("Means over cases; intervals by a bootstrap over cases.", style="dim")
