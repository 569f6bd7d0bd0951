"""The buttons that look after models: install, download, export, duplicate, rename, delete, and choose their folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from qtpy.QtCore import QUrl, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QGridLayout, QInputDialog, QMenu, QMessageBox, QPushButton, QWidget

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.exchange.catalogue import offers_models
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.widgets.models.download import DownloadForm
from napari_braintumor.widgets.models.lineage import list_children
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import literal, name_widget
from napari_braintumor.widgets.shared.preferences import MODELS, models_settings

GAP_PX = 4
COLUMNS = 3
MODEL_FILES = "Models (*.safetensors *.zip *.onnx *.pt *.pth *.ckpt);;All files (*)"


class StoreButtons(QWidget):
    """Do something with the chosen model, or with the store.

    Parameters
    ----------
    message
        Where the dock shows what happens.
    """

    added = Signal(object)
    """The path of a model that is new in the store, to be chosen."""

    install_asked = Signal(object)
    """The path of a file or folder."""

    export_asked = Signal(str, object)
    """A kind of file, and its path."""

    download_asked = Signal(object, object)
    """An `Entry` of a catalogue, and from where else to take its file."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self._message = message
        self._model: StoredModel | None = None
        self._models: list[StoredModel] = []
        self._build()

    def show_for(self, model: StoredModel | None, models: Sequence[StoredModel], idle: bool) -> None:
        """Offer what can be done with a model; nothing while a job runs."""
        self._model, self._models = model, list(models)
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
        stays = "" if mine or model is None else " Bundled models cannot be changed: duplicate it."
        self.rename_button.setToolTip(f"Give the model another name.{stays}")
        self.delete_button.setToolTip(f"Delete the model's file.{stays}")
        self.folder_button.setToolTip(literal(f"Show the folder of your models: {ModelStore().folder}"))

    def _build(self) -> None:
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
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(GAP_PX)
        actions: tuple[tuple[QPushButton, str, Callable[[], None] | None], ...] = (
            (self.install_button, "Add a model file of this or another program to your models", None),
            (self.export_button, "Write the model for another computer or program", self._export),
            (self.duplicate_button, "Copy the model under another name", self._duplicate),
            (self.rename_button, "Give the model another name", self._rename),
            (self.delete_button, "Delete the model's file", self._delete),
            (self.folder_button, "Show the folder of your models", self._open_folder),
            (self.move_button, "Keep your models in another folder, as in napari's Preferences", self._choose_store),
            (self.reload_button, "Read the folders again", MODELS.changed.emit),
            (self.download_button, "Choose from a catalogue; nothing is fetched before you do", self._download),
        )
        for number, (button, tip, act) in enumerate(actions):
            name_widget(button, button.text().strip("…"), tip)
            if act is not None:
                button.clicked.connect(partial(_call, act))
            grid.addWidget(button, number // COLUMNS, number % COLUMNS)
        self.download_button.setHidden(not offers_models())
        self._buttons = tuple(button for button, _, _ in actions)

    # ---------------------------------------------------------------------------------------------- the store

    def _duplicate(self) -> None:
        model = self._model
        if model is not None and (name := ask_name(self, "Duplicate", find_free_name(model.name, self._models))):
            self._try(partial(self._copy_as, model, name))

    def _copy_as(self, model: StoredModel, name: str) -> None:
        copy = ModelStore().duplicate(model.path, name)
        self.added.emit(copy.path)
        self._message.show_text(f"'{name}' is a copy of '{model.name}'.")

    def _rename(self) -> None:
        model = self._model
        if model is not None and (name := ask_name(self, "Rename", model.name)):
            self._try(partial(self._rename_to, model, name))

    def _rename_to(self, model: StoredModel, name: str) -> None:
        children = [child.name for child in ModelStore().find_children(model.name)]
        renamed = ModelStore().rename(model.path, name)
        self.added.emit(renamed.path)
        still = f" Still naming '{model.name}' as their parent: {', '.join(children)}." if children else ""
        self._message.show_text(f"'{model.name}' is now called '{name}'.{still}")

    def _delete(self) -> None:
        model = self._model
        if model is None:
            return
        question = f"Delete '{model.name}' with its file {model.path}?"
        if children := list_children(model.name, self._models):
            question += (
                f"\n\nThese were tuned from it: {', '.join(children)}. They stay and work, but without their parent."
            )
        question += "\n\nModels that ship with the package stay."
        if QMessageBox.question(self, "Delete a model", literal(question)) == QMessageBox.StandardButton.Yes:
            self._try(partial(self._delete_now, model))

    def _delete_now(self, model: StoredModel) -> None:
        ModelStore().remove(model.path)
        MODELS.changed.emit()
        self._message.show_text(f"'{model.name}' is deleted.")

    def _open_folder(self) -> None:
        folder = ModelStore().folder
        if not folder.is_dir():
            self._message.show_text(f"Your models will be stored in {folder}, which the first one creates.")
        elif not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            self._message.show_text(f"Your models are stored in {folder}.")

    def _choose_store(self) -> None:
        """Write another folder into napari's Preferences, which notify all docks."""
        settings = models_settings()
        chosen = QFileDialog.getExistingDirectory(self, "Folder of your models", str(ModelStore().folder))
        if settings is not None and chosen:
            settings.folder = chosen
            self._message.show_text(f"Your models are now stored in {chosen}. Those in the old folder stay there.")

    def _try(self, act: Callable[[], None]) -> None:
        """Do something, and show the user an error if it fails."""
        try:
            act()
        except BrainTumorError as error:
            self._message.show_text(str(error))

    # ---------------------------------------------------------------------------------------------- exchange

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Install a model", str(Path.home()), MODEL_FILES)
        if path:
            self.install_asked.emit(Path(path))

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Install a model from its folder", str(Path.home()))
        if path:
            self.install_asked.emit(Path(path))

    def _export(self) -> None:
        from napari_braintumor.engine.exchange import KINDS, SUFFIXES

        model = self._model
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
            self.export_asked.emit(kind, Path(path))

    def _download(self) -> None:
        form = DownloadForm(self)
        form.reload()
        accepted = form.exec()
        entry, mirror = form.entry, form.mirror
        form.deleteLater()
        if accepted and entry is not None:
            self.download_asked.emit(entry, mirror)


def ask_name(parent: QWidget, title: str, proposed: str, question: str = "New name") -> str:
    """Return the name that the user gives; empty if none."""
    name, sure = QInputDialog.getText(parent, title, literal(question), text=proposed)
    return name.strip() if sure else ""


def find_free_name(name: str, models: Sequence[StoredModel]) -> str:
    """Return a name for a copy that no model has."""
    taken, number = {model.name for model in models}, 2
    free = f"{name}-copy"
    while free in taken:
        free, number = f"{name}-copy-{number}", number + 1
    return free


def _call(act: Callable[[], None], _: bool = False) -> None:
    """Drop the argument that a button sends when it is clicked."""
    act()
