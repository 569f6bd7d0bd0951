"""Edits of a chosen region: more or less of it, its parts, holes and edges."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.parts import fill_holes, grow, keep_part, remove_part, smooth
from napari_braintumor.engine.correcting.shifting import MOST_SHIFT, shift_region
from napari_braintumor.layers import copy_labels, figures_of, last_step, section_shown, spacing_of, voxel_at
from napari_braintumor.widgets.correcting.button_row import ButtonRow
from napari_braintumor.widgets.correcting.edits import Edits
from napari_braintumor.widgets.shared.parts import Combo, name_widget

SLIDER_STEPS = 20
WAIT_MS = 60
"""After the slider has moved, before the region follows."""


class RegionTools(QWidget):
    """The tools. They work on the target layer, in this section or everywhere.

    Parameters
    ----------
    viewer
        Whose shown section is meant.
    edits
        Runs the edits.
    """

    reported = Signal(str)
    """What was done, or why nothing was."""

    hand_changed = Signal()
    """A click on a part is awaited from now on, or no more."""

    def __init__(self, viewer: Any, edits: Edits) -> None:
        super().__init__()
        self._viewer = viewer
        self._edits = edits
        self._target: Labels | None = None
        self._features: CaseFeatures | None = None
        self._picking = ""  # "remove" or "keep" while a click is awaited
        self._before_slider: NDArray[np.uint8] | None = None
        self._slider_drew = False  # whether the last step of the layer is what the slider drew
        self._slider_top: Any | None = None
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(WAIT_MS)
        self._wait.timeout.connect(self._shift)
        self._build()
        edits.busy_changed.connect(self._refresh)

    def work_on(self, target: Labels | None, features: CaseFeatures | None) -> None:
        """Edit this layer from now on; without features of its case, regions cannot be drawn larger or smaller."""
        if target is not self._target:
            self.put_away()
            self._target = target
            self._forget_slider()
        self._features = features
        self._offer()
        self._refresh()

    @property
    def region(self) -> str:
        """The chosen region."""
        return str(self.region_box.currentData() or "")

    @property
    def picking(self) -> bool:
        """Whether a click on a part is awaited."""
        return bool(self._picking)

    @property
    def waiting(self) -> bool:
        """Whether the slider has moved and the region is still to follow."""
        return self._wait.isActive()

    def put_away(self) -> None:
        """Await no click any more."""
        if self._picking and self._target is not None and self._pick in self._target.mouse_drag_callbacks:
            self._target.mouse_drag_callbacks.remove(self._pick)
        was, self._picking = self._picking, ""
        for button in self.part_buttons.values():
            button.setChecked(False)
        if was:
            self.hand_changed.emit()

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.region_box = Combo()
        name_widget(self.region_box, "Region", "What the tools below change; regions stay within one another")
        self.scope_box = Combo()
        self.scope_box.addItem("in this section", True)
        self.scope_box.addItem("everywhere", False)
        self.scope_box.setCurrentIndex(1)
        name_widget(self.scope_box, "Where", "In the section that is shown, or in all slices that are not reviewed")
        self.amount_slider = QSlider(Qt.Orientation.Horizontal)
        self.amount_slider.setRange(-SLIDER_STEPS, SLIDER_STEPS)
        self.amount_slider.setPageStep(4)
        name_widget(
            self.amount_slider,
            "Less or more",
            "Draw less or more of the region, as the model is less or more sure of it; the middle is what it drew",
        )
        self.amount_slider.valueChanged.connect(self._move)
        amount = QHBoxLayout()
        for widget in (QLabel("Less"), self.amount_slider, QLabel("More")):
            amount.addWidget(widget)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Region", self.region_box)
        form.addRow("Where", self.scope_box)
        self.region_box.currentIndexChanged.connect(self._forget_slider)

        self.part_buttons: dict[str, QPushButton] = {}
        parts = ButtonRow()
        for way, text, tooltip in (
            ("remove", "Remove part", "Then click a part of the region in the picture to remove it. Esc cancels"),
            ("keep", "Keep only part", "Then click the part of the region that is to stay. Esc cancels"),
        ):
            button = parts.add(text, tooltip, partial(self._await_click, way))
            button.setCheckable(True)
            self.part_buttons[way] = button
        edges = ButtonRow()
        self.holes_button = edges.add("Fill holes", "Fill what the region encloses", self._fill)
        self.smooth_button = edges.add("Smooth", "Smooth the region's edge", self._smooth)
        self.mm_box = QDoubleSpinBox()
        self.mm_box.setRange(0.5, 20)
        self.mm_box.setSingleStep(0.5)
        self.mm_box.setDecimals(1)
        self.mm_box.setValue(1.0)
        self.mm_box.setSuffix(" mm")
        self.mm_box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        name_widget(self.mm_box, "Distance", "By how much the region grows or shrinks, in all directions")
        edges.flow.addWidget(self.mm_box)
        self.grow_button = edges.add("Grow", "Move the region's edge outward", partial(self._grow, 1))
        self.shrink_button = edges.add("Shrink", "Move the region's edge inward", partial(self._grow, -1))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addLayout(amount)
        for row in (parts, edges):
            column.addWidget(row)

    def _offer(self) -> None:
        answer = figures_of(self._target).answer if self._target is not None else None
        regions = list(answer.regions) if answer is not None else []
        if [self.region_box.itemData(i) for i in range(self.region_box.count())] == regions:
            return
        before = self.region
        blocked = self.region_box.blockSignals(True)
        self.region_box.clear()
        for region in regions:
            self.region_box.addItem(region.capitalize(), region)
        self.region_box.setCurrentIndex(max(0, regions.index(before) if before in regions else 0))
        self.region_box.blockSignals(blocked)

    def _refresh(self) -> None:
        ready = self._target is not None and not self._edits.busy
        for button in self.findChildren(QPushButton):
            button.setEnabled(ready)
        for widget in (self.region_box, self.scope_box, self.mm_box):
            widget.setEnabled(self._target is not None)
        self.amount_slider.setEnabled(self._target is not None and self._features is not None)

    # ---------------------------------------------------------------------------------------------- the tools

    def _edit(self, words: str, change: Callable[[Any, tuple[float, ...]], Any]) -> None:
        """Run an edit of the region, in the section that is shown or everywhere."""
        layer = self._target
        if layer is None:
            return
        spacing = spacing_of(layer)
        section = section_shown(self._viewer, layer)
        if not self.scope_box.currentData():
            self._edits.begin(layer, words, lambda labels: change(labels, spacing))
        elif section is None:
            self.reported.emit("No section of the labels is shown. Choose a plane, or 'everywhere'.")
        else:
            self._edits.begin(layer, words, partial(_change_section, *section, spacing, change))

    def _fill(self) -> None:
        region = self.region
        self._edit(f"Holes of {region} filled", lambda labels, _: fill_holes(labels, region))

    def _smooth(self) -> None:
        region = self.region
        self._edit(f"Edge of {region} smoothed", lambda labels, spacing: smooth(labels, region, spacing))

    def _grow(self, sign: int) -> None:
        region, mm = self.region, sign * self.mm_box.value()
        done = "grown" if sign > 0 else "shrunk"
        words = f"{region.capitalize()} {done} by {abs(mm):g} mm"
        self._edit(words, lambda labels, spacing: grow(labels, region, spacing, mm))

    def _await_click(self, way: str) -> None:
        layer, again = self._target, self._picking == way
        self.put_away()
        if again or layer is None:
            return
        self._picking = way
        self.part_buttons[way].setChecked(True)
        layer.mouse_drag_callbacks.append(self._pick)
        self.hand_changed.emit()
        self._viewer.layers.selection.active = layer
        layer.mode = "pan_zoom"
        self.reported.emit(f"Click a part of {self.region} in the picture. Esc cancels.")

    def _pick(self, layer: Labels, event: Any) -> Generator[None, None, None]:
        """Take a click on the layer; a drag moves the picture as ever."""
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged:
            self.pick_at(event.position)

    def pick_at(self, position: Any) -> None:
        """Remove or keep the part of the region at a place in napari's world."""
        layer, way, region = self._target, self._picking, self.region
        if layer is None or not way:
            return
        voxel = voxel_at(layer, position)
        self.put_away()
        if voxel is None:
            self.reported.emit(f"There is no {region} where you clicked. Click inside a part of it.")
            return
        words = f"Part of {region} removed" if way == "remove" else f"Only one part of {region} kept"
        change = remove_part if way == "remove" else keep_part
        section = section_shown(self._viewer, layer) if self.scope_box.currentData() else None
        if section is None:
            self._edits.begin(layer, words, lambda labels: change(labels, region, voxel))
        else:
            within = tuple(at for axis, at in enumerate(voxel) if axis != section[0])
            spacing = spacing_of(layer)
            edit = partial(_change_section, *section, spacing, lambda labels, _: change(labels, region, within))
            self._edits.begin(layer, words, edit)

    # ---------------------------------------------------------------------------------------------- less or more

    def _move(self) -> None:
        self._wait.start()

    def _shift(self) -> None:
        """Let the region follow the slider; however often it moves, what comes of it is one step."""
        layer, features = self._target, self._features
        if layer is None or features is None:
            return
        if self._edits.busy:
            self._wait.start()
            return
        if self._before_slider is None or last_step(layer) is not self._slider_top:  # other edits came between
            self._before_slider, self._slider_drew = copy_labels(layer), False
        base, region = self._before_slider, self.region
        shift = MOST_SHIFT * self.amount_slider.value() / SLIDER_STEPS
        section = section_shown(self._viewer, layer) if self.scope_box.currentData() else None

        def change(_: NDArray[np.uint8]) -> NDArray[np.uint8]:
            moved = shift_region(features, base, region, shift).labels if shift else base
            return moved if section is None else _put_section(base, moved, *section)

        def take_back() -> None:
            if self._slider_drew:
                layer.undo()
            self._slider_top = last_step(layer)

        def note() -> None:
            top = last_step(layer)
            self._slider_drew, self._slider_top = top is not self._slider_top, top

        self._edits.begin(layer, f"{'More' if shift > 0 else 'Less'} of {region}", change, take_back, note)

    def _forget_slider(self) -> None:
        self._before_slider, self._slider_drew = None, False
        blocked = self.amount_slider.blockSignals(True)
        self.amount_slider.setValue(0)
        self.amount_slider.blockSignals(blocked)


def _change_section(
    axis: int,
    at: int,
    spacing: tuple[float, ...],
    change: Callable[[Any, tuple[float, ...]], Any],
    labels_ZYX: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Change one section only."""
    changed = labels_ZYX.copy()
    within = tuple(side for number, side in enumerate(spacing) if number != axis)
    np.moveaxis(changed, axis, 0)[at] = change(labels_ZYX.take(at, axis), within)
    return changed


def _put_section(base: NDArray[np.uint8], other: NDArray[np.uint8], axis: int, at: int) -> NDArray[np.uint8]:
    """Return labels with one section of others."""
    changed = base.copy()
    np.moveaxis(changed, axis, 0)[at] = other.take(at, axis)
    return changed
