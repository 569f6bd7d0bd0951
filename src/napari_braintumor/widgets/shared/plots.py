"""Small plots of lines, in the theme's colors. Painted by Qt: a plotting library in the viewer would be felt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

HEIGHT_PX = 108
LEFT_PX, TOP_PX, BOTTOM_PX, RIGHT_PX = 56, 18, 16, 6
NAME_PX = 13


@dataclass(frozen=True)
class Line:
    """Points to join.

    Attributes
    ----------
    points
        ``(x, y)``, x rising.
    name
        Written in the line's color; empty for none.
    color
        ``#rrggbb``, or empty for the theme's text.
    faint
        Drawn thin and half transparent.
    """

    points: Sequence[tuple[float, float]]
    name: str = ""
    color: str = ""
    faint: bool = False


class Plot(QWidget):
    """Some lines under a title.

    Parameters
    ----------
    title
        The lines that are shown.
    limits
        The lowest and the highest y; left out, from what is shown.
    """

    def __init__(self, title: str, limits: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.title = title
        self.limits = limits
        self.lines: list[Line] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(title)

    def sizeHint(self) -> QSize:
        """Return a low, wide size."""
        return QSize(240, HEIGHT_PX)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Show other lines; the last values are also shown as a tooltip."""
        self.lines = list(lines)
        self.setToolTip(
            ", ".join(f"{line.name or self.title} {line.points[-1][1]:.4g}" for line in lines if line.points)
        )
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint frame, numbers and lines."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() * 0.8))
        painter.setFont(font)
        text = self.palette().windowText().color()
        painter.setPen(text)
        painter.drawText(QRectF(LEFT_PX, 0, self.width(), TOP_PX), Qt.AlignmentFlag.AlignVCenter, self.title)
        box = QRectF(LEFT_PX, TOP_PX, self.width() - LEFT_PX - RIGHT_PX, self.height() - TOP_PX - BOTTOM_PX)
        painter.setPen(QPen(QColor("#888888"), 1))
        painter.drawRect(box)
        points = [point for line in self.lines for point in line.points]
        if points:
            self._paint_lines(painter, box, text, points)
        painter.end()

    def _paint_lines(self, painter: QPainter, box: QRectF, text: QColor, points: list[tuple[float, float]]) -> None:
        first, last = min(x for x, _ in points), max(x for x, _ in points)
        low, high = self.limits or (min(y for _, y in points), max(y for _, y in points))
        width, height = (last - first) or 1, (high - low) or 1
        painter.setPen(text)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for y, at in ((high, box.top()), (low, box.bottom())):
            painter.drawText(QRectF(0, at - 8, LEFT_PX - 4, 16), right, f"{y:.3g}")
        below = QRectF(box.left(), box.bottom(), box.width(), BOTTOM_PX)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, f"{first:g}")
        painter.drawText(below, right, f"{last:g}")
        # Names stand where lines that rise to the right leave room, or, where they end low, above them.
        named = [line for line in self.lines if line.name and line.points]
        ends_high = bool(named) and sum(line.points[-1][1] - low for line in named) / len(named) > height / 2
        row = box.bottom() - 2 - NAME_PX * len(named) if ends_high else box.top() + 2
        for line in self.lines:
            color = QColor(line.color) if line.color else QColor(text)
            if line.faint:
                color.setAlphaF(0.4)
            painter.setPen(QPen(color, 1.0 if line.faint else 1.8))
            painter.drawPolyline(
                QPolygonF(
                    [
                        QPointF(
                            box.left() + box.width() * (x - first) / width,
                            box.bottom() - box.height() * min(max((y - low) / height, 0.0), 1.0),
                        )
                        for x, y in line.points
                    ]
                )
            )
            if line in named:
                painter.drawText(QRectF(box.left() + 6, row, box.width(), 14), Qt.AlignmentFlag.AlignLeft, line.name)
                row += NAME_PX
