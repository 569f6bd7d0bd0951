"""Runs: one training on disk, so that nothing can be lost and anyone can watch.

The folder of a run holds ``plan.json``, ``split.json``, ``events.jsonl`` (what happened, a line each), ``log.txt`` (the
same for people), ``checkpoint.safetensors`` (to go on from), ``model.safetensors`` (what is kept), ``curves.png`` and
``preview.npz``; where they are needed ``parent.safetensors`` (the model it started from) and ``cases`` (made of open
layers). Only the process that trains writes to it, but for the file ``stop`` by which it is asked to end. That process
holds a lock, a hidden file beside the folder, which the system takes back when the process dies, however it dies;
``process.json`` tells who it is.

No torch here: a dock reads runs with this module.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout
from platformdirs import user_data_path
from pydantic import ValidationError

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import BrainTumorError, DataError, SettingsError
from napari_braintumor.engine.events import (
    BatchDone,
    Failed,
    PhaseReached,
    PreviewDone,
    Resumed,
    Stopped,
    Trained,
    TrainingEvent,
    Verified,
)
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.run_log import describe_event, ends_a_line, parse_events, write_event

ASKED = "You asked for it."
"""Why a run was stopped by `Run.request_stop`."""

LOCK_S = 15.0
"""How long a lock is waited for that nobody seems to use."""

CLOCK_S = 2.0
"""By how much the system may be off with the time when a process began, and when a file was written."""

SILENT_S = 300.0
"""A run on another machine that has told nothing for so long is taken to have broken off."""

Status = Literal["new", "running", "complete", "stopped", "failed", "broken off"]


@dataclass(frozen=True)
class Run:
    """The folder of a training.

    Parameters
    ----------
    folder
        Holds at least ``plan.json``; use `start` or `open` to be sure of it.
    """

    folder: Path

    @classmethod
    def start(cls, plan: TrainPlan) -> Run:
        """Make the folder of a plan's run; if it is there already with the same plan, that run is meant.

        Paths of the plan are kept absolute, but those inside the folder relative to it, so that it can be moved.

        Raises
        ------
        SettingsError
            If the folder belongs to another plan.
        DataError
            If it cannot be written.
        """
        plan = _resolve(plan, Path.cwd())
        run = cls((plan.output / plan.name).resolve())
        if not run.plan_path.exists():
            try:
                run.folder.mkdir(parents=True, exist_ok=True)
                with run._locked(unless=run.plan_path.exists):
                    if not run.plan_path.exists():
                        run._write_plan(plan)
            except OSError as error:
                raise DataError(
                    f"The run's folder '{run.folder}' cannot be written: {error.strerror or error}. Choose another "
                    "output folder."
                ) from error
        if run.plan != plan:
            raise SettingsError(
                f"'{run.folder}' holds a run with another plan. Give this one another name or output folder, or "
                "delete the old run."
            )
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in a folder.

        Raises
        ------
        SettingsError
            If it holds none, or its plan is not valid.
        """
        run = cls(Path(folder).resolve())
        _ = run.plan
        return run

    @property
    def plan(self) -> TrainPlan:
        """Its plan, with absolute paths.

        Raises
        ------
        SettingsError
            If it cannot be read.
        """
        plan = _resolve(read_plan(self.plan_path), self.folder)
        # The folder may have been moved or renamed since.
        return plan.model_copy(update={"output": self.folder.parent})

    @property
    def plan_path(self) -> Path:
        """All that is needed to do it again."""
        return self.folder / "plan.json"

    @property
    def split_path(self) -> Path:
        """Which patients, or slices, are on which side."""
        return self.folder / "split.json"

    @property
    def events_path(self) -> Path:
        """What happened, a line of JSON each."""
        return self.folder / "events.jsonl"

    @property
    def log_path(self) -> Path:
        """What happened, for people; with the tracebacks of errors."""
        return self.folder / "log.txt"

    @property
    def checkpoint_path(self) -> Path:
        """All that is needed to go on."""
        return self.folder / "checkpoint.safetensors"

    @property
    def model_path(self) -> Path:
        """The weights that are kept, with their card."""
        return self.folder / "model.safetensors"

    @property
    def parent_path(self) -> Path:
        """A copy of the model it started from."""
        return self.folder / "parent.safetensors"

    @property
    def curves_path(self) -> Path:
        """Loss, Dice and learning rate as a picture."""
        return self.folder / "curves.png"

    @property
    def preview_path(self) -> Path:
        """The last preview: arrays ``image``, ``reference``, ``predicted`` (Y, X) and ``z``, ``case``, ``epoch``."""
        return self.folder / "preview.npz"

    @property
    def cases_folder(self) -> Path:
        """Cases that were made of open layers for this run."""
        return self.folder / "cases"

    @property
    def cache_folder(self) -> Path:
        """Prepared cases that did not fit into memory; may be deleted when the run does not run."""
        return self.folder / "cache"

    @property
    def _lock_path(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def _stop_path(self) -> Path:
        return self.folder / "stop"

    @property
    def _process_path(self) -> Path:
        return self.folder / "process.json"

    # -------------------------------------------------------------------------------------------------- watching

    def read_events(self) -> list[TrainingEvent]:
        """Return all that was told so far, also of steps that were done again."""
        return parse_events(self.events_path.read_bytes())[0] if self.events_path.exists() else []

    @property
    def status(self) -> Status:
        """How it stands. `failed` told an error, `broken off` was killed; both can be resumed."""
        if self.is_running:
            return "running"
        ends = [e for e in self.read_events() if isinstance(e, Resumed | Verified | Stopped | Trained | Failed)]
        if not ends or isinstance(ends[-1], Resumed | Verified):
            return "broken off" if ends else "new"
        if isinstance(ends[-1], Failed):
            return "failed"
        before = ends[-2] if len(ends) > 1 and isinstance(ends[-1], Trained) else ends[-1]
        return "stopped" if isinstance(before, Stopped) else "complete"

    @property
    def is_running(self) -> bool:
        """Whether a process trains here now, on this machine or, as far as can be told, on another."""
        try:
            process = self._read_process()
            if process["host"] == platform.node():
                alive = psutil.Process(process["pid"])
                return bool(abs(alive.create_time() - process["created"]) < 5 and alive.status() != "zombie")
            return time.time() - self.events_path.stat().st_mtime < SILENT_S
        except (OSError, ValueError, KeyError, psutil.Error):
            return False

    @property
    def is_ours(self) -> bool:
        """Whether it is this process that trains here now."""
        try:
            process = self._read_process()
            return bool(process["host"] == platform.node() and process["pid"] == os.getpid())
        except (OSError, ValueError, KeyError):
            return False

    def _read_process(self) -> dict[str, Any]:
        process: dict[str, Any] = json.loads(self._process_path.read_text(encoding="utf-8"))
        return process

    def request_stop(self) -> None:
        """Ask the process that trains here, or is about to, to end after its present batch and to keep the best."""
        self.write_text(self._stop_path, json.dumps(_describe_process()))

    def withdraw_stop(self) -> None:
        """Forget that the run was asked to end, before a process is started that shall go on with it."""
        self._stop_path.unlink(missing_ok=True)

    def terminate(self) -> None:
        """End the process that trains here at once, if it is on this machine; the last checkpoint stays."""
        if not self.is_running:
            return
        with suppress(OSError, ValueError, KeyError, psutil.Error):
            process = self._read_process()
            if process["host"] == platform.node():
                alive = psutil.Process(process["pid"])
                alive.kill()
                alive.wait(5)
                self.withdraw_stop()

    def discard(self) -> None:
        """End the run and delete its folder.

        Raises
        ------
        DataError
            If it cannot be deleted.
        """
        self.terminate()
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise DataError(f"'{self.folder}' cannot be deleted: {error.strerror}. Delete it by hand.") from error

    # --------------------------------------------------------------------------------------------------- writing

    @property
    def stop_requested(self) -> bool:
        """Whether someone asked the run to end."""
        return self._stop_path.exists()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Mark the folder as being trained in by this process alone.

        The lock works among processes of one machine and, in a folder that machines share, among those machines as far
        as the share passes locks on, as NFS and SMB usually do; where it does not, what `is_running` can tell holds.
        A request to stop that is older than this process, or that this process made before, is forgotten; one that was
        made while it was starting is not.

        Raises
        ------
        SettingsError
            If another process trains in it.
        DataError
            If the folder cannot be written.
        """
        with self._locked():
            if self.is_running:
                raise self._taken()
            self.write_text(self._process_path, json.dumps(_describe_process()))
            if self._stop_is_old():
                self.withdraw_stop()
            try:
                yield
            finally:
                for path in (self._process_path, self._stop_path):
                    path.unlink(missing_ok=True)

    def _stop_is_old(self) -> bool:
        """Whether a request to stop was not meant for this process: it is older, or made by itself and then dropped."""
        me = _describe_process()
        try:
            if json.loads(self._stop_path.read_text(encoding="utf-8")) == me:
                return True
            # Both are lengths of time by one clock each, since that of a share may differ from ours.
            age_s = self._process_path.stat().st_mtime - self._stop_path.stat().st_mtime
        except (OSError, ValueError):
            return False
        return bool(age_s > time.time() - me["created"] + CLOCK_S)

    @contextmanager
    def _locked(self, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the run's lock, or do without it when something has come true while waiting for it."""
        lock = FileLock(self._lock_path, thread_local=False)
        until = time.monotonic() + LOCK_S
        while True:
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:
                if unless():
                    break
                # Helpers of a process that was killed hold its lock until they notice, some seconds later.
                if self.is_running or time.monotonic() > until:
                    raise self._taken() from None
            except OSError as error:
                raise DataError(
                    f"The run's folder '{self.folder}' cannot be locked: {error.strerror or error}. Choose an output "
                    "folder that may be written to."
                ) from error
            time.sleep(0.05)
        try:
            yield
        finally:
            lock.release()

    def _taken(self) -> SettingsError:
        where = ""
        with suppress(OSError, ValueError, KeyError):
            host = self._read_process()["host"]
            where = "" if host == platform.node() else f" on '{host}'"
        return SettingsError(
            f"Another process{where} trains in '{self.folder}' now. Watch it, or stop it first."
            + (f" If it was killed there, wait {SILENT_S / 60:.0f} minutes." if where else "")
        )

    def _write_plan(self, plan: TrainPlan) -> None:
        if plan.start_from:
            with replacing(self.parent_path) as temporary:
                shutil.copyfile(ModelStore().find(plan.start_from).path, temporary)
        self.write_text(self.plan_path, _relate(plan, self.folder).model_dump_json(indent=1))

    def record(self, events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
        """Pass events on, writing each into the folder first; an error becomes a `Failed` and is raised on.

        Yields
        ------
        TrainingEvent
            Each event, once it is on disk.

        Raises
        ------
        DataError
            If the folder cannot be written any more, for instance because the disk is full.
        """
        try:
            for event in events:
                self._tell(event)
                yield event
        except Exception as error:
            known = isinstance(error, BrainTumorError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            with suppress(DataError):  # the disk may be full, which is what the error says then
                self._tell(Failed(reason), "" if known else traceback.format_exc())
            raise

    def write_text(self, path: Path, text: str) -> None:
        """Write a file of the folder, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _tell(self, event: TrainingEvent, details: str = "") -> None:
        line = write_event(event)
        try:
            torn = self.events_path.exists() and not ends_a_line(self.events_path)
            with self.events_path.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + line)
            if not isinstance(event, BatchDone | PhaseReached | PreviewDone):
                now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
                with self.log_path.open("a", encoding="utf-8") as file:
                    file.write(f"{now}  {describe_event(event)}\n{details}")
        except OSError as error:
            raise DataError(
                f"The run's folder '{self.folder}' cannot be written: {error.strerror}. Make room or give it write "
                "permission, then resume the run."
            ) from error


def read_plan(path: Path) -> TrainPlan:
    """Read a plan from a JSON file.

    Raises
    ------
    SettingsError
        If it cannot be read, or has an unknown or impossible field.
    """
    try:
        return TrainPlan.model_validate_json(_read_json_text(path))
    except OSError as error:
        raise SettingsError(f"The plan '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        problem = describe_problem(error) if isinstance(error, ValidationError) else "it is not text"
        raise SettingsError(f"The plan '{path}' is not valid: {problem}. Correct it there.") from error


def _read_json_text(path: Path) -> str:
    """Read JSON in whichever Unicode an editor wrote it, with a byte order mark or without."""
    raw = path.read_bytes()
    return raw.decode(json.detect_encoding(raw))


def read_side(path: Path) -> dict[str, list[int] | None]:
    """Return the validation side of a run's ``split.json``: its cases, each with its slices or None for all.

    Raises
    ------
    SettingsError
        If the file is not one.
    """
    try:
        side: dict[str, list[int] | None] = json.loads(_read_json_text(path))["validation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"'{path}' is not the split.json of a run. Choose that of the run's folder.") from error
    return side


def runs_folder() -> Path:
    """Return the folder of the user's runs; ``BRAINTUMOR_RUNS`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_RUNS")
    return Path(chosen) if chosen else user_data_path("napari-braintumor", appauthor=False) / "runs"


def list_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, the latest first."""
    if not folder.is_dir():
        return []
    found = [Run(path.parent) for path in folder.glob("*/plan.json")]
    return sorted(found, key=lambda run: _last_change(run), reverse=True)


def follow(run: Run, alive: Callable[[], bool] | None = None, interval_s: float = 0.2) -> Iterator[list[TrainingEvent]]:
    """Tell what happens in a run, from its beginning, until it tells its end or its process is gone.

    Parameters
    ----------
    run
        Any run, also one that another machine trains.
    alive
        Whether there is still a process to wait for; left out, `Run.is_running`.
    interval_s
        How often to look.

    Yields
    ------
    list of TrainingEvent
        What is new since the last look; empty lists too, so that whoever listens can stop.
    """
    alive = alive or (lambda: run.is_running)
    position, is_past = 0, True  # an end that lies in the past may be that of a session before this one
    while True:
        living = alive()  # asked before reading, so that the last words of a process are not missed
        events: list[TrainingEvent] = []
        if run.events_path.exists():
            with run.events_path.open("rb") as file:
                if file.seek(0, 2) < position:  # another run took its place
                    position = 0
                file.seek(position)
                events, used = parse_events(file.read())
                position += used
        yield events
        if not living or (events and not is_past and isinstance(events[-1], Trained | Failed)):
            return
        is_past = False
        time.sleep(interval_s)


def parent_of(run: Run) -> StoredModel | None:
    """Return the model a run started from, as it was then."""
    return ModelStore().find(run.parent_path) if run.parent_path.exists() else None


def _describe_process() -> dict[str, Any]:
    """Return what tells this process from all others."""
    mine = psutil.Process()
    return {"host": platform.node(), "pid": mine.pid, "created": mine.create_time()}


def _last_change(run: Run) -> float:
    path = run.events_path if run.events_path.exists() else run.plan_path
    return path.stat().st_mtime


def _resolve(plan: TrainPlan, base: Path) -> TrainPlan:
    """Make a plan's paths absolute."""

    def absolute(path: Path) -> Path:
        return (base / path.expanduser()).resolve()

    return _with_paths(plan, absolute)


def _relate(plan: TrainPlan, folder: Path) -> TrainPlan:
    """Make those paths of a plan relative that lie in the run's folder."""
    return _with_paths(plan, lambda path: path.relative_to(folder) if path.is_relative_to(folder) else path)


def _with_paths(plan: TrainPlan, change: Callable[[Path], Path]) -> TrainPlan:
    update: dict[str, Any] = {"cases": tuple(change(path) for path in plan.cases), "output": change(plan.output)}
    if plan.vgg16 is not None:
        update["vgg16"] = change(plan.vgg16)
    if plan.start_from is not None and plan.start_from.endswith(".safetensors"):
        update["start_from"] = str(change(Path(plan.start_from)))
    if plan.fine_tuning is not None:
        replay = tuple(change(path) for path in plan.fine_tuning.replay)
        update["fine_tuning"] = plan.fine_tuning.model_copy(update={"replay": replay})
    return plan.model_copy(update=update)
