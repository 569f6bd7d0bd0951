"""The dock with two planes beside the one that the viewer shows, linked by a crosshair."""

from __future__ import annotations

from typing import Any, ClassVar

from napari.qt import QtViewer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import QSplitter, QVBoxLayout

from napari_braintumor.layers import LinkedPlanes
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.following import when_destroyed
from napari_braintumor.widgets.shared.parts import make_line

HINT = "Drag to move the crosshair, or Shift and move in the main view. Ctrl and the wheel go through the slices."


class PlanesDock(Dock):
    """Shows the planes that the viewer does not show.

    Parameters
    ----------
    napari_viewer
        The viewer.
    """

    title: ClassVar[str] = "Planes"
    area: ClassVar[str] = "bottom"

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.linked = LinkedPlanes(napari_viewer)
        when_destroyed(self, self.linked.close)
        self.views: list[QtViewer] = []
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._splitter, 1)
        column.addWidget(make_line(HINT, "Hint"))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put the planes where there is more room: side by side, or one above the other."""
        super().resizeEvent(event)
        wide = self.width() > self.height()
        self._splitter.setOrientation(Qt.Orientation.Horizontal if wide else Qt.Orientation.Vertical)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Open the views when they are first seen: each needs a picture of its own from the graphics card."""
        super().showEvent(event)
        for plane in self.linked.planes[len(self.views) :]:
            view = QtViewer(plane.model)
            view.setAcceptDrops(False)  # files belong to the main view
            view.canvas.native.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # and so do keys
            view.dims.hide()
            self.views.append(view)
            self._splitter.addWidget(view)
            view.show()
            QTimer.singleShot(0, plane.fit)
