"""A strip with a column for each slice: how much tumor it holds, how doubtful it is, and whether it was reviewed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

HEIGHT_PX = 58
_LANE = 0.62  # share of the height that the columns take; marks lie below
_REVIEWED, _EDITED, _DOUBTFUL = "#4fae5b", "#4aa3df", "#e0903a"


@dataclass(frozen=True)
class SliceStates:
    """What is known of the slices along Z, from inferior.

    Attributes
    ----------
    tumor
        Share of the largest section, 0 to 1, of each slice.
    doubt
        How doubtful each slice is, 0 to 1; empty if unknown.
    reviewed, edited, doubtful
        The slices that were reviewed, edited by hand, and that are among the most doubtful.
    """

    tumor: Sequence[float] = ()
    doubt: Sequence[float] = ()
    reviewed: Collection[int] = ()
    edited: Collection[int] = ()
    doubtful: Collection[int] = field(default_factory=tuple)

    def describe(self, z: int) -> str:
        """Return what is known of a slice, in words."""
        words = ["tumor"] if z < len(self.tumor) and self.tumor[z] else ["no tumor"]
        words += ["reviewed"] if z in self.reviewed else []
        words += ["edited by hand"] if z in self.edited else []
        words += ["doubtful"] if z in self.doubtful else []
        return f"Slice {z}: {', '.join(words)}"

    def describe_reviewed(self) -> str:
        """Return how many slices were reviewed, in words."""
        with_tumor = {z for z, share in enumerate(self.tumor) if share}
        inside, others = len(with_tumor & set(self.reviewed)), len(set(self.reviewed) - with_tumor)
        slices = "1 slice" if len(with_tumor) == 1 else f"{len(with_tumor)} slices"
        return f"Reviewed: {inside} of {slices} with tumor" + (f", and {others} without" if others else "")


class SliceStrip(QWidget):
    """The strip. A click, or the arrow keys, choose a slice."""

    chosen = Signal(int)
    """The slice along Z that a person wants to see."""

    def __init__(self) -> None:
        super().__init__()
        self._states = SliceStates()
        self._current: int | None = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Slices")

    def sizeHint(self) -> QSize:
        """Return a strip that is as wide as there is room."""
        return QSize(200, HEIGHT_PX)

    def show_states(self, states: SliceStates, current: int | None) -> None:
        """Show what is known of the slices, and which one is looked at."""
        if states == self._states and current == self._current:
            return
        self._states, self._current = states, current
        self.setAccessibleDescription(states.describe(current) if current is not None else "")
        self.update()

    @property
    def states(self) -> SliceStates:
        """What is shown."""
        return self._states

    def slice_under(self, x: float) -> int | None:
        """Return the slice at a place of the strip."""
        count = len(self._states.tumor)
        return min(count - 1, max(0, int(x / max(1, self.width()) * count))) if count else None

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go to the slice under the mouse."""
        self._follow(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Say what is known of the slice under the mouse, and go there while the button is held."""
        if event is None:
            return
        z = self.slice_under(event.position().x())
        self.setToolTip("" if z is None else self._states.describe(z))
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._follow(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Go to the next or last slice."""
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        step = steps.get(Qt.Key(event.key())) if event is not None else None
        if step is None or self._current is None:
            super().keyPressEvent(event)
        elif 0 <= self._current + step < len(self._states.tumor):
            self.chosen.emit(self._current + step)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw a column for each slice, and a mark below it: a tick, a bar or a triangle, so that color is not all."""
        count = len(self._states.tumor)
        if not count:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        quiet = palette.color(QPalette.ColorRole.Mid)
        text = palette.color(QPalette.ColorRole.Text)
        wide, high = self.width() / count, self.height() * _LANE
        for z in range(count):
            left = z * wide
            share = self._states.tumor[z]
            if share:
                column = QRectF(left, high * (1 - share), max(1.0, wide - 0.5), high * share)
                painter.fillRect(column, _mix(quiet, text))
            if z < len(self._states.doubt) and self._states.doubt[z] > 0:
                at = high * (1 - self._states.doubt[z])
                painter.fillRect(QRectF(left, at, max(1.5, wide), 2.0), QColor(_DOUBTFUL))
            self._draw_marks(painter, z, left + wide / 2, wide)
        if self._current is not None:
            painter.setPen(text)
            painter.drawRect(QRectF(self._current * wide, 0.5, max(2.0, wide), self.height() - 1.5))
        if self.hasFocus():
            painter.setPen(palette.color(QPalette.ColorRole.Highlight))
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

    def _draw_marks(self, painter: QPainter, z: int, middle: float, wide: float) -> None:
        side = min(6.0, max(2.0, wide))
        lane = (self.height() * (1 - _LANE)) / 3
        top = self.height() * _LANE
        painter.setPen(Qt.PenStyle.NoPen)
        if z in self._states.doubtful:
            painter.setBrush(QColor(_DOUBTFUL))
            points = [QPointF(middle - side / 2, top + 1), QPointF(middle + side / 2, top + 1)]
            painter.drawPolygon(QPolygonF([*points, QPointF(middle, top + lane)]))
        if z in self._states.edited:
            painter.fillRect(QRectF(middle - side / 2, top + lane + 1, side, lane - 2), QColor(_EDITED))
        if z in self._states.reviewed:
            painter.setBrush(QColor(_REVIEWED))
            painter.drawEllipse(QPointF(middle, top + 2.5 * lane), side / 2, min(side, lane) / 2)

    def _follow(self, event: QMouseEvent | None) -> None:
        z = self.slice_under(event.position().x()) if event is not None else None
        if z is not None:
            self.chosen.emit(z)


def _mix(one: QColor, two: QColor) -> QColor:
    return QColor(*((a + b) // 2 for a, b in zip(one.getRgb()[:3], two.getRgb()[:3], strict=True)))
