"""A part of the Measure dock that is folded away: labels in the numbers of another data set or program."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.anatomy import CONVENTIONS
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.converting import values_from_regions
from napari_braintumor.layers.measuring import DrawnLabels
from napari_braintumor.widgets.shared.parts import Combo, make_line, name_widget


@dataclass(frozen=True, eq=False)
class Converted:
    """Labels in the numbers of another convention, ``(Z, Y, X)``, and notes on what it cannot say."""

    values_ZYX: NDArray[np.uint8]
    convention: str
    notes: tuple[str, ...]


def convert_drawn(drawn: DrawnLabels, to: str) -> Generator[PhaseReached | Converted, None, None]:
    """Convert labels to a convention, a key of `CONVENTIONS`; see `values_from_regions` for the errors."""
    yield PhaseReached("converting")
    values, notes = values_from_regions(drawn.read().regions, to)
    yield Converted(values, to, notes)


class ConvertBox(QWidget):
    """Which numbers labels are to have."""

    asked = Signal(str)
    """A key of `CONVENTIONS`."""

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        self.to_box = Combo()
        name_widget(self.to_box, "Convention to convert to", "Which number is to stand for which tissue")
        for name, convention in CONVENTIONS.items():
            self.to_box.addItem(f"{name}: {convention.meaning}", name)
        self.to_box.setCurrentIndex(self.to_box.findData("brats2017"))
        self.convert_button = QPushButton("Convert to a new layer")
        name_widget(
            self.convert_button,
            "Convert to a new layer",
            "Add the labels in these numbers as a new layer, for other programs; the labels themselves stay",
        )
        self.convert_button.clicked.connect(lambda: self.asked.emit(str(self.to_box.currentData())))
        self.meaning_line = make_line(
            "Labels of other data sets, in turn, are read by what their numbers mean: choose it above, then convert "
            "them to brats2023.",
            "How labels of other data sets are converted",
        )
        for widget in (self.to_box, self.convert_button, self.meaning_line):
            column.addWidget(widget)


def describe_converted(name: str, converted: Converted) -> str:
    """Say where converted labels are, and what their convention cannot say."""
    return " ".join((f"The converted labels are the layer '{name}'.", *converted.notes))
