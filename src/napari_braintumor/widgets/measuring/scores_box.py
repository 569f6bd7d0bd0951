"""A part of the Measure dock that is folded away: scores against other labels."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.measuring.scores import list_scores
from napari_braintumor.widgets.shared.parts import LayerSlot, name_widget
from napari_braintumor.widgets.shared.tables import TextTable, make_table_view


class ScoresBox(QWidget):
    """A reference, and the scores of the labels against it."""

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        self.reference_slot = LayerSlot()
        self.reference_slot.setAccessibleName("Reference")
        self.reference_slot.describe("The labels that count as right")
        self.table = TextTable(["score"], numbers_from=1)
        self.view = make_table_view(self.table, "Scores", "Scores of each region; click a region's column to see where")
        self.view.setMinimumHeight(180)
        self.differences_button = QPushButton("Show false and missed")
        name_widget(
            self.differences_button,
            "Show false and missed",
            "Show as a layer what is only in one of the two, and go to the slice where they differ most",
        )
        for widget in (self.reference_slot, self.view, self.differences_button):
            column.addWidget(widget)

    def show_scores(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """List the scores of each region; an empty mapping clears the table."""
        rows = [[each.heading, *(each.show(values[each.name]) for values in scores.values())] for each in list_scores()]
        self.table.fill(rows if scores else [], ["score", *scores])
        self.view.resizeColumnsToContents()
