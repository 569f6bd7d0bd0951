"""What the commands share: output, common options and error handling.

Exit codes: 0 success, 1 something failed, 2 the command was not understood, 130 stopped by Ctrl+C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

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

from napari_braintumor.engine.errors import BrainTumorError, DataError, SettingsError, describe_failure, describe_origin
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.calling import may_name_patient
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.choosing_series.changing import choose_series, remember_choice
from napari_braintumor.engine.files.naming import read_modalities
from napari_braintumor.engine.files.reading import align_case
from napari_braintumor.engine.settings import AlignConfig, SegmentConfig, describe_problem
from napari_braintumor.engine.volumes import Volume

_Result = TypeVar("_Result")

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
    typer.Option("--modalities", help="Names of the channels, for a file that does not state them: T1,FLAIR,T1ce."),
]
Subset = Annotated[str | None, typer.Option("--modalities", help="Use only these modalities of each case: FLAIR,T1ce.")]
Series = Annotated[
    list[str] | None,
    typer.Option(
        help="Which series to use: T1=3 or FLAIR='ax flair' (see 'inspect'); T1=none; auto drops earlier choices."
    ),
]
KeepNames = Annotated[
    bool, typer.Option("--keep-names", help="Name cases of DICOM series by the patient's name, in files and records.")
]
Mirroring = Annotated[bool, typer.Option("--mirroring", help="Average with the mirrored scan; takes twice as long.")]
Skull = Annotated[
    str,
    typer.Option(
        help="auto leaves out scans with the skull that the model has only seen without it; keep uses all as they are; "
        "strip extracts the brain first."
    ),
]
N4 = Annotated[
    bool, typer.Option("--n4", help="Correct slow changes of brightness across each scan first (N4 of SimpleITK).")
]
KeepLargest = Annotated[bool, typer.Option("--keep-largest", help="Keep only the largest connected tumor.")]
Catalogue = Annotated[
    str | None,
    typer.Option(help="Address, file or folder of another catalogue; the variable BRAINTUMOR_CATALOGUE does the same."),
]
MinVolume = Annotated[
    float | None, typer.Option("--min-volume-ml", help="Remove smaller connected components of tumor.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Onto = Annotated[
    str,
    typer.Option(
        "--reference",
        help="Where scans have different grids: the modality whose grid the others are brought onto; auto takes FLAIR "
        "if its axial slices are fine, then T1ce, T2, T1; finest takes the smallest voxels.",
    ),
]
Registering = Annotated[
    str,
    typer.Option(
        help="auto registers scans on different grids; never trusts their headers; always also registers scans that "
        "share a grid."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the traceback of unexpected errors.")]


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Leave the standard output to JSON."""
    console.stderr = True
    try:
        yield
    finally:
        console.stderr = False


class Failures:
    """The cases that failed: each is printed at once, and all of them again at the end.

    Parameters
    ----------
    verbose
        Print tracebacks too.
    """

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose
        self.reasons: list[tuple[str, str]] = []
        self.done = 0  # cases

    def add(self, case: str, reason: str, details: str = "") -> None:
        """Note that a case failed."""
        self.reasons.append((case, reason))
        errors.print(f"{case}: {reason}", style="red")
        if details:
            errors.print(details if self._verbose else "(--verbose prints where it happened.)")

    @contextmanager
    def catch(self, case: str) -> Iterator[None]:
        """Record whatever goes wrong with a case and go on; only Ctrl+C ends the command."""
        try:
            yield
            self.done += 1
        except Exception as error:  # noqa: BLE001  one case must not stop the others
            self.add(
                case, describe_failure(error), "" if isinstance(error, BrainTumorError) else describe_origin(error)
            )

    @contextmanager
    def report_end(self, cases: int, output: Path) -> Iterator[None]:
        """End a command that writes so many cases, also where the user stops it: print what failed, and exit.

        Raises
        ------
        typer.Exit
            With code 1 if a case failed, 130 if the user stopped it, else 0.
        """
        total, code = cases + len(self.reasons), 0
        try:
            yield
        except KeyboardInterrupt:
            console.print(f"Stopped. {self.done} of {total} cases are written to '{output}'.")
            code = 130
        self.print_all(total)
        raise typer.Exit(code or int(bool(self.reasons)))

    def print_all(self, total: int) -> None:
        """List the cases that failed, if any."""
        if self.reasons:
            console.print(f"{len(self.reasons)} of {total} cases failed:")
        for case, reason in self.reasons:
            console.print(f"  {case}: {reason}")


