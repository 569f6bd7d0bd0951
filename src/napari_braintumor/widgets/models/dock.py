"""The Models dock: choose, exchange and look after models, and compare them on the open case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.events import (
    Compared,
    Downloaded,
    Installed,
    ModelSegmented,
    Noted,
    PhaseReached,
    SlicesDone,
    Started,
)
from napari_braintumor.engine.exchange.catalogue import Entry, download
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.layers import Selection
from napari_braintumor.widgets.models.case_comparison import CaseComparison, compare_selection
from napari_braintumor.widgets.models.description import DescriptionForm
from napari_braintumor.widgets.models.download import in_megabytes
from napari_braintumor.widgets.models.exchanging import Clashing, Exported, Undescribed, install_model, write_model
from napari_braintumor.widgets.models.lineage import describe_lineage
from napari_braintumor.widgets.models.store_buttons import StoreButtons, ask_name, find_free_name
from napari_braintumor.widgets.models.table import ModelsTable
from napari_braintumor.widgets.shared.card_view import CardView
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.doubts import DoubtQuestion
from napari_braintumor.widgets.shared.following import follow, follow_names
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import literal, make_line, name_widget
from napari_braintumor.widgets.shared.preferences import MODELS

if TYPE_CHECKING:
    import napari

COMPARE_TIP = "Run the ticked models on the open case, one after another"


class ModelsDock(Dock):
    """The Models dock.

    Parameters
    ----------
    napari_viewer
        The viewer on whose case models are compared; napari passes it by this name.
    """

    title = "Models"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._selection: Selection | None = None
        self._doing = ""
        self._asking: Undescribed | Clashing | None = None  # about the file that was to be installed

        self._build()
        self.reload_models()
        layers = self._viewer.layers
        follow(self, self._check, layers.events.inserted, layers.events.removed, layers.events.reordered)
        follow(self, self._check, layers.selection.events.active)
        follow_names(self, self._check, layers)
        MODELS.changed.connect(self.reload_models)

    def describe_closing(self) -> str:
        """Say that a job under way ends with its dock."""
        if self.footer.job is None:
            return ""
        return f"{self._doing} was canceled because its dock was closed. Results finished before stay."

    @property
    def model(self) -> StoredModel | None:
        """The model whose card is shown."""
        return self.table.chosen

    def reload_models(self) -> None:
        """Read the store again, keeping the choice and the ticks."""
        self.table.fill(ModelStore().list())

    def install_from(self, path: Path, description: ModelCard | None = None, name: str | None = None) -> None:
        """Install a model file or folder, in the background; under a name, if it is not to keep its own."""
        self._run(f"Install {path.name}", install_model, path, description, name)

    def export_to(self, kind: str, target: Path) -> None:
        """Write the chosen model for another program, in the background."""
        if self.model is not None:
            self._run(f"Export {self.model.name}", write_model, self.model, kind, target)

    def download_entry(self, entry: Entry, mirror: str | None = None) -> None:
        """Download and install a model of a catalogue, in the background."""
        self._run(f"Download {entry.name}", download, entry, None, mirror)

    # ------------------------------------------------------------------------------------------------ building

    def _build(self) -> None:
        self.message = Message()
        self.table = ModelsTable()
        self.table.chosen_changed.connect(self._show_model)
        self.table.ticked_changed.connect(self._take_other_models)
        self.lineage_line = make_line("", "Where the model comes from")
        self.buttons = StoreButtons(self.message)
        self.buttons.added.connect(self._choose)
        self.buttons.install_asked.connect(self.install_from)
        self.buttons.export_asked.connect(self.export_to)
        self.buttons.download_asked.connect(self.download_entry)
        self.card_view = CardView()
        self.comparison = CaseComparison(self._viewer, self.message)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        for widget in (self.table, self.lineage_line, self.buttons, self.card_view.part, self.comparison):
            column.addWidget(widget)

        self.compare_button = QPushButton("Compare")
        name_widget(self.compare_button, "Compare", COMPARE_TIP)
        self.compare_button.clicked.connect(self._compare)
        self.footer = Footer(self.compare_button, "Stop as soon as possible")
        self.doubts = DoubtQuestion()
        self.doubts.accepted.connect(self._compare)
        self.lay_out(body, (self.message, self.doubts, self.footer))

    def _choose(self, path: Path) -> None:
        """Announce a new model to all docks, and choose it here."""
        MODELS.changed.emit()
        self.table.fill(ModelStore().list(), path)

    def _show_model(self) -> None:
        """Describe the chosen model, and offer what can be done with it."""
        model = self.model
        text = describe_lineage(model, self.table.models) if model else "No model is installed."
        if model is not None:
            text = " ".join((*model.card.doubts, text)).strip() if model.card else model.problem
        self.lineage_line.setText(text)
        self.lineage_line.setVisible(bool(text))
        self.card_view.show_model(model)
        self._offer_actions()

    def _offer_actions(self) -> None:
        self.buttons.show_for(self.model, self.table.models, idle=self.footer.job is None)

    # ------------------------------------------------------------------------------------------------ comparing

    def _take_other_models(self) -> None:
        self.doubts.withdraw()
        self._check()

    def _check(self, _: Any = None) -> None:
        """Say whether the ticked models can be compared, or why not."""
        self._selection, reason = self.comparison.check(self.table.ticked)
        self.compare_button.setEnabled(not reason and self.footer.job is None)
        self.compare_button.setToolTip(literal(reason or COMPARE_TIP))

    def _compare(self) -> None:
        self._check()
        selection, models = self._selection, self.table.ticked
        if selection is None or self.footer.job is not None or not self.doubts.settles(models):
            return
        try:
            painted = self.comparison.begin(selection)
        except BrainTumorError as error:
            self.message.show_text(str(error))
            return
        configs = [SegmentConfig(model=str(model.path)) for model in models]
        self._run(f"Compare on {selection.name}", compare_selection, selection, configs, painted)

    # ------------------------------------------------------------------------------------------------ jobs

    def _run(self, title: str, generator: Callable[..., Any], *args: Any) -> None:
        if self.footer.job is not None:
            return
        self.message.show_text("")
        self._doing, self._asking = title, None
        job = Job(self, title, generator, *args)
        job.happened.connect(self._follow)
        job.failed.connect(self.message.show_failure)
        job.ended.connect(self._end)
        self.footer.run(job, f"{title}…")
        self._offer_actions()
        self._check()

    def _follow(self, event: Any) -> None:
        if isinstance(event, SlicesDone):
            self.footer.show_progress(event.done, event.total, f"{event.done} of {event.total} slices of all models")
        elif isinstance(event, PhaseReached):
            self.footer.show_phase(event)
        elif isinstance(event, Downloaded):
            text = f"{in_megabytes(event.done)} of {in_megabytes(event.total)}"
            # In kB, since a progress bar counts no further than 2 GB.
            self.footer.show_progress(event.done // 1000, event.total // 1000, text)
        elif isinstance(event, Noted):
            self.message.add(event.text)
        elif isinstance(event, ModelSegmented):
            self.comparison.add_result(event, self.table.models)
        elif isinstance(event, Compared):
            self.comparison.show_comparison(event.comparison, self.table.models)
        elif isinstance(event, Undescribed | Clashing):
            self._asking = event
        elif isinstance(event, Installed):
            self._choose(event.path)
            self.message.show_text(f"'{event.name}' is now among your models.")
        elif isinstance(event, Exported):
            self.message.show_text(f"Written: {event.path}.")
        else:
            assert isinstance(event, Started)

    def _end(self) -> None:
        if self.footer.end():
            kept = " Results found before stay." if self.comparison.results else ""
            self.message.show_text(f"Canceled.{kept}")
        self._offer_actions()
        self._check()
        asking, self._asking = self._asking, None
        if isinstance(asking, Undescribed):
            self._describe_and_install(asking)
        elif asking is not None:
            self._rename_and_install(asking)

    def _describe_and_install(self, undescribed: Undescribed) -> None:
        form = DescriptionForm(self, undescribed.path, undescribed.reason)
        accepted = form.exec()
        form.deleteLater()
        if accepted and form.card is not None:
            self.install_from(undescribed.path, form.card)
        else:
            self.message.show_text(f"'{undescribed.path.name}' was not installed.")

    def _rename_and_install(self, clashing: Clashing) -> None:
        proposed = find_free_name(clashing.taken, self.table.models)
        if name := ask_name(self, "Install", proposed, f"{clashing.reason}\n\nNew name"):
            self.install_from(clashing.path, clashing.description, name)
        else:
            self.message.show_text(f"'{clashing.path.name}' was not installed.")
