"""A form for what a model file does not state: what its channels are, and what its network expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.anatomy import MODALITIES, REGIONS
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.card import ModelCard, Normalization
from napari_braintumor.engine.models.registry import ARCHITECTURES, IMPORTED, ONNX
from napari_braintumor.engine.settings import describe_problem
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget

SIZE_PX = (460, 640)
MAX_CHANNELS = 16
AXES_IN_WORDS = {
    "LPS zyx": "as slices (Z, Y, X)",
    "LPS xyz": "as files of BraTS (X, Y, Z)",
    "RAS xyz": "as turned by MONAI (X, Y, Z to right, anterior, superior)",
}


class DescriptionForm(QDialog):
    """Asks the user to describe a model.

    Parameters
    ----------
    parent
        The dock.
    path
        The model's file.
    reason
        Why the user is asked.
    """

    def __init__(self, parent: QWidget | None, path: Path, reason: str) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Describe {path.name}")
        self.resize(*SIZE_PX)
        self.card: ModelCard | None = None
        body = QWidget()
        form = QFormLayout(body)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.name_edit = QLineEdit(_name_from(path))
        name_widget(self.name_edit, "Name", "Letters, digits, dots, dashes and underscores")
        form.addRow("Name", self.name_edit)
        self.architecture_box = Combo()
        name_widget(self.architecture_box, "Network", "The design that the weights were made for")
        for key, row in {**IMPORTED, **ARCHITECTURES}.items():
            if (key == ONNX) == (path.suffix.lower() == ".onnx"):
                self.architecture_box.addItem(row.title, key)
        form.addRow("Network", self.architecture_box)
        self.options_edit = QLineEdit()
        self.options_edit.setPlaceholderText('as found in the file, or {"width": 32}')
        name_widget(self.options_edit, "Options", "Of the network, as JSON, if the file does not state them")
        form.addRow("Options", self.options_edit)
        self.dimensions_box = Combo()
        name_widget(self.dimensions_box, "Dimensions", "Whether it takes slices or volumes")
        self.dimensions_box.addItem("2-D: one axial slice at a time", 2)
        self.dimensions_box.addItem("3-D: volumes", 3)
        form.addRow("Dimensions", self.dimensions_box)
        self._add_modalities(form)
        self._add_regions(form)
        self._add_preparation(form)
        self.license_edit = QLineEdit()
        name_widget(self.license_edit, "License", "Under which the weights may be used; empty if unknown")
        form.addRow("License", self.license_edit)

        self.message = make_line("", "Problem")
        self.message.hide()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        if (ok := buttons.button(QDialogButtonBox.StandardButton.Ok)) is not None:
            ok.setText("Install")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(body)
        column = QVBoxLayout(self)
        column.addWidget(make_line(reason, "Why this is asked"))
        column.addWidget(area, 1)
        column.addWidget(self.message)
        column.addWidget(buttons)

    def build_card(self) -> ModelCard:
        """Return what the form says.

        Returns
        -------
        ModelCard
            The card, validated.

        Raises
        ------
        ModelError
            If the form does not make a valid card.
        """
        chosen = [region for region in REGIONS if self.region_boxes[region.name].isChecked()]
        channels = tuple(_read_channels(region.name, self.channel_edits[region.name].text()) for region in chosen)
        spacing = tuple(spin.value() or None for spin in self.spacing_spins)
        try:
            return ModelCard.model_validate(
                {
                    "name": self.name_edit.text().strip(),
                    "architecture": self.architecture_box.currentData(),
                    "options": _read_options(self.options_edit.text()),
                    "spatial_dims": self.dimensions_box.currentData(),
                    "modalities": tuple(box.currentText().strip() for box in self.modality_boxes),
                    "regions": tuple(chosen),
                    "activation": self.activation_box.currentText(),
                    "channels": channels,
                    "normalization": self.normalization_box.currentText(),
                    "axes": self.axes_box.currentData(),
                    "spacing": spacing,
                    "license": self.license_edit.text().strip(),
                }
            )
        except ValidationError as error:
            raise ModelError(f"This does not describe a model: {describe_problem(error)}. Change it there.") from error

    def accept(self) -> None:
        """Close the form if its values are possible, or show what is not."""
        try:
            self.card = self.build_card()
        except ModelError as error:
            self.message.setText(str(error))
            self.message.show()
            return
        super().accept()

    def _add_modalities(self, form: QFormLayout) -> None:
        self.modality_boxes: list[Combo] = []
        self._modality_form = QFormLayout()
        for modality in MODALITIES:
            self._add_channel(modality)
        more, fewer = QPushButton("One more"), QPushButton("One less")
        name_widget(more, "One more channel", "The network takes another image")
        name_widget(fewer, "One channel less", "The network takes fewer images")
        more.clicked.connect(lambda: self._add_channel(""))
        fewer.clicked.connect(self._drop_channel)
        row = QHBoxLayout()
        row.addWidget(more)
        row.addWidget(fewer)
        form.addRow(make_line("Images it takes, in the order of its input channels:", "Input channels"))
        form.addRow(self._modality_form)
        form.addRow(row)

    def _add_channel(self, modality: str) -> None:
        if len(self.modality_boxes) == MAX_CHANNELS:
            return
        box = Combo()
        box.setEditable(True)
        box.addItems(MODALITIES)
        box.setCurrentText(modality)
        number = len(self.modality_boxes)
        name_widget(box, f"Modality of channel {number}", "Choose one, or type its name")
        self._modality_form.addRow(f"Channel {number}", box)
        self.modality_boxes.append(box)

    def _drop_channel(self) -> None:
        if len(self.modality_boxes) > 1:
            self.modality_boxes.pop()
            self._modality_form.removeRow(self._modality_form.rowCount() - 1)

    def _add_regions(self, form: QFormLayout) -> None:
        form.addRow(
            make_line(
                "Regions that the model finds, each with its output channels, counted from 0. With softmax, "
                "a region also has the channels of the regions within it.",
                "Output channels",
            )
        )
        self.region_boxes: dict[str, QCheckBox] = {}
        self.channel_edits: dict[str, QLineEdit] = {}
        for number, region in enumerate(REGIONS):
            box = QCheckBox(region.name)
            box.setToolTip(f"Whether it finds the {region.name}")
            edit = QLineEdit(str(number))
            name_widget(edit, f"Channels of {region.name}", "One number, or several separated by commas")
            edit.setEnabled(False)
            box.toggled.connect(edit.setEnabled)
            box.setChecked(region.nested)
            self.region_boxes[region.name], self.channel_edits[region.name] = box, edit
            form.addRow(box, edit)
        self.activation_box = Combo()
        self.activation_box.addItems(list(get_args(ModelCard.model_fields["activation"].annotation)))
        description = ModelCard.model_fields["activation"].description or ""
        name_widget(self.activation_box, "Activation", description)
        form.addRow("Activation", self.activation_box)

    def _add_preparation(self, form: QFormLayout) -> None:
        self.normalization_box = Combo()
        self.normalization_box.addItems(list(get_args(Normalization)))
        name_widget(self.normalization_box, "Intensities", "How they were normalized when it was trained")
        form.addRow("Intensities", self.normalization_box)
        self.spacing_spins: list[QDoubleSpinBox] = []
        row = QHBoxLayout()
        for axis in ("Z", "Y", "X"):
            spin = QDoubleSpinBox()
            spin.setRange(0, 20)
            spin.setSingleStep(0.5)
            spin.setSpecialValueText("own")
            name_widget(spin, f"Spacing along {axis}", "mm of the voxels it was trained on; own: those of each scan")
            row.addWidget(spin)
            self.spacing_spins.append(spin)
        form.addRow("mm (Z, Y, X)", row)
        self.axes_box = Combo()
        for axes, words in AXES_IN_WORDS.items():
            self.axes_box.addItem(words, axes)
        name_widget(self.axes_box, "Axes", ModelCard.model_fields["axes"].description or "")
        form.addRow("Axes", self.axes_box)


def _read_channels(region: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) < 256 for part in parts):
        raise ModelError(
            f"The channels of {region} are '{text}'. Expected a number from 0 on, or several separated by commas."
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _read_options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise ModelError(f"The options are '{text}'. Expected JSON such as {{\"width\": 32}}, or nothing.")
    return options


def _name_from(path: Path) -> str:
    """Return a name that a file's name suggests."""
    allowed = [letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in path.stem]
    return "".join(allowed).lstrip("._-")[:80] or "model"
