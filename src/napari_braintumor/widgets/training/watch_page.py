"""Watch a run in the Train dock: follow it, stop it, delete it, and use what it has made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QMessageBox, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.training.runs import Run, find_parent
from napari_braintumor.layers import update_or_add_preview
from napari_braintumor.widgets.shared.dock import open_dock
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import copy_text, literal, name_widget
from napari_braintumor.widgets.shared.preferences import MODELS
from napari_braintumor.widgets.training.child import read_tail
from napari_braintumor.widgets.training.run_view import TrainingView
from napari_braintumor.widgets.training.runs_list import RESUMABLE
from napari_braintumor.widgets.training.watching import RunNews, watch

if TYPE_CHECKING:
    import napari

PATIENCE_WITH_STOP_MS = 10_000


class WatchPage(QWidget):
    """One run from its beginning to its end.

    Parameters
    ----------
    viewer
        The viewer that gets the preview.
    message
        Where the dock shows what happens.
    picture_width
        Returns how many pixels wide the preview may be.

    Attributes
    ----------
    run
        The one that is watched.
    job
        What follows it, until it ends.
    buttons
        What can be done with the run, for the dock's footer.
    """

    resume_asked = Signal(object)
    """A `Run` to go on with."""

    left = Signal()
    """The user wants back to the tabs."""

    runs_changed = Signal()
    """A run has ended or is deleted."""

    def __init__(self, viewer: napari.viewer.Viewer, message: Message, picture_width: Callable[[], int]) -> None:
        super().__init__()
        self._viewer = viewer
        self._message = message
        self._picture_width = picture_width
        self.run: Run | None = None
        self.job: Job | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._details = ""
        self._asked_to_stop = False
        self._installed: tuple[str, Path] | None = None
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.timeout.connect(self._lose_patience)
        self.view = TrainingView()
        self.view.use_button.clicked.connect(self._use)
        self.view.undo_button.clicked.connect(self._undo)
        self.view.details_button.clicked.connect(self._copy_details)
        self.stop_button = QPushButton("Stop and keep best")
        name_widget(self.stop_button, "Stop and keep best", "End after the current step; the best weights are kept")
        self.stop_button.clicked.connect(self._stop)
        self.discard_button = QPushButton("Discard…")
        name_widget(self.discard_button, "Discard", "End the training if it still runs, and delete what it made")
        self.discard_button.clicked.connect(self._discard)
        self.resume_button = QPushButton("Resume")
        name_widget(self.resume_button, "Resume", "Go on from the last checkpoint")
        self.resume_button.clicked.connect(self._resume)
        self.back_button = QPushButton("New training")
        name_widget(self.back_button, "New training", "Back to the tabs")
        self.back_button.clicked.connect(self.left)
        self.buttons = (self.stop_button, self.discard_button, self.resume_button, self.back_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.view)

    def watch(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        """Show a run, from its beginning, and follow it as long as its process lives, here or elsewhere."""
        self.leave()
        self.run, self._process = run, process
        self._details = ""
        self._asked_to_stop = False
        self._installed = None
        self.view.clear(run)
        self._message.show_text("")
        self._show_buttons(self.stop_button, self.discard_button)
        self.job = job = Job(self, f"Train {run.folder.name}", watch, run, partial(_is_alive, run, process))
        job.happened.connect(self._show_news)
        job.failed.connect(partial(self._show_failure, job))
        job.ended.connect(partial(self._end, job))
        job.start()

    def leave(self) -> None:
        """Look no more; the run goes on."""
        if self.job is not None:
            self.job.cancel()
        self.run = self.job = None
        self._show_buttons()

    def delete(self, run: Run, question: str) -> None:
        """Delete a run, if the user is sure, and end its process if it still has one."""
        if QMessageBox.question(self, "Brain Tumor", literal(question)) != QMessageBox.StandardButton.Yes:
            return
        if run == self.run and self.job is not None:
            self.job.cancel()
        try:
            if run == self.run and self._process is not None:
                self._process.kill()  # it may not have begun to train yet
                self._process.wait(5)
            run.discard()
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        self.left.emit()
        self._message.show_text(f"'{run.folder.name}' is deleted.")
        self.runs_changed.emit()

    # ---------------------------------------------------------------------------------------------- following

    def _show_news(self, news: RunNews) -> None:
        self.view.add(news.events)
        if news.curves is not None:
            self.view.show_curves(news.curves)
        if (preview := news.preview) is not None:
            self.view.show_preview(preview, self._picture_width())
            update_or_add_preview(self._viewer, preview.case, preview.z, preview.labels)

    def _show_failure(self, job: Job, failure: Failure) -> None:
        if job is self.job:
            self._message.show_failure(failure)

    def _end(self, job: Job) -> None:
        if job is not self.job:  # another run is watched by now, or none
            return
        self.job, run = None, self.run
        if job.cancelled or run is None:
            return
        self._details = "" if self.view.trained is not None or self.view.stopped is not None else read_tail(run)
        self.view.details_button.setVisible(bool(self._details))
        self.view.show_end(self._describe_end())
        complete = self.view.trained is not None and self.view.stopped is None
        resumable = not complete and run.plan_path.exists() and run.status in RESUMABLE
        useful = [self.discard_button] if self.view.trained is not None else []
        self._show_buttons(*([self.resume_button] if resumable else []), *useful, self.back_button)
        self._message.show_text("")
        self.runs_changed.emit()

    def _describe_end(self) -> str:
        view = self.view
        if view.failed is not None:
            return f"failed. {view.failed.reason} Progress before that is kept; Resume continues from there."
        if view.stopped is not None:
            return f"stopped. {view.stopped.reason}"
        if view.trained is not None:
            score = view.trained.score
            return "complete, not validated." if score is None else f"complete, score {score:.3f}"
        code = self._process.poll() if self._process is not None else None
        how = f" (exit code {code})" if code is not None else ""
        return (
            f"the training process ended unexpectedly{how}. Nothing that was saved is lost: Resume goes on from the "
            "last checkpoint."
        )

    def _show_buttons(self, *shown: QPushButton) -> None:
        for button in self.buttons:
            button.setVisible(button in shown)

    def _copy_details(self) -> None:
        copy_text(self._details)

    # ---------------------------------------------------------------------------------------------- ending

    def _stop(self) -> None:
        run = self.run
        if run is None:
            return
        if self._asked_to_stop:  # by this dock: another one may have asked before
            if self._process is not None and self._process.poll() is None:
                self._process.kill()  # it may not have begun to train yet
            run.terminate()
            return
        self._asked_to_stop = True
        try:
            run.request_stop()
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        self._message.show_text("Stopping after the current step…")
        self._patience.start(PATIENCE_WITH_STOP_MS)

    def _lose_patience(self) -> None:
        if self.run is not None and self.job is not None and self.run.stop_requested:
            self._message.show_text(
                "The current step takes long. Press Stop once more to end at once, at the last checkpoint."
            )

    def _discard(self) -> None:
        if self.run is not None:
            ends = "End the run" if self.job is not None else "Discard"
            self.delete(self.run, f"{ends} '{self.run.folder.name}' and delete all of it?")

    def _resume(self) -> None:
        if self.run is not None:
            self.resume_asked.emit(self.run)

    # ---------------------------------------------------------------------------------------------- the result

    def _use(self) -> None:
        """Put the run's model into the user's store and choose it in the Segment dock."""
        if self.run is None:
            return
        try:
            model = ModelStore().install(self.run.model_path)
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        self._installed = model.name, model.path
        self._choose_in_segment(model.path)
        self._message.show_text(f"'{model.name}' is now among your models.")
        self.view.use_button.hide()
        self.view.undo_button.setVisible(find_parent(self.run) is not None)
        MODELS.changed.emit()

    def _undo(self) -> None:
        """Take the new version away again and choose its parent."""
        if self._installed is None or self.run is None:
            return
        parent = find_parent(self.run)
        try:
            ModelStore().remove(self._installed[0])
            known = ModelStore().find(parent.name) if parent else None
        except BrainTumorError as error:
            self._message.show_text(str(error))
            return
        if known is not None:
            self._choose_in_segment(known.path)
        self._message.show_text(f"'{self._installed[0]}' is removed; its file stays in the run's folder.")
        self._installed = None
        self.view.undo_button.hide()
        self.view.use_button.show()
        MODELS.changed.emit()

    def _choose_in_segment(self, path: Path) -> None:
        from napari_braintumor.widgets.segmenting.dock import SegmentDock

        if (dock := open_dock(self._viewer, SegmentDock)) is not None:
            dock.choose_model(path)


def _is_alive(run: Run, process: subprocess.Popen[bytes] | None) -> bool:
    return process.poll() is None if process is not None else run.is_running
