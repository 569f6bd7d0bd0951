"""Training in a process of its own: it frees its memory when it ends, can be stopped, and outlives the viewer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.runs import Run

COMMAND = (sys.executable, "-P", "-m", "napari_braintumor")  # -P: nothing is imported from the folder it is started in
TAIL_CHARACTERS = 4000
WINDOWS_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0)


def start_training(run: Run) -> subprocess.Popen[bytes]:
    """Start, or go on with, a run at low priority. It goes on when the viewer is closed."""
    run.withdraw_stop()
    with output_path(run).open("ab") as output:  # another process may be about to notice that it comes too late
        process = subprocess.Popen(
            [*COMMAND, "train", str(run.folder), "--background"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=sys.platform != "win32",
            creationflags=WINDOWS_FLAGS,
        )
    # Somebody must wait for it, or it stays as a zombie; it may outlive whoever started it.
    Thread(target=process.wait, daemon=True).start()
    return process


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
