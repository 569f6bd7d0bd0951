"""Training in a process of its own: it frees its memory when it ends, can be stopped, and outlives the viewer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.widgets.shared.child import COMMAND, start_child

TAIL_CHARACTERS = 4000


def start_training(run: Run) -> subprocess.Popen[bytes]:
    """Start, or go on with, a run at low priority. It goes on when the viewer is closed."""
    run.withdraw_stop()
    with output_path(run).open("ab") as output:  # another process may be about to notice that it comes too late
        return start_child("train", str(run.folder), "--background", output=output, errors=subprocess.STDOUT)


def check_plan(plan: TrainPlan) -> str:
    """Let a child process try one batch of a plan and return its report; takes seconds, so call it in a worker.

    Returns
    -------
    str
        The last line that the child printed.

    Raises
    ------
    SettingsError
        With the child's own words, if the plan does not work.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json(), encoding="utf-8")
        finished = subprocess.run(
            [*COMMAND, "train", str(path), "--check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [
        line for line in (finished.stdout if finished.returncode == 0 else finished.stderr).splitlines() if line.strip()
    ]
    if finished.returncode != 0:
        raise SettingsError(lines[-1] if lines else f"The check ended with exit code {finished.returncode}.")
    return lines[-1]


def output_path(run: Run) -> Path:
    """Return the file with all that the child process printed."""
    return run.folder / "output.txt"


def read_tail(run: Run) -> str:
    """Return the last of what the child process printed."""
    try:
        return output_path(run).read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:]
    except OSError:
        return ""
