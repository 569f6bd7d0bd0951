"""``napari-braintumor``: the engine from the command line, for one case or a whole cohort."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import psutil
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from napari_braintumor import engine
from napari_braintumor.engine import exchange
from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.card_text import card_as_markdown
from napari_braintumor.engine.catalogue import Entry, download, find_entry, read_catalogue
from napari_braintumor.engine.config import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.errors import BrainTumorError, DataError, DescriptionNeeded, ModelError, SettingsError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.plan import TrainPlan
from napari_braintumor.engine.record import save_segmentation
from napari_braintumor.engine.runs import Run, describe_event, describe_problem, read_plan, read_side
from napari_braintumor.engine.sample import sample_folder
from napari_braintumor.engine.store import ModelStore
from napari_braintumor.engine.types import (
    BatchDone,
    CaseEvaluated,
    Downloaded,
    Installed,
    Noted,
    PreviewDone,
    Reference,
    SeedEvaluated,
    Segmentation,
    Segmented,
    SlicesDone,
    Started,
    Verified,
    Volume,
    region_from_labels,
)

app = typer.Typer(
    help="Segment brain tumors in MRI. Research only: not a medical device.", no_args_is_help=True, add_completion=False
)
models_app = typer.Typer(
    help="The models: list them, show a card, download, install and export them.", no_args_is_help=True
)
app.add_typer(models_app, name="models")
console = Console(soft_wrap=True)

Cases = Annotated[
    list[Path], typer.Argument(help="Case folders, folders of cases, or single files.", show_default=False)
]
Out = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model, or path of a model file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Runtime = Annotated[str, typer.Option(help="auto, openvino or torch.")]
Channels = Annotated[
    str | None,
    typer.Option("--modalities", help="Names of the channels of a file that does not tell them: T1,FLAIR,T1ce."),
]
Subset = Annotated[str | None, typer.Option("--modalities", help="Use only these of each case: FLAIR,T1ce.")]
Mirroring = Annotated[bool, typer.Option("--mirroring", help="Average with the mirrored scan; twice the time.")]
KeepLargest = Annotated[bool, typer.Option("--keep-largest", help="Keep only the largest connected tumor.")]
Catalogue = Annotated[
    str | None,
    typer.Option(help="Address, file or folder of another catalogue; so does BRAINTUMOR_CATALOGUE in the environment."),
]
MinVolume = Annotated[float | None, typer.Option("--min-volume-ml", help="Remove smaller islands of tumor.")]


@app.command()
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
    config = _build(
        SegmentConfig,
        model=model,
        device=device,
        runtime=runtime,
        test_time_mirroring=mirroring,
        keep_largest=keep_largest,
        min_volume_ml=min_volume_ml,
    )
    failed = 0
    with _errors_said():
        found = find_cases(cases, _split_names(modalities))
    for case in found:
        try:
            result = _segment_one(read_case(case), config)
            labels, _ = save_segmentation(result, output, f".{file_format.lstrip('.')}" if file_format else None)
        except BrainTumorError as error:
            failed += 1
            _say_error(error, case.name)
            continue
        _print_volumes(result)
        console.print(f"  labels: {labels}")
    if failed:
        console.print(f"{failed} of {len(found)} cases failed.")
        raise typer.Exit(1)


@app.command()
def demo(
    case: Annotated[
        Path | None, typer.Argument(help="A case of yours; left out, the sample case.", show_default=False)
    ] = None,
    output: Out = Path("out"),
    model: Model = DEFAULT_MODEL,
) -> None:
    """Segment the sample case, or a case of yours, and draw the result."""
    from napari_braintumor.engine.overlay import save_overlay

    with _errors_said():
        found = find_cases(case or sample_folder())
        if len(found) > 1:
            raise DataError(f"'{case}' holds {len(found)} cases. Name one of them, or use 'napari-braintumor segment'.")
        volume, reference = read_case(found[0]), read_reference(found[0])
        result = _segment_one(volume, _build(SegmentConfig, model=model))
        labels, record = save_segmentation(result, output)
        picture = output / f"{result.name}_tumor.png"
        save_overlay(volume, result, picture, reference)
        _print_volumes(result, reference)
        console.print(f"  labels: {labels}\n  record: {record}\n  picture: {picture}")


@app.command()
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
    config = _build(
        SegmentConfig,
        model=model,
        device=device,
        runtime=runtime,
        test_time_mirroring=mirroring,
        min_volume_ml=min_volume_ml,
    )
    results: list[CaseEvaluated] = []
    seed: SeedEvaluated | None = None
    with _errors_said():
        if convention not in ("volume", "seed"):
            raise SettingsError(f"There is no convention '{convention}'. Known are volume and seed.")
        found = find_cases(cases)
        side = read_side(split) if split is not None else None
        subset, pooled = _split_names(modalities), convention == "seed"
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


@app.command()
def train(
    plan: Annotated[Path, typer.Argument(help="A training plan (JSON), or the folder of a run to go on with.")],
    data: Annotated[Path | None, typer.Option(help="Folder that the plan's relative case paths start from.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the run; wins over the plan's.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, max=100, help="Cross-validate: one run for each of so many parts of the patients.")
    ] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Only try one batch, and tell what the training will need.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Run at low priority, so that other programs stay quick.")
    ] = False,
) -> None:
    """Train a model by a plan, or go on with a run. Ctrl+C stops and keeps the best; a run can always go on later."""
    if background:
        _lower_priority()
    with _errors_said():
        if (plan / "plan.json").exists():
            _follow_training(Run.open(plan))
            return
        update: dict[str, Any] = {} if output is None else {"output": output}
        chosen = read_plan(plan)
        if data is not None:
            update["cases"] = tuple(data / path for path in chosen.cases)
        chosen = chosen.model_copy(update=update)
        if check:
            with TemporaryDirectory() as folder:
                _check_plan(chosen.model_copy(update={"output": Path(folder)}))
            return
        for part in range(1, folds + 1):
            fold = {"fold": (part, folds), "name": f"{chosen.name}-fold{part}"}
            _follow_training(chosen.model_copy(update=fold))
        if not folds:
            _follow_training(chosen)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show a model's card: what it is, what it was trained on, how well it does and where it fails."""
    with _errors_said():
        model = ModelStore().find(name)
    assert model.card is not None
    if as_json:
        console.print_json(model.card.model_dump_json())
    else:
        page = Markdown(f"# {model.card.title or model.name}\n\n{card_as_markdown(model.card, model.path)}")
        console.print(page, soft_wrap=False)


