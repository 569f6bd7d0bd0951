"""``evaluate``: a model against reference masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import typer
from rich.table import Table

from napari_braintumor import engine
from napari_braintumor.cli._console import (
    Cases,
    Failures,
    Overwrite,
    Subset,
    Verbose,
    check_usage,
    console,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import AlignOptions, CaseOptions, NetworkOptions, expand_groups
from napari_braintumor.cli._meanings import LabelsMean
from napari_braintumor.cli._paired import Figure, print_paired, save_page
from napari_braintumor.cli._rows import open_rows
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import CaseEvaluated, CaseFailed, Noted, SeedEvaluated
from napari_braintumor.engine.measuring.folders import read_scores
from napari_braintumor.engine.measuring.metrics import METRICS, mean_interval
from napari_braintumor.engine.measuring.scores import list_scores
from napari_braintumor.engine.settings import EvaluateConfig
from napari_braintumor.engine.training.plan_files import read_side


def _list_columns(every_score: bool = False) -> tuple[str, ...]:
    """Return the columns of the CSV file."""
    scores = list_scores() if every_score else METRICS
    return "case", "group", "region", *(each.name for each in scores), "held_out"


@expand_groups
def evaluate(
    cases: Cases,
    which: CaseOptions,
    aligning: AlignOptions,
    network: NetworkOptions,
    modalities: Subset = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only patients that the model's training never saw.")
    ] = False,
    split: Annotated[
        Path | None,
        typer.Option(help="A run's split.json: measure only its validation patients or slices."),
    ] = None,
    no_tumor: Annotated[
        bool, typer.Option("--no-tumor", help="The cases show no tumor: measure false positives.")
    ] = False,
    labels: LabelsMean = None,
    convention: Annotated[
        str,
        typer.Option(help="volume; or seed: also print the original project's measure, which flatters."),
    ] = "volume",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Also write a CSV file: {', '.join(_list_columns())}."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The CSV file of another model's evaluation: test whether the two differ on the same cases."),
    ] = None,
    every_score: Annotated[
        bool,
        typer.Option("--every-score", help="Also surface Dice, missed and false lesions, lesion-wise BraTS scores."),
    ] = False,
    figure: Figure = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Compare a model with reference masks: volume Dice and HD95 for each case and region."""
    segmentation, alignment = network.build(), aligning.build()
    with check_usage():
        if convention not in ("volume", "seed"):
            raise SettingsError(f"There is no convention '{convention}'. Expected volume or seed.")
    failures, results, seed, stopped = Failures(verbose), list[CaseEvaluated](), None, False
    with report_errors():
        side = read_side(split) if split is not None else None
        others = read_scores(against) if against is not None else {}
        found = which.find(cases, None, failures)
        if labels is not None:  # cases written by this program state it themselves
            found = [case if case.group == "corrected" else replace(case, convention=labels) for case in found]
        total = len(found) + len(failures.reasons)
        config = EvaluateConfig(
            segmentation=segmentation,
            aligning=alignment,
            modalities=split_modalities(modalities),
            held_out=held_out,
            side=side,
            pooled=convention == "seed",
            no_tumor=no_tumor,
            every_score=every_score,
        )
        with (
            open_rows(output, _list_columns(every_score), overwrite) as write,
            closing(engine.evaluate(found, config)) as events,
        ):
            try:
                for event in events:
                    match event:
                        case Noted(text):
                            console.print(text, style="dim")
                        case CaseFailed(case, reason, details):
                            failures.add(case, reason, details)
                        case SeedEvaluated():
                            seed = event
                        case CaseEvaluated():
                            results.append(event)
                            write(*_list_rows(event))
                            figures = event.figures["predicted_ml"] if no_tumor else event.dice
                            scores = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
                            console.print(f"{event.case}: {scores}  ({event.seconds:.1f} s)")
            except KeyboardInterrupt:
                stopped = True
    if results and no_tumor:
        _print_false_positives(results)
    elif results:
        _print_evaluation(results)
    scored = {result.case: result.scores for result in results}
    print_paired(scored, others)
    with report_errors():
        save_page({segmentation.model: scored, "other model": others}, figure, overwrite)
    if seed is not None:
        _print_side_by_side(results, seed)
    if stopped:
        console.print(f"Stopped after {len(results)} of {total} cases.")
    failures.print_all(total)
    raise typer.Exit(130 if stopped else 1 if failures.reasons else 0)


def _list_rows(result: CaseEvaluated) -> list[tuple[object, ...]]:
    return [
        (
            result.case,
            result.group,
            region,
            *(m.write(result.figures[m.name][region]) for m in list_scores() if m.name in result.figures),
            result.held_out,
        )
        for region in result.dice
    ]


_AVERAGES: Mapping[str, Callable[[Iterable[float]], float]] = {"mean": mean, "median": median}


def _print_evaluation(results: list[CaseEvaluated]) -> None:
    averaged = [(metric, average) for metric in METRICS for average in metric.averages]
    headings = [f"{average} {metric.heading}" for metric, average in averaged]
    headings.insert(1, "95 % interval")  # of the first one, a mean
    table = Table("group", "region", "n", *headings, "held out")
    for group in sorted({result.group for result in results}):
        members = [result for result in results if result.group == group]
        for region in dict.fromkeys(name for result in members for name in result.dice):
            rows = [result for result in members if region in result.dice]
            figures = [
                metric.show(_AVERAGES[average](row.figures[metric.name][region] for row in rows))
                for metric, average in averaged
            ]
            first = averaged[0][0]
            interval = mean_interval([row.figures[first.name][region] for row in rows])
            figures.insert(1, " to ".join(map(first.show, interval)) if len(rows) > 1 else "")
            seen = {row.held_out for row in rows}
            held_out = (
                {True: "yes", False: "NO: seen in training", None: "unknown"}[seen.pop()] if len(seen) == 1 else "mixed"
            )
            table.add_row(group, region, str(len(rows)), *figures, held_out)
    console.print(table)
    console.print(
        "Volume Dice of thresholded masks, mean over cases; two empty masks count 1, one empty mask counts 0. "
        "Intervals by a bootstrap over cases."
    )


def _print_false_positives(results: list[CaseEvaluated]) -> None:
    table = Table("region", "n", "mean mL", "max mL")
    for region in dict.fromkeys(name for result in results for name in result.dice):
        found = [result.figures["predicted_ml"][region] for result in results]
        table.add_row(region, str(len(found)), f"{mean(found):.2f}", f"{max(found):.2f}")
    console.print(table)
    console.print("Volumes found in cases without a tumor: all of them are false positives.")


def _print_side_by_side(results: list[CaseEvaluated], seed: SeedEvaluated) -> None:
    rows = [result for result in results if seed.region in result.dice]
    missed, lesions = sum(row.missed[seed.region] for row in rows), sum(row.lesions[seed.region] for row in rows)
    table = Table("row", "what it is", "Dice", "median HD95 mm", "missed lesions")
    table.add_row(
        "seed-style",
        f"soft, background averaged in, batches of 16 of {seed.slices} tumor slices",
        f"{seed.dice:.3f}",
        "",
        "",
    )
    table.add_row(
        "honest",
        f"thresholded, foreground, volume by volume, n = {len(rows)}",
        f"{mean(row.dice[seed.region] for row in rows):.3f}",
        f"{median(row.figures['hd95_mm'][seed.region] for row in rows):.1f}",
        f"{missed} of {lesions}",
    )
    console.print(table)
