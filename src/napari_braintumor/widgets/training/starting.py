"""Begin a training, or go on with one, in a worker thread: nothing here may touch Qt."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.files.written import corrected_folder, write_case
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.layers import Selection, volume_from_selection
from napari_braintumor.widgets.training.child import check_plan, start_training


@dataclass(frozen=True, eq=False)
class OpenCase:
    """A case of open layers, its voxels not read yet."""

    selection: Selection
    labels: Any
    convention: str
    reviewed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StartedRun:
    """A run that has a folder and a process."""

    run: Run
    process: subprocess.Popen[bytes]


def begin(plan: TrainPlan, case: OpenCase | None) -> Generator[StartedRun, None, None]:
    """Write the open layers into the run's folder, if they are what is learned from, and start its process."""
    if case is None:
        run = Run.start(plan)
    else:
        folder = plan.output / plan.name
        try:
            folder.mkdir(parents=True)  # by this dock alone, so it is this dock's to take away
        except FileExistsError as error:
            raise SettingsError(f"A run '{plan.name}' was begun elsewhere meanwhile. Press Train again.") from error
        except OSError as error:
            raise SettingsError(
                f"The run's folder '{folder}' cannot be made: {error.strerror or error}. Make room, or look at its "
                "permissions."
            ) from error
        try:
            write_open_case(folder / "cases", case)
            run = Run.start(plan)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    yield StartedRun(run, start_training(run))


def go_on(run: Run) -> Generator[StartedRun, None, None]:
    """Start a process for a run that was begun before."""
    if run.is_running:
        raise SettingsError(f"'{run.folder.name}' is being trained already. Watch it under Earlier runs.")
    yield StartedRun(run, start_training(run))


def keep_case(case: OpenCase) -> Generator[Path, None, None]:
    """Write open layers among the user's corrected cases."""
    yield write_open_case(corrected_folder(), case)


def write_open_case(folder: Path, case: OpenCase) -> Path:
    """Read the voxels of open layers and write them as a case."""
    volume = volume_from_selection(case.selection)
    return write_case(folder, volume, case.labels, case.convention, reviewed=case.reviewed or None)


def try_batch(plan: TrainPlan) -> Generator[str, None, None]:
    """Let a child process try one batch of a plan."""
    yield check_plan(plan)


def find_free_name(name: str, folder: Path) -> str:
    """Return a name that no run of a folder and no model has yet."""
    taken = {model.name for model in ModelStore().list()}
    free, number = name, 2
    while free in taken or (folder / free).exists():
        free, number = f"{name}-{number}", number + 1
    return free
