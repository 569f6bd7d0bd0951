"""Buttons next to each other, as many as there is room for."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QPushButton, QWidget
from superqt import QFlowLayout

from napari_braintumor.widgets.shared.parts import name_widget


class ButtonRow(QWidget):
    """Buttons next to each other, as many as there is room for."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = QFlowLayout(self)
        self.flow.setContentsMargins(0, 0, 0, 0)

    def add(self, text: str, tooltip: str, action: Callable[[], None]) -> QPushButton:
        """Add a button, and what a click does."""
        button = QPushButton(text)
        name_widget(button, text, tooltip)
        button.clicked.connect(lambda: action())
        self.flow.addWidget(button)
        return button
