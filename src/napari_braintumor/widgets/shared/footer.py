"""The foot of a dock: its one button, or while a job runs how far that is and Cancel."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.parts import make_line, name_widget


class Footer(QWidget):
    """A button to start jobs, one at a time.

    Parameters
    ----------
    button
        The dock's, which starts them.
    cancel_tooltip
        What Cancel does.

    Attributes
    ----------
    job
        The one that runs.
    """

    def __init__(self, button: QPushButton, cancel_tooltip: str) -> None:
        super().__init__()
        self.job: Job | None = None
        self._button = button
        button.setDefault(True)
        self.progress_line = make_line("", "Progress in words")
        self.progress_bar = QProgressBar()
        name_widget(self.progress_bar, "Progress", "How much is done")
        self.cancel_button = QPushButton("Cancel")
        name_widget(self.cancel_button, "Cancel", cancel_tooltip)
        self.cancel_button.clicked.connect(self.cancel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.progress_line, self.progress_bar, button, self.cancel_button):
            column.addWidget(widget)
        self._show_running(False)

    def run(self, job: Job, text: str) -> None:
        """Start a job, and say what it is about to do."""
        self.job = job
        self.show_progress(0, 1, text)  # an empty bar; one that moves without end costs more, see `_jobs.PROGRESS_MS`
        self._show_running(True)
        job.start()

    def show_progress(self, done: int, total: int, text: str) -> None:
        """Move the bar, and say the same in words."""
        self.progress_bar.setRange(0, total)
        self.progress_bar.setValue(done)
        self.progress_line.setText(text)

    def show_phase(self, event: PhaseReached) -> None:
        """Say which phase a job is in, and move the bar if it says how far that is."""
        self.show_progress(event.done, event.total or 1, f"{event.phase[:1].upper()}{event.phase[1:]}…")

    def show_last(self, text: str) -> None:
        """Say what is done at the end, in a moment, when nothing can be canceled any more."""
        self.show_progress(1, 1, text)
        self.cancel_button.setEnabled(False)

    def end(self) -> bool:
        """Let go of the job, which has ended; return whether it was canceled."""
        job, self.job = self.job, None
        self._show_running(False)
        return job is not None and job.cancelled

    def cancel(self) -> bool:
        """Ask the job to stop; return whether one runs that can."""
        if self.job is None or not self.cancel_button.isEnabled():
            return False
        self.job.cancel()
        self.cancel_button.setEnabled(False)
        self.progress_line.setText("Canceling…")
        return True

    def _show_running(self, running: bool) -> None:
        self.cancel_button.setEnabled(True)
        self._button.setVisible(not running)
        for widget in (self.progress_line, self.progress_bar, self.cancel_button):
            widget.setVisible(running)
