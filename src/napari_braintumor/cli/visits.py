"""``compare-visits``: what has changed between the visits of a patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Column, Table

from napari_braintumor import engine
from napari_braintumor.cli._console import (
    Cases,
    Failures,
    Model,
    Overwrite,
    Verbose,
    build_config,
    check_usage,
    console,
    find_all,
    make_progress_bar,
    read_aligned,
    report_errors,
)
from napari_braintumor.engine.anatomy import REGION_LABELS, REGION_NAMES
from napari_braintumor.engine.atomic import find_free_path, replacing
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import PhaseReached, Segmented
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.formats import find_label_suffix
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.files.reading import read_reference
from napari_braintumor.engine.inspecting.inspection import find_foreground
from napari_braintumor.engine.measuring.response import PRODUCT_RULE, VOLUME_RULE
from napari_braintumor.engine.measuring.sides import find_midline
from napari_braintumor.engine.measuring.visits import (
    CHANGE_COLORS,
    CHANGES,
    VisitComparison,
    compare_visits,
    find_day,
    find_interval,
    pair_visits,
    register_visits,
    scans_of_volume,
)
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Legend, Reference, Volume


def compare(
    cases: Cases,
    model: Model = DEFAULT_MODEL,
    region: Annotated[
        str | None,
        typer.Option(help=f"The region to assess: {', '.join(REGION_NAMES)}; enhancing tumor if there is any."),
    ] = None,
    same_patient: Annotated[
        bool, typer.Option("--same-patient", help="All cases are visits of one patient, whatever their names.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the map of changes and a record of each pair.")
    ] = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Compare the visits of each patient: mL, days, change by RANO's thresholds, and a map of what grew and shrank.

    Labels are those that lie beside the scans; visits without any are segmented first. The later visit is registered
    to the earlier one, rigidly.
    """
    config = build_config(model=model)
    with check_usage():
        if region is not None and region not in REGION_NAMES:
            raise SettingsError(f"There is no region '{region}'. Expected one of {', '.join(REGION_NAMES)}.")
    failures = Failures(verbose)
    with report_errors():
        found = find_all(cases, None, failures)
        pairs = pair_visits([replace(case, patient="") for case in found] if same_patient else found)
        for earlier, later in pairs:
            name = f"{earlier.name} to {later.name}"
            with failures.catch(name):
                compared = _compare(earlier, later, config, region)
                _print(name, compared)
                if output is not None:
                    _save(earlier, later, compared, output, overwrite)
    failures.print_all(len(pairs) + len(failures.reasons))
    raise typer.Exit(1 if failures.reasons else 0)


def _compare(earlier: CaseFiles, later: CaseFiles, config: SegmentConfig, region: str | None) -> VisitComparison:
    volumes = read_aligned(earlier), read_aligned(later)
    labels = [_read_labels(case, volume, config) for case, volume in zip((earlier, later), volumes, strict=True)]
    one, two = (find_midline(find_foreground(volume.data[0])) for volume in volumes)
    move = np.eye(4)
    with make_progress_bar() as progress:
        task = progress.add_task("", total=None)
        for event in register_visits(*map(scans_of_volume, volumes)):
            if isinstance(event, PhaseReached):
                progress.update(task, description=event.phase, completed=event.done, total=event.total or None)
            else:
                move = event
    return compare_visits(
        labels[0], labels[1], move, find_interval(find_day(earlier), find_day(later)), (one, two), region
    )


def _read_labels(case: CaseFiles, volume: Volume, config: SegmentConfig) -> Reference:
    """Return the labels beside the scans of a visit, or those that the model draws."""
    if case.reference:
        reference = read_reference(case)
        assert reference is not None
        return reference
    with make_progress_bar() as progress:
        progress.add_task(f"segmenting {case.name}", total=None)
        drawn = next(event.segmentation for event in engine.segment(volume, config) if isinstance(event, Segmented))
    names = [name for name in drawn.regions if name in REGION_LABELS and name not in drawn.not_measurable]
    return Reference({name: drawn.mask_of(name) for name in names}, "brats2023", drawn.source)


def _print(name: str, compared: VisitComparison) -> None:
    interval = "" if compared.interval_days is None else f", {compared.interval_days} days apart"
    console.print(f"{name}{interval}", style="bold")
    right = [Column(heading, justify="right") for heading in ("earlier mL", "later mL", "change mL", "change")]
    table = Table("region", *right)
    for region, before, after in compared.list_volumes():
        share = f"{after / before - 1:+.0%}" if before else ""
        table.add_row(region, f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}", share)
    console.print(table)
    found = compared.assessment
    console.print(f"{found.region}: {found.category or 'not assessed'} by diameters ({found.reason})")
    console.print(f"{found.region}: {found.by_volume or 'not assessed'} by volume")
    parts = (f"{CHANGES[number]} {ml:.1f} mL" for number, ml in compared.changes_ml.items())
    console.print(f"{', '.join(parts)}; {compared.new} new and {compared.vanished} vanished lesions")
    console.print(PRODUCT_RULE, style="dim")
    console.print(VOLUME_RULE, style="dim")


def _save(earlier: CaseFiles, later: CaseFiles, compared: VisitComparison, folder: Path, overwrite: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    suffix = find_label_suffix(compared.grid)
    path = folder / f"{earlier.name}_to_{later.name}_changes{suffix}"
    path = path if overwrite else find_free_path(path, suffix)
    write_labels(compared.changes, compared.grid, path, Legend(CHANGES, CHANGE_COLORS))
    record = path.with_name(f"{path.name.removesuffix(suffix)}.json")
    with replacing(record) as temporary:
        temporary.write_text(
            json.dumps(describe(earlier.name, later.name, compared), indent=1) + "\n", encoding="utf-8"
        )
    console.print(f"The map of changes is in '{path}', the record beside it.")


def describe(earlier: str, later: str, compared: VisitComparison) -> dict[str, Any]:
    """Return the record of a comparison; JSON values only."""
    found = compared.assessment
    return {
        "earlier": earlier,
        "later": later,
        "interval_days": compared.interval_days,
        "volumes_ml": {
            region: {"earlier": round(before, 3), "later": round(after, 3)}
            for region, before, after in compared.list_volumes()
        },
        "assessed": found.region,
        "category": found.category,
        "reason": found.reason,
        "rule": PRODUCT_RULE,
        "by_volume": found.by_volume,
        "volume_rule": VOLUME_RULE,
        "products_mm2": [round(value, 1) for value in found.products_mm2],
        "changes_ml": {CHANGES[number]: round(ml, 3) for number, ml in compared.changes_ml.items()},
        "new_lesions": compared.new,
        "vanished_lesions": compared.vanished,
    }
