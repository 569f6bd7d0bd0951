"""``segment`` and ``demo``: labels and a record for each case."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from napari_braintumor import engine
from napari_braintumor.cli._console import (
    Cases,
    Channels,
    Failures,
    KeepLargest,
    Model,
    Out,
    Overwrite,
    Verbose,
    build_config,
    check_usage,
    console,
    make_progress_bar,
    read_aligned,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import AlignOptions, CaseOptions, NetworkOptions, expand_groups
from napari_braintumor.engine.aligning.returning import segmentation_on
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import Noted, PhaseReached, Segmented, SlicesDone, Started
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.formats import FORMATS
from napari_braintumor.engine.files.naming import read_modalities
from napari_braintumor.engine.files.reading import read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.dicom_export import check_extras
from napari_braintumor.engine.measuring.record import name_result, save_segmentation
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.trust import read_trust
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume

ENDINGS = tuple(suffix.lstrip(".") for each in FORMATS for suffix in each.written_suffixes)

_ALL = "all"


@expand_groups
def segment(
    cases: Cases,
    which: CaseOptions,
    aligning: AlignOptions,
    network: NetworkOptions,
    output: Out = Path("out"),
    modalities: Channels = None,
    keep_largest: KeepLargest = False,
    spacing: Annotated[
        str | None,
        typer.Option(help="Voxel size in mm along Z, Y, X, if the files state none or a wrong one: 5,1,1."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Where scans have different grids: write the labels on that of this modality, or all; default: the "
            "grid of the reference."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="nii.gz, tif, nrrd, ... or dcm, a DICOM segmentation; default: as the source; of DICOM nii.gz.",
        ),
    ] = None,
    also: Annotated[
        str | None,
        typer.Option(help="Also a DICOM segmentation with a report of measurements or contours: report,rtstruct."),
    ] = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Segment cases; write labels on each scan's own grid and a JSON record.

    Labels that were edited, or that another program wrote, are never overwritten: new ones get a number.
    """
    config = network.build(keep_largest=keep_largest)
    alignment, grid = aligning.build(), _read_grid(on)
    channels, sides, suffix = split_modalities(modalities), _read_spacing(spacing), _read_format(file_format)
    extras = _read_also(also)
    suffix = suffix or (".dcm" if extras else None)
    with check_usage():
        check_extras(extras, suffix or "")
    failures = Failures(verbose)
    with report_errors():
        _print_doubts(config)
        found = which.find(cases, channels, failures)
    with failures.report_end(len(found), output):
        for case in found:
            with failures.catch(case.name):
                volume = read_aligned(case, alignment)
                result = _segment_one(volume if sides is None else volume.with_spacing(sides), config)
                _print_volumes(result)
                for placed in _place(result, grid):
                    labels, record = save_segmentation(placed, output, suffix, overwrite, also=extras)
                    others = {each: labels.with_name(f"{labels.stem}_{each}.dcm") for each in extras}
                    _print_written(placed, record, {"labels": labels, **others})


def demo(
    case: Annotated[
        Path | None, typer.Argument(help="A case of yours; default: the sample case.", show_default=False)
    ] = None,
    output: Out = Path("out"),
    model: Model = DEFAULT_MODEL,
    overwrite: Overwrite = False,
) -> None:
    """Segment the sample case, or a case of yours, and draw the result."""
    from napari_braintumor.engine.measuring.overlay import save_overlay

    with report_errors():
        config = build_config(model=model)
        _print_doubts(config)
        found = find_cases(case or sample_folder())
        if len(found) > 1:
            raise DataError(f"'{case}' holds {len(found)} cases. Name one of them, or use 'napari-braintumor segment'.")
        volume, reference = read_aligned(found[0]), read_reference(found[0])
        result = _segment_one(volume, config)
        draw = partial(save_overlay, volume, result, reference=reference)
        labels, record = save_segmentation(result, output, None, overwrite, draw)
        _print_volumes(result, reference)
        _print_written(result, record, {"labels": labels, "record": record, "picture": record.with_suffix(".png")})


def _place(result: Segmentation, wanted: str | None) -> list[Segmentation]:
    """Return a result on the grids that were asked for; on other grids than the reference's, it is named after them."""
    alignment = result.alignment
    if wanted is None or (alignment is None and wanted == _ALL):
        return [result]
    if wanted != _ALL:
        return [segmentation_on(result, wanted)]
    assert alignment is not None
    others = [modality for modality in alignment.scans if modality != alignment.reference]
    return [result, *(replace(segmentation_on(result, each), name=f"{result.name}_on_{each}") for each in others)]


def _read_grid(text: str | None) -> str | None:
    if text is None or text.lower() == _ALL:
        return text if text is None else _ALL
    with check_usage():
        (modality,) = read_modalities([text])
        return modality


def _read_spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    with check_usage():
        try:
            z, y, x = (float(part) for part in text.split(","))
        except ValueError:
            raise SettingsError(f"'{text}' is not a voxel size. Expected three numbers, in mm: Z,Y,X.") from None
        return z, y, x


def _read_format(text: str | None) -> str | None:
    if text is None:
        return None
    with check_usage():
        if (word := text.lower().lstrip(".")) not in ENDINGS:
            raise SettingsError(f"Labels cannot be written as '{text}'. Expected one of {', '.join(ENDINGS)}.")
        return f".{word}"


def _read_also(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",")) if text else ()


def _print_doubts(config: SegmentConfig) -> None:
    """Print the doubts about a model before it is used."""
    card = ModelStore().find(config.model).card
    assert card is not None
    if card.doubts:
        console.print(f"Think twice about the model '{card.name}': {' '.join(card.doubts)}", style="yellow")


def _segment_one(volume: Volume, config: SegmentConfig) -> Segmentation:
    shape = " x ".join(map(str, volume.shape))
    console.print(Text(volume.name, "bold").append(f"  {', '.join(volume.modalities)}  {shape} voxels", "not bold"))
    with make_progress_bar() as progress:
        task = progress.add_task("slices", total=None)
        for event in engine.segment(volume, config):
            match event:
                case SlicesDone(done, total):
                    progress.update(task, completed=done, total=total)
                case Noted(text):
                    console.print(f"  {text}")
                case PhaseReached(phase):
                    progress.update(task, description=phase)
                case Started(device):
                    progress.update(task, description=device)
                case Segmented(segmentation):
                    return segmentation
    raise AssertionError("the engine ended without a segmentation")


def _print_volumes(result: Segmentation, reference: Reference | None = None) -> None:
    from napari_braintumor.engine.measuring.metrics import volume_dice

    for name, ml in result.volumes_ml.items():
        line = f"  {name:16s} {ml:8.1f} mL"
        if reference is not None and name in reference.regions:
            dice = volume_dice(result.mask_of(name), reference.regions[name])
            line += f"   Dice {dice:.3f} with the reference"
        console.print(line)
    for name, reason in result.not_measurable.items():
        console.print(f"  {name:16s} {reason}")
    provenance = result.provenance
    if (trust := read_trust(provenance)) is not None:
        for line in trust.lines():
            console.print(f"  {line}")
    console.print(
        f"  {provenance['model']} on {provenance['device']} ({provenance['runtime']}), {provenance['seconds']} s"
    )


def _print_written(result: Segmentation, record: Path, files: dict[str, Path]) -> None:
    for kind, path in files.items():
        console.print(f"  {kind}: {path}")
    if record.stem != (expected := name_result(result.name)):
        console.print(
            f"  The existing '{expected}' was edited, was written by another program, or belongs to another scan, "
            "so it was kept. (--overwrite replaces it, unless it belongs to another scan.)"
        )
