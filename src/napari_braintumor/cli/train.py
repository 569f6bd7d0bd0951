"""``train``: start from a plan, or resume a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import psutil
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from napari_braintumor import engine
from napari_braintumor.cli._console import console, report_errors
from napari_braintumor.engine.events import BatchDone, CaseLeftOut, PhaseReached, PreviewDone, Stopped, Verified
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.run_log import describe_event
from napari_braintumor.engine.training.runs import ASKED, Run


def train(
    plan: Annotated[Path, typer.Argument(help="A training plan (JSON), or the folder of a run to resume.")],
    data: Annotated[Path | None, typer.Option(help="Folder that the plan's relative case paths start from.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the run; overrides the plan's.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, max=100, help="Cross-validate: one run for each of this many folds of the patients.")
    ] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Only try one batch, and print what the training will need.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Run at low priority, so that other programs stay responsive.")
    ] = False,
) -> None:
    """Train a model from a plan, or resume a run. Ctrl+C stops and keeps the best weights; runs can be resumed."""
    if background:
        _lower_priority()
    with report_errors():
        if (plan / "plan.json").exists():
            _end(_follow_training([Run.open(plan)]))
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
        parts = [
            chosen.model_copy(update={"fold": (part, folds), "name": f"{chosen.name}-fold{part}"})
            for part in range(1, folds + 1)
        ]
        _end(_follow_training(parts or [chosen]))


def _end(damaged: list[str]) -> None:
    """List the training cases that could not be read, and exit with a status that shows it."""
    if not damaged:
        return
    names = list(dict.fromkeys(damaged))
    console.print("Left out because their files cannot be used:", markup=False)
    for name in names:
        console.print(f"  {name}")
    raise typer.Exit(1)


def _follow_training(trainings: Sequence[TrainPlan | Run]) -> list[str]:
    """Train one after the other until asked to stop; return the cases that could not be read."""
    if int(os.environ.get("RANK", "0")) > 0:
        console.quiet = True  # only the first of several processes prints
    damaged: list[str] = []
    for training in trainings:
        with _make_progress_bar() as progress, _stop_gently(training):
            task = progress.add_task("starting", total=None, left="")
            for event in engine.train(training):
                if isinstance(event, BatchDone):
                    text = f"step {event.step} of {event.steps}, loss {event.loss:.3f}"
                    left = "" if event.left_s is None else f"{timedelta(seconds=round(event.left_s))} left at most"
                    progress.update(task, completed=event.share, total=1.0, description=text, left=left)
                elif isinstance(event, PhaseReached):
                    progress.update(task, description=event.phase)
                    if event.total:
                        progress.update(task, completed=event.done, total=event.total)
                elif not isinstance(event, PreviewDone):
                    console.print(describe_event(event))
                if isinstance(event, CaseLeftOut) and event.damaged:
                    damaged.append(event.text)
                if isinstance(event, Stopped) and event.reason == ASKED:
                    trainings = ()
        if not trainings:
            break
    return damaged


def _make_progress_bar() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    return Progress(*columns, console=console, transient=True)


def _check_plan(plan: TrainPlan) -> None:
    """Print what a plan needs, without training."""
    with closing(engine.train(plan)) as events:
        for event in events:
            if not isinstance(event, PhaseReached):
                console.print(describe_event(event))
            if isinstance(event, Verified):
                return


@contextmanager
def _stop_gently(training: TrainPlan | Run) -> Iterator[None]:
    """Let Ctrl+C and SIGTERM end a training after the current batch; a second one ends it at once."""

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        run = training if isinstance(training, Run) else Run((training.output / training.name).resolve())
        if not run.is_ours and int(os.environ.get("RANK", "0")) == 0:
            raise KeyboardInterrupt  # nothing has started yet, or another process is training
        run.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        console.print("Ended at once. When it is started again, the run resumes from its last checkpoint.")
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lower_priority() -> None:
    process = psutil.Process()
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if hasattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS") else 10)
