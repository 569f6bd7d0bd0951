"""What the commands share: how they write, the options they have in common, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.errors import BrainTumorError, SettingsError
from napari_braintumor.engine.runs import describe_problem

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


def progress_bar(*counts: ProgressColumn) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), *(counts or (MofNCompleteColumn(),)), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


def split_names(names: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in names.split(",") if part.strip()) if names else None


def build_config(kind: type[SegmentConfig], **settings: Any) -> SegmentConfig:
    try:
        return kind(**settings)
    except ValidationError as error:
        say_error(SettingsError(f"{describe_problem(error)}. Run 'napari-braintumor --help' to see what is possible."))
        raise typer.Exit(2) from None


def say_error(error: BrainTumorError, case: str = "") -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"{case + ': ' if case else ''}{error}", style="red", markup=False, highlight=False
    )


@contextmanager
def errors_said() -> Iterator[None]:
    try:
        yield
    except BrainTumorError as error:
        say_error(error)
        raise typer.Exit(1) from None
