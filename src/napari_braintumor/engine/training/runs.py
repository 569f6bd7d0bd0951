"""Runs: one training on disk, so that nothing can be lost and anyone can watch.

Only the process that trains writes to a run's folder (`run_folder` names its files), but for the file ``stop`` by which
it is asked to end. That process holds a lock, which the system takes back when the process dies, however it dies.

No torch here: a dock reads runs with this module.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from filelock import Timeout

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import BrainTumorError, DataError, SettingsError, describe_origin, name_kind
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
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import make_paths_absolute, make_paths_relative, read_plan
from napari_braintumor.engine.training.run_folder import RunFolder
from napari_braintumor.engine.training.run_lock import acquire_lock, describe_process, is_at_work, read_process
from napari_braintumor.engine.training.run_log import append_event, append_to_log, parse_events

ASKED = "You asked for it."
"""Why a run was stopped by `Run.request_stop`."""

CLOCK_S = 2.0
"""By how much the system may be off with the time when a process began, and when a file was written."""

SILENT_S = 300.0
"""A run on another machine that has reported nothing for so long is taken to have broken off."""

Status = Literal["new", "running", "complete", "stopped", "failed", "broken off"]


@dataclass(frozen=True)
class Run(RunFolder):
    """The folder of a training; use `start` or `open` to be sure that it holds one."""

    @classmethod
    def start(cls, plan: TrainPlan) -> Run:
        """Make the folder of a plan's run; if it is there already with the same plan, that run is meant.

        Paths of the plan are kept absolute, but those inside the folder relative to it, so that it can be moved.

        Returns
        -------
        Run
            The run; whether it is to be resumed is up to its files.

        Raises
        ------
        SettingsError
            If the folder belongs to another plan.
        DataError
            If it cannot be written.
        """
        plan = make_paths_absolute(plan, Path.cwd())
        run = cls((plan.output / plan.name).resolve())
        if not run.plan_path.exists():
            try:
                run.folder.mkdir(parents=True, exist_ok=True)
                with run._lock(unless=run.plan_path.exists):
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

        Returns
        -------
        Run
            The run.

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
        plan = make_paths_absolute(read_plan(self.plan_path), self.folder)
        # The folder may have been moved or renamed since.
        return plan.model_copy(update={"output": self.folder.parent})

    # -------------------------------------------------------------------------------------------------- watching

    def read_events(self) -> list[TrainingEvent]:
        """Return all events so far, including those of steps that were done again."""
        return parse_events(self.events_path.read_bytes())[0] if self.events_path.exists() else []

    @property
    def status(self) -> Status:
        """How it stands. `failed` reported an error, `broken off` was killed; both can be resumed."""
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
        """Whether a process trains here now, on this machine or, as far as can be seen, on another."""
        return is_at_work(self._process_path, self.events_path, SILENT_S)

    @property
    def is_ours(self) -> bool:
        """Whether it is this process that trains here now."""
        try:
            process = read_process(self._process_path)
            return bool(process["host"] == platform.node() and process["pid"] == os.getpid())
        except (OSError, ValueError, KeyError):
            return False

    def request_stop(self) -> None:
        """Ask the process that trains here, or is about to, to end after its present batch and to keep the best."""
        self.write_text(self._stop_path, json.dumps(describe_process()))

    def withdraw_stop(self) -> None:
        """Forget that the run was asked to end, before a process is started that shall go on with it."""
        self._stop_path.unlink(missing_ok=True)

    def terminate(self) -> None:
        """End the process that trains here at once, if it is on this machine; the last checkpoint stays."""
        if not self.is_running:
            return
        with suppress(OSError, ValueError, KeyError, psutil.Error):
            process = read_process(self._process_path)
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
    def claim(self) -> Iterator[None]:
        """Mark the folder as being trained in by this process alone.

        The lock works among processes of one machine and, in a folder that machines share, among those machines as far
        as the share passes locks on, as NFS and SMB usually do; where it does not, what `is_running` can see holds.
        A request to stop that is older than this process, or that this process made before, is forgotten; one that was
        made while it was starting is not.

        Raises
        ------
        SettingsError
            If another process trains in it.
        DataError
            If the folder cannot be written.
        """
        with self._lock():
            if self.is_running:
                raise self._taken()
            self.write_text(self._process_path, json.dumps(describe_process()))
            if self._stop_is_old():
                self.withdraw_stop()
            try:
                yield
            finally:
                for path in (self._process_path, self._stop_path):
                    path.unlink(missing_ok=True)

    def _stop_is_old(self) -> bool:
        """Whether a request to stop was not meant for this process: it is older, or made by itself and then dropped."""
        me = describe_process()
        try:
            if json.loads(self._stop_path.read_text(encoding="utf-8")) == me:
                return True
            # Both are lengths of time by one clock each, since that of a share may differ from ours.
            age_s = self._process_path.stat().st_mtime - self._stop_path.stat().st_mtime
        except (OSError, ValueError):
            return False
        return bool(age_s > time.time() - me["created"] + CLOCK_S)

    @contextmanager
    def _lock(self, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the run's lock, or do without it when something has come true while waiting for it."""
        try:
            lock = acquire_lock(self._lock_path, lambda: self.is_running, unless)
        except Timeout:
            raise self._taken() from None
        except OSError as error:
            raise DataError(
                f"The run's folder '{self.folder}' cannot be locked: {error.strerror or error}. Choose an output "
                "folder that may be written to."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _taken(self) -> SettingsError:
        where = ""
        with suppress(OSError, ValueError, KeyError):
            host = read_process(self._process_path)["host"]
            where = "" if host == platform.node() else f" on '{host}'"
        return SettingsError(
            f"Another process{where} trains in '{self.folder}' now. Watch it, or stop it first."
            + (f" If it was killed there, wait {SILENT_S / 60:.0f} minutes." if where else "")
        )

    def _write_plan(self, plan: TrainPlan) -> None:
        if plan.start_from:
            with replacing(self.parent_path) as temporary:
                shutil.copyfile(ModelStore().find(plan.start_from).path, temporary)
        self.write_text(self.plan_path, make_paths_relative(plan, self.folder).model_dump_json(indent=1))

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
                self._report(event)
                yield event
        except Exception as error:
            is_expected = isinstance(error, BrainTumorError)
            reason = str(error) if is_expected else name_kind(error)
            with suppress(DataError):  # the disk may be full, which is what the error says then
                self._report(Failed(reason), "" if is_expected else describe_origin(error))
            raise

    def write_text(self, path: Path, text: str) -> None:
        """Write a file of the folder, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _report(self, event: TrainingEvent, details: str = "") -> None:
        try:
            append_event(self.events_path, event)
            if not isinstance(event, BatchDone | PhaseReached | PreviewDone):
                append_to_log(self.log_path, event, details)
        except OSError as error:
            raise DataError(
                f"The run's folder '{self.folder}' cannot be written: {error.strerror}. Make room or give it write "
                "permission, then resume the run."
            ) from error


def find_parent(run: Run) -> StoredModel | None:
    """Return the model a run started from, as it was then."""
    return ModelStore().find(run.parent_path) if run.parent_path.exists() else None
