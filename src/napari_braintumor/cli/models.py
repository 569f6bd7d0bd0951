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

from napari_braintumor.cli._console import Catalogue, Overwrite, console, errors_said, progress_bar
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
    with errors_said():
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
    with errors_said():
        name = Column("model", no_wrap=True)  # it is what has to be typed
        table = Table(name, "architecture", "modalities", "regions", "Dice (held out)", "license")
        remarks: list[tuple[str, str]] = []
        for model in ModelStore().list():
            if model.card is None:
                table.add_row(model.name, Text("unusable", "red"))
                remarks.append((f"{model.name} is unusable: {model.problem}", "red"))
                continue
            card = model.card
            told = [m for m in card.metrics if m.held_out and m.modalities == card.modalities]
            dice = "\n".join(f"{m.data} {m.region} {m.mean:.2f} (n={m.n})" for m in told if m.measure == VOLUME_DICE)
            regions = "\n".join(region.name for region in card.regions)
            table.add_row(card.name, card.architecture, ", ".join(card.modalities), regions, dice, card.license)
            if card.doubts:
                remarks.append((f"{card.name}: {' '.join(card.doubts)}", "yellow"))
        console.print(table)
        for text, style in remarks:  # below the table, where a narrow terminal cuts nothing off
            console.print(text, style=style)


@app.command("available")
def list_available(catalogue: Catalogue = None) -> None:
    """List the models that can be downloaded."""
    with errors_said():
        entries = read_catalogue(catalogue)
    if not entries:
        console.print("The catalogue is empty. Name another one with --catalogue: an address, a file or a folder.")
        return
    table = Table(Column("model", no_wrap=True), "title", "kind", Column("MB", justify="right"), "license", "note")
    for entry in entries:
        told = entry.name, entry.title, entry.kind, f"{entry.bytes / 1e6:.1f}", entry.license, entry.note
        table.add_row(*(Text(text) for text in told))
    console.print(table)


@app.command("download")
def download_model(
    name: Annotated[str, typer.Argument(help="Name of a model of the catalogue.", show_default=False)],
    catalogue: Catalogue = None,
    mirror: Annotated[
        str | None, typer.Option("--from", help="Address or folder that has the file, in place of its own address.")
    ] = None,
) -> None:
    """Download a model and install it. Ctrl+C stops, and nothing is installed then."""
    try:
        with errors_said():
            _follow_download(find_entry(read_catalogue(catalogue), name), mirror)
    except KeyboardInterrupt:
        console.print("Stopped. Nothing was installed.")
        raise typer.Exit(130) from None


@app.command("install")
def install_model(
    file: Annotated[Path, typer.Argument(help="A model file, a package or a checkpoint.", show_default=False)],
    card: Annotated[
        Path | None, typer.Option(help="A card as JSON, for a file that does not tell its modalities and regions.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model here, where its own name is taken.")] = None,
) -> None:
    """Install a model file: of this plugin, bioimage.io, MONAI, ONNX, or public weights. Nothing in it is run."""
    with errors_said():
        try:
            model = exchange.import_model(file, None if card is None else _read_card_of(card), name=name)
        except DescriptionNeeded as error:
            raise ModelError(
                f"{error} Write them into a card, as 'models show NAME --json' prints it: --card."
            ) from error
        except NameTaken as error:
            raise ModelError(f"{error} --name NEW gives this one another name.") from error
    console.print(f"Installed as '{model.name}': {model.path}")


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    kind: Annotated[str, typer.Option(help=f"What to write: {', '.join(exchange.KINDS)}.")] = "safetensors",
    overwrite: Overwrite = False,
) -> None:
    """Write a model for others, with its card."""
    with errors_said():
        if target.exists() and not overwrite:
            raise DataError(f"'{target}' is there already. Choose another name, or replace it with --overwrite.")
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
        progress_bar(DownloadColumn(), TransferSpeedColumn()) as progress,
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
