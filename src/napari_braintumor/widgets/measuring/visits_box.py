"""A part of the Measure dock that is folded away: an earlier visit, what has changed since, and both to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_braintumor.engine.measuring.response import PRODUCT_RULE, VOLUME_RULE
from napari_braintumor.layers.measuring import find_earlier, go_to_slice, update_or_add_changes
from napari_braintumor.layers.visits import SIDE_BY_SIDE, VISIT_VIEWS, VisitsView
from napari_braintumor.widgets.measuring.working import Compared, describe_comparison
from napari_braintumor.widgets.shared.following import follow
from napari_braintumor.widgets.shared.parts import LayerSlot, make_line, name_widget


class VisitsBox(QWidget):
    """The labels of an earlier visit, what has changed since, and both visits to look at.

    Parameters
    ----------
    viewer
        The viewer in which both visits are open.
    """

    changed = Signal()
    """Another earlier visit was chosen."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._view = VisitsView(viewer)
        self._compared: tuple[Labels, Compared] | None = None
        column = QVBoxLayout(self)
        self.earlier_slot = LayerSlot()
        self.earlier_slot.setAccessibleName("Labels of the earlier visit")
        self.earlier_slot.describe("The labels of the earlier visit, whose scans are open too")
        self.earlier_slot.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.compare_button = QPushButton("Compare with the earlier visit")
        name_widget(
            self.compare_button,
            "Compare with the earlier visit",
            "Register the visits, and show what grew, shrank, vanished and is new",
        )
        self.views_row = QWidget()
        flow = QFlowLayout(self.views_row)
        flow.setContentsMargins(0, 0, 0, 0)
        self.view_buttons: dict[str, QPushButton] = {}
        for name, meaning in VISIT_VIEWS.items():
            button = QPushButton(name.capitalize())
            button.setCheckable(True)
            name_widget(button, f"Show visits: {name}", f"{meaning}. Click again to show the layers as before")
            button.clicked.connect(partial(self._click_view, name))
            flow.addWidget(button)
            self.view_buttons[name] = button
        self.changes_line = make_line("", "What has changed")
        self.rule_line = make_line("", "The rule of the category")
        for widget in (self.earlier_slot, self.compare_button, self.views_row, self.changes_line, self.rule_line):
            column.addWidget(widget)
        layers = viewer.layers.events
        follow(self, self._keep_apart, layers.inserted, layers.removed, layers.reordered)
        self._say()

    def offer(self, labels: Labels | None, others: Sequence[Labels], anew: bool) -> None:
        """Offer labels as those of an earlier visit of some labels, and choose the visit before.

        Parameters
        ----------
        labels
            What is measured.
        others
            What may be of an earlier visit.
        anew
            Whether what was chosen before was chosen for other labels.
        """
        slot = self.earlier_slot
        slot.offer(others, slot.layer if slot.layer in others else None)
        if labels is not None and (slot.layer is None or anew):
            slot.offer(others, find_earlier(labels, others))

    def forget(self) -> None:
        """Show the layers as they were, and nothing of a comparison."""
        self.show_visits("")
        self._compared = None
        self._say()

    def show_changes(self, earlier: Labels, compared: Compared) -> None:
        """Say what has changed, map it, and show both visits side by side where most has changed."""
        if earlier not in self._viewer.layers:
            return
        self._compared = earlier, compared
        self._say()
        update_or_add_changes(self._viewer, earlier, compared.comparison)
        self.show_visits(SIDE_BY_SIDE)
        changed = (compared.comparison.changes > 1).sum(axis=(1, 2))
        if changed.any():
            go_to_slice(self._viewer, earlier, int(changed.argmax()))

    def show_visits(self, view: str) -> None:
        """Show the visits that were compared in a view of `VISIT_VIEWS`; by an empty text the layers as they were."""
        if self._compared is None or not view or self._compared[0] not in self._viewer.layers:
            self._view.leave()
        else:
            self._view.show(view, self._compared[0], self._compared[1].moved)
        self._press()

    def _click_view(self, name: str, pressed: bool) -> None:
        self.show_visits(name if pressed else "")

    def _keep_apart(self, _: Any = None) -> None:
        self._view.refresh()
        self._press()

    def _press(self) -> None:
        for name, button in self.view_buttons.items():
            button.setChecked(name == self._view.shown)

    def _say(self) -> None:
        comparison = self._compared[1].comparison if self._compared is not None else None
        self.views_row.setVisible(comparison is not None)
        self.changes_line.setText(describe_comparison(comparison) if comparison is not None else "")
        self.rule_line.setText(f"{PRODUCT_RULE}\n{VOLUME_RULE}" if comparison is not None else "")
