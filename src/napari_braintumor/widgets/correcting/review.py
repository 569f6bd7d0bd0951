"""Which slices a person has reviewed, and where it is worth to look next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_braintumor.layers import (
    figures_of,
    find_placement,
    go_to_section,
    mark_reviewed,
    reviewed_slices,
    slice_at,
)
from napari_braintumor.widgets.correcting.button_row import ButtonRow
from napari_braintumor.widgets.correcting.strip import SliceStates, SliceStrip
from napari_braintumor.widgets.shared.parts import make_line, name_widget

MOST_DOUBTFUL = 5
"""So many slices are called doubtful."""


class Review(QWidget):
    """The strip of slices, and the buttons that lead through them.

    Parameters
    ----------
    viewer
        Whose slider is moved.
    """

    reported = Signal(str)
    """A sentence for the dock to show."""

    marked = Signal()
    """A slice was marked as reviewed, or its mark taken away."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._target: Labels | None = None
        self._doubt: Sequence[float] = ()
        self._build()

    def work_on(self, target: Labels | None, doubt: Sequence[float] = ()) -> None:
        """Review this layer; `doubt` says how doubtful each slice is, if that is known."""
        self._target, self._doubt = target, tuple(doubt)
        self.refresh()

    @property
    def doubtful(self) -> tuple[int, ...]:
        """The most doubtful slices, the most doubtful first."""
        order = np.argsort(-np.asarray(self._doubt), kind="stable")[:MOST_DOUBTFUL]
        return tuple(int(z) for z in order if self._doubt[z] > 0)

    @property
    def current(self) -> int | None:
        """The slice along Z that is shown."""
        if self._target is None or self._viewer.dims.ndim < 3:
            return None
        return slice_at(self._target, self._viewer.dims.point)

    def refresh(self, _: Any = None) -> None:
        """Show what is known of the slices now."""
        layer, current = self._target, self.current
        for button in (self.mark_button, self.doubt_button, self.open_button):
            button.setEnabled(layer is not None)
        self.doubt_button.setEnabled(layer is not None and bool(self.doubtful))
        if layer is None:
            self.strip.show_states(SliceStates(), None)
            self.line.setText("")
            return
        figures = figures_of(layer)
        areas = np.array([sum(tally.voxels.values()) for tally in figures.slices], float)
        doubt = np.asarray(self._doubt, float)
        reviewed = frozenset(reviewed_slices(layer))
        states = SliceStates(
            tumor=tuple(areas / max(1.0, areas.max(initial=0))),
            doubt=tuple(doubt / max(1e-9, doubt.max(initial=0))),
            reviewed=reviewed,
            edited=frozenset(figures.edited),
            doubtful=frozenset(self.doubtful),
        )
        self.strip.show_states(states, current)
        left = [z for z in np.flatnonzero(areas) if z not in reviewed]
        here = f"{states.describe(current)}. " if current is not None else ""
        self.line.setText(f"{here}{states.describe_reviewed()}.")
        self.mark_button.setText("Not reviewed" if current in reviewed else "Reviewed")
        self.open_button.setEnabled(bool(left))

    def toggle_mark(self) -> None:
        """Mark the slice that is shown as reviewed, or take the mark away."""
        layer, z = self._target, self.current
        if layer is None:
            return
        if z is None:
            self.reported.emit("The slice that is shown lies outside the labels. Move the slider into the scan.")
            return
        mark_reviewed(layer, z, z not in reviewed_slices(layer))
        self.refresh()
        self.marked.emit()

    def mark_and_go_on(self) -> None:
        """Mark the slice that is shown as reviewed, and go where it is worth to look next."""
        layer, z = self._target, self.current
        if layer is not None and z is not None and z not in reviewed_slices(layer):
            self.toggle_mark()
        if not self.go_to_doubtful(quiet=True):
            self.go_to_open()

    def go_to_doubtful(self, quiet: bool = False) -> bool:
        """Go to the most doubtful slice that was not reviewed, other than this one.

        Parameters
        ----------
        quiet
            Whether nothing is said if there is none.

        Returns
        -------
        bool
            Whether there is one.
        """
        layer = self._target
        reviewed = set(reviewed_slices(layer)) if layer is not None else set()
        left = [z for z in self.doubtful if z not in reviewed and z != self.current]
        if not left:
            if not quiet:
                self.reported.emit("No doubtful slice is left.")
            return False
        self.go_to(left[0])
        return True

    def go_to_open(self) -> None:
        """Go to the next slice with tumor that was not reviewed."""
        layer, current = self._target, self.current
        if layer is None:
            return
        reviewed = set(reviewed_slices(layer))
        left = [z for z, tally in enumerate(figures_of(layer).slices) if tally.voxels and z not in reviewed]
        beyond = [z for z in left if current is None or z > current]
        if not left:
            self.reported.emit("All slices with tumor are reviewed.")
        else:
            self.go_to((beyond or left)[0])

    def go_to(self, z: int) -> None:
        """Show a slice along Z."""
        layer = self._target
        if layer is None:
            return
        place = find_placement(layer)
        axis = place.grid.axes[0] if place.in_source_order else 0
        at = place.grid.shape[axis] - 1 - z if place.in_source_order and place.grid.flips[0] else z
        go_to_section(self._viewer, layer, axis, at)

    def _build(self) -> None:
        self.strip = SliceStrip()
        self.strip.chosen.connect(self.go_to)
        self.line = make_line("", "What is known of the slice")
        row = ButtonRow()
        self.mark_button = row.add(
            "Reviewed",
            "This slice is right: no run and no tool changes it any more, and models learn from it (Alt+R)",
            self.toggle_mark,
        )
        self.doubt_button = row.add(
            "Next doubtful", "Go to the slice where the model is least sure (Alt+N)", lambda: self._look_for_doubt()
        )
        self.open_button = row.add(
            "Next not reviewed", "Go to the next slice with tumor that was not reviewed (Alt+M)", self.go_to_open
        )
        name_widget(
            self.strip,
            "Slices",
            "A column for each slice: how much tumor. Triangle: doubtful. Bar: edited. Dot: reviewed. Click to go",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.strip, self.line, row):
            column.addWidget(widget)

    def _look_for_doubt(self) -> None:
        self.go_to_doubtful()
