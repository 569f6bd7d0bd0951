"""``segment`` and ``demo``: labels and a record for each case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_braintumor import engine
from napari_braintumor.cli._console import (
    Cases,
    Channels,
    Device,
    KeepLargest,
    MinVolume,
    Mirroring,
    Model,
    Out,
    Runtime,
    build_config,
    console,
    errors_said,
    progress_bar,
    say_error,
    split_names,
)
from napari_braintumor.engine.config import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.errors import BrainTumorError, DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.record import save_segmentation
from napari_braintumor.engine.sample import sample_folder
from napari_braintumor.engine.types import (
    Noted,
    Reference,
    Segmentation,
    Segmented,
    SlicesDone,
    Started,
    Volume,
    region_from_labels,
)


def segment(
    cases: Cases,
    output: Out = Path("out"),
    model: Model = DEFAULT_MODEL,
    modalities: Channels = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    mirroring: Mirroring = False,
    keep_largest: KeepLargest = False,
    min_volume_ml: MinVolume = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="nii.gz, nii or tif; default: as the source.")
    ] = None,
) -> None:
    """Segment cases; write labels on each scan's own grid and a JSON record."""
    config = build_config(
        SegmentConfig,
        model=model,
        device=device,
        runtime=runtime,
        test_time_mirroring=mirroring,
        keep_largest=keep_largest,
        min_volume_ml=min_volume_ml,
    )
    failed = 0
    with errors_said():
        found = find_cases(cases, split_names(modalities))
    for case in found:
        try:
            result = _segment_one(read_case(case), config)
            labels, _ = save_segmentation(result, output, f".{file_format.lstrip('.')}" if file_format else None)
        except BrainTumorError as error:
            failed += 1
            say_error(error, case.name)
            continue
        _print_volumes(result)
        console.print(f"  labels: {labels}")
    if failed:
        console.print(f"{failed} of {len(found)} cases failed.")
        raise typer.Exit(1)


def demo(
    case: Annotated[
        Path | None, typer.Argument(help="A case of yours; left out, the sample case.", show_default=False)
    ] = None,
    output: Out = Path("out"),
    model: Model = DEFAULT_MODEL,
) -> None:
    """Segment the sample case, or a case of yours, and draw the result."""
    from napari_braintumor.engine.overlay import save_overlay

    with errors_said():
        found = find_cases(case or sample_folder())
        if len(found) > 1:
            raise DataError(f"'{case}' holds {len(found)} cases. Name one of them, or use 'napari-braintumor segment'.")
        volume, reference = read_case(found[0]), read_reference(found[0])
        result = _segment_one(volume, build_config(SegmentConfig, model=model))
        labels, record = save_segmentation(result, output)
        picture = output / f"{result.name}_tumor.png"
        save_overlay(volume, result, picture, reference)
        _print_volumes(result, reference)
        console.print(f"  labels: {labels}\n  record: {record}\n  picture: {picture}")


def _segment_one(volume: Volume, config: SegmentConfig) -> Segmentation:
    console.print(
        f"[bold]{volume.name}[/bold]  {', '.join(volume.modalities)}  {' x '.join(map(str, volume.shape))} voxels"
    )
    with progress_bar() as progress:
        task = progress.add_task("slices", total=None)
        for event in engine.segment(volume, config):
            match event:
                case SlicesDone(done, total):
                    progress.update(task, completed=done, total=total)
                case Noted(text):
                    console.print(f"  {text}")
                case Started(device):
                    progress.update(task, description=device)
                case Segmented(segmentation):
                    return segmentation
    raise AssertionError("the engine ended without a segmentation")


def _print_volumes(result: Segmentation, reference: Reference | None = None) -> None:
    from napari_braintumor.engine.metrics import volume_dice

    for name, ml in result.volumes_ml.items():
        line = f"  {name:16s} {ml:8.1f} mL"
        if reference is not None and name in reference.regions:
            dice = volume_dice(region_from_labels(result.labels, name), reference.regions[name])
            line += f"   Dice {dice:.3f} with the reference"
        console.print(line)
    provenance = result.provenance
    console.print(
        f"  {provenance['model']} on {provenance['device']} ({provenance['runtime']}), {provenance['seconds']} s"
    )
