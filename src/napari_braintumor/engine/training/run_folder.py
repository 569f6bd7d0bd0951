"""The files in the folder of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a training lie.

    Parameters
    ----------
    folder
        Holds at least ``plan.json``; what is not needed, or not written yet, is missing.
    """

    folder: Path

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
        """Locked by the process that trains; beside the folder."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def _stop_path(self) -> Path:
        return self.folder / "stop"

    @property
    def _process_path(self) -> Path:
        return self.folder / "process.json"
