"""``models``: list them, show a card, download, install and export them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markdown import Markdown
from rich.progress import (
    DownloadColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from napari_braintumor.cli._console import Catalogue, Overwrite, console, make_progress_bar, report_errors
from napari_braintumor.engine import exchange
from napari_braintumor.engine.errors import DataError, DescriptionNeeded, ModelError, NameTaken
from napari_braintumor.engine.events import Downloaded, Installed, Noted
from napari_braintumor.engine.exchange.catalogue import Entry, download, find_entry, read_catalogue
from napari_braintumor.engine.models.card import VOLUME_DICE, ModelCard
from napari_braintumor.engine.models.card_text import card_as_markdown
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import describe_problem

app = typer.Typer(help="The models: list them, show a card, download, install and export them.", no_args_is_help=True)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show a model's card: what it is, what it was trained on, how well it does and where it fails."""
    with report_errors():
        model = ModelStore().find(name)
    assert model.card is not None
    if as_json:
        console.print_json(model.card.model_dump_json())
    else:
        page = Markdown(f"# {model.card.title or model.name}\n\n{card_as_markdown(model.card, model.path)}")
        for doubt in model.card.doubts:
            console.print(f"Think twice: {doubt}", style="yellow")
        console.print(page, soft_wrap=False)


@app.command("list")
def list_models() -> None:
    """List the models: those of the package, then your own."""
    with report_errors():
        name = Column("model", no_wrap=True)  # users type it
        table = Table(name, "architecture", "modalities", "regions", "Dice (held out)", "license")
        remarks: list[tuple[str, str]] = []
        for model in ModelStore().list():
            if model.card is None:
                table.add_row(model.name, Text("unusable", "red"))
                remarks.append((f"{model.name} is unusable: {model.problem}", "red"))
                continue
            card = model.card
            unseen = [m for m in card.metrics if m.held_out and m.modalities == card.modalities]
            dice = "\n".join(f"{m.data} {m.region} {m.mean:.2f} (n={m.n})" for m in unseen if m.measure == VOLUME_DICE)
            regions = "\n".join(region.name for region in card.regions)
            table.add_row(card.name, card.architecture, ", ".join(card.modalities), regions, dice, card.license)
            if card.doubts:
                remarks.append((f"{card.name}: {' '.join(card.doubts)}", "yellow"))
        console.print(table)
        for text, style in remarks:  # below the table, where a narrow terminal does not cut them off
            console.print(text, style=style)


@app.command("available")
def list_available(catalogue: Catalogue = None) -> None:
    """List the models that can be downloaded."""
    with report_errors():
        entries = read_catalogue(catalogue)
    if not entries:
        console.print("The catalogue is empty. Name another one with --catalogue: an address, a file or a folder.")
        return
    table = Table(Column("model", no_wrap=True), "title", "kind", Column("MB", justify="right"), "license", "note")
    for entry in entries:
        row = entry.name, entry.title, entry.kind, f"{entry.bytes / 1e6:.1f}", entry.license, entry.note
        table.add_row(*(Text(text) for text in row))
    console.print(table)


@app.command("download")
def download_model(
    name: Annotated[str, typer.Argument(help="Name of a model in the catalogue.", show_default=False)],
    catalogue: Catalogue = None,
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="Address or folder to fetch the file from, if not the catalogue's."),
    ] = None,
) -> None:
    """Download and install a model. After Ctrl+C nothing is installed."""
    try:
        with report_errors():
            _follow_download(find_entry(read_catalogue(catalogue), name), mirror)
    except KeyboardInterrupt:
        console.print("Stopped. Nothing was installed.")
        raise typer.Exit(130) from None


@app.command("install")
def install_model(
    file: Annotated[Path, typer.Argument(help="A model file, a package or a checkpoint.", show_default=False)],
    card: Annotated[
        Path | None, typer.Option(help="A card as JSON, for a file that does not state its modalities and regions.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for the model here, if its own is taken.")] = None,
) -> None:
    """Install a model file: of this plugin, bioimage.io, MONAI, ONNX, or public weights. Nothing in it is run."""
    with report_errors():
        try:
            model = exchange.import_model(file, None if card is None else _read_card_of(card), name=name)
        except DescriptionNeeded as error:
            raise ModelError(
                f"{error} Write them into a card like those that 'models show NAME --json' prints, "
                "and pass it with --card."
            ) from error
        except NameTaken as error:
            raise ModelError(f"{error} Use --name NEW to install this one under another name.") from error
    console.print(f"Installed as '{model.name}': {model.path}")


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    kind: Annotated[str, typer.Option(help=f"What to write: {', '.join(exchange.KINDS)}.")] = "safetensors",
    overwrite: Overwrite = False,
) -> None:
    """Export a model, with its card, for other programs."""
    with report_errors():
        if target.exists() and not overwrite:
            raise DataError(f"'{target}' already exists. Choose another name, or replace it with --overwrite.")
        written = exchange.export_model(ModelStore().find(name), kind, target)
    console.print(f"Written: {written}")


def _read_card_of(path: Path) -> ModelCard:
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"The card '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except ValidationError as error:
        raise ModelError(f"'{path}' is not a card: {describe_problem(error)}. Correct it.") from error


def _follow_download(entry: Entry, mirror: str | None) -> None:
    console.print(f"{entry.name}: license {entry.license}. {entry.note}".strip())
    with (
        make_progress_bar(DownloadColumn(), TransferSpeedColumn()) as progress,
        closing(download(entry, None, mirror)) as events,
    ):
        task = progress.add_task(entry.file, total=entry.bytes)
        for event in events:
            match event:
                case Downloaded(done):
                    progress.update(task, completed=done)
                case Noted(text):
                    console.print(text)
                case Installed(name, path):
                    console.print(f"Installed as '{name}': {path}")
