"""The parts of the Measure dock that are folded away: scores against other labels, and an earlier visit."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_braintumor.engine.measuring.response import PRODUCT_RULE, VOLUME_RULE
from napari_braintumor.engine.measuring.scores import list_scores
from napari_braintumor.engine.measuring.visits import VisitComparison
from napari_braintumor.widgets.measuring.working import describe_comparison
from napari_braintumor.widgets.shared.parts import LayerSlot, make_line, name_widget
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


class VisitsBox(QWidget):
    """The labels of an earlier visit, and what has changed since."""

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        self.earlier_slot = LayerSlot()
        self.earlier_slot.setAccessibleName("Labels of the earlier visit")
        self.earlier_slot.describe("The labels of the earlier visit, whose scans are open too")
        self.compare_button = QPushButton("Compare with the earlier visit")
        name_widget(
            self.compare_button,
            "Compare with the earlier visit",
            "Register the visits, and show what grew, shrank, vanished and is new",
        )
        self.changes_line = make_line("", "What has changed")
        self.rule_line = make_line("", "The rule of the category")
        for widget in (self.earlier_slot, self.compare_button, self.changes_line, self.rule_line):
            column.addWidget(widget)

    def show_comparison(self, comparison: VisitComparison | None) -> None:
        """Say what has changed, and by which rule it is judged; None clears the lines."""
        self.changes_line.setText(describe_comparison(comparison) if comparison is not None else "")
        self.rule_line.setText(f"{PRODUCT_RULE}\n{VOLUME_RULE}" if comparison is not None else "")
