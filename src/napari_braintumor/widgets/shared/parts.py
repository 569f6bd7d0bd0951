"""Small parts that docks are built of."""

from __future__ import annotations

import html
from collections.abc import Iterable
from functools import partial

from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QPaintEvent, QWheelEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QWidget,
)
from superqt import QCollapsible

ANY_HEIGHT_PX = 16_777_215
"""Qt's own limit."""

TEXT_MARGIN_PX = 4
"""Between a combo's frame and its text."""


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


class EndingCombo(Combo):
    """A combo that shows the end of a name that is too long, where cases and visits differ."""

    def __init__(self) -> None:
        super().__init__()
        if (view := self.view()) is not None:
            view.setTextElideMode(Qt.TextElideMode.ElideLeft)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the name with its beginning left out, if it is too long."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        option.currentText = self.shown_text()
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def shown_text(self) -> str:
        """Return as much of the chosen name as there is room for."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style = self.style()
        assert style is not None
        field = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        room_px = field.width() - 2 * TEXT_MARGIN_PX
        return self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideLeft, room_px)

    def list_names(self, names: Iterable[str], chosen: int) -> None:
        """List names, whole in their tooltips, and choose one."""
        blocked = self.blockSignals(True)
        self.clear()
        for index, name in enumerate(names):
            self.addItem(name)
            self.setItemData(index, literal(name), Qt.ItemDataRole.ToolTipRole)
        self.setCurrentIndex(chosen)
        self.blockSignals(blocked)


class LayerSlot(EndingCombo):
    """The layer of one modality, or none."""

    def __init__(self) -> None:
        super().__init__()
        self._layers: list[Layer | None] = [None]
        self._purpose = ""
        self.addItem("none")
        self.currentIndexChanged.connect(self._tell)

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        return self._layers[max(self.currentIndex(), 0)]

    def describe(self, purpose: str) -> None:
        """Say what the layer is for, in the tooltip, to which its whole name is added."""
        self._purpose = purpose
        self._tell()

    def offer(self, layers: Iterable[Layer], chosen: Layer | None) -> None:
        """List layers, uppermost first, and choose one."""
        self._layers = [None, *reversed(list(layers))]
        names = ["none" if layer is None else str(layer.name) for layer in self._layers]
        self.list_names(names, self._layers.index(chosen) if chosen in self._layers else 0)
        self._tell()

    def _tell(self, _: int = 0) -> None:
        name = str(self.layer.name) if self.layer is not None and self.isEnabled() else ""
        self.setToolTip(literal(": ".join(filter(None, (self._purpose, name)))))


def literal(text: str) -> str:
    """Return a text as Qt shows it to the letter in tooltips and message boxes, where it would read `<b>` as markup."""
    return f"<qt>{html.escape(text).replace(chr(10), '<br>')}</qt>" if "<" in text else text


def without_mnemonic(text: str) -> str:
    """Return a text as Qt shows it to the letter on buttons and next to rows, where `&` would underline a letter."""
    return text.replace("&", "&&")


def name_widget(widget: QWidget, name: str, tooltip: str) -> None:
    """Give a widget a name for screen readers, and a tooltip."""
    widget.setAccessibleName(name)
    widget.setToolTip(literal(tooltip))


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


def make_collapsible(title: str, content: QWidget) -> QCollapsible:
    """Return a part of a dock that is closed at first."""
    # The arrow is text: icons of QCollapsible are drawn once, before the theme's colors are known.
    part = QCollapsible(f"▸ {title}", expandedIcon=QIcon(), collapsedIcon=QIcon())
    part.setDuration(0)
    if (layout := part.layout()) is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    part.addWidget(content)
    part.collapse(animate=False)
    part.toggled.connect(partial(_show_open, part, title))
    part.content().hide()  # else Tab would stop at what nobody sees
    content.removeEventFilter(part)  # it would cut the height to what the content took before it was resized
    return part


def _show_open(part: QCollapsible, title: str, is_open: bool) -> None:
    part.setText(f"{'▾' if is_open else '▸'} {title}")
    part.content().setVisible(is_open)
    part.content().setMaximumHeight(ANY_HEIGHT_PX if is_open else 0)


def in_words(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def copy_text(text: str) -> None:
    """Put text into the clipboard."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
