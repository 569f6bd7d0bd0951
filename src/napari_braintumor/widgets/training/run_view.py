"""A run as it is watched: state in words, time left, curves, a preview slice, the verdict at the end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.anatomy import find_region
from napari_braintumor.engine.events import (
    BatchDone,
    CaseLeftOut,
    EpochDone,
    Failed,
    Judged,
    Noted,
    PhaseReached,
    Resumed,
    Stopped,
    Trained,
    TrainingEvent,
    Verified,
)
from napari_braintumor.engine.training.curves import Curves
from napari_braintumor.engine.training.run_log import describe_event
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.widgets.shared.parts import in_words, make_line, name_widget
from napari_braintumor.widgets.shared.plots import Line, Plot
from napari_braintumor.widgets.training.watching import Preview

LINES = 6
FINE = 10_000
"""Parts of the bar, so that the first of many steps can be seen."""

LOSS_COLOR = "#4c8bf5"


class TrainingView(QWidget):
    """The state of the run that is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.headline = make_line("", "State of the run")
        self.time_line = make_line("", "Time left")
        self.bar = QProgressBar()
        name_widget(
            self.bar,
            "Progress of the training",
            "Share of the steps or of the time, whichever is larger",
        )
        self.verdict_line = make_line("", "Verdict")
        self.use_button = QPushButton("Use in Segment")
        name_widget(self.use_button, "Use in Segment", "Add the new model to yours and choose it in Segment")
        self.undo_button = QPushButton("Back to the parent")
        name_widget(self.undo_button, "Back to the parent", "Remove the new model and choose its parent")
        self.loss_plot = Plot("loss")
        self.dice_plot = Plot("Dice on validation", (0.0, 1.0))
        self.rate_plot = Plot("learning rate")
        self.preview_line = make_line("", "What the preview shows")
        self.preview = QLabel()
        self.preview.setAccessibleName("Preview: reference on the left, prediction on the right")
        self.log_line = make_line("", "Last lines of the log")
        self.details_button = QPushButton("Copy details")
        name_widget(self.details_button, "Copy details", "Copy what the training process printed, to report a problem")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        for widget in (
            *(self.headline, self.bar, self.time_line, self.verdict_line, self.use_button, self.undo_button),
            *(self.details_button, self.loss_plot, self.dice_plot, self.rate_plot),
            *(self.preview_line, self.preview, self.log_line),
        ):
            column.addWidget(widget)
        self.clear()

    def clear(self, run: Run | None = None) -> None:
        """Forget the run that was shown, and begin with another."""
        self.trained: Trained | None = None
        self.judged: Judged | None = None
        self.failed: Failed | None = None
        self.stopped: Stopped | None = None
        self._lines: list[str] = []
        self.damaged: list[str] = []
        self.headline.setText(f"{run.folder.name}: starting…" if run else "")
        self.name = run.folder.name if run else ""
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        for line in (self.time_line, self.verdict_line, self.preview_line, self.log_line):
            line.setText("")
        self.preview.clear()
        for plot in (self.loss_plot, self.dice_plot, self.rate_plot):
            plot.show_lines([])
        for widget in (self.use_button, self.undo_button, self.details_button, self.verdict_line):
            widget.hide()

    def add(self, events: list[TrainingEvent]) -> None:
        """Show new events."""
        for event in events:
            if isinstance(event, CaseLeftOut) and event.damaged and event.case not in self.damaged:
                self.damaged.append(event.case)
            elif isinstance(event, Resumed):
                self.trained = self.stopped = self.failed = None
            elif isinstance(event, Trained):
                self.trained = event
            elif isinstance(event, Judged):
                self.judged = event
            elif isinstance(event, Stopped):
                self.stopped = event
            elif isinstance(event, Failed):
                self.failed = event
            if isinstance(event, Noted | Verified | Resumed | EpochDone | Stopped | Judged | Failed):
                self._lines = [*self._lines, describe_event(event)][-LINES:]
        at_work = [event for event in events if isinstance(event, BatchDone | PhaseReached)]
        if batches := [event for event in at_work if isinstance(event, BatchDone)]:
            self._show_progress(batches[-1])
        if at_work and isinstance(at_work[-1], PhaseReached):
            self._show_phase(at_work[-1])
        self.log_line.setText("\n".join(self._lines))

    def show_curves(self, curves: Curves) -> None:
        """Show how loss, Dice and learning rate went."""
        self.loss_plot.show_lines([Line(curves.losses, faint=True), Line(curves.epoch_losses, color=LOSS_COLOR)])
        self.dice_plot.show_lines([Line(points, name, find_region(name).color) for name, points in curves.dice.items()])
        self.rate_plot.show_lines([Line(curves.rates)])

    def show_preview(self, preview: Preview, width_px: int) -> None:
        """Show the preview slice."""
        self.preview_line.setText(
            f"Slice {preview.z} of {preview.case} after epoch {preview.epoch}: reference left, prediction right"
        )
        smooth = Qt.TransformationMode.SmoothTransformation
        self.preview.setPixmap(make_pixmap(preview.picture).scaledToWidth(width_px, smooth))

    def show_end(self, text: str) -> None:
        """Say how the run ended, what came of it, and which cases should have been used and could not be."""
        if self.damaged:
            text += f" Left out because their files cannot be used: {', '.join(self.damaged)}."
        self.headline.setText(f"{self.name}: {text}")
        self.time_line.setText("")
        if self.trained is not None and self.stopped is None:
            self.bar.setValue(self.bar.maximum())  # a limit in minutes may have come before the last step
        if self.judged is not None and self.trained is not None:
            before, after = self.judged.before, self.judged.after
            self.verdict_line.setText(
                f"On the slices kept back: Dice {before:.2f} before, {after:.2f} now.\n{describe_event(self.judged)}"
            )
            self.verdict_line.show()
        self.use_button.setVisible(self.trained is not None and self.trained.path is not None)

    def _show_phase(self, phase: PhaseReached) -> None:
        self.headline.setText(f"{self.name}: {phase.phase}…")
        if phase.total:
            self.bar.setRange(0, phase.total)
            self.bar.setValue(phase.done)

    def _show_progress(self, batch: BatchDone) -> None:
        share = batch.step / batch.steps if batch.share is None else batch.share
        self.bar.setRange(0, FINE)
        self.bar.setValue(round(FINE * share))
        self.headline.setText(f"{self.name}: training, step {batch.step} of {batch.steps}, loss {batch.loss:.3f}")
        self.time_line.setText("" if batch.left_s is None else f"{in_words(batch.left_s)} left at most")


def make_pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    """Return a pixmap of an array ``(H, W, 4)``, red, green, blue, opacity."""
    data = np.ascontiguousarray(picture)
    height, width = data.shape[:2]
    image = QImage(data.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image)
