"""Edits of whole sections: copied, interpolated, and restored to what the model drew."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.correcting.parts import interpolate
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.layers import (
    copy_section,
    figures_of,
    find_outline,
    restore_model,
    reviewed_slices,
    section_shown,
    spacing_of,
    update_or_add_outline,
)
from napari_braintumor.widgets.correcting.button_row import ButtonRow
from napari_braintumor.widgets.correcting.edits import Edits, describe
from napari_braintumor.widgets.shared.parts import name_widget

_AXIS_NAMES = ("slice", "coronal section", "sagittal section")


class SectionTools(QWidget):
    """The tools. They work on the section of the target layer that is shown.

    Parameters
    ----------
    viewer
        Whose shown section is meant.
    edits
        Runs the edits that take time.
    """

    reported = Signal(str)
    """What was done, or why nothing was."""

    def __init__(self, viewer: Any, edits: Edits) -> None:
        super().__init__()
        self._viewer = viewer
        self._edits = edits
        self._target: Labels | None = None
        self._build()
        edits.busy_changed.connect(self.refresh)

    def work_on(self, target: Labels | None) -> None:
        """Edit this layer from now on."""
        self._target = target
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Offer what can be done now."""
        for button in self.findChildren(QPushButton):
            button.setEnabled(self._target is not None and not self._edits.busy)
        outline = find_outline(self._viewer, self._target) if self._target is not None else None
        self.outline_box.setEnabled(self._target is not None)
        blocked = self.outline_box.blockSignals(True)
        self.outline_box.setChecked(outline is not None and outline.visible)
        self.outline_box.blockSignals(blocked)

    def _build(self) -> None:
        sections = ButtonRow()
        self.below_button = sections.add(
            "Copy from before", "Copy the labels of the section before this one, all tissues", partial(self._copy, -1)
        )
        self.above_button = sections.add(
            "Copy from after", "Copy the labels of the section after this one, all tissues", partial(self._copy, 1)
        )
        self.between_button = sections.add(
            "Interpolate",
            "Draw the slices between the two nearest that you edited or reviewed, one on each side of this one",
            self._interpolate,
        )
        model = ButtonRow()
        self.outline_box = QCheckBox("Outline what the model drew")
        name_widget(self.outline_box, "Outline what the model drew", "Shown over your corrections, in a layer")
        self.outline_box.toggled.connect(self._show_outline)
        self.restore_slice_button = model.add(
            "Restore this slice", "Take back all corrections in this slice", partial(self._restore, True)
        )
        self.restore_all_button = model.add(
            "Restore all", "Take back all corrections, except in reviewed slices", partial(self._restore, False)
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (sections, self.outline_box, model):
            column.addWidget(widget)

    def _copy(self, step: int) -> None:
        layer = self._target
        section = section_shown(self._viewer, layer) if layer is not None else None
        if layer is None or section is None:
            self.reported.emit("No section of the labels is shown. Choose a plane.")
            return
        axis, at = section
        try:
            edit = copy_section(layer, axis, at + step, at)
        except BrainTumorError as error:
            self.reported.emit(str(error))
        else:
            self.reported.emit(describe(f"{_AXIS_NAMES[axis].capitalize()} {at + step} copied to {at}", edit))

    def _interpolate(self) -> None:
        layer = self._target
        section = section_shown(self._viewer, layer) if layer is not None else None
        if layer is None or section is None or section[0] != 0:
            self.reported.emit("Slices are interpolated in the axial plane. Choose Axial.")
            return
        figures = figures_of(layer)
        figures.settle()
        known = sorted({*figures.edited, *reviewed_slices(layer)})
        at = section[1]
        first = max((z for z in known if z < at), default=None)
        last = min((z for z in known if z > at), default=None)
        if first is None or last is None:
            self.reported.emit(
                "There are no two corrected slices around this one. Correct or review one below and one above it, and "
                "go to a slice between them."
            )
            return
        spacing = spacing_of(layer)
        words = f"Slices {first + 1} to {last - 1} drawn between {first} and {last}"
        self._edits.begin(layer, words, lambda labels: interpolate(labels, 0, first, last, spacing))

    def _show_outline(self, shown: bool) -> None:
        layer = self._target
        if layer is None:
            return
        outline = find_outline(self._viewer, layer)
        if shown:
            if update_or_add_outline(self._viewer, layer) is None:
                self.reported.emit("What the model drew is not known for these labels.")
        elif outline is not None:
            outline.visible = False

    def _restore(self, this_slice: bool) -> None:
        layer = self._target
        if layer is None:
            return
        section = section_shown(self._viewer, layer)
        if this_slice and (section is None or section[0] != 0):
            self.reported.emit("Single slices are restored in the axial plane. Choose Axial.")
            return
        z = section[1] if this_slice and section is not None else None
        self.reported.emit(describe("What the model drew restored", restore_model(layer, z)))
