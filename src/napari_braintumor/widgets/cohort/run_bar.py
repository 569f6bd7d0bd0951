"""The run of a cohort at the foot of its dock: started, paused, gone on with, stopped, and followed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.cohorts.cohort_events import describe_left
from napari_braintumor.engine.cohorts.followed import CohortRequest, FollowedRun
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.widgets.cohort.watching import CohortNews, follow_run, start_run, stop_run
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import make_line, name_widget

_RUN_TIP = (
    "Segment the cases in a process of their own; you can go on working, or close napari. Cases that have a result "
    "are not segmented again (Ctrl+Return)"
)
_PAUSE_TIP = "End once what the network has given is written; Resume goes on from there (Ctrl+Return)"


class RunBar(QWidget):
    """How a run stands, and what can be done with it.

    Parameters
    ----------
    message
        Where the dock says what went wrong.

    Attributes
    ----------
    run
        The one that is shown.
    run_button, stop_button
        The first one starts, pauses and resumes.
    """

    start_asked = Signal()
    """The user wants to start a run, or to go on with it."""

    followed = Signal()
    """Another run is shown, from its beginning."""

    news = Signal(object)
    """`CohortNews` of the run."""

    changed = Signal()
    """The run was started, or has ended."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self._message = message
        self.run: FollowedRun | None = None
        self._following: Job | None = None
        self._doing: Job | None = None
        self._ending = ""  # what the user waits for: pausing or stopping
        self._ready = False
        self.state_line = make_line("", "How the run stands")
        self.bar = QProgressBar()
        name_widget(self.bar, "Progress", "How many cases are over")
        self.run_button = QPushButton("Run")
        self.run_button.setDefault(True)
        self.run_button.clicked.connect(self._run_or_pause)
        self.stop_button = QPushButton("Stop")
        name_widget(self.stop_button, "Stop", "End the run at once. Results stay, and Resume goes on from them")
        self.stop_button.clicked.connect(self._stop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.state_line, self.bar, self.run_button, self.stop_button):
            column.addWidget(widget)
        self._show()

    @property
    def running(self) -> bool:
        """Whether a run is followed."""
        return self._following is not None

    def allow(self, ready: bool) -> None:
        """Let a run be started, or not."""
        self._ready = ready
        self._show()

    def start(self, request: CohortRequest, dataset: Path, output: Path) -> None:
        """Start a run of a dataset, or go on with the one of the same request."""
        if self._doing is not None or self.running:
            return
        run = FollowedRun(output)
        try:
            run.ask(request, dataset)
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        self._do("Starting…", start_run, run, dataset)

    def follow(self, run: FollowedRun) -> None:
        """Show a run from its beginning, and follow it as long as its process lives."""
        if self.running and run == self.run:
            return
        self.leave()
        self.run = run
        self.followed.emit()
        self._following = job = Job(self, "Follow a cohort", follow_run, run)
        job.happened.connect(partial(self._take, job))
        job.failed.connect(self._message.show_failure)
        job.ended.connect(partial(self._end, job))
        job.start()
        self._show()
        self.changed.emit()

    def leave(self) -> None:
        """Follow no run any more; it goes on."""
        if self._following is not None:
            self._following.cancel()
        self._following = self.run = None
        self._ending = ""
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self._show()

    # ---------------------------------------------------------------------------------------------- buttons

    def _run_or_pause(self) -> None:
        if self.run is None or not self.running:
            self.start_asked.emit()
            return
        try:
            self.run.pause()
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        self._ending = "Pausing…"
        self._show()

    def _stop(self) -> None:
        if self.run is not None and self._doing is None:
            self._ending = "Stopping…"
            self._do(self._ending, stop_run, self.run)

    def _do(self, said: str, generator: Any, *args: Any) -> None:
        self._doing = job = Job(self, "Cohort", generator, *args)
        job.happened.connect(self.follow)
        job.failed.connect(self._message.show_failure)
        job.ended.connect(self._end_doing)
        job.start()
        self._show()
        self.state_line.setText(said)

    def _end_doing(self) -> None:
        self._doing = None
        self._show()

    # ---------------------------------------------------------------------------------------------- following

    def _take(self, job: Job, news: CohortNews) -> None:
        if job is not self._following:
            return
        if news.overall is not None:
            done, total, left_s = news.overall
            self.bar.setRange(0, total)
            self.bar.setValue(done)
            left = f", {describe_left(left_s)} left" if left_s else ""
            self.state_line.setText(self._ending or f"{done} of {total} cases are over{left}")
        if news.begun or news.cases:
            self.news.emit(news)

    def _end(self, job: Job) -> None:
        if job is self._following:
            self._following, self._ending = None, ""
            self._show()
            self.changed.emit()

    def _show(self) -> None:
        status = self.run.status if self.run is not None and not self.running else ""
        if self.running:
            name_widget(self.run_button, "Pause", _PAUSE_TIP)
        else:
            name_widget(self.run_button, "Resume" if status in ("paused", "broken off") else "Run", _RUN_TIP)
        self.run_button.setText(self.run_button.accessibleName())
        idle = self._doing is None and not self._ending
        self.run_button.setEnabled(idle and (self.running or self._ready))
        self.stop_button.setVisible(self.running)
        self.stop_button.setEnabled(self._doing is None)
        self.bar.setVisible(self.run is not None)
        if self.run is None or self.running:
            self.state_line.setText(self._ending or ("Reading the results…" if self.running else ""))
        elif status == "broken off":
            self.state_line.setText(" ".join(("The run ended before it was done.", self.run.read_reason())).strip())
        else:
            self.state_line.setText({"paused": "Paused.", "done": "All cases are over."}.get(status, ""))
