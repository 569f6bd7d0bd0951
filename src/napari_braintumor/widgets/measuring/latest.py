"""What is computed in the background of something that changes: one job at a time, and never of an old state last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_braintumor.widgets.shared.jobs import Job

Prepared = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], None]]
"""A generator function, its arguments, and who takes its events."""


class Latest(QObject):
    """Runs a job when it is asked for, and once more at its end if it was asked for meanwhile.

    Parameters
    ----------
    dock
        The dock that the jobs belong to.
    title
        Shown in napari's activity dock, if a job takes long.
    prepare
        Returns what is to run as things are now; None if there is nothing to do.
    """

    failed = Signal(object)
    """A `Failure`."""

    def __init__(self, dock: QObject, title: str, prepare: Callable[[], Prepared | None]) -> None:
        super().__init__(dock)
        self._dock, self._title, self._prepare = dock, title, prepare
        self._job: Job | None = None
        self._again = False

    @property
    def idle(self) -> bool:
        """Whether no job runs."""
        return self._job is None

    def ask(self) -> None:
        """Compute it of what is there now."""
        if self._job is not None:
            self._again = True
            return
        prepared = self._prepare()
        if prepared is None:
            return
        generator, args, take = prepared
        self._job = job = Job(self._dock, self._title, generator, *args)
        job.happened.connect(take)
        job.failed.connect(self.failed)
        job.ended.connect(self._end)
        job.start()

    def _end(self) -> None:
        self._job = None
        if self._again:
            self._again = False
            self.ask()