@models_app.command("list")
def list_models() -> None:
    """List the models: those of the package, then your own."""
    with _errors_said():
        name = Column("model", no_wrap=True)  # it is what has to be typed
        table = Table(name, "architecture", "modalities", "regions", "Dice (held out)", "licence")
        for model in ModelStore().list():
            if model.card is None:
                table.add_row(model.name, f"[red]unusable: {model.problem}[/red]")
                continue
            card = model.card
            told = [m for m in card.metrics if m.held_out and m.modalities == card.modalities]
            dice = "\n".join(f"{m.data} {m.region} {m.mean:.2f} (n={m.n})" for m in told if m.measure == "volume Dice")
            regions = "\n".join(region.name for region in card.regions)
            table.add_row(card.name, card.architecture, ", ".join(card.modalities), regions, dice, card.licence)
        console.print(table)


@models_app.command("available")
def list_available(catalogue: Catalogue = None) -> None:
    """List the models that can be downloaded."""
    with _errors_said():
        entries = read_catalogue(catalogue)
    if not entries:
        console.print("The catalogue is empty. Name another one with --catalogue: an address, a file or a folder.")
        return
    table = Table(Column("model", no_wrap=True), "title", "kind", Column("MB", justify="right"), "licence", "note")
    for entry in entries:
        told = entry.name, entry.title, entry.kind, f"{entry.bytes / 1e6:.1f}", entry.licence, entry.note
        table.add_row(*(Text(text) for text in told))
    console.print(table)


@models_app.command("download")
def download_model(
    name: Annotated[str, typer.Argument(help="Name of a model of the catalogue.", show_default=False)],
    catalogue: Catalogue = None,
    mirror: Annotated[
        str | None, typer.Option("--from", help="Address or folder that has the file, in place of its own address.")
    ] = None,
) -> None:
    """Download a model and install it. Ctrl+C stops; the next time it goes on from there."""
    try:
        with _errors_said():
            _follow_download(find_entry(read_catalogue(catalogue), name), mirror)
    except KeyboardInterrupt:
        console.print("Stopped. Download it again, and it goes on from there.")
        raise typer.Exit(130) from None


