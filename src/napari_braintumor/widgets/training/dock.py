"""The Train dock: learn from open layers or a folder, or tune a model, in a process that outlives the viewer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from pydantic import ValidationError
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QMessageBox,
    QPushButton,
    QStackedWidget,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.errors import BrainTumorError, SettingsError
from napari_braintumor.engine.files.written import corrected_folder, write_case
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.engine.training.plan import TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.runs import Run, find_parent
from napari_braintumor.engine.training.schedules import list_rates
from napari_braintumor.engine.training.splits import FEWEST_TUNING_SLICES, describe_too_few
from napari_braintumor.layers import update_or_add_preview, volume_from_selection
from napari_braintumor.widgets.shared.dock import Dock, open_dock
from napari_braintumor.widgets.shared.forms import Row, SettingsForm
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import (
    copy_text,
    literal,
    make_collapsible,
    make_line,
    name_widget,
    when_destroyed,
)
from napari_braintumor.widgets.shared.plots import Line, Plot
from napari_braintumor.widgets.shared.preferences import MODELS
from napari_braintumor.widgets.training.child import check_plan, read_tail, start_training
from napari_braintumor.widgets.training.data_tab import DataPage, OpenCase
from napari_braintumor.widgets.training.model_tab import ModelPage
from napari_braintumor.widgets.training.run_view import TrainingView
from napari_braintumor.widgets.training.runs_list import RESUMABLE, RunsList
from napari_braintumor.widgets.training.watching import Seen, watch

if TYPE_CHECKING:
    import napari

EVERYDAY = {
    "minutes": Row("Minutes, at most", empty="no limit", low=0.5, high=100_000, step=0.5, decimals=1),
    "epochs": Row("Epochs", low=1, high=1_000_000, step=1, decimals=0),
    "steps_per_epoch": Row("Batches an epoch", low=1, high=1_000_000, step=10, decimals=0),
    "batch_size": Row("Slices a batch", low=1, high=1024, step=1, decimals=0),
    "patience": Row("Patience, epochs", empty="never", low=1, high=100_000, step=1, decimals=0),
    "augmentation": Row("Augmentation"),
    "schedule": Row("Learning rate"),
    "learning_rate": Row("Highest rate", low=1e-6, high=1, step=1e-4, decimals=6),
}
ADVANCED = {
    "loss": Row("Loss"),
    "optimiser": Row("Optimizer"),
    "weight_decay": Row("Weight decay", low=0, high=1, step=1e-4, decimals=6),
    "warm_up": Row("Warm-up share", low=0, high=0.5, step=0.01),
    "cycle_mode": Row("Cycle mode"),
    "cycle_steps": Row("Half a cycle", low=1, high=1_000_000, step=50, decimals=0),
    "averaging": Row("Averaging (EMA)", low=0, high=0.9999, step=0.001, decimals=4),
    "tumor_share": Row("Share of tumor slices", step=0.05),
    "modality_dropout": Row("Modality dropout", step=0.05),
    "elastic_px": Row("Elastic, pixels", low=0, high=50, step=1, decimals=1),
    "tversky_alpha": Row("Tversky alpha", step=0.05),
    "keep": Row("Keep the weights of"),
    "preview_every": Row("Preview, epochs", low=0, high=1000, step=1, decimals=0),
    "device": Row("Device"),
    "precision": Row("Precision"),
    "threads": Row("Threads (0: all)", low=0, high=1024, step=1, decimals=0),
    "workers": Row("Loader processes", empty="auto", low=0, high=64, step=1, decimals=0),
    "cache_gb": Row("Cache, GB", low=0, high=1024, step=0.5, decimals=1),
    "seed": Row("Seed", low=0, high=2**31 - 1, step=1, decimals=0),
}
"""The rows of the Run tab; with the other two tabs, what a user decides. Other fields keep their defaults."""

PATIENCE_WITH_STOP_MS = 10_000
PICTURE_MARGIN_PX = 44


@dataclass(frozen=True, eq=False)
class Begun:
    """A run has a folder and a process."""

    run: Run
    process: subprocess.Popen[bytes]


def begin(plan: TrainPlan, case: OpenCase | None) -> Generator[Begun, None, None]:
    """Write the open layers into the run's folder, if they are what is learned from, and start its process."""
    if case is None:
        run = Run.start(plan)
    else:
        folder = plan.output / plan.name
        try:
            folder.mkdir(parents=True)  # by this dock alone, so it is this dock's to take away
        except FileExistsError as error:
            raise SettingsError(f"A run '{plan.name}' was begun elsewhere meanwhile. Press Train again.") from error
        except OSError as error:
            raise SettingsError(
                f"The run's folder '{folder}' cannot be made: {error.strerror or error}. Make room, or look at its "
                "permissions."
            ) from error
        try:
            write_open_case(folder / "cases", case)
            run = Run.start(plan)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    yield Begun(run, start_training(run))


