"""The Train dock: learn from open layers or a folder, or tune a model, in a process that outlives the viewer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from pydantic import ValidationError
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QStackedWidget, QTabWidget, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import BrainTumorError, SettingsError
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.engine.training.plan import TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.training.splits import FEWEST_TUNING_SLICES, describe_too_few
from napari_braintumor.layers import update_or_add_preview
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.following import follow
from napari_braintumor.widgets.shared.jobs import Failure, Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import make_collapsible, make_line, name_widget
from napari_braintumor.widgets.training.data_tab import DataPage
from napari_braintumor.widgets.training.model_tab import ModelPage
from napari_braintumor.widgets.training.run_tab import RunPage
from napari_braintumor.widgets.training.runs_list import RunsList
from napari_braintumor.widgets.training.starting import (
    OpenCase,
    StartedRun,
    begin,
    find_free_name,
    go_on,
    keep_case,
    try_batch,
)
from napari_braintumor.widgets.training.steps_page import StepsPage
from napari_braintumor.widgets.training.watch_page import WatchPage

if TYPE_CHECKING:
    import napari

PICTURE_MARGIN_PX = 44
LEAST_PICTURE_PX = 240


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
        self._job: Job | None = None  # what is begun or written; a run is followed by the page that shows it
        self._build()
        self._show_defaults()
        layers = self._viewer.layers
        follow(self, self.data.layers_page.refill, layers.events.inserted, layers.events.removed)

    def describe_closing(self) -> str:
        """Say that a training goes on without its dock."""
        page = self.watch_page
        if page.job is None or page.run is None:
            return ""
        return f"The training '{page.run.folder.name}' goes on. Open Train > Earlier runs to watch it again."

    # ---------------------------------------------------------------------------------------------- the plan

    def build_plan(self) -> TrainPlan:
        """Return what the three tabs say.

        Returns
        -------
        TrainPlan
            The plan, validated.

        Raises
        ------
        BrainTumorError
            If they do not make a plan.
        """
        name = find_free_name(self.model.name_edit.text().strip(), self.runs.folder)
        folder = self.runs.folder / name / "cases" if self.data.source == "layers" else self.data.folder_page.folder
        if folder is None:
            raise SettingsError("No folder of cases is chosen. Choose one in the Data tab, or learn from open layers.")
        settings: dict[str, Any] = {**self.run_page.settings(), "output": self.runs.folder}
        if self.data.source != "layers":
            settings |= self.data.folder_page.named_sides()
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
            self.message.show_text(
                f"The model '{model.stem}', which drew these labels, is no longer among your models. Choose another "
                "one in the Model tab."
            )
        self.tabs.setCurrentIndex(0)
        self.steps_page.work_on(labels)
        self._show_steps(True)

    def prepare_tuning_to(self, folder: Path, model: Path) -> None:
        """Fill the tabs to tune a model to the cases of a folder."""
        self._show_tabs()
        self.data.choose_folder(folder)
        if not self.model.choose_parent(model):
            self.message.show_text(f"The model '{model.stem}' is not among your models. Choose one in the Model tab.")
        self.tabs.setCurrentIndex(0)
        self._show_steps(False)

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.runs = RunsList()
        self.runs.watch_asked.connect(self.watch_run)
        self.runs.resume_asked.connect(self._resume)
        self.runs.delete_asked.connect(self._delete)
        self.data = DataPage(self._viewer)
        self.message = Message()
        self.data.layers_page.reported.connect(self.message.show_text)
        self.data.changed.connect(self._describe)
        self.data.layers_page.keep_button.clicked.connect(self._keep_case)
        self.model = ModelPage()
        self.model.changed.connect(self._describe)
        self.model.mode_box.currentIndexChanged.connect(self._show_defaults)
        self.model.check_button.clicked.connect(self._check)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.data, "Data")
        self.tabs.addTab(self.model, "Model")
        self.run_page = RunPage()
        self.tabs.addTab(self.run_page, "Run")
        self.watch_page = WatchPage(self._viewer, self.message, self._picture_width)
        self.watch_page.resume_asked.connect(self._resume)
        self.watch_page.left.connect(self._show_tabs)
        self.watch_page.runs_changed.connect(self.runs.reload)
        self.steps_page = StepsPage(self._viewer)
        self.steps_page.marked.connect(self.data.layers_page.refill)
        self.expert_part = make_collapsible("Expert settings", self.tabs)
        self.plan_page = QWidget()
        plan_column = QVBoxLayout(self.plan_page)
        plan_column.setContentsMargins(0, 0, 0, 0)
        plan_column.setAlignment(Qt.AlignmentFlag.AlignTop)
        plan_column.addWidget(self.steps_page)
        plan_column.addWidget(self.expert_part)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.plan_page)
        self.pages.addWidget(self.watch_page)
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
        self.lay_out(body, (self.describe_line, self.message, self.train_button, *self.watch_page.buttons))
        self._show_steps(False)
        self._show_tabs()

    def _show_steps(self, shown: bool) -> None:
        """Show the three steps of fine-tuning with all settings folded away, or the settings alone."""
        self.steps_page.setVisible(shown)
        self.expert_part.toggleButton().setVisible(shown)
        if shown:
            self.expert_part.collapse(animate=False)
        else:
            self.expert_part.expand(animate=False)
        self._name_button()

    def _name_button(self) -> None:
        learns = self.model.tunes and not self.steps_page.isHidden()
        self.train_button.setText("Learn" if learns else "Fine-tune" if self.model.tunes else "Train")

    def _reload_runs(self, is_open: bool) -> None:
        if is_open:
            self.runs.reload()

    def _show_defaults(self) -> None:
        """Begin with the values that suit a new network, or a fine-tuning."""
        plan = TrainPlan(name="a", cases=(Path("a"),))
        parent = self.model.parent_model
        if self.model.tunes and parent is not None and parent.card is not None:
            try:
                plan = plan_fine_tuning(parent.card, parent.name, "a", (Path("a"),))
            except ValidationError as error:  # of a model from elsewhere
                self.message.show_text(f"'{parent.name}' cannot be tuned here: {describe_problem(error)}.")
        self.run_page.show_plan(plan)
        self._name_button()

    def _describe(self) -> None:
        text = ""
        if self.data.source == "layers" and not self.model.tunes:
            text = "One scan teaches about itself only: the Dice shown will say nothing about other patients."
        self.describe_line.setText(text)
        self.describe_line.setVisible(bool(text) and self.pages.currentWidget() is self.plan_page)

    def _show_tabs(self) -> None:
        self.watch_page.leave()
        self.pages.setCurrentWidget(self.plan_page)
        self.train_button.setVisible(True)
        self.train_button.setEnabled(True)
        self.message.show_text("")
        self._describe()

    # ---------------------------------------------------------------------------------------------- starting

    def _start(self) -> None:
        if self._job is not None:
            return
        try:
            case = self.data.layers_page.open_case() if self.data.source == "layers" else None
            plan = self.build_plan()
        except BrainTumorError as error:
            self.message.show_text(str(error))
            return
        if self.model.tunes and (count := self.data.slice_count) is not None and count < FEWEST_TUNING_SLICES:
            self.message.show_text(describe_too_few(count))
            return
        self.model.name_edit.setText(plan.name)
        if case is not None and plan.preview_every:
            self._prepare_preview(case)
        self._launch("Writing the case…" if case else "Starting…", begin, plan, case)

    def _resume(self, run: Run) -> None:
        if self._job is None:
            self._launch("Starting…", go_on, run)

    def _launch(self, text: str, generator: Any, *args: Any) -> None:
        self.message.show_text(text)
        self.train_button.setEnabled(False)
        self.watch_page.resume_button.setEnabled(False)
        started: list[StartedRun] = []
        job = self._run("Start a training", generator, *args)
        job.happened.connect(started.append)
        job.failed.connect(self.message.show_failure)
        job.ended.connect(partial(self._end_launch, started))
        job.start()

    def _prepare_preview(self, case: OpenCase) -> None:
        """Add the preview's layer before training begins: later it would be felt, as new layers take napari long."""
        empty_YX = np.zeros(case.selection.shape[1:], np.uint8)
        update_or_add_preview(self._viewer, case.selection.name, 0, empty_YX)

    def _end_launch(self, started: list[StartedRun]) -> None:
        self.train_button.setEnabled(True)
        self.watch_page.resume_button.setEnabled(True)
        for each in started:
            self.watch_run(each.run, each.process)

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
        job = self._run("Check a plan", try_batch, plan)
        job.happened.connect(self.model.check_line.setText)
        job.failed.connect(self._show_check_failure)
        job.start()

    def _show_check_failure(self, failure: Failure) -> None:
        self.model.check_line.setText(failure.text)

    def _keep_case(self) -> None:
        if self._job is not None:
            return
        try:
            case = self.data.layers_page.open_case()
        except BrainTumorError as error:
            self.message.show_text(str(error))
            return
        self.message.show_text("Writing the case…")
        job = self._run("Keep a corrected case", keep_case, case)
        job.happened.connect(self._tell_kept)
        job.failed.connect(self.message.show_failure)
        job.start()

    def _tell_kept(self, path: Path) -> None:
        self.message.show_text(f"Saved in {path}.")

    def _run(self, title: str, generator: Callable[..., Any], *args: Any) -> Job:
        """Return a job, not started yet, besides which no other is begun."""
        self._job = job = Job(self, title, generator, *args)
        job.ended.connect(self._end_job)
        return job

    def _end_job(self) -> None:
        self._job = None

    # ---------------------------------------------------------------------------------------------- watching

    def watch_run(self, run: Run, process: subprocess.Popen[bytes] | None = None) -> None:
        """Show a run, from its beginning, and follow it as long as its process lives, here or elsewhere."""
        if self._job is not None:
            return
        self.watch_page.watch(run, process)
        self.pages.setCurrentWidget(self.watch_page)
        self.describe_line.hide()
        self.train_button.hide()

    def _delete(self, run: Run) -> None:
        self.watch_page.delete(run, f"Delete the run '{run.folder.name}' with its model and its curves?")

    def _picture_width(self) -> int:
        return max(LEAST_PICTURE_PX, self.width() - PICTURE_MARGIN_PX)
