"""The tissues of a tumor as buttons, and the two ways to draw them: strokes that the tumor follows, and the brush."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QPushButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_braintumor.engine.anatomy import LABELS
from napari_braintumor.layers import (
    NOTHING,
    NOTHING_COLOR,
    figures_of,
    keep_inside,
    read_label,
    regions_by_label,
    show_region,
    shown_region,
    unwrap_layer,
)
from napari_braintumor.widgets.shared.parts import Combo, name_widget

BRUSH, STROKES = "brush", "strokes"

_SHORT = {1: "Core", 2: "Edema", 3: "Enhancing", 4: "Cavity"}
_ICON_PX = 12
_MOST_MM = 60.0


class TissueBar(QWidget):
    """Choose a tissue and a way to draw it; the way stays until it is put away."""

    changed = Signal()
    """Another tissue, way or size was chosen."""

    def __init__(self) -> None:
        super().__init__()
        self._label: int | None = None
        self._way = ""
        self._target: Labels | None = None
        self._strokes: Labels | None = None
        self._build()

    @property
    def label(self) -> int | None:
        """The label of the chosen tissue, 0 for nothing."""
        return self._label

    @property
    def way(self) -> str:
        """`BRUSH`, `STROKES`, or empty while nothing is drawn."""
        return self._way

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        ways = QWidget()
        flow = QFlowLayout(ways)
        flow.setContentsMargins(0, 0, 0, 0)
        self.way_buttons: dict[str, QPushButton] = {}
        for way, text, key, tooltip in (
            (STROKES, "Strokes", "Alt+D", "Draw a short stroke where the result is wrong: the tumor follows in 3-D"),
            (BRUSH, "Brush", "Alt+B", "Paint voxel by voxel"),
        ):
            button = QPushButton(text)
            button.setCheckable(True)
            name_widget(button, text, f"{tooltip} ({key}). Esc puts it away")
            button.clicked.connect(partial(self._toggle_way, way))
            flow.addWidget(button)
            self.way_buttons[way] = button
        column.addWidget(ways)
        tissues = QWidget()
        self._flow = QFlowLayout(tissues)
        self._flow.setContentsMargins(0, 0, 0, 0)
        self.tissue_buttons: dict[int, QPushButton] = {}
        column.addWidget(tissues)
        self.size_box = QDoubleSpinBox()
        self.size_box.setRange(0.5, _MOST_MM)
        self.size_box.setDecimals(1)
        self.size_box.setValue(6.0)
        self.size_box.setSuffix(" mm")
        self.size_box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        name_widget(self.size_box, "Width", "Width of the brush and of strokes; [ and ] change it too")
        self.size_box.valueChanged.connect(self._apply)
        self.outside_box = Combo()
        self.outside_box.addItem("extends it", False)
        self.outside_box.addItem("is left out", True)
        name_widget(
            self.outside_box,
            "Brush outside the region around",
            "Core lies in the tumor, and enhancing tumor in the core. Brush beyond it, and that region grows too; or "
            "what is beyond is left out",
        )
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Width", self.size_box)
        form.addRow("Beyond the outer region", self.outside_box)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        column.addLayout(form)

    # ---------------------------------------------------------------------------------------------- which layers

    def work_on(self, target: Labels | None, strokes: Labels | None) -> None:
        """Draw in these layers from now on."""
        if target is not self._target:
            if self._target is not None:
                self._target.events.paint.disconnect(self._restrain)
            self._target = target
            if target is not None:
                target.events.paint.connect(self._restrain)
        self._strokes = strokes
        self._offer()
        if target is None:
            self._way = ""
        self._show_way()

    def choose_label(self, label: int) -> None:
        """Choose a tissue by its label, 0 for nothing; without a way chosen, strokes."""
        self._label = label
        if not self._way and self._target is not None:
            self._way = STROKES if self.way_buttons[STROKES].isEnabled() else BRUSH
        self._show_way()
        self.changed.emit()

    def choose_number(self, number: int) -> None:
        """Choose the n-th tissue from outside, counted from 1; 0 for nothing."""
        labels = [label for label in self.tissue_buttons if label]
        if number == 0 or number <= len(labels):
            self.choose_label(0 if number == 0 else labels[number - 1])

    def choose_way(self, way: str) -> None:
        """Draw with strokes or the brush; an empty text puts both away."""
        self._way = way if self._target is not None else ""
        self._show_way()
        self.changed.emit()

    def put_away(self) -> None:
        """Hold neither brush nor pen."""
        self.choose_way("")

    def select_layer(self, viewer: Any) -> None:
        """Select the layer that is drawn in, with its brush in hand, or put all brushes away."""
        drawn = self._target if self._way == BRUSH else self._strokes if self._way == STROKES else None
        layers: list[Any] = [self._target, self._strokes]
        for layer in layers:
            if layer is not None and layer is not drawn and str(layer.mode) != "pan_zoom":
                layer.mode = "pan_zoom"
        if drawn is None or self._label is None:
            return
        if self._way == BRUSH and shown_region(drawn) is not None:
            show_region(drawn, None, figures_of(drawn).label_colors)  # a region shown as one locks the brush
        viewer.layers.selection.active = drawn
        self._apply()
        drawn.mode = "paint"

    def _offer(self) -> None:
        """Show a button for each tissue that the target knows, from outside to inside."""
        names, colors = _tissues_of(self._target)
        if [*names, 0] != list(self.tissue_buttons) or self._label not in (*names, 0):
            while item := self._flow.takeAt(0):
                if widget := item.widget():
                    widget.deleteLater()
            self.tissue_buttons = {}
            for number, (label, name) in enumerate({**names, 0: "Nothing"}.items(), start=1):
                key = f"Alt+{number if label else 0}"
                button = QPushButton(_SHORT.get(label, name) if LABELS.get(label) == name else name.capitalize())
                button.setIcon(_make_icon(colors.get(label, NOTHING_COLOR)))
                button.setCheckable(True)
                meaning = name if label else "No tumor: what is drawn over is taken away"
                name_widget(button, name.capitalize(), f"{meaning[:1].upper()}{meaning[1:]} ({key})")
                button.clicked.connect(partial(self._click_label, label))
                self._flow.addWidget(button)
                self.tissue_buttons[label] = button
            if self._label not in self.tissue_buttons:
                self._label = next(iter(self.tissue_buttons))
            chain = [*self.way_buttons.values(), *self.tissue_buttons.values(), self.size_box, self.outside_box]
            for before, after in pairwise(chain):  # new buttons would come last
                QWidget.setTabOrder(before, after)

    # ---------------------------------------------------------------------------------------------- what is chosen

    def _toggle_way(self, way: str, checked: bool) -> None:
        self.choose_way(way if checked else "")

    def _click_label(self, label: int, _: bool) -> None:
        self.choose_label(label)

    def _show_way(self) -> None:
        for way, button in self.way_buttons.items():
            button.setChecked(way == self._way)
        for label, button in self.tissue_buttons.items():
            button.setChecked(label == self._label)
            button.setEnabled(self._target is not None)

    def _apply(self, _: Any = None) -> None:
        """Give the layer that is drawn in the chosen tissue and size."""
        drawn = self._target if self._way == BRUSH else self._strokes if self._way == STROKES else None
        if drawn is None or self._label is None:
            return
        drawn.selected_label = NOTHING if self._way == STROKES and not self._label else self._label
        smallest = min(abs(float(side)) for side in drawn.scale)
        drawn.brush_size = max(1, round(self.size_box.value() / smallest))

    def _restrain(self, event: Any) -> None:
        """Leave out what the brush painted beyond the region around the tissue, if that is wanted."""
        layer = self._target
        if layer is not None and self._way == BRUSH and self.outside_box.currentData():
            keep_inside(layer, event.value, read_label(event.value))


def _tissues_of(target: Labels | None) -> tuple[Mapping[int, str], Mapping[int, str]]:
    """Return the names of a result's tissues by label, from outside to inside, and their colors."""
    if target is None:
        return {}, {}
    figures = figures_of(unwrap_layer(target))
    answer = figures.answer
    known = regions_by_label(target)
    names = {label: answer.label_names[label] for label in known} if answer is not None else {}
    return names, figures.label_colors


def _make_icon(color: str) -> QIcon:
    pixmap = QPixmap(_ICON_PX, _ICON_PX)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)
