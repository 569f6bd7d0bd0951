"""Small parts that docks are built of."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QComboBox, QLabel, QSizePolicy, QWidget


class Combo(QComboBox):
    """A combo that stays narrow and does not change when the dock is scrolled over it."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Leave the wheel to the dock: a modality must not change unseen."""
        if event is not None:
            event.ignore()


class LayerSlot(Combo):
    """The layer of one modality, or none."""

    def __init__(self) -> None:
        super().__init__()
        self._layers: list[Layer | None] = [None]
        self.addItem("none")

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        return self._layers[max(self.currentIndex(), 0)]

    def offer(self, layers: Iterable[Layer], chosen: Layer | None) -> None:
        """List layers, uppermost first, and choose one."""
        self._layers = [None, *reversed(list(layers))]
        self.clear()
        self.addItems(["none" if layer is None else layer.name for layer in self._layers])
        self.setCurrentIndex(self._layers.index(chosen) if chosen in self._layers else 0)


def name_widget(widget: QWidget, name: str, tooltip: str) -> None:
    """Give a widget a name for screen readers, and a tooltip."""
    widget.setAccessibleName(name)
    widget.setToolTip(tooltip)


def make_line(text: str, name: str) -> QLabel:
    """Return a label that wraps, so that the dock can be narrow."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setMinimumWidth(40)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    label.setAccessibleName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