def go_on(run: Run) -> Generator[Begun, None, None]:
    """Start a process for a run that was begun before."""
    if run.is_running:
        raise SettingsError(f"'{run.folder.name}' is being trained already. Watch it under Earlier runs.")
    yield Begun(run, start_training(run))


def keep_case(case: OpenCase) -> Generator[Path, None, None]:
    """Write open layers among the user's corrected cases."""
    yield write_open_case(corrected_folder(), case)


def write_open_case(folder: Path, case: OpenCase) -> Path:
    """Read the voxels of open layers and write them as a case."""
    volume = volume_from_selection(case.selection)
    return write_case(folder, volume, case.labels, case.convention, reviewed=case.reviewed or None)


class TrainDock(Dock):
    """The Train dock.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are offered; napari passes it by this name.
    """

    title = "Train"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._job: Job | None = None
        self._run: Run | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watching = False
        self._details = ""
        self._asked_to_stop = False
        self._installed: tuple[str, Path] | None = None
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.timeout.connect(self._lose_patience)
        self._build()
        self._show_defaults()
        layers = self._viewer.layers
        layers.events.inserted.connect(self.data.refill)
        layers.events.removed.connect(self.data.refill)
        when_destroyed(self, _unwatch, layers, self.data.refill)

    def describe_closing(self) -> str:
        """Say that a training goes on without its dock."""
        if not self._watching or self._job is None or self._run is None:
            return ""
        return f"The training '{self._run.folder.name}' goes on. Open Train > Earlier runs to watch it again."

    # ---------------------------------------------------------------------------------------------- the plan

    def build_plan(self) -> TrainPlan:
        """Return what the three tabs say.

        Raises
        ------
        BrainTumorError
            If they do not make a plan.
        """
        name = _free_name(self.model.name_edit.text().strip(), self.runs.folder)
        folder = self.runs.folder / name / "cases" if self.data.source == "layers" else self.data.folder
        if folder is None:
            raise SettingsError("No folder of cases is chosen. Choose one in the Data tab, or learn from open layers.")
        settings: dict[str, Any] = {**self.everyday.values(), **self.advanced.values(), "output": self.runs.folder}
        if self.data.source != "layers":
            settings |= self.data.named_sides()
        try:
            if not self.model.tunes:
                if self.data.source == "layers":
                    settings["split_by"] = "slice"
                return TrainPlan(name=name, cases=(folder,), **settings, **self.model.new_settings())
            parent = self.model.parent_model
            if parent is None or parent.card is None:
                raise SettingsError("No model is chosen to be tuned. Choose one in the Model tab.")
            tuning = {"fine_tuning": self.model.tuning(), **settings}
            return plan_fine_tuning(parent.card, str(parent.path), name, (folder,), **tuning)
        except ValidationError as error:
            raise SettingsError(f"The plan is not possible: {describe_problem(error)}. Change it there.") from error

    def prepare_fine_tuning(self, layers: Mapping[str, Layer], labels: Labels, model: Path) -> None:
        """Fill the tabs to tune a model to the labels of open scans: these scans, and this model or none."""
        self._show_tabs()
        self.data.choose_layers(layers, labels)
        if not self.model.choose_parent(model):
            self.message.tell(
                f"The model '{model.stem}', which drew these labels, is not among your models any more. Choose another "
                "one in the Model tab."
            )
        self.tabs.setCurrentIndex(0)

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.runs = RunsList()
        self.runs.watch_asked.connect(self.watch_run)
        self.runs.resume_asked.connect(self._resume)
        self.runs.delete_asked.connect(self._delete)
        self.data = DataPage(self._viewer)
        self.message = Message()
        self.data.told.connect(self.message.tell)
        self.data.changed.connect(self._describe)
        self.data.keep_button.clicked.connect(self._keep_case)
        self.model = ModelPage()
        self.model.changed.connect(self._describe)
        self.model.mode_box.currentIndexChanged.connect(self._show_defaults)
        self.model.check_button.clicked.connect(self._check)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.data, "Data")
        self.tabs.addTab(self.model, "Model")
        self.tabs.addTab(self._build_settings(), "Run")
        self.view = TrainingView()
        self.view.use_button.clicked.connect(self._use)
        self.view.undo_button.clicked.connect(self._undo)
        self.view.details_button.clicked.connect(lambda: copy_text(self._details))
        self.pages = QStackedWidget()
        self.pages.addWidget(self.tabs)
        self.pages.addWidget(self.view)
        self.describe_line = make_line("", "What will be trained")

        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        earlier = make_collapsible("Earlier runs", self.runs)
        earlier.toggled.connect(self._reload_runs)
        column.addWidget(earlier)
        column.addWidget(self.pages)

        self.train_button = QPushButton("Train")
        name_widget(self.train_button, "Train", "Start in a process of its own; you can go on working, or close napari")
        self.train_button.setDefault(True)
        self.train_button.clicked.connect(self._start)
        self.stop_button = QPushButton("Stop and keep best")
        name_widget(self.stop_button, "Stop and keep best", "End after the present step; the best weights are kept")
        self.stop_button.clicked.connect(self._stop)
        self.discard_button = QPushButton("Discard…")
        name_widget(self.discard_button, "Discard", "End the training and delete all of it")
        self.discard_button.clicked.connect(self._discard)
        self.resume_button = QPushButton("Resume")
        name_widget(self.resume_button, "Resume", "Go on from the last checkpoint")
        self.resume_button.clicked.connect(self._resume_this)
        self.back_button = QPushButton("New training")
        name_widget(self.back_button, "New training", "Back to the tabs")
        self.back_button.clicked.connect(self._show_tabs)
        self.lay_out(
            body,
            (
                *(self.describe_line, self.message, self.train_button, self.stop_button, self.discard_button),
                *(self.resume_button, self.back_button),
            ),
        )
        self._show_tabs()

    def _reload_runs(self, is_open: bool) -> None:
        if is_open:
            self.runs.reload()

    def _build_settings(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.everyday = SettingsForm(TrainPlan, EVERYDAY)
        self.rate_plot = Plot("learning rate, batch by batch")
        self.advanced = SettingsForm(TrainPlan, ADVANCED)
        for form in (self.everyday, self.advanced):
            form.changed.connect(self._draw_rates)
        column.addWidget(self.everyday)
        column.addWidget(self.rate_plot)
        column.addWidget(make_collapsible("Advanced", self.advanced))
        return page

    def _show_defaults(self) -> None:
        """Begin with the values that suit a new network, or a fine-tuning."""
        plan = TrainPlan(name="a", cases=(Path("a"),))
        parent = self.model.parent_model
        if self.model.tunes and parent is not None and parent.card is not None:
            try:
                plan = plan_fine_tuning(parent.card, parent.name, "a", (Path("a"),))
            except ValidationError as error:  # of a model from elsewhere
                self.message.tell(f"'{parent.name}' cannot be tuned here: {describe_problem(error)}.")
        for form in (self.everyday, self.advanced):
            form.set_values({name: getattr(plan, name) for name in form.editors})
        self.train_button.setText("Fine-tune" if self.model.tunes else "Train")
        self._draw_rates()

    def _draw_rates(self) -> None:
        try:
            plan = TrainPlan(name="a", cases=(Path("a"),), **self.everyday.values(), **self.advanced.values())
        except ValidationError:
            self.rate_plot.show_lines([])
            return
        steps, rates = plan.epochs * plan.steps_per_epoch, list_rates(plan)
        self.rate_plot.show_lines([Line([(steps * i / (len(rates) - 1), rate) for i, rate in enumerate(rates)])])

    def _describe(self) -> None:
        if self._watching:
            return
        text = ""
        if self.data.source == "layers" and not self.model.tunes:
            text = "One scan teaches about itself only: the Dice shown will say nothing about other patients."
        self.describe_line.setText(text)
        self.describe_line.setVisible(bool(text))

    def _show_tabs(self) -> None:
        if self._job is not None and self._watching:
            self._job.cancel()
        self._watching = False
        self._run = None
        self.pages.setCurrentIndex(0)
        for button in (self.stop_button, self.discard_button, self.resume_button, self.back_button):
            button.hide()
        self.train_button.setVisible(True)
        self.train_button.setEnabled(True)
        self.message.tell("")
        self._describe()

    # ---------------------------------------------------------------------------------------------- starting

    def _start(self) -> None:
        if self._job is not None:
            return
        try:
            case = self.data.open_case() if self.data.source == "layers" else None
            plan = self.build_plan()
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        if self.model.tunes and (count := self.data.count_slices()) is not None and count < FEWEST_TUNING_SLICES:
            self.message.tell(describe_too_few(count))
            return
        self.model.name_edit.setText(plan.name)
        if case is not None and plan.preview_every:
            self._prepare_preview(case)
        self._launch("Writing the case…" if case else "Starting…", begin, plan, case)

    def _resume_this(self) -> None:
        if self._run is not None:
            self._resume(self._run)

    def _resume(self, run: Run) -> None:
        if self._job is None:
            self._launch("Starting…", go_on, run)
        elif self._watching:  # of a run that has ended
            self._job.cancel()
            self._job.ended.connect(partial(self._resume, run))

    def _launch(self, text: str, generator: Any, *args: Any) -> None:
        self.message.tell(text)
        self.train_button.setEnabled(False)
        self.resume_button.setEnabled(False)
        self._job = Job(self, "Start a training", generator, *args)
        begun: list[Begun] = []
        self._job.happened.connect(begun.append)
        self._job.failed.connect(self.message.show_failure)
        self._job.ended.connect(partial(self._launched, begun))
        self._job.start()

    def _prepare_preview(self, case: OpenCase) -> None:
        """Add the preview's layer before training begins: later it would be felt, as new layers take napari long."""
        empty_YX = np.zeros(case.selection.shape[1:], np.uint8)
        update_or_add_preview(self._viewer, case.selection.name, 0, empty_YX)

    def _launched(self, begun: list[Begun]) -> None:
        self._end_job()
        self.train_button.setEnabled(True)
        self.resume_button.setEnabled(True)
        if begun:
            self._process = begun[0].process
            self.watch_run(begun[0].run, begun[0].process)

    def _check(self) -> None:
        """Let a child try one batch."""
        if self._job is not None:
            return
        try:
            plan = self.build_plan()
            if self.data.source == "layers":
                raise SettingsError("Open layers are checked when training starts. Check a folder of cases here.")
        except BrainTumorError as error:
            self.model.check_line.setText(str(error))
            return
        self.model.check_line.setText("Trying one batch…")
        self._job = Job(self, "Check a plan", _check, plan)
        self._job.happened.connect(self.model.check_line.setText)
        self._job.failed.connect(lambda failure: self.model.check_line.setText(failure.text))
        self._job.ended.connect(self._end_job)
        self._job.start()

    def _keep_case(self) -> None:
        if self._job is not None:
            return
        try:
            case = self.data.open_case()
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        self.message.tell("Writing the case…")
        self._job = Job(self, "Keep a corrected case", keep_case, case)
        self._job.happened.connect(lambda path: self.message.tell(f"Kept in {path}."))
        self._job.failed.connect(self.message.show_failure)
        self._job.ended.connect(self._end_job)
        self._job.start()

    def _end_job(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.deleteLater()

    # ---------------------------------------------------------------------------------------------- watching

    def watch_run(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        """Show a run, from its beginning, and follow it as long as its process lives, here or elsewhere."""
        if self._job is not None:
            if self._watching:
                self._job.cancel()
                self._job.ended.connect(partial(self.watch_run, run, process))
            return
        self._run, self._process, self._watching = run, process, True
        self._details = ""
        self._asked_to_stop = False
        self._installed = None
        self.view.clear(run)
        self.message.tell("")
        self.describe_line.hide()
        self.pages.setCurrentIndex(1)
        self.train_button.hide()
        for button in (self.stop_button, self.discard_button):
            button.show()
            button.setEnabled(True)
        for button in (self.resume_button, self.back_button):
            button.hide()
        self._job = Job(self, f"Train {run.folder.name}", watch, run, partial(_is_alive, run, process))
        self._job.happened.connect(self._see)
        self._job.failed.connect(self.message.show_failure)
        self._job.ended.connect(self._see_end)
        self._job.start()

    @property
    def _width(self) -> int:
        return max(240, self.width() - PICTURE_MARGIN_PX)

    def _see(self, seen: Seen) -> None:
        self.view.add(seen.events)
        if seen.curves is not None:
            self.view.show_curves(seen.curves)
        if seen.preview is not None:
            self.view.show_preview(seen.preview, self._width)
            update_or_add_preview(self._viewer, seen.preview.case, seen.preview.z, seen.preview.labels)

    def _see_end(self) -> None:
        cancelled = self._job is not None and self._job.cancelled
        self._end_job()
        run = self._run
        if cancelled or run is None:
            return
        view = self.view
        if view.failed is not None:
            text = f"failed. {view.failed.reason} What was learned before is kept: Resume goes on from there."
        elif view.stopped is not None:
            text = f"stopped. {view.stopped.reason}"
        elif view.trained is not None:
            score = view.trained.score
            text = "complete, not validated." if score is None else f"complete, score {score:.3f}"
        else:
            code = self._process.poll() if self._process is not None else None
            text = "the training process ended unexpectedly" + (f" (exit code {code})" if code is not None else "")
            text += ". Nothing that was saved is lost: Resume goes on from the last checkpoint."
        self._details = "" if view.trained is not None or view.stopped is not None else read_tail(run)
        view.details_button.setVisible(bool(self._details))
        view.show_end(text)
        for button in (self.stop_button, self.discard_button):
            button.hide()
        self.back_button.show()
        ended = view.trained is not None and view.stopped is None
        self.resume_button.setVisible(not ended and _stands(run) in RESUMABLE)
        self.message.tell("")
        self.runs.reload()

    def _stop(self) -> None:
        run = self._run
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
            self.message.tell(str(error))
            return
        self.message.tell("Stopping after the present step…")
        self._patience.start(PATIENCE_WITH_STOP_MS)

    def _lose_patience(self) -> None:
        if self._run is not None and self._job is not None and self._run.stop_requested:
            self.message.tell(
                "The present step takes long. Press Stop once more to end at once, at the last checkpoint."
            )

    def _discard(self) -> None:
        run = self._run
        if run is not None and self._asked_for_sure(f"End the run '{run.folder.name}' and delete all of it?"):
            if self._job is not None:
                self._job.cancel()
            self._delete_now(run)

    def _delete(self, run: Run) -> None:
        if self._asked_for_sure(f"Delete the run '{run.folder.name}' with its model and its curves?"):
            self._delete_now(run)

    def _delete_now(self, run: Run) -> None:
        try:
            if run == self._run and self._process is not None:
                self._process.kill()  # it may not have begun to train yet
                self._process.wait(5)
            run.discard()
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        self._show_tabs()
        self.message.tell(f"'{run.folder.name}' is deleted.")
        self.runs.reload()

    def _asked_for_sure(self, question: str) -> bool:
        answer = QMessageBox.question(self, "Brain Tumor", literal(question))
        return bool(answer == QMessageBox.StandardButton.Yes)

    # ---------------------------------------------------------------------------------------------- the result

    def _use(self) -> None:
        """Put the run's model into the user's store and choose it in the Segment dock."""
        if self._run is None:
            return
        try:
            model = ModelStore().install(self._run.model_path)
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        self._installed = model.name, model.path
        self._choose_in_segment(model.path)
        self.message.tell(f"'{model.name}' is among your models.")
        self.view.use_button.hide()
        self.view.undo_button.setVisible(find_parent(self._run) is not None)
        MODELS.changed.emit()

    def _undo(self) -> None:
        """Take the new version away again and choose its parent."""
        if self._installed is None or self._run is None:
            return
        parent = find_parent(self._run)
        try:
            ModelStore().remove(self._installed[0])
            known = ModelStore().find(parent.name) if parent else None
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        if known is not None:
            self._choose_in_segment(known.path)
        self.message.tell(f"'{self._installed[0]}' is taken away; its file stays in the run's folder.")
        self._installed = None
        self.view.undo_button.hide()
        self.view.use_button.show()
        MODELS.changed.emit()

    def _choose_in_segment(self, path: Path) -> None:
        from napari_braintumor.widgets.segmenting.dock import SegmentDock

        if (dock := open_dock(self._viewer, SegmentDock)) is not None:
            dock.choose_model(path)


def _check(plan: TrainPlan) -> Generator[str, None, None]:
    yield check_plan(plan)


def _is_alive(run: Run, process: subprocess.Popen[bytes] | None) -> bool:
    return process.poll() is None if process is not None else run.is_running


def _stands(run: Run) -> str:
    return run.status if run.plan_path.exists() else "deleted"


def _free_name(name: str, folder: Path) -> str:
    """Return a name that no run and no model has yet."""
    taken = {model.name for model in ModelStore().list()}
    free, number = name, 2
    while free in taken or (folder / free).exists():
        free, number = f"{name}-{number}", number + 1
    return free


def _unwatch(layers: Any, callback: Any) -> None:
    """Let go of a viewer that outlives the dock."""
    layers.events.inserted.disconnect(callback)
    layers.events.removed.disconnect(callback)