@models_app.command("install")
def install_model(
    file: Annotated[Path, typer.Argument(help="A model file, a package or a checkpoint.", show_default=False)],
    card: Annotated[
        Path | None, typer.Option(help="A card as JSON, for a file that does not tell its modalities and regions.")
    ] = None,
) -> None:
    """Install a model file: of this plugin, bioimage.io, MONAI, ONNX, or public weights. Nothing in it is run."""
    with _errors_said():
        try:
            model = exchange.import_model(file, None if card is None else _read_card_of(card))
        except DescriptionNeeded as error:
            raise ModelError(
                f"{error} Write them into a card, as 'models show NAME --json' prints it: --card."
            ) from error
    console.print(f"Installed as '{model.name}': {model.path}", markup=False, highlight=False)


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    kind: Annotated[str, typer.Option(help=f"What to write: {', '.join(exchange.KINDS)}.")] = "safetensors",
) -> None:
    """Write a model for others, with its card."""
    with _errors_said():
        written = exchange.export_model(ModelStore().find(name), kind, target)
    console.print(f"Written: {written}", markup=False, highlight=False)


def _read_card_of(path: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"The card '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except ValidationError as error:
        raise ModelError(f"'{path}' is not a card: {describe_problem(error)}. Correct it.") from error


def _segment_one(volume: Volume, config: SegmentConfig) -> Segmentation:
    console.print(
        f"[bold]{volume.name}[/bold]  {', '.join(volume.modalities)}  {' x '.join(map(str, volume.shape))} voxels"
    )
    with _progress_bar() as progress:
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


def _follow_training(what: TrainPlan | Run) -> None:
    if int(os.environ.get("RANK", "0")) > 0:
        console.quiet = True  # of several processes the first one speaks
    with _progress_bar() as progress, _stopping_gently(what):
        task = progress.add_task("reading cases", total=None)
        for event in engine.train(what):
            if isinstance(event, BatchDone):
                progress.update(task, completed=event.step, total=event.steps, description=f"loss {event.loss:.3f}")
            elif not isinstance(event, PreviewDone):
                console.print(describe_event(event), markup=False, highlight=False)


def _follow_download(entry: Entry, mirror: str | None) -> None:
    console.print(f"{entry.name}: licence {entry.licence}. {entry.note}".strip(), markup=False, highlight=False)
    with (
        _progress_bar(DownloadColumn(), TransferSpeedColumn()) as progress,
        closing(download(entry, None, mirror)) as events,
    ):
        task = progress.add_task(entry.file, total=entry.bytes)
        for event in events:
            match event:
                case Downloaded(done):
                    progress.update(task, completed=done)
                case Noted(text):
                    console.print(text, markup=False, highlight=False)
                case Installed(name, path):
                    console.print(f"Installed as '{name}': {path}", markup=False, highlight=False)


def _check_plan(plan: TrainPlan) -> None:
    """Tell what a plan needs, without training."""
    with closing(engine.train(plan)) as events:
        for event in events:
            console.print(describe_event(event), markup=False, highlight=False)
            if isinstance(event, Verified):
                return


@contextmanager
def _stopping_gently(what: TrainPlan | Run) -> Iterator[None]:
    """Let Ctrl+C and SIGTERM end a training after its present batch; a second one ends it at once."""

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        run = what if isinstance(what, Run) else Run(what.output / what.name)
        if not run.folder.exists():
            raise KeyboardInterrupt
        run.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        console.print("Ended at once. The run goes on from its last checkpoint when it is started again.")
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lower_priority() -> None:
    process = psutil.Process()
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if hasattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS") else 10)


def _progress_bar(*counts: ProgressColumn) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), *(counts or (MofNCompleteColumn(),)), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


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


def _split_names(names: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in names.split(",") if part.strip()) if names else None


def _build(kind: type[SegmentConfig], **settings: Any) -> SegmentConfig:
    try:
        return kind(**settings)
    except ValidationError as error:
        _say_error(SettingsError(f"{describe_problem(error)}. Run 'napari-braintumor --help' to see what is possible."))
        raise typer.Exit(2) from None


def _say_error(error: BrainTumorError, case: str = "") -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"{case + ': ' if case else ''}{error}", style="red", markup=False, highlight=False
    )


@contextmanager
def _errors_said() -> Iterator[None]:
    try:
        yield
    except BrainTumorError as error:
        _say_error(error)
        raise typer.Exit(1) from None
