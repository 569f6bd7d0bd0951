"""The Model tab: a new network, or a model that is tuned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, REGION_NAMES
from napari_braintumor.engine.models.registry import ARCHITECTURES
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import DEFAULT_MODEL
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.widgets.shared.forms import Row, SettingsForm
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget
from napari_braintumor.widgets.shared.preferences import MODELS

TUNING: dict[str, Row] = {"frozen_stages": {"label": "Frozen stages"}}
"""With the replay folder, what a user decides of a fine-tuning. Other fields keep their defaults."""

HOW_TUNING_GOES = (
    "The model's batch-norm statistics stay, its early stages learn last, and every third reviewed slice is for "
    "validation, so at least three are needed. The new version is accepted only if it is better on those and has not "
    "forgotten; the old one stays as it is."
)


class ModelPage(QWidget):
    """Choose what to train."""

    changed = Signal()
    """Something else is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self._models: list[StoredModel] = []
        self.mode_box = Combo()
        self.mode_box.addItem("Train a new network", "new")
        self.mode_box.addItem("Fine-tune a model", "tune")
        name_widget(self.mode_box, "New or fine-tune", "Start from scratch, or improve a model with corrected slices")
        self.name_edit = QLineEdit("my-model")
        name_widget(self.name_edit, "Name of the model", "Letters, digits, dots and dashes")
        self.pages = QStackedWidget()
        self.pages.addWidget(self._build_new())
        self.pages.addWidget(self._build_tuning())
        self.check_button = QPushButton("Check")
        name_widget(self.check_button, "Check the plan", "Try one batch: parameters, memory and time, before training")
        self.check_line = make_line("", "What the plan needs")
        form = QFormLayout()
        form.addRow(self.mode_box)
        form.addRow("Name", self.name_edit)
        column = QVBoxLayout(self)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addLayout(form)
        for widget in (self.pages, self.check_button, self.check_line):
            column.addWidget(widget)
        self.mode_box.currentIndexChanged.connect(self._show_mode)
        self.reload_models()
        self._show_architecture()
        MODELS.changed.connect(self.reload_models)

    @property
    def tunes(self) -> bool:
        """Whether a model is to be tuned."""
        return bool(self.mode_box.currentData() == "tune")

    @property
    def parent_model(self) -> StoredModel | None:
        """The model that is tuned."""
        index = self.model_box.currentIndex()
        return self._models[index] if self.tunes and 0 <= index < len(self._models) else None

    def new_settings(self) -> dict[str, Any]:
        """Return the plan's fields for a new network."""
        architecture = str(self.architecture_box.currentData())
        options: dict[str, Any] = dict(ARCHITECTURES[architecture].laptop)
        if "width" in options:
            options["width"] = self.width_spin.value()
        return {
            "architecture": architecture,
            "options": options,
            "modalities": tuple(name for name, box in self.modality_boxes.items() if box.isChecked()),
            "regions": tuple(name for name, box in self.region_boxes.items() if box.isChecked()),
        }

    def tuning(self) -> FineTuning:
        """Return how a model is tuned."""
        text = self.replay_edit.text().strip()
        replay = (Path(text).expanduser(),) if text else ()
        return FineTuning(**self.tuning_form.values(), replay=replay)

    def choose_parent(self, path: Path) -> bool:
        """Choose to tune a model; return whether it is there, since otherwise none is chosen."""
        self.reload_models()
        self.mode_box.setCurrentIndex(1)
        paths = [model.path for model in self._models]
        self.model_box.setCurrentIndex(paths.index(path) if path in paths else -1)
        return path in paths

    def reload_models(self) -> None:
        """Read the store again, keeping the choice."""
        index = self.model_box.currentIndex()
        before = self._models[index].name if 0 <= index < len(self._models) else DEFAULT_MODEL
        self._models = [model for model in ModelStore().list() if model.card is not None]
        self.model_box.blockSignals(True)
        self.model_box.clear()
        for model in self._models:
            badges = model.card.badges if model.card else ()
            self.model_box.addItem(" · ".join((model.name, *badges)))
        names = [model.name for model in self._models]
        self.model_box.setCurrentIndex(names.index(before) if before in names else 0)
        self.model_box.blockSignals(False)

    def _build_new(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        form.setContentsMargins(0, 0, 0, 0)
        self.architecture_box = Combo()
        name_widget(self.architecture_box, "Architecture", "The network's design")
        for key, row in ARCHITECTURES.items():
            self.architecture_box.addItem(row.title, key)
        self.architecture_box.currentIndexChanged.connect(self._show_architecture)
        self.width_spin = QSpinBox()
        self.width_spin.setRange(2, 4096)
        name_widget(self.width_spin, "Width", "Channels of the first level: more learn more, and take longer")
        form.addRow("Architecture", self.architecture_box)
        form.addRow("Width", self.width_spin)
        self.modality_boxes = self._add_boxes(form, "Modalities", MODALITIES, MODALITIES)
        self.region_boxes = self._add_boxes(form, "Regions", REGION_NAMES, [region.name for region in GLIOMA_REGIONS])
        return page

    def _add_boxes(
        self, form: QFormLayout, title: str, names: Sequence[str], checked: Collection[str]
    ) -> dict[str, QCheckBox]:
        boxes = {}
        column = QVBoxLayout()
        for name in names:
            box = QCheckBox(name)
            box.setChecked(name in checked)
            box.toggled.connect(lambda _: self.changed.emit())
            column.addWidget(box)
            boxes[name] = box
        form.addRow(title, column)
        return boxes

    def _build_tuning(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        form.setContentsMargins(0, 0, 0, 0)
        self.model_box = Combo()
        name_widget(self.model_box, "Model to tune", "It stays as it is; the new version gets a name of its own")
        self.model_box.currentIndexChanged.connect(self._show_mode)
        self.tuning_form = SettingsForm(FineTuning, TUNING)
        self.replay_edit = QLineEdit()
        self.replay_edit.setPlaceholderText("none: the model's own answers")
        name_widget(self.replay_edit, "Replay folder", "Cases the model knew, that it must not forget; optional")
        browse = QPushButton("Choose…")
        name_widget(browse, "Choose the replay folder", "Look for a folder of cases that the model was trained on")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.addWidget(self.replay_edit, 1)
        row.addWidget(browse)
        form.addRow("Model", self.model_box)
        form.addRow(self.tuning_form)
        form.addRow("Replay", row)
        form.addRow(make_line(HOW_TUNING_GOES, "How fine-tuning goes"))
        return page

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Cases the model knew", self.replay_edit.text())
        if chosen:
            self.replay_edit.setText(chosen)

    def _show_mode(self) -> None:
        self.pages.setCurrentIndex(int(self.tunes))
        if self.tunes and self.parent_model is not None:
            self.name_edit.setText(f"{self.parent_model.name}-tuned")
        self.changed.emit()

    def _show_architecture(self) -> None:
        width = ARCHITECTURES[str(self.architecture_box.currentData())].laptop.get("width")
        self.width_spin.setEnabled(width is not None)
        if width is not None:
            self.width_spin.setValue(width)
        self.changed.emit()
