"""Work with a dock without a mouse: Tab goes from row to row as the eye does, and a few keys do what buttons do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QLayout, QScrollArea, QWidget


class DockKeys(QObject):
    """Takes keys that reach a dock, because nothing in it that has the focus takes them.

    Parameters
    ----------
    dock
        The dock.
    actions
        What each key does, by names as ``Ctrl+Return``; it returns False if there was nothing to do, so that others may
        have the key.
    """

    def __init__(self, dock: QWidget, actions: Mapping[str, Callable[[], object]]) -> None:
        super().__init__(dock)
        self._actions = {QKeySequence(keys).toString(): action for keys, action in actions.items()}
        dock.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Do what a key stands for."""
        if event is not None and event.type() == QEvent.Type.KeyPress:
            keys = QKeySequence(event.keyCombination()).toString()  # type: ignore[attr-defined]
            action = self._actions.get(keys)
            if action is not None and action() is not False:
                return True
        return super().eventFilter(watched, event)


def order_tabs(root: QWidget) -> None:
    """Let Tab go through all that is below a widget in the order of its layouts, whatever was made first."""
    for before, after in pairwise(list_stops(root)):
        QWidget.setTabOrder(before, after)


def list_stops(root: QWidget) -> list[QWidget]:
    """Return the widgets below another one where Tab stops, as they follow each other in its layouts."""
    return [widget for widget in _walk(root) if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget is not root]


def _walk(widget: QWidget) -> Iterator[QWidget]:
    if not isinstance(widget, QScrollArea):  # which scrolls by itself to what has the focus
        yield widget
    layout = widget.layout()
    if isinstance(widget, QAbstractItemView):
        boxes = [box for box in widget.viewport().findChildren(QWidget) if box.parent() is widget.viewport()]  # type: ignore[union-attr]
        yield from sorted(boxes, key=lambda box: box.y())
    elif isinstance(widget, QScrollArea) and (inside := widget.widget()) is not None:
        yield from _walk(inside)
    elif layout is not None:
        yield from _walk_layout(layout)


def _walk_layout(layout: QLayout) -> Iterator[QWidget]:
    for index in range(layout.count()):
        item = layout.itemAt(index)
        if item is None:
            continue
        if (widget := item.widget()) is not None:
            yield from _walk(widget)
        elif (inner := item.layout()) is not None:
            yield from _walk_layout(inner)
