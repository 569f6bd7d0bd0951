"""The Models dock: choose, exchange and look after models, and compare them on the open case."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QInputDialog,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor import engine
from napari_braintumor.engine.errors import BrainTumorError, DataError, DescriptionNeeded, NameTaken, SettingsError
from napari_braintumor.engine.events import (
    Compared,
    CompareEvent,
    Downloaded,
    Installed,
    ModelSegmented,
    Noted,
    SlicesDone,
    Started,
)
from napari_braintumor.engine.exchange.catalogue import Entry, download, offers_models
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.card_text import card_as_markdown
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Comparison
from napari_braintumor.layers import (
    Selection,
    find_reference,
    kept_slices,
    label_names,
    labels_for,
    masks_in,
    match_modalities,
    reference_from_labels,
    scan_beside,
    select_layers,
    stream_selection,
    update_or_add_disagreement,
    update_or_add_labels,
)
from napari_braintumor.widgets.models.compare import ComparisonTable
from napari_braintumor.widgets.models.description import DescriptionForm
from napari_braintumor.widgets.models.download import DownloadForm, in_megabytes
from napari_braintumor.widgets.models.table import ModelsTable, describe_lineage, list_children
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.doubts import DoubtQuestion
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import (
    Combo,
    LayerSlot,
    literal,
    make_collapsible,
    make_line,
    name_widget,
    when_destroyed,
)
from napari_braintumor.widgets.shared.preferences import MODELS, models_settings
from napari_braintumor.widgets.shared.result_card import describe_kept
from napari_braintumor.widgets.training.data_tab import MEANINGS

if TYPE_CHECKING:
    import napari

CARD_HEIGHT_PX = 260
CARD_INDENT_PX = 12
BUTTON_GAP_PX = 4
MODEL_FILES = "Models (*.safetensors *.zip *.onnx *.pt *.pth *.ckpt);;All files (*)"


@dataclass(frozen=True, eq=False)
class Drawn:
    """A reference as it was when Compare was pressed: its labels, and what its layer calls them."""

    labels: NDArray[np.integer[Any]]
    names: dict[int, str]
    convention: str | None = None


@dataclass(frozen=True)
class Undescribed:
    """A file that can only be installed with a description."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Clashing:
    """A file that can only be installed under another name."""

    path: Path
    description: ModelCard | None
    taken: str
    reason: str


@dataclass(frozen=True)
class Exported:
    """A model was written for another program."""

    path: Path


def install_model(
    path: Path, description: ModelCard | None, name: str | None
) -> Generator[Installed | Undescribed | Clashing, None, None]:
    """Bring a model file of any kind into the store; runs in a worker thread."""
    from napari_braintumor.engine.exchange import import_model

    try:
        model = import_model(path, description, name=name)
    except DescriptionNeeded as error:
        yield Undescribed(path, str(error))
    except NameTaken as error:
        yield Clashing(path, description, error.name, str(error))
    else:
        yield Installed(model.name, model.path)


def write_model(model: StoredModel, kind: str, target: Path) -> Generator[Exported, None, None]:
    """Write a model for another program; runs in a worker thread."""
    from napari_braintumor.engine.exchange import export_model

    yield Exported(export_model(model, kind, target))