def find_all(
    paths: Sequence[Path],
    modalities: tuple[str, ...] | None,
    failures: Failures,
    *,
    keep_names: bool = False,
    picks: Sequence[str] | None = None,
    offer: bool = False,
) -> list[CaseFiles]:
    """Find the cases of all paths; one of several paths that holds none is a failure, and the others go on.

    Parameters
    ----------
    paths, modalities, keep_names, offer
        See `find_cases`.
    failures
        Takes what fails.
    picks
        Which series to use, see `choose_series`; a case for which that fails is a failure. The choice is remembered.

    Returns
    -------
    list of CaseFiles
        Without those that failed.

    Raises
    ------
    DataError
        If nothing was found at all.
    """
    find = partial(find_cases, modalities=modalities, keep_names=keep_names, offer=offer or bool(picks))
    try:
        found = find(paths)
    except DataError:
        if len(paths) == 1:
            raise
        good = []
        for number, path in enumerate(paths, start=1):
            hidden = not keep_names and path.exists() and may_name_patient(path)
            with failures.catch(f"path {number} of {len(paths)}" if hidden else str(path)):
                find(path)
                good.append(path)
        if not good:
            raise DataError("None of these paths holds a case. The reasons are listed above.") from None
        found = find(good)
    return [*_choose(found, picks, failures)] if picks else found


def _choose(cases: Sequence[CaseFiles], picks: Sequence[str], failures: Failures) -> Iterator[CaseFiles]:
    for case in cases:
        with failures.catch(case.name):
            chosen = choose_series(case, picks)
            remember_choice(chosen)
            yield chosen


def make_progress_bar(*counts: ProgressColumn, shown: bool = True) -> Progress:
    """Return a progress bar that disappears when it is done, or one that is not shown, as where nobody watches."""
    text = TextColumn("{task.description}", markup=False)
    return Progress(
        text,
        BarColumn(),
        *(counts or (MofNCompleteColumn(),)),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),  # else a file of the output gets an empty line
    )


def split_modalities(names: str | None) -> tuple[str, ...] | None:
    """Read an option that lists modalities; other spellings become our names.

    Returns
    -------
    tuple of str or None
        Our names, in the order given; None if the option was left out.

    Raises
    ------
    typer.Exit
        With code 2, if a name is unknown or given twice.
    """
    if names is None:
        return None
    with check_usage():
        return read_modalities([part.strip() for part in names.split(",") if part.strip()])


def build_config(**settings: Any) -> SegmentConfig:
    """Return the settings of a command.

    Returns
    -------
    SegmentConfig
        The settings, validated.

    Raises
    ------
    typer.Exit
        With code 2, if a setting is not valid.
    """
    with check_usage():
        try:
            return SegmentConfig(**settings)
        except ValidationError as error:
            raise SettingsError(f"{describe_problem(error)}.") from None


def build_align_config(onto: str, registration: str, **settings: Any) -> AlignConfig:
    """Read the options that say how scans on different grids are aligned.

    Returns
    -------
    AlignConfig
        The settings.

    Raises
    ------
    typer.Exit
        With code 2, if a setting is not valid.
    """
    with check_usage():
        reference = onto.lower() if onto.lower() in ("auto", "finest") else read_modalities([onto])[0]
        try:
            return AlignConfig(reference=reference, registration=registration, **settings)
        except ValidationError as error:
            raise SettingsError(f"{describe_problem(error)}.") from None


def follow_phases(events: Iterable[PhaseReached | _Result], *, shown: bool = True) -> _Result:
    """Return what comes last, while a progress bar shows the phases before it."""
    with make_progress_bar(shown=shown) as progress:
        task = progress.add_task("", total=None)
        for event in events:
            if not isinstance(event, PhaseReached):
                return event
            progress.update(task, description=event.phase, completed=event.done, total=event.total or None)
    raise AssertionError("nothing came after the phases")


def read_aligned(case: CaseFiles, config: AlignConfig | None = None) -> Volume:
    """Read a case, and bring its scans onto one grid while a progress bar shows the phase; see `read_case`."""
    return follow_phases(align_case(case, config))


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error that a user can fix, and exit with code 1."""
    try:
        yield
    except BrainTumorError as error:
        errors.print(str(error), style="red")
        raise typer.Exit(1) from None


@contextmanager
def check_usage() -> Iterator[None]:
    """Print what is wrong with an option, and exit with code 2."""
    try:
        yield
    except BrainTumorError as error:
        errors.print(f"{error} Run 'napari-braintumor --help' to see the options.", style="red")
        raise typer.Exit(2) from None
