"""``evaluate``: a model against reference masks."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, median
from typing import Annotated

import typer
from rich.table import Table

from napari_braintumor import engine
from napari_braintumor.cli._console import (
    Cases,
    Device,
    MinVolume,
    Mirroring,
    Model,
    Runtime,
    Subset,
    build_config,
    console,
    errors_said,
    split_names,
)
from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.config import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.runs import read_side
from napari_braintumor.engine.types import (
    CaseEvaluated,
    Noted,
    SeedEvaluated,
)


def evaluate(
    cases: Cases,
    model: Model = DEFAULT_MODEL,
    modalities: Subset = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only patients that the model's training never saw.")
    ] = False,
    device: Device = "auto",
    runtime: Runtime = "auto",
    mirroring: Mirroring = False,
    min_volume_ml: MinVolume = None,
    split: Annotated[
        Path | None,
        typer.Option(help="A run's split.json: measure its validation side only, be it patients or slices."),
    ] = None,
    no_tumor: Annotated[
        bool, typer.Option("--no-tumor", help="The cases show no tumor: tell what is found all the same.")
    ] = False,
    convention: Annotated[
        str, typer.Option(help="volume, or seed: also the original project's measure, which flatters, side by side.")
    ] = "volume",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table to this CSV file.")
    ] = None,
) -> None:
    """Compare a model with reference masks: volume Dice and HD95 for each case and region."""
    config = build_config(
        SegmentConfig,
        model=model,
        device=device,
        runtime=runtime,
        test_time_mirroring=mirroring,
        min_volume_ml=min_volume_ml,
    )
    results: list[CaseEvaluated] = []
    seed: SeedEvaluated | None = None
    with errors_said():
        if convention not in ("volume", "seed"):
            raise SettingsError(f"There is no convention '{convention}'. Known are volume and seed.")
        found = find_cases(cases)
        side = read_side(split) if split is not None else None
        subset, pooled = split_names(modalities), convention == "seed"
        for event in engine.evaluate(found, config, subset, held_out, side, pooled, no_tumor):
            if isinstance(event, Noted):
                console.print(f"[dim]{event.text}[/dim]")
            elif isinstance(event, SeedEvaluated):
                seed = event
            elif isinstance(event, CaseEvaluated):
                results.append(event)
                told = event.predicted_ml if no_tumor else event.dice
                scores = "  ".join(f"{name} {value:.3f}" for name, value in told.items())
                console.print(f"{event.case}: {scores}  ({event.seconds:.1f} s)")
        if output is not None:
            _write_csv(results, output)
    if no_tumor:
        _print_false_positives(results)
    else:
        _print_evaluation(results)
    if seed is not None:
        _print_side_by_side(results, seed)


def _print_evaluation(results: list[CaseEvaluated]) -> None:
    table = Table("group", "region", "n", "mean Dice", "median Dice", "median HD95 mm", "held out")
    for group in sorted({result.group for result in results}):
        members = [result for result in results if result.group == group]
        for region in dict.fromkeys(name for result in members for name in result.dice):
            rows = [result for result in members if region in result.dice]
            dice = [row.dice[region] for row in rows]
            distance = median(row.hd95_mm[region] for row in rows)
            seen = {row.held_out for row in rows}
            held_out = (
                {True: "yes", False: "NO: seen in training", None: "unknown"}[seen.pop()] if len(seen) == 1 else "mixed"
            )
            table.add_row(
                group, region, str(len(rows)), f"{mean(dice):.3f}", f"{median(dice):.3f}", f"{distance:.1f}", held_out
            )
    console.print(table)
    console.print("Volume Dice of thresholded masks, mean over cases; both masks empty counts 1, one empty counts 0.")


def _print_false_positives(results: list[CaseEvaluated]) -> None:
    table = Table("region", "n", "mean mL", "most mL")
    for region in dict.fromkeys(name for result in results for name in result.predicted_ml):
        found = [result.predicted_ml[region] for result in results]
        table.add_row(region, str(len(found)), f"{mean(found):.2f}", f"{max(found):.2f}")
    console.print(table)
    console.print("Volumes of what was found where no tumor is: all of it is false.")


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
        f"{median(row.hd95_mm[seed.region] for row in rows):.1f}",
        f"{missed} of {lesions}",
    )
    console.print(table)


def _write_csv(results: list[CaseEvaluated], path: Path) -> None:
    lines = ["case,group,region,dice,hd95_mm,predicted_ml,reference_ml,held_out"]
    for r in results:
        lines += [
            f"{r.case},{r.group},{n},{d:.4f},{r.hd95_mm[n]:.2f},{r.predicted_ml[n]:.3f},{r.reference_ml[n]:.3f},{r.held_out}"
            for n, d in r.dice.items()
        ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