def compare_selection(
    selection: Selection, configs: Sequence[SegmentConfig], drawn: Drawn | None
) -> Generator[CompareEvent, None, None]:
    """Read the voxels of layers and compare models on them; runs in a worker thread."""
    source = selection.placement.grid
    reference = None
    if drawn is not None:
        reference = reference_from_labels(drawn.labels, drawn.names, source, drawn.convention)
    for event in engine.compare(stream_selection(selection), configs, reference):
        if isinstance(event, ModelSegmented):
            _ = event.segmentation.tallies  # counted here, so that the window does not wait for it
        yield event


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
        self._compared: Selection | None = None  # what the comparison under way began with
        self._doing = ""
        self._asking: Undescribed | Clashing | None = None  # about the file that was to be installed
        self._case = ""
        self._references: dict[str, Layer | None] = {}  # for each case what the user chose; else the one found
        self._results: dict[str, Labels] = {}

        self._build()
        self.reload_models()
        layers = self._viewer.layers
        for layer in layers:
            layer.events.name.connect(self._check)
        layers.events.inserted.connect(self._watch_new)
        layers.events.removed.connect(self._check)
        layers.events.reordered.connect(self._check)
        layers.selection.events.active.connect(self._check)
        when_destroyed(self, _unwatch, layers, self._watch_new, self._check)
        MODELS.changed.connect(self.reload_models)

    def describe_closing(self) -> str:
        """Say that a job under way ends with its dock."""
        if self.footer.job is None:
            return ""
        return f"{self._doing} was canceled, as its dock was closed. What was finished before stays."

    @property
    def model(self) -> StoredModel | None:
        """The model whose card is shown."""
        return self.table.chosen

    def reload_models(self) -> None:
        """Read the store again, keeping what is chosen and ticked."""
        self._fill(None)

    # ------------------------------------------------------------------------------------------------ building

    def _build(self) -> None:
        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.table = ModelsTable()
        self.table.chosen_changed.connect(self._show_model)
        self.table.ticked_changed.connect(self._take_other_models)
        column.addWidget(self.table)
        self.lineage_line = make_line("", "Where the model comes from")
        column.addWidget(self.lineage_line)
        column.addWidget(self._build_buttons())
        self.card_view = QTextBrowser()
        self.card_view.setAccessibleName("Model card")
        self.card_view.setMinimumHeight(CARD_HEIGHT_PX)
        self.card_view.setOpenExternalLinks(True)
        if (document := self.card_view.document()) is not None:
            document.setIndentWidth(CARD_INDENT_PX)
        self.card_part = make_collapsible("Model card", self.card_view)
        self.card_part.toggled.connect(self._show_card)
        column.addWidget(self.card_part)

        group = QGroupBox("Compare on the open case")
        inside = QVBoxLayout(group)
        self.check_line = make_line("", "Whether models can be compared")
        self.reference_slot = LayerSlot()
        name_widget(self.reference_slot, "Reference", "Labels drawn by people, to hold the models against")
        self.reference_slot.activated.connect(self._pick_reference)
        self.comparison = ComparisonTable()
        self.comparison.model_asked.connect(self._show_result)
        inside.addWidget(self.check_line)
        inside.addWidget(QLabel("Reference"))
        inside.addWidget(self.reference_slot)
        self.meaning_box = Combo()
        name_widget(self.meaning_box, "What the reference's labels mean", "Which number stands for which tissue")
        self.meaning_box.addItem("Meaning: as its numbers tell", None)
        for key, text in MEANINGS.items():
            self.meaning_box.addItem(text, key)
        inside.addWidget(self.meaning_box)
        inside.addWidget(self.comparison)
        inside.addStretch(1)
        column.addWidget(group)

        self.message = Message()
        self.compare_button = QPushButton("Compare")
        name_widget(self.compare_button, "Compare", "Run the ticked models on the open case, one after another")
        self.compare_button.clicked.connect(self._compare)
        self.footer = Footer(self.compare_button, "Stop as soon as possible")
        self.doubts = DoubtQuestion()
        self.doubts.accepted.connect(self._compare)
        self.lay_out(body, (self.message, self.doubts, self.footer))

    def _build_buttons(self) -> QWidget:
        self.install_button = QPushButton("Install…")
        menu = QMenu(self.install_button)
        menu.addAction("From a file…", self._choose_file)
        menu.addAction("From a folder…", self._choose_folder)
        self.install_button.setMenu(menu)
        self.download_button, self.export_button, self.duplicate_button, self.rename_button, self.delete_button = (
            QPushButton(text) for text in ("Download…", "Export…", "Duplicate…", "Rename…", "Delete…")
        )
        self.folder_button, self.move_button, self.reload_button = (
            QPushButton(text) for text in ("Open folder", "Folder…", "Reload")
        )
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(BUTTON_GAP_PX)
        told: tuple[tuple[QPushButton, str, Callable[[], None] | None], ...] = (
            (self.install_button, "Put a model file of this or another program among yours", None),
            (self.export_button, "Write the model for another computer or program", self._export),
            (self.duplicate_button, "Copy the model under another name", self._duplicate),
            (self.rename_button, "Give the model another name", self._rename),
            (self.delete_button, "Delete the model's file", self._delete),
            (self.folder_button, "Show the folder of your models", self._open_folder),
            (self.move_button, "Keep your models in another folder, as in napari's Preferences", self._choose_store),
            (self.reload_button, "Look at the folders again", MODELS.changed.emit),
            (self.download_button, "Choose from a catalogue; nothing is fetched before", self._download),
        )
        for number, (button, tip, act) in enumerate(told):
            name_widget(button, button.text().strip("…"), tip)
            if act is not None:
                button.clicked.connect(partial(_call, act))
            grid.addWidget(button, number // 3, number % 3)
        self.download_button.setHidden(not offers_models())
        self._buttons = tuple(button for button, _, _ in told)
        return box

    # ------------------------------------------------------------------------------------------------ the table

    def _fill(self, chosen: Path | None) -> None:
        self.table.fill(ModelStore().list(), chosen)
        self.folder_button.setToolTip(literal(f"Show the folder of your models: {ModelStore().folder}"))

    def _choose(self, path: Path) -> None:
        """Tell all docks of what is new, and choose it here."""
        MODELS.changed.emit()
        self._fill(path)

    def _show_model(self) -> None:
        """Describe the chosen model, and offer what can be done with it."""
        model = self.model
        text = describe_lineage(model, self.table.models) if model else "No model is installed."
        if model is not None:
            text = " ".join((*model.card.doubts, text)).strip() if model.card else model.problem
        self.lineage_line.setText(text)
        self.lineage_line.setVisible(bool(text))
        self.card_part.setVisible(model is not None and model.card is not None)
        self._show_card()
        self._enable_buttons()

    def _enable_buttons(self) -> None:
        model, idle = self.model, self.footer.job is None
        usable = model is not None and model.card is not None
        mine = model is not None and not model.bundled
        for button in self._buttons:
            button.setEnabled(idle)
        self.export_button.setEnabled(idle and usable)
        self.duplicate_button.setEnabled(idle and usable)
        self.rename_button.setEnabled(idle and usable and mine)
        self.delete_button.setEnabled(idle and mine)
        movable = models_settings() is not None
        self.move_button.setEnabled(idle and movable)
        fixed = "" if movable else " BRAINTUMOR_MODELS decides here, or this napari is older than 0.9."
        self.move_button.setToolTip(f"Keep your models in another folder, as in napari's Preferences.{fixed}")
        stays = "" if mine or model is None else " Models of the package stay as they are: duplicate it."
        self.rename_button.setToolTip(f"Give the model another name.{stays}")
        self.delete_button.setToolTip(f"Delete the model's file.{stays}")

    def _show_card(self, _: bool = False) -> None:
        """Fill the card, if it is open."""
        model = self.model
        if model is not None and model.card is not None and self.card_part.isExpanded():
            there = model.path.exists()  # it may have been deleted meanwhile
            self.card_view.setMarkdown(card_as_markdown(model.card, model.path if there else None))

    # ------------------------------------------------------------------------------------------------ the store

    def _duplicate(self) -> None:
        model = self.model
        if model is not None and (name := self._ask_name("Duplicate", _free_name(model.name, self.table.models))):
            self._try(partial(self._copy_as, model, name))

    def _copy_as(self, model: StoredModel, name: str) -> None:
        copy = ModelStore().duplicate(model.path, name)
        self._choose(copy.path)
        self.message.tell(f"'{name}' is a copy of '{model.name}'.")

    def _rename(self) -> None:
        model = self.model
        if model is not None and (name := self._ask_name("Rename", model.name)):
            self._try(partial(self._rename_to, model, name))

    def _rename_to(self, model: StoredModel, name: str) -> None:
        children = [child.name for child in ModelStore().children(model.name)]
        renamed = ModelStore().rename(model.path, name)
        self._choose(renamed.path)
        still = f" Still naming '{model.name}' as their parent: {', '.join(children)}." if children else ""
        self.message.tell(f"'{model.name}' is called '{name}' now.{still}")

    def _ask_name(self, title: str, proposed: str, question: str = "New name") -> str:
        name, sure = QInputDialog.getText(self, title, literal(question), text=proposed)
        return name.strip() if sure else ""

    def _delete(self) -> None:
        model = self.model
        if model is None:
            return
        question = f"Delete '{model.name}' with its file {model.path}?"
        if children := list_children(model.name, self.table.models):
            question += (
                f"\n\nTuned from it were: {', '.join(children)}. They stay and work, but their parent is missing."
            )
        question += "\n\nModels that ship with the package stay."
        if QMessageBox.question(self, "Delete a model", literal(question)) == QMessageBox.StandardButton.Yes:
            self._try(partial(self._delete_now, model))

    def _delete_now(self, model: StoredModel) -> None:
        ModelStore().remove(model.path)
        MODELS.changed.emit()
        self.message.tell(f"'{model.name}' is deleted.")

    def _open_folder(self) -> None:
        folder = ModelStore().folder
        if not folder.is_dir():
            self.message.tell(f"Your models will lie in {folder}, which is made when the first one is installed.")
        elif not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            self.message.tell(f"Your models lie in {folder}.")

    def _choose_store(self) -> None:
        """Write another folder into napari's Preferences, which tell all docks."""
        settings = models_settings()
        chosen = QFileDialog.getExistingDirectory(self, "Folder of your models", str(ModelStore().folder))
        if settings is not None and chosen:
            settings.folder = chosen
            self.message.tell(f"Your models lie in {chosen} now. Those in the old folder stay there.")

    def _try(self, act: Callable[[], None]) -> None:
        """Do something that a user may have to be told about."""
        try:
            act()
        except BrainTumorError as error:
            self.message.tell(str(error))

    # ------------------------------------------------------------------------------------------------ exchange

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Install a model", str(Path.home()), MODEL_FILES)
        if path:
            self.install_from(Path(path))

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Install a model from its folder", str(Path.home()))
        if path:
            self.install_from(Path(path))

    def install_from(self, path: Path, description: ModelCard | None = None, name: str | None = None) -> None:
        """Install a model file or folder, in the background; under a name, if it is not to keep its own."""
        self._run(f"Install {path.name}", install_model, path, description, name)

    def _describe_and_install(self, undescribed: Undescribed) -> None:
        form = DescriptionForm(self, undescribed.path, undescribed.reason)
        accepted = form.exec()
        form.deleteLater()
        if accepted and form.card is not None:
            self.install_from(undescribed.path, form.card)
        else:
            self.message.tell(f"'{undescribed.path.name}' was not installed.")

    def _rename_and_install(self, clashing: Clashing) -> None:
        proposed = _free_name(clashing.taken, self.table.models)
        if name := self._ask_name("Install", proposed, f"{clashing.reason}\n\nNew name"):
            self.install_from(clashing.path, clashing.description, name)
        else:
            self.message.tell(f"'{clashing.path.name}' was not installed.")

    def _export(self) -> None:
        from napari_braintumor.engine.exchange import KINDS, SUFFIXES

        model = self.model
        if model is None:
            return
        question = literal(f"Write '{model.name}' as")
        title, sure = QInputDialog.getItem(self, "Export", question, list(KINDS.values()), 0, False)
        if not sure:
            return
        kind = next(key for key, text in KINDS.items() if text == title)
        proposed = str(Path.home() / f"{model.name}{SUFFIXES[kind]}")
        path, _ = QFileDialog.getSaveFileName(self, "Export", proposed, f"{title} (*{SUFFIXES[kind]})")
        if path:
            self.export_to(kind, Path(path))

    def export_to(self, kind: str, target: Path) -> None:
        """Write the chosen model for another program, in the background."""
        if self.model is not None:
            self._run(f"Export {self.model.name}", write_model, self.model, kind, target)

    def _download(self) -> None:
        form = DownloadForm(self)
        form.reload()
        accepted = form.exec()
        entry, mirror = form.entry, form.mirror
        form.deleteLater()
        if accepted and entry is not None:
            self.download_entry(entry, mirror)

    def download_entry(self, entry: Entry, mirror: str | None = None) -> None:
        """Download and install a model of a catalogue, in the background."""
        self._run(f"Download {entry.name}", download, entry, None, mirror)

    # ------------------------------------------------------------------------------------------------ the case

    def _watch_new(self, event: Any) -> None:
        event.value.events.name.connect(self._check)
        self._check()

    def _take_other_models(self) -> None:
        self.doubts.withdraw()
        self._check()

    def _pick_reference(self, _: int) -> None:
        self._references[self._case] = self.reference_slot.layer
        self._show_meaning()

    def _show_meaning(self) -> None:
        """Ask what the numbers mean of labels that this plugin has not made or read."""
        layer = self.reference_slot.layer
        self.meaning_box.setVisible(isinstance(layer, Labels) and not label_names(layer))
        if self.meaning_box.isHidden():
            self.meaning_box.setCurrentIndex(0)

    def _check(self, _: Any = None) -> None:
        """Say whether the ticked models can be compared, or why not.

        The case is that of the selected layer, else the topmost.
        """
        layers, models = self._viewer.layers, self.table.ticked
        self._selection = None
        try:
            selection = select_layers(match_modalities(layers, scan_beside(layers, layers.selection.active)))
            self._offer_references(selection.name)
            _check_models(models, selection)
        except BrainTumorError as error:
            reason = str(error)
            self.check_line.setText(f"Not ready: {reason}")
        else:
            self._selection, reason = selection, ""
            told = f"{len(models)} models on {selection.name}, {', '.join(selection.arrays)}"
            self.check_line.setText(f"Ready: {told}.")
        self.compare_button.setEnabled(not reason and self.footer.job is None)
        self.compare_button.setToolTip(literal(reason or "Run the ticked models on the open case, one after another"))

    def _offer_references(self, case: str) -> None:
        self._case = case
        masks = masks_in(self._viewer.layers)
        found = find_reference(masks, case)
        picked = self._references.get(case, found)
        self.reference_slot.offer(masks, picked if picked is None or picked in masks else found)
        self._show_meaning()

    def _compare(self) -> None:
        self._check()
        selection = self._selection
        if selection is None or self.footer.job is not None:
            return
        if not self.doubts.settles(self.table.ticked):
            return
        configs = [SegmentConfig(model=str(model.path)) for model in self.table.ticked]
        layer = self.reference_slot.layer
        try:
            drawn = None
            if isinstance(layer, Labels):
                meaning = self.meaning_box.currentData()
                drawn = Drawn(np.array(labels_for(selection, layer)), label_names(layer), meaning)
        except BrainTumorError as error:
            self.message.tell(str(error))
            return
        self._compared, self._results = selection, {}
        self._run(f"Compare on {selection.name}", compare_selection, selection, configs, drawn)

    def _add_result(self, event: ModelSegmented) -> None:
        assert self._compared is not None
        path = next((stored.path for stored in self.table.models if stored.name == event.model), None)
        layer = update_or_add_labels(
            self._viewer,
            event.segmentation,
            self._compared.placement,
            event.model,
            made_from=self._compared.made_from,
            model_path=path,
        )
        layer.visible = not self._results
        self._results[event.model] = layer
        if kept := describe_kept(len(kept_slices(layer))):
            self.message.add(f"{layer.name}: {kept}")

    def _show_comparison(self, comparison: Comparison) -> None:
        assert self._compared is not None
        update_or_add_disagreement(self._viewer, comparison, self._compared.placement)
        badges = {m.name: ", ".join(m.card.badges) for m in self.table.models if m.card and m.card.badges}
        self.comparison.show_comparison(comparison, badges)
        self.message.tell(
            "The first model's layer and the disagreement are shown. Click a row to see another model's layer."
        )

    def _show_result(self, model: str) -> None:
        """Show one model's layer and hide the others'."""
        if model not in self._results:
            return
        for name, layer in self._results.items():
            if layer in self._viewer.layers:
                layer.visible = name == model

    # ------------------------------------------------------------------------------------------------ jobs

    def _run(self, title: str, generator: Callable[..., Any], *args: Any) -> None:
        if self.footer.job is not None:
            return
        self.message.tell("")
        self._doing, self._asking = title, None
        job = Job(self, title, generator, *args)
        job.happened.connect(self._follow)
        job.failed.connect(self.message.show_failure)
        job.ended.connect(self._end)
        self.footer.run(job, f"{title}…")
        self._enable_buttons()
        self._check()

    def _follow(self, event: Any) -> None:
        if isinstance(event, SlicesDone):
            self.footer.show_progress(event.done, event.total, f"{event.done} of {event.total} slices of all models")
        elif isinstance(event, Downloaded):
            told = f"{in_megabytes(event.done)} of {in_megabytes(event.total)}"
            # In kB, since a progress bar counts no further than 2 GB.
            self.footer.show_progress(event.done // 1000, event.total // 1000, told)
        elif isinstance(event, Noted):
            self.message.add(event.text)
        elif isinstance(event, ModelSegmented):
            self._add_result(event)
        elif isinstance(event, Compared):
            self._show_comparison(event.comparison)
        elif isinstance(event, Undescribed | Clashing):
            self._asking = event
        elif isinstance(event, Installed):
            self._choose(event.path)
            self.message.tell(f"'{event.name}' is among your models.")
        elif isinstance(event, Exported):
            self.message.tell(f"Written: {event.path}.")
        else:
            assert isinstance(event, Started)

    def _end(self) -> None:
        if self.footer.end():
            kept = " What was found before stays." if self._results else ""
            self.message.tell(f"Cancelled.{kept}")
        self._enable_buttons()
        self._check()
        asking, self._asking = self._asking, None
        if isinstance(asking, Undescribed):
            self._describe_and_install(asking)
        elif asking is not None:
            self._rename_and_install(asking)


def _check_models(models: Sequence[StoredModel], selection: Selection) -> None:
    if len(models) < 2:
        raise SettingsError(f"{len(models)} models are ticked. Tick two or more to compare them on {selection.name}.")
    for model in models:
        if model.card is not None and (missing := model.card.lacks(selection.arrays)):
            raise DataError(f"'{model.name}' needs {', '.join(missing)} too. Open that, or untick the model.")


def _free_name(name: str, models: Sequence[StoredModel]) -> str:
    """Return a name for a copy that no model has."""
    taken, number = {model.name for model in models}, 2
    free = f"{name}-copy"
    while free in taken:
        free, number = f"{name}-copy-{number}", number + 1
    return free


def _call(act: Callable[[], None], _: bool = False) -> None:
    """Leave out what a button tells when it is clicked."""
    act()


def _unwatch(layers: Any, on_insert: Any, on_change: Any) -> None:
    """Let go of a viewer that outlives the dock."""
    layers.events.inserted.disconnect(on_insert)
    layers.events.removed.disconnect(on_change)
    layers.events.reordered.disconnect(on_change)
    layers.selection.events.active.disconnect(on_change)
    layer: Layer
    for layer in layers:
        layer.events.name.disconnect(on_change)
