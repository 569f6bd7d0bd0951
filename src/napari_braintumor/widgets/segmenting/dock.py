"""The Segment dock: choose scans and a model, press Segment, get the tumor as a label layer with its volumes."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor import engine
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import BrainTumorError, DataError
from napari_braintumor.engine.events import Noted, PhaseReached, Segmented, SegmentEvent, SlicesDone, Started
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Segmentation
from napari_braintumor.layers import (
    KEY,
    Appearing,
    Inspector,
    PreparedScans,
    Selection,
    same_scans,
    scans_of,
    select_layers,
    unwrap_layer,
    update_or_add_labels,
    update_or_add_probabilities,
)
from napari_braintumor.widgets.segmenting.alignment import AlignmentForm
from napari_braintumor.widgets.segmenting.expectation import Expectation
from napari_braintumor.widgets.segmenting.live_preview import LivePreview
from napari_braintumor.widgets.segmenting.model_choice import ModelChoice
from napari_braintumor.widgets.segmenting.open_case import CaseOpener
from napari_braintumor.widgets.segmenting.running import segment_selection
from napari_braintumor.widgets.segmenting.scans import ScansForm
from napari_braintumor.widgets.segmenting.voxel_size import VoxelSizeForm
from napari_braintumor.widgets.shared.dock import Dock, open_dock
from napari_braintumor.widgets.shared.doubts import DoubtQuestion
from napari_braintumor.widgets.shared.following import when_destroyed
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.forms import Row, SettingsForm
from napari_braintumor.widgets.shared.jobs import Job, run_quietly
from napari_braintumor.widgets.shared.keys import DockKeys
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import LayerSlot, in_words, literal, make_collapsible, make_line
from napari_braintumor.widgets.shared.preferences import MODELS
from napari_braintumor.widgets.shared.result_card import ResultCard
from napari_braintumor.widgets.shared.view_bar import ViewBar

if TYPE_CHECKING:
    import napari

ADVANCED: dict[str, Row] = {
    "skull": {"label": "Scans with skull"},
    "n4": {"label": "Correct brightness (N4)"},
    "threshold": {"label": "Threshold", "empty": "auto", "step": 0.05},
    "min_volume_ml": {"label": "Smallest component, mL", "empty": "auto", "step": 0.1},
    "keep_largest": {"label": "Keep only the largest tumor"},
    "test_time_mirroring": {"label": "Average with the mirrored scan"},
    "probabilities": {"label": "Show probabilities as layers"},
    "search_step_mm": {"label": "Search step, mm", "step": 1},
    "device": {"label": "Device"},
    "runtime": {"label": "Runtime"},
    "precision": {"label": "Precision"},
    "batch_size": {"label": "Slices at a time", "empty": "auto", "step": 1},
}
"""The rows under Advanced: with the model, all fields of `SegmentConfig`."""

_DEVICE_UNKNOWN = "Device: CPU or CUDA, found at the first run"


class SegmentDock(Dock):
    """The Segment dock.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are offered; napari passes it by this name.
    """

    title = "Segment"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._inspector = Inspector()
        self.so_far = Appearing(napari_viewer)
        when_destroyed(self, self.so_far.clear)
        self._selection: Selection | None = None
        self._running: Selection | None = None  # what the run under way began with, and its model's file
        self._running_model: Path | None = None
        self._started_s = 0.0
        self._first_done = 0
        self._notes: list[str] = []  # of the run under way
        self._ran = False
        self._warmed_up = False

        self._build()
        self.reload_models()
        MODELS.changed.connect(self.reload_models)

    def describe_closing(self) -> str:
        """Say that a run under way ends with its dock."""
        if self.footer.job is None:
            return self.result_card.saver.describe_closing()
        if self.opener.is_busy:
            return "Opening the case was canceled because the dock was closed."
        return "The segmentation was canceled because its dock was closed. No layer was changed."

    # ------------------------------------------------------------------------------------------------ what is chosen

    @property
    def config(self) -> SegmentConfig:
        """The form as a config.

        Raises
        ------
        pydantic.ValidationError
            Never, as long as the rows keep to the config's bounds.
        """
        return SegmentConfig(model=self.model_choice.name, **self.advanced.values())

    @property
    def model(self) -> StoredModel | None:
        """The chosen model."""
        return self.model_choice.model

    @property
    def slots(self) -> dict[str, LayerSlot]:
        """For each modality where its layer is chosen."""
        return self.scans.slots

    @property
    def chosen(self) -> dict[str, Layer]:
        """For each modality that the model uses and that is not set to none, its layer."""
        return self.scans.chosen

    def reload_models(self) -> None:
        """Read the store again, keeping the chosen model if it is still there."""
        self.model_choice.reload()

    def choose_model(self, path: Path) -> None:
        """Read the store again and choose the model of a file, if it is there."""
        self.model_choice.choose(path)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Load the runtime in the background when the dock is first seen, so that the first click takes less time."""
        super().showEvent(event)
        if not self._warmed_up:
            self._warmed_up = True
            run_quietly(engine.warm_up, self.config)

    # ------------------------------------------------------------------------------------------------ building

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)

        self.opener = CaseOpener(self, self._viewer)
        column.addWidget(self.opener)
        self.scans = ScansForm(self._viewer)
        self.scans.changed.connect(self._check)
        column.addWidget(self.scans.case_bar)
        self.device_line = make_line(_DEVICE_UNKNOWN, "Where the network runs")
        column.addWidget(self.device_line)

        self.model_choice = ModelChoice()
        self.model_choice.changed.connect(self._take_model)
        column.addWidget(self.model_choice)
        column.addWidget(self.scans)

        self.voxel_size = VoxelSizeForm(self._viewer, lambda: next(iter(self.chosen.values()), None))
        self.voxel_size.stated.connect(self._check)
        column.addWidget(self.voxel_size)
        self.alignment = AlignmentForm(self._viewer)
        self.alignment.changed.connect(self._check)
        column.addWidget(self.alignment)
        self.expectation = Expectation()
        column.addWidget(self.expectation)
        self.check_line = make_line("", "Whether the scans can be segmented")
        column.addWidget(self.check_line)

        self.advanced = SettingsForm(SegmentConfig, ADVANCED)
        self.advanced.editors["skull"].changed.connect(self._check)
        self.live = LivePreview(self._viewer, lambda: self.config)
        column.addWidget(self.live)
        self.advanced_part = make_collapsible("Advanced", self.advanced)
        column.addWidget(self.advanced_part)

        self.message = Message()
        column.addWidget(self.message)
        self.live.jobs.reported.connect(self.message.show_text)
        self.live.jobs.failed.connect(partial(self.message.show_failure, before="No preview: "))

        self.result_card = ResultCard(self._viewer)
        self.result_card.reported.connect(self.message.show_text)
        self.result_card.failed.connect(self.message.show_failure)
        self.result_card.case_asked.connect(self.scans.case_bar.take)
        self.result_card.tune_asked.connect(self._fine_tune)
        self.view_bar = ViewBar(self._viewer, lambda: self.result_card.layer)
        column.addWidget(self.view_bar)
        column.addWidget(self.result_card)

        self.segment_button = QPushButton("Segment")
        self.segment_button.setAccessibleName("Segment")
        self.segment_button.clicked.connect(self._start)
        self.footer = Footer(self.segment_button, "Stop after the step that is under way (Esc)")
        self.opener.serve(self.footer, self.message)
        self.doubts = DoubtQuestion()
        self.doubts.accepted.connect(self._start)
        self.lay_out(body, (self.doubts, self.footer))
        escape = lambda: self.footer.cancel() or self.opener.close_table()  # noqa: E731
        DockKeys(self, {"Esc": escape, "F3": self.opener.ask, "Ctrl+Return": self.segment_button.click})

    def _take_model(self) -> None:
        """Offer a slot for each modality that the chosen model may use."""
        self.doubts.withdraw()
        model = self.model
        self.scans.use_modalities(model.card.modalities if model and model.card else MODALITIES)

    # ------------------------------------------------------------------------------------------------ what is ready

    def _check(self) -> None:
        """Say whether the chosen layers can be segmented, or why not."""
        self._selection = None
        model = self.model
        if model is None:
            reason = "no model is installed."
        elif model.card is None:
            reason = model.problem
        else:
            try:
                selection = select_layers(self.chosen or self.scans.color_pictures, self.alignment.config)
                _check_modalities(model.card, selection)
                self._selection, reason = selection, ""
            except BrainTumorError as error:
                reason = str(error)
        self._show_expectation()
        self.alignment.show_for(self._selection)
        self.voxel_size.show_for(self._selection)
        self.voxel_size.setEnabled(self.footer.job is None)
        self.check_line.setText(f"Not ready: {reason}" if self._selection is None else self._describe(self._selection))
        self.segment_button.setEnabled(self._selection is not None)
        self.segment_button.setToolTip(literal(reason or "Draw the tumor as a label layer (Ctrl+Return)"))
        self.result_card.work_on(self._selection)
        self.live.work_on(self._selection)

    def _show_expectation(self) -> None:
        """Show for each model its Dice and about how long it will take, as far as the cards state them."""
        slices = self._selection.shape[0] if self._selection is not None else None
        card = self.model.card if self.model else None
        used = [modality for modality in self.chosen if modality not in self._left_out]
        self.model_choice.describe_for(slices, used)
        self.expectation.show_for(card, used)
        if not self._ran and self.footer.job is None:
            text = _DEVICE_UNKNOWN
            if card is not None and card.cpu_seconds_per_slice and slices:
                text += f"; on a CPU with two cores about {in_words(card.cpu_seconds_per_slice * slices)}"
            self.device_line.setText(text)

    @property
    def _left_out(self) -> tuple[str, ...]:
        """The chosen modalities that the model had better not see, as far as a quick look can show."""
        card, selection = self.model.card if self.model else None, self._selection
        inspection = self._inspector.inspect(selection) if selection else None
        if card is None or selection is None or inspection is None or self.advanced.values()["skull"] == "keep":
            return ()
        return card.leaves_out(selection.arrays, inspection.with_skull)

    def _describe(self, selection: Selection) -> str:
        grid = selection.placement.grid
        spacing = " x ".join(f"{side:.3g}" for side in grid.spacing)
        size = f"voxels of {spacing} mm" if grid.spacing_known else "voxel size unknown, so mL are a guess"
        shape = " x ".join(map(str, selection.shape))
        text = f"Ready: {selection.name}, {', '.join(selection.arrays)}, {shape}, {size}"
        if selection.reference is not None:
            text += f" of {selection.reference}"
        inspection = self._inspector.inspect(selection)
        if inspection is not None:
            text += ", skull-stripped" if inspection.skull_stripped else ", with skull"
        if left_out := " and ".join(self._left_out):
            text += f". {left_out} will be left out, because the model has never seen {left_out} with the skull"
        text = " ".join((f"{text}.", *(inspection.findings if inspection is not None else ())))
        return " ".join((text, *self.scans.remarks))

    # ------------------------------------------------------------------------------------------------ running

    def _start(self) -> None:
        self._check()
        if self._selection is None or self.model is None or self.footer.job is not None:
            return
        if not self.doubts.settles([self.model]):
            return
        self.message.show_text("")
        self.live.box.setChecked(False)
        self._notes = []
        self._running, self._running_model = self._selection, self.model.path
        self._started_s = 0.0
        how, kept = self.alignment.config, self.alignment.prepared
        job = Job(self, f"Segment {self._selection.name}", segment_selection, self._selection, self.config, how, kept)
        job.happened.connect(self._follow)
        job.failed.connect(partial(self.message.show_failure, before="Not segmented: "))
        job.ended.connect(self._end)
        aligns = self._selection.reference is not None
        self.footer.run(job, "Reading the scans…" if aligns else "Loading the model…")
        self.voxel_size.setEnabled(False)  # the run has begun with the one that there is

    def _follow(self, event: SegmentEvent | PhaseReached | PreparedScans) -> None:
        if isinstance(event, SlicesDone):
            self._show_progress(event)
            if self._running is not None:
                self.so_far.show(self._running, event.labels)
        elif isinstance(event, PhaseReached):
            self.footer.show_phase(event)
        elif isinstance(event, PreparedScans):
            self.alignment.keep(event)
            self.footer.show_progress(0, 1, "Loading the model…")
        elif isinstance(event, Started):
            self.device_line.setText(f"Device: {event.device} ({event.runtime})")
        elif isinstance(event, Noted):
            self._notes.append(event.text)
            self.message.add(event.text)
        else:
            assert isinstance(event, Segmented)
            self._show_result(event.segmentation)

    def _show_progress(self, event: SlicesDone) -> None:
        now_s = time.monotonic()
        if not self._started_s:
            self._started_s, self._first_done = now_s, event.done
        text = f"{event.done} of {event.total} slices"
        if event.done > self._first_done:
            left_s = (now_s - self._started_s) / (event.done - self._first_done) * (event.total - event.done)
            text += f", {in_words(left_s)} left"
        self.footer.show_progress(event.done, event.total, text)

    def _show_result(self, segmentation: Segmentation) -> None:
        assert self._running is not None
        place = self._running.placement
        self._ran = True
        self.message.show_text("")  # what was noted goes with the layer from now on
        known, selected = list(self._viewer.layers), self._viewer.layers.selection.active
        in_work = same_scans(self._running.made_from, self._selection.made_from if self._selection else {})
        self.result_card.blockSignals(not in_work)  # napari selects what is new, which is not what the user wants now
        layer = update_or_add_labels(
            self._viewer,
            segmentation,
            place,
            made_from=self._running.made_from,
            model_path=self._running_model,
            notes=self._notes,
        )
        if not in_work:  # the user has gone on with another case, and may be painting there
            self._viewer.layers.selection.active = unwrap_layer(selected)
            self.result_card.blockSignals(False)
            self.message.show_text(f"The tumor of '{segmentation.name}' is in layer '{layer.name}'.")
        update_or_add_probabilities(self._viewer, segmentation, place)
        self.view_bar.refresh()
        if in_work and layer not in known:  # else the user may be looking at a slice for a reason
            self.view_bar.go_to_largest()
        seconds = float(segmentation.provenance.get("seconds", 0))
        self.device_line.setText(f"{self.device_line.text().split(', last run')[0]}, last run {in_words(seconds)}")

    def _end(self) -> None:
        self.so_far.clear()
        if self.footer.end():
            self.message.show_text("Canceled. No layer was changed.")
        self.voxel_size.setEnabled(True)

    # ------------------------------------------------------------------------------------------------ results

    def _fine_tune(self, layer: Labels) -> None:
        """Open the Train dock, filled to tune the model of a result to it, on the scans it was made from."""
        from napari_braintumor.widgets.training.dock import TrainDock

        known = layer.metadata[KEY]
        made_from, path = known.get("made_from", {}), known.get("model", {}).get("path")
        scans = scans_of(self._viewer.layers, layer)
        gone = [str(scan["name"]) for modality, scan in made_from.items() if modality not in scans]
        if gone or not scans or path is None:
            which = f": {', '.join(gone)}" if gone else ""
            self.message.show_text(
                f"The scans that '{layer.name}' was made from are no longer all open{which}. Open them and segment "
                "again: the model learns from the scans that it saw."
            )
        elif (dock := open_dock(self._viewer, TrainDock)) is not None:
            dock.prepare_fine_tuning(scans, layer, Path(path))


def _check_modalities(card: ModelCard, selection: Selection) -> None:
    if missing := card.lacks(selection.arrays):
        raise DataError(f"{', '.join(missing)} is missing. This model needs {', '.join(card.modalities)}. Open it too.")
