"""One job at a time for a dock, and what it has to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_braintumor.widgets.shared.jobs import Failure, Job


class OneJob(QObject):
    """Runs a job in a worker thread, and no second one meanwhile."""

    reported = Signal(str)
    """What was done, or why nothing was."""

    failed = Signal(object)
    """A `Failure` that is not the user's fault."""

    busy_changed = Signal()
    """A job has begun or ended."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def start(self, job: Job, take: Callable[[Any], None]) -> None:
        """Start a job; each event it yields goes to `take`, in the window's thread."""
        job.happened.connect(take)
        job.failed.connect(self._fail)
        job.ended.connect(self._end)
        self._job = job
        self.busy_changed.emit()
        job.start()

    def _fail(self, failure: Failure) -> None:
        if failure.details:
            self.failed.emit(failure)
        else:
            self.reported.emit(failure.text)

    def _end(self) -> None:
        self._job = None
        self.busy_changed.emit()
