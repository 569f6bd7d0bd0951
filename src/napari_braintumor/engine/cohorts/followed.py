"""A cohort's run that a window has started: what was asked for, its process and its events, beside the results.

The run itself is the command line's, in a process that outlives the window; whoever opens the folder of results later
finds here what there is to follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import Field, ValidationError

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.cohorts.bids import is_bids_dataset
from napari_braintumor.engine.cohorts.marks import FOLDER
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.settings import DEFAULT_MODEL, Frozen
from napari_braintumor.engine.training.run_lock import is_at_work, read_process

Status = Literal["new", "running", "paused", "broken off", "done"]

SILENT_S = 600.0
"""A run on another machine that reports nothing for so long is taken for dead."""

_ASKED = "asked"
_TAIL_BYTES = 65_536
_PATIENCE_S = 5.0


def suggest_output(dataset: Path, cases: Sequence[CaseFiles] = ()) -> Path:
    """Return where the results of a dataset go unless somebody says otherwise: never among the scans.

    Parameters
    ----------
    dataset
        A folder or a table.
    cases
        What was found in it.

    Returns
    -------
    Path
        A folder beside the dataset, which is not named after a folder of DICOM files, since that may be the patient's
        name; in BIDS that of the derivatives.
    """
    if is_bids_dataset(dataset):
        return dataset / "derivatives" / "napari-braintumor"
    if any(case.group == "dicom" for case in cases):
        return dataset.with_name("cohort_tumors")
    return dataset.with_name(f"{dataset.stem if dataset.is_file() else dataset.name}_tumors")


class CohortRequest(Frozen):
    """What is to be segmented, and with which model."""

    dataset: Path | None = Field(description="The dataset; None where its path may name a patient.")
    dataset_sha256: str = Field(description="The digest of its path, by which it is recognized.")
    model: str = DEFAULT_MODEL

    def is_of(self, dataset: Path) -> bool:
        """Whether this dataset is meant."""
        return self.dataset_sha256 == _digest(dataset)


def make_request(dataset: Path, model: str, cases: Sequence[CaseFiles] = ()) -> CohortRequest:
    """Return a request, without the path of DICOM files, which archives name after patients.

    Parameters
    ----------
    dataset, model
        What is to be segmented, and the name of the model.
    cases
        What was found in the dataset.

    Returns
    -------
    CohortRequest
        It may be kept among the results.
    """
    named = any(case.group == "dicom" for case in cases)
    return CohortRequest(dataset=None if named else dataset.absolute(), dataset_sha256=_digest(dataset), model=model)


@dataclass(frozen=True)
class FollowedRun:
    """A cohort's run, by its folder of results.

    Attributes
    ----------
    output
        The folder of results.
    """

    output: Path

    @property
    def folder(self) -> Path:
        """Where all this is kept."""
        return self.output / FOLDER

    @property
    def events_path(self) -> Path:
        """The file of events, lines of JSON as the command line prints them."""
        return self.folder / "events.jsonl"

    @property
    def messages_path(self) -> Path:
        """The file with all else that the process printed."""
        return self.folder / "messages.txt"

    @property
    def request(self) -> CohortRequest | None:
        """What was asked for; None if no window has started a run here."""
        try:
            return CohortRequest.model_validate_json(self._request_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    @property
    def is_running(self) -> bool:
        """Whether its process lives, on this machine or, as far as can be seen, on another."""
        return is_at_work(self._process_path, self.events_path, SILENT_S)

    @property
    def status(self) -> Status:
        """How it stands."""
        if self.is_running:
            return "running"
        last = self._read_last()
        if last is None:
            return "new"
        if last.get("event") == "done":
            return "done"
        return "paused" if self._paused_path.exists() else "broken off"

    def ask(self, request: CohortRequest, dataset: Path) -> None:
        """Write down what is to be done now with a dataset; events of another request are forgotten.

        Raises
        ------
        SettingsError
            If the results would lie among the scans.
        DataError
            If the folder of results cannot be written to.
        """
        output = self.output.resolve()
        derived = output.is_relative_to(suggest_output(dataset).resolve())
        if output.is_relative_to(dataset.resolve()) and not derived:
            raise SettingsError(f"The folder '{self.output}' lies among the cases. Choose one outside for the results.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._paused_path.unlink(missing_ok=True)
            if self.request != request:
                self.events_path.unlink(missing_ok=True)
                self._write(self._request_path, request.model_dump_json(indent=1))
            with self.events_path.open("a", encoding="utf-8") as file:
                file.write(f'\n{{"event": "{_ASKED}"}}\n')  # the line before may be torn
            self.messages_path.write_bytes(b"")
        except OSError as error:
            raise DataError(
                f"The folder '{self.output}' cannot be written to: {error.strerror or error}. Choose another folder."
            ) from error

    def note_process(self, pid: int) -> None:
        """Note which process does it; one that has ended already needs no note."""
        with suppress(psutil.NoSuchProcess):
            process = {"host": platform.node(), "pid": pid, "created": psutil.Process(pid).create_time()}
            self._write(self._process_path, json.dumps(process))

    def pause(self) -> None:
        """Ask the process to end as by Ctrl+C: what the network has given is still written. `ask` again to go on.

        Raises
        ------
        DataError
            If it runs on another machine.
        """
        process = self._find_process()
        if process is not None:
            self._paused_path.touch()
            if platform.system() == "Windows":  # where nobody can press Ctrl+C for another process
                process.terminate()
            else:
                process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """End the process at once, with those that it has started; what is written stays.

        Raises
        ------
        DataError
            If it runs on another machine.
        """
        process = self._find_process()
        if process is None:
            return
        self._paused_path.touch()
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.terminate()
        _, left = psutil.wait_procs(family, _PATIENCE_S)
        for each in left:
            each.kill()

    def read_events(self, position: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the events from a position in the file on.

        Returns
        -------
        tuple
            The events, and the position to go on from. Torn lines are passed over; ``asked`` begins each start.
        """
        try:
            with self.events_path.open("rb") as file:
                if file.seek(0, 2) < position:  # another request took its place
                    position = 0
                file.seek(position)
                raw = file.read()
        except OSError:
            return [], position
        used = raw.rfind(b"\n") + 1
        return _parse(raw[:used].splitlines()), position + used

    def read_reason(self) -> str:
        """Return the last line that the process printed for people, such as why it could not start."""
        try:
            text = self.messages_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")

    @property
    def _request_path(self) -> Path:
        return self.folder / "request.json"

    @property
    def _process_path(self) -> Path:
        return self.folder / "process.json"

    @property
    def _paused_path(self) -> Path:
        return self.folder / "paused"

    def _write(self, path: Path, text: str) -> None:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _find_process(self) -> psutil.Process | None:
        if not self.is_running:
            return None
        process = read_process(self._process_path)
        if process["host"] != platform.node():
            raise DataError("The run is that of another machine. Pause or stop it there.")
        try:
            return psutil.Process(process["pid"])
        except psutil.NoSuchProcess:
            return None

    def _read_last(self) -> dict[str, Any] | None:
        try:
            with self.events_path.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                events = _parse(file.read().splitlines())
        except OSError:
            return None
        return events[-1] if events else None


def _digest(dataset: Path) -> str:
    return hashlib.sha256(os.fsencode(dataset.absolute())).hexdigest()


def _parse(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events
