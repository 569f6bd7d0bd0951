"""What the commands share: how they write, the options they have in common, and what becomes of errors.

Exit codes: 0 all went well, 1 something failed, 2 the command was not understood, 130 stopped by Ctrl+C.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
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

from napari_braintumor.engine.errors import BrainTumorError, DataError, SettingsError, describe_failure
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.naming import read_modalities
from napari_braintumor.engine.settings import SegmentConfig, describe_problem

# Names of cases, files and models are printed as they stand: nothing in them is markup.
console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)

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
MinVolume = Annotated[
    float | None, typer.Option("--min-volume-ml", help="Remove smaller connected components of tumor.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the traceback of errors that were not expected.")]


class Failures:
    """Cases that failed in a run over several: each is named at once, and all of them at the end.

    Parameters
    ----------
    verbose
        Print tracebacks too.
    """

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self.reasons: list[tuple[str, str]] = []

    def add(self, case: str, reason: str, details: str = "") -> None:
        """Note that a case failed."""
        self.reasons.append((case, reason))
        errors.print(f"{case}: {reason}", style="red")
        if details:
            errors.print(details if self._verbose else "(--verbose prints where it happened.)")

    @contextmanager
    def caught(self, case: str) -> Iterator[None]:
        """Go on after whatever goes wrong with a case, but for Ctrl+C."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  one case must not stop the others
            self.add(
                case, describe_failure(error), "" if isinstance(error, BrainTumorError) else traceback.format_exc()
            )

    def tell(self, total: int) -> None:
        """List the cases that failed, if any."""
        if self.reasons:
            console.print(f"{len(self.reasons)} of {total} cases failed:")
        for case, reason in self.reasons:
            console.print(f"  {case}: {reason}")


def find_all(paths: Sequence[Path], modalities: tuple[str, ...] | None, failures: Failures) -> list[CaseFiles]:
    """Find the cases of all paths; one of several paths that holds none is a failure, and the others go on.

    Raises
    ------
    DataError
        If nothing was found at all.
    """
    try:
        return find_cases(paths, modalities)
    except DataError:
        if len(paths) == 1:
            raise
    good = []
    for path in paths:
        with failures.caught(str(path)):
            find_cases(path, modalities)
            good.append(path)
    if not good:
        raise DataError("None of these paths holds a case. See above what is wrong with each.")
    return find_cases(good, modalities)


def progress_bar(*counts: ProgressColumn) -> Progress:
    """Return a bar that goes when it is done."""
    told = TextColumn("{task.description}", markup=False)
    return Progress(
        told, BarColumn(), *(counts or (MofNCompleteColumn(),)), TimeRemainingColumn(), console=console, transient=True
    )


def split_modalities(names: str | None) -> tuple[str, ...] | None:
    """Read an option with names of modalities, as they are called here.

    Raises
    ------
    typer.Exit
        With code 2, if one is not known, or is there twice.
    """
    if names is None:
        return None
    with usage_checked():
        return read_modalities([part.strip() for part in names.split(",") if part.strip()])


def build_config(**settings: Any) -> SegmentConfig:
    """Return the settings of a command.

    Raises
    ------
    typer.Exit
        With code 2, if one is impossible.
    """
    with usage_checked():
        try:
            return SegmentConfig(**settings)
        except ValidationError as error:
            raise SettingsError(f"{describe_problem(error)}.") from None


@contextmanager
def errors_said() -> Iterator[None]:
    """Print what a user can mend, and exit with code 1."""
    try:
        yield
    except BrainTumorError as error:
        errors.print(str(error), style="red")
        raise typer.Exit(1) from None


@contextmanager
def usage_checked() -> Iterator[None]:
    """Print what is wrong with an option, and exit with code 2."""
    try:
        yield
    except BrainTumorError as error:
        errors.print(f"{error} Run 'napari-braintumor --help' to see what is possible.", style="red")
        raise typer.Exit(2) from None
