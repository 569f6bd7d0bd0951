"""What all docks share: they go away when they are closed, their body scrolls, their footer is always in sight."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from napari_braintumor.widgets._preferences import follow_preferences

WIDTH_PX = 300
"""With less, the scroll bar would hide the right end of the rows."""


class Dock(QWidget):
    """A dock widget.

    Parameters
    ----------
    name
        Of the Qt object.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMinimumWidth(WIDTH_PX)
        self._docked = False
        follow_preferences()

    def event(self, event: QEvent | None) -> bool:
        """Go away when the dock is closed: napari only takes the widget out, and a job would go on unseen."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is None and self._docked:
                self.deleteLater()
            self._docked = self.parent() is not None
        return super().event(event)

    def lay_out(self, body: QWidget, footer: Iterable[QWidget]) -> None:
        """Let the body scroll above the footer's widgets."""
        self.scroll_area = QScrollArea()
        self.scroll_area.setWidgetResizable(True)
        self.scroll_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.scroll_area.setFrameShape(QScrollArea.Shape.NoFrame)
        self.scroll_area.setWidget(body)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.scroll_area, 1)
        column = QVBoxLayout()
        column.setContentsMargins(9, 0, 9, 9)
        for widget in footer:
            column.addWidget(widget)
        outer.addLayout(column)
