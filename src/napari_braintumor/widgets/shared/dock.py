"""What all docks share: there is one of each kind in a viewer, their body scrolls, their footer is always in sight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QDockWidget, QScrollArea, QVBoxLayout, QWidget

from napari_braintumor.widgets.shared.keys import order_tabs
from napari_braintumor.widgets.shared.preferences import follow_preferences

WIDTH_PX = 300
"""With less, the scroll bar would hide the right end of the rows."""

DISPLAY_NAME = "Brain Tumor"
"""As in the manifest. napari's menus call a dock by its title and this."""


class _OneInAViewer(type(QWidget)):  # type: ignore[misc]
    """Makes a dock, or returns the one that is open: napari asks for a new one by each of its ways to open docks."""

    def __call__(cls, napari_viewer: Any) -> Any:
        dock: Any = find_dock(napari_viewer, cls)
        if dock is None:
            return super().__call__(napari_viewer)
        dock.leave_frame(napari_viewer.window)  # whoever asked puts it into another one
        return dock


class Dock(QWidget, metaclass=_OneInAViewer):
    """A dock widget.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by this name.
    """

    title: ClassVar[str]
    """As in the manifest."""

    area: ClassVar[str] = "right"
    """Where it opens; on the right, in front of the other docks there."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.setObjectName(f"brain-tumor-{self.title.lower()}")
        self.setMinimumWidth(WIDTH_PX)
        self._viewer = napari_viewer
        self._docked = False
        self._moving = False
        follow_preferences()

    def event(self, event: QEvent | None) -> bool:
        """Go away when the dock is closed: napari only takes the widget out, and a job would go on unseen."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is None and self._docked and not self._moving:
                if notice := self.describe_closing():
                    show_info(notice)
                self.deleteLater()
            self._docked = self.parent() is not None
        return super().event(event)

    def focusNextPrevChild(self, next: bool) -> bool:  # noqa: A002, N802  as Qt calls it
        """Go on with Tab as the eye does, also through rows that were added later."""
        order_tabs(self)
        return super().focusNextPrevChild(next)

    def describe_closing(self) -> str:
        """Return what a user should know about what was under way when the dock was closed; empty if nothing was."""
        return ""

    def leave_frame(self, window: Any) -> None:
        """Come out of the frame that napari has put around the dock, without going away."""
        self._moving = True
        window.remove_dock_widget(self)
        self._moving = False

    def _widen(self, needed_px: int) -> None:
        self.setMinimumWidth(max(WIDTH_PX, needed_px))

    def lay_out(self, body: QWidget, footer: Iterable[QWidget]) -> None:
        """Let the body scroll above the footer's widgets."""
        self.scroll_area = Body()
        self.scroll_area.needs.connect(self._widen)
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


class Body(QScrollArea):
    """Scrolls up and down, and says how wide its widest row is, so that in a large font nothing is cut off."""

    needs = Signal(int)
    """The width in pixels, with the scroll bar."""

    def __init__(self) -> None:
        super().__init__()
        self._needed_px = 0

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Say so when a row needs another width."""
        kind = event.type() if event is not None else None
        bar, inside, view = self.verticalScrollBar(), self.widget(), self.viewport()
        if kind in (QEvent.Type.LayoutRequest, QEvent.Type.Show) and inside and bar and view:
            bar_px = max(bar.sizeHint().width(), self.width() - view.width())  # styles may draw it wider than it says
            needed_px = inside.minimumSizeHint().width() + bar_px
            if needed_px != self._needed_px:
                self._needed_px = needed_px
                self.needs.emit(needed_px)
        return super().eventFilter(watched, event)


AnyDock = TypeVar("AnyDock", bound=Dock)


def find_dock(viewer: Any, kind: type[AnyDock]) -> AnyDock | None:
    """Return the dock of a kind that is open in a viewer, whatever name it was opened by."""
    window = getattr(viewer, "window", None)
    docks: Mapping[str, Any] = window.dock_widgets if window is not None else {}
    return next((dock for dock in list(docks.values()) if isinstance(dock, kind)), None)


def open_dock(viewer: Any, kind: type[AnyDock]) -> AnyDock | None:
    """Bring the dock of a kind to the front, opening it if there is none; None if the viewer has no window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    dock = find_dock(viewer, kind)
    if dock is None:
        dock = kind(viewer)
        # By the name that napari's menus use, so that their check marks are right.
        name = f"{kind.title} ({DISPLAY_NAME})"
        window.add_dock_widget(dock, name=name, area=kind.area, tabify=kind.area == Dock.area)
    frame = dock.parent()
    if isinstance(frame, QDockWidget):
        frame.show()
        frame.raise_()
    return dock
