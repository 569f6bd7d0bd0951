"""In a real window, with napari's own style, no dock cuts anything off at its right end, whatever the font."""

from __future__ import annotations

from typing import Any

import pytest
from napari.components import ViewerModel
from napari.qt import get_stylesheet
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

from napari_braintumor import engine
from napari_braintumor.widgets.cohort.dock import CohortDock
from napari_braintumor.widgets.correcting.dock import CorrectDock
from napari_braintumor.widgets.measuring.dock import MeasureDock
from napari_braintumor.widgets.models.dock import ModelsDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.dock import WIDTH_PX, Dock
from napari_braintumor.widgets.training.dock import TrainDock

DIRECT = Qt.FindChildOption.FindDirectChildrenOnly
NARROW_PX = 20
"""What napari's style and a scroll bar may add to the width."""


def show_everything(dock: Dock) -> None:
    """Show what is out of sight until it is needed."""
    body = dock.scroll_area.widget()
    for widget in body.findChildren(QWidget):
        if widget.isHidden() and not widget.isWindow() and widget.parentWidget() is not None:
            widget.show()
    for part in body.findChildren(QCollapsible):
        part.expand(animate=False)


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded in the background, which would go on after the window is closed."""
    monkeypatch.setattr(engine, "warm_up", lambda config: None)


@pytest.mark.slow
@pytest.mark.parametrize("font_size", [9, 14])
@pytest.mark.parametrize("name", ["Segment", "Correct", "Measure", "Cohort", "Train", "Models"])
def test_a_dock_is_as_wide_as_its_widest_row(make_napari_viewer: Any, qtbot: Any, name: str, font_size: int):
    before = get_settings().appearance.font_size
    get_settings().appearance.font_size = font_size
    try:
        viewer = make_napari_viewer(show=True)
        frame, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", name)
        show_everything(dock)
        viewer.window._qt_window.resizeDocks([frame], [100], Qt.Orientation.Horizontal)
        qtbot.wait(200)
    finally:
        get_settings().appearance.font_size = before
    view, body = dock.scroll_area.viewport(), dock.scroll_area.widget()
    widest = max(body.findChildren(QWidget, options=DIRECT), key=lambda widget: widget.minimumSizeHint().width())
    assert body.width() <= view.width(), f"{widest.accessibleName() or widest}: {body.width()} of {view.width()}"
    if font_size == 9:
        assert dock.minimumWidth() <= WIDTH_PX + NARROW_PX, widest.accessibleName() or widest


@pytest.mark.parametrize("font_size", [9, 14])
@pytest.mark.parametrize("kind", [SegmentDock, CorrectDock, MeasureDock, CohortDock, TrainDock, ModelsDock])
def test_a_dock_alone_asks_for_the_width_of_its_widest_row(qtbot: Any, kind: type[Dock], font_size: int):
    dock = kind(ViewerModel())
    qtbot.addWidget(dock)
    dock.setStyleSheet(get_stylesheet("dark", extra_variables={"font_size": f"{font_size}pt"}))
    show_everything(dock)
    dock.resize(WIDTH_PX, 600)
    dock.show()
    view, body = dock.scroll_area.viewport(), dock.scroll_area.widget()
    qtbot.waitUntil(lambda: body.width() <= view.width(), timeout=5000)
    if font_size == 9:
        assert dock.minimumWidth() <= WIDTH_PX + NARROW_PX
