"""A small picture of how a learning rate changes."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QSize
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

HEIGHT_PX = 48


class RateCurve(QWidget):
    """Draws rates from the left to the right, from zero to the highest."""

    def __init__(self) -> None:
        super().__init__()
        self._rates: list[float] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Learning rate over the training")

    def sizeHint(self) -> QSize:
        """Return a low, wide size."""
        return QSize(200, HEIGHT_PX)

    def show_rates(self, rates: list[float]) -> None:
        """Draw other rates; none where the settings make none."""
        self._rates = rates
        self.setToolTip(f"From {rates[0]:.1e} over {max(rates):.1e} to {rates[-1]:.1e}" if rates else "")
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the line in the theme's color."""
        if len(self._rates) < 2:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().windowText().color(), 1.5))
        highest = max(self._rates) or 1.0
        width, height = self.width() - 4, self.height() - 6
        points = [
            QPointF(2 + width * i / (len(self._rates) - 1), 3 + height * (1 - rate / highest))
            for i, rate in enumerate(self._rates)
        ]
        painter.drawPolyline(QPolygonF(points))
        painter.end()
