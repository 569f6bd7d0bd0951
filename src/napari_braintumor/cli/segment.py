"""``segment`` and ``demo``: labels and a record for each case."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TaskID, TaskProgressColumn
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
    messages_on_stderr,
    read_aligned,
    report_errors,
    split_modalities,
)
from napari_braintumor.cli._groups import AlignOptions, CaseOptions, NetworkOptions, expand_groups
from napari_braintumor.engine.cohorts.bids import is_bids_dataset
from napari_braintumor.engine.cohorts.cohort_events import (
    CaseDone,
    CaseStarted,
    CohortDone,
    CohortEvent,
    CohortProgressed,
    CohortStarted,
    Waited,
    describe_event,
    describe_left,
)
from napari_braintumor.engine.cohorts.listed import is_table, name_apart, read_table
from napari_braintumor.engine.cohorts.plan import ALL, CohortConfig, CohortPlan
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import CaseFailed, Noted, PhaseReached, Segmented, SlicesDone, Started
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.formats import FORMATS
from napari_braintumor.engine.files.naming import read_modalities
from napari_braintumor.engine.files.reading import read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.dicom_export import check_extras
from napari_braintumor.engine.measuring.record import describe_segmentation, name_result, save_segmentation
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.trust import read_trust
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume

ENDINGS = tuple(suffix.lstrip(".") for each in FORMATS for suffix in each.written_suffixes)


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
    layout: Annotated[
        str, typer.Option(help="plain, or bids: derivatives of a BIDS dataset; auto is bids for such a dataset.")
    ] = "auto",
    report: Annotated[
        bool | None,
        typer.Option(help="Write volumes.csv and report.html with a picture of each case; default: for several cases."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and segment cases as they arrive in the folder; ends with Ctrl+C.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Segment with this many processes on this machine, which share its cores.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Segment with the workers of this dask scheduler: tcp://10.0.0.1:8786.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines; messages go to stderr.")] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Segment cases; write labels on each scan's own grid, a JSON record, and for several cases a table and a report.

    Cases are folders, files, BIDS datasets, folders of DICOM files, or a CSV or TSV table of paths. A case that has a
    result of the same scans, model and settings is not segmented again, so a run that was stopped can be repeated.
    Labels that were edited, or that another program wrote, are never overwritten: new ones get a number.
    """
    config = network.build(keep_largest=keep_largest)
    alignment, grid = aligning.build(), _read_grid(on)
    channels, sides, suffix = split_modalities(modalities), _read_spacing(spacing), _read_format(file_format)
    extras = _read_also(also)
    suffix = suffix or (".dcm" if extras else None)
    with check_usage():
        check_extras(extras, suffix or "")
        root = _read_layout(layout, cases)
        _check_ways(cases, watch, workers, scheduler)
    failures = Failures(verbose)
    with messages_on_stderr() if as_json else nullcontext():
        with report_errors():
            _print_doubts(config)
            found = [] if watch else _find_cohort(cases, which, channels, failures)
            tables = report if report is not None else watch or len(found) + len(failures.reasons) > 1
            settings = CohortConfig(
                segmentation=config,
                aligning=alignment,
                spacing=sides,
                on=grid,
                suffix=suffix,
                also=extras,
                pictures=tables,
            )
            plan = CohortPlan(found, output, settings, root, tables, overwrite)
        with failures.report_end(len(found), output), report_errors():
            if watch:
                events = engine.watch_cohort(partial(find_cases, cases[0], channels, which.keep_names), plan)
            elif workers or scheduler:
                events = engine.segment_on_cluster(plan, workers, scheduler)
            else:
                events = engine.segment_cohort(plan)
            _follow(events, failures, as_json, watched=watch)


def _check_ways(paths: Sequence[Path], watch: bool, workers: int | None, scheduler: str | None) -> None:
    """Raise an error for ways to run that exclude each other."""
    if watch and (workers or scheduler):
        raise SettingsError("A folder is watched without workers. Start --watch several times to share the work.")
    if workers and scheduler:
        raise SettingsError("Workers are those of this machine or those of a scheduler. Give one of the two.")
    if watch and (len(paths) != 1 or not paths[0].is_dir()):
        raise SettingsError(f"--watch needs one folder, but '{paths[0]}' is not the only path or not a folder.")


def _find_cohort(
    paths: Sequence[Path], which: CaseOptions, channels: tuple[str, ...] | None, failures: Failures
) -> list[CaseFiles]:
    """Find the cases of folders, files and tables."""
    tables = [path for path in paths if is_table(path)]
    others = [path for path in paths if path not in tables]
    if len(paths) == 1 and tables:
        return read_table(tables[0])
    found = which.find(others, channels, failures) if others else []
    for table in tables:
        with failures.catch(str(table)):
            found += read_table(table)
    failures.done = 0  # cases
    return name_apart(found)


