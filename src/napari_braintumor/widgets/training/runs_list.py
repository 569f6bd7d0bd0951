"""Earlier runs, to watch, to go on with, or to delete; also those that another machine trains in a shared folder."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog, QGridLayout, QPushButton, QWidget

from napari_braintumor.engine.training.run_watching import find_runs_folder, list_runs
from napari_braintumor.engine.training.runs import Run, Status
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget

RESUMABLE: tuple[Status, ...] = ("new", "stopped", "failed", "broken off")


@dataclass(frozen=True)
class ListedRun:
    """A run and how it stands."""

    run: Run
    status: Status


class RunsList(QWidget):
    """The runs of a folder."""

    watch_asked = Signal(object)
    """A `Run` to watch."""

    resume_asked = Signal(object)
    """A `Run` to go on with."""

    delete_asked = Signal(object)
    """A `Run` to delete."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = find_runs_folder()
        self.listed: list[ListedRun] = []
        self._job: Job | None = None
        self._again = False
        self.box = Combo()
        name_widget(self.box, "Earlier runs", "The latest first")
        self.box.currentIndexChanged.connect(self._show)
        self.line = make_line("", "Folder of the runs")
        self.watch_button, self.resume_button, self.delete_button, self.folder_button = (
            QPushButton(text) for text in ("Watch", "Resume", "Delete…", "Folder…")
        )
        for button, tip in (
            (self.watch_button, "Show the curves and the preview of this run"),
            (self.resume_button, "Go on from its last checkpoint"),
            (self.delete_button, "Delete the run's folder, with its model"),
            (self.folder_button, "Look for runs in another folder"),
        ):
            name_widget(button, button.text().strip("…"), tip)
        self.watch_button.clicked.connect(lambda: self._ask(self.watch_asked))
        self.resume_button.clicked.connect(lambda: self._ask(self.resume_asked))
        self.delete_button.clicked.connect(lambda: self._ask(self.delete_asked))
        self.folder_button.clicked.connect(self._choose_folder)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.box, 0, 0, 1, 2)
        grid.addWidget(self.watch_button, 1, 0)
        grid.addWidget(self.resume_button, 1, 1)
        grid.addWidget(self.delete_button, 2, 0)
        grid.addWidget(self.folder_button, 2, 1)
        grid.addWidget(self.line, 3, 0, 1, 2)
        self._show()

    def reload(self) -> None:
        """Look at the folder again, in the background."""
        if self._job is not None:
            self._again = True
            return
        self._again = False
        self._job = Job(self, "Look at runs", _look, self.folder)
        self._job.happened.connect(self._fill)
        self._job.ended.connect(self._end)
        self._job.start()

    def _end(self) -> None:
        self._job = None
        if self._again:
            self.reload()

    def _fill(self, listed: list[ListedRun]) -> None:
        chosen = self._chosen()
        self.listed = listed
        self.box.blockSignals(True)
        self.box.clear()
        self.box.addItems([f"{each.run.folder.name}: {each.status}" for each in listed])
        runs = [each.run for each in listed]
        self.box.setCurrentIndex(runs.index(chosen.run) if chosen and chosen.run in runs else 0)
        self.box.blockSignals(False)
        self._show()

    def _chosen(self) -> ListedRun | None:
        index = self.box.currentIndex()
        return self.listed[index] if 0 <= index < len(self.listed) else None

    def _show(self) -> None:
        chosen = self._chosen()
        self.watch_button.setEnabled(chosen is not None)
        self.delete_button.setEnabled(chosen is not None and chosen.status != "running")
        self.resume_button.setEnabled(chosen is not None and chosen.status in RESUMABLE)
        self.line.setText(f"{len(self.listed)} runs in {self.folder}")

    def _ask(self, signal: Signal) -> None:
        chosen = self._chosen()
        if chosen is not None:
            signal.emit(chosen.run)

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of runs", str(self.folder))
        if chosen:
            self.folder = Path(chosen)
            self.reload()


def _look(folder: Path) -> Generator[list[ListedRun], None, None]:
    yield [ListedRun(run, run.status) for run in list_runs(folder)]
