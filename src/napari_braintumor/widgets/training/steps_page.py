"""Fine-tuning in three steps: correct some slices, mark them as right, let the model learn from them."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGroupBox, QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.training.splits import FEWEST_TUNING_SLICES
from napari_braintumor.layers import corrected_slices, figures_of, is_result, mark_reviewed, reviewed_slices
from napari_braintumor.widgets.shared.dock import open_dock
from napari_braintumor.widgets.shared.parts import in_words, make_line, name_widget

WANTED_SLICES = 4
"""Enough to learn something from, and few enough to be corrected in some minutes."""

EXPECTED_S = 180
"""About how long learning takes on a laptop, see docs/models.md."""


class StepsPage(QWidget):
    """What has been corrected and marked so far, and what comes next.

    Parameters
    ----------
    viewer
        Where the Correct dock is opened.
    """

    marked = Signal()
    """Slices were marked as reviewed."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Labels | None = None
        self.correct_line = make_line("", "What was corrected")
        self.correct_button = QPushButton("Correct…")
        name_widget(self.correct_button, "Correct slices", "Draw strokes, brush, and go through the slices")
        self.correct_button.clicked.connect(self._correct)
        self.mark_line = make_line("", "What was marked")
        self.mark_button = QPushButton("Mark corrected slices")
        name_widget(
            self.mark_button,
            "Mark corrected slices",
            "Say that every slice in which you drew is right now; the model learns from marked slices alone. Look at "
            "those that only followed from strokes elsewhere before you mark them too",
        )
        self.mark_button.clicked.connect(self._mark)
        self.learn_line = make_line("", "How the model learns")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for title, parts in (
            (f"1  Correct ({WANTED_SLICES} slices)", (self.correct_line, self.correct_button)),
            ("2  Mark", (self.mark_line, self.mark_button)),
            (f"3  Learn ({in_words(EXPECTED_S)})", (self.learn_line,)),
        ):
            box = QGroupBox(title)
            inside = QVBoxLayout(box)
            for widget in parts:
                inside.addWidget(widget)
            column.addWidget(box)
        self.refresh()

    @property
    def layer(self) -> Labels | None:
        """The result that the model is to learn from."""
        return self._layer

    def work_on(self, layer: Labels | None) -> None:
        """Show how far the corrections of a result are."""
        if self._layer is not None:
            figures_of(self._layer).events.changed.disconnect(self.refresh)
        self._layer = layer if layer is not None and is_result(layer) else None
        if self._layer is not None:
            figures_of(self._layer).events.changed.connect(self.refresh)
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Count what was corrected and marked until now."""
        layer = self._layer
        edited = corrected_slices(layer) if layer is not None else ()
        marked = reviewed_slices(layer) if layer is not None else ()
        self.correct_line.setText(
            f"{_count(edited)} corrected."
            if edited
            else f"Nothing is corrected yet. Correct about {WANTED_SLICES} slices, where the model is most wrong and "
            "far from each other."
        )
        missing = [z for z in edited if z not in marked]
        self.mark_line.setText(
            f"{_count(marked)} marked as right."
            + (f" {_count(missing)} corrected but not marked." if missing else "")
            + ("" if marked else " Mark slices that need no correction too: they teach what is right already.")
        )
        self.mark_button.setEnabled(bool(missing))
        ready = len(marked) >= FEWEST_TUNING_SLICES
        self.learn_line.setText(
            "Every third marked slice is kept back to judge by. The new model is kept only if it is better there, and "
            "you then decide: Use it, or Discard it. The old model stays as it is."
            if ready
            else f"At least {FEWEST_TUNING_SLICES} marked slices are needed."
        )

    def showEvent(self, event: Any) -> None:
        """Count again: marks may have been set elsewhere."""
        super().showEvent(event)
        self.refresh()

    def _correct(self) -> None:
        from napari_braintumor.widgets.correcting.dock import CorrectDock

        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.selection.active = self._layer
        open_dock(self._viewer, CorrectDock)

    def _mark(self) -> None:
        layer = self._layer
        if layer is not None:
            for z in corrected_slices(layer):
                mark_reviewed(layer, z)
            self.refresh()
            self.marked.emit()


def _count(slices: Any) -> str:
    return "1 slice" if len(slices) == 1 else f"{len(slices)} slices"