def _follow(
    events: Generator[CohortEvent, None, None], failures: Failures, as_json: bool, *, watched: bool = False
) -> None:
    """Print what happens; at Ctrl+C, also what is still written."""
    show = partial(_print_event, failures=failures, as_json=as_json, watched=watched)
    with make_progress_bar(TaskProgressColumn(), shown=not as_json) as progress:
        task = progress.add_task("", total=None)
        try:
            for event in events:
                show(event, progress=progress, task=task)
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                event = events.throw(KeyboardInterrupt())  # which ends only when all is written
                while True:
                    show(event, progress=progress, task=task)
                    event = next(events)
            raise


def _print_event(
    event: CohortEvent, *, failures: Failures, as_json: bool, watched: bool, progress: Progress, task: TaskID
) -> None:
    if as_json:
        typer.echo(json.dumps(describe_event(event)))
    match event:
        case CohortStarted(total):
            if watched:  # each round lists all cases again
                failures.done = 0
                failures.reasons.clear()
            progress.update(task, total=total)
        case CaseStarted(case):
            progress.update(task, description=case)
        case CohortProgressed(done, total, left_s):
            left = f", {describe_left(left_s)} left" if left_s else ""
            progress.update(task, completed=done, description=f"{done} of {total} cases{left}")
        case CaseDone():
            failures.done += 1
            if not (watched and event.reused):
                _print_case(event)
        case CaseFailed(case, reason, details):
            failures.add(case, reason, details)
        case Waited(done, arriving):
            progress.update(task, description=f"waiting: {done} done, {arriving} arriving")
        case CohortDone():
            if event.reused and not watched:
                console.print(f"{event.reused} cases had a result already. (--overwrite segments them again.)")
            for kind, path in (("table", event.table), ("report", event.report)):
                if path is not None:
                    console.print(f"{kind}: {path}")


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
        _print_volumes(describe_segmentation(result), _measure_dice(result, reference))
        _print_written(result.name, record, [labels, record.with_suffix(".png")])


def _read_grid(text: str | None) -> str | None:
    if text is None or text.lower() == ALL:
        return text if text is None else ALL
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


def _read_layout(text: str, paths: Sequence[Path]) -> Path | None:
    """Return the BIDS dataset that derivatives are written of; None for plain results."""
    if text not in ("auto", "plain", "bids"):
        raise SettingsError(f"There is no layout '{text}'. Choose auto, plain or bids.")
    is_one = len(paths) == 1 and is_bids_dataset(paths[0])
    if text == "bids" and not is_one:
        raise SettingsError(
            f"The layout bids needs one BIDS dataset, but '{paths[0]}' has no valid dataset_description.json. Name the "
            "folder that has it, or choose the plain layout."
        )
    return paths[0] if is_one and text != "plain" else None


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


def _print_case(done: CaseDone) -> None:
    said = done.content
    console.print(Text(done.case, "bold").append(f"  {', '.join(said.get('modalities_used', ()))}", "not bold"))
    for note in said.get("notes", ()):
        console.print(f"  {note}")
    if done.reused:
        console.print("  was segmented before, with the same scans, model and settings")
    _print_volumes(said)
    _print_written(done.case, done.record, done.files)


def _print_volumes(said: Mapping[str, Any], dice: Mapping[str, float] | None = None) -> None:
    for name, ml in said["volumes_ml"].items():
        known = f"   Dice {dice[name]:.3f} with the reference" if dice and name in dice else ""
        console.print(f"  {name:16s} {ml:8.1f} mL{known}")
    for name, reason in said.get("not_measurable", {}).items():
        console.print(f"  {name:16s} {reason}")
    if (trust := read_trust(said)) is not None:
        for line in trust.lines():
            console.print(f"  {line}")
    console.print(f"  {said['model']} on {said['device']} ({said['runtime']}), {said['seconds']} s")


def _measure_dice(result: Segmentation, reference: Reference | None) -> dict[str, float]:
    from napari_braintumor.engine.measuring.metrics import volume_dice

    regions = reference.regions if reference is not None else {}
    return {name: volume_dice(result.mask_of(name), regions[name]) for name in result.volumes_ml if name in regions}


def _print_written(case: str, record: Path, files: Sequence[Path]) -> None:
    kinds = ["labels", *(_name_kind(path) for path in files[1:])]
    for kind, path in (*zip(kinds, files, strict=True), ("record", record)):
        console.print(f"  {kind}: {path}")
    # in BIDS the number stands in the middle
    if record.stem != (expected := name_result(case)) and not record.stem.endswith("_desc-tumor_dseg"):
        console.print(
            f"  The existing '{expected}' was edited, was written by another program, or belongs to another scan, "
            "so it was kept. (--overwrite replaces it, unless it belongs to another scan.)"
        )


def _name_kind(path: Path) -> str:
    return "picture" if path.suffix == ".png" else path.stem.rpartition("_")[2]
