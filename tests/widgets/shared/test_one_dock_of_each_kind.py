"""In a real window: however a dock is asked for, there is one of its kind, and it keeps what it showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from napari._app_model import get_app_model
from qtpy.QtWidgets import QDockWidget

from napari_braintumor.widgets.cohort.dock import CohortDock
from napari_braintumor.widgets.correcting.dock import CorrectDock
from napari_braintumor.widgets.measuring.dock import MeasureDock
from napari_braintumor.widgets.models.dock import ModelsDock
from napari_braintumor.widgets.planes.dock import PlanesDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.dock import Dock, find_dock, open_dock
from napari_braintumor.widgets.training.dock import TrainDock

KINDS: dict[str, type[Dock]] = {
    "segment": SegmentDock,
    "correct": CorrectDock,
    "measure": MeasureDock,
    "cohort": CohortDock,
    "train": TrainDock,
    "models": ModelsDock,
    "planes": PlanesDock,
}


def by_menu(viewer: Any, kind: str) -> None:
    get_app_model().commands.execute_command(f"napari-braintumor.{kind}").result()


def by_code(viewer: Any, kind: str) -> None:
    viewer.window.add_plugin_dock_widget("napari-braintumor", kind.capitalize())


def by_another_dock(viewer: Any, kind: str) -> None:
    open_dock(viewer, KINDS[kind])


WAYS: tuple[Callable[[Any, str], None], ...] = (by_menu, by_code, by_another_dock)


def docks_of(viewer: Any, kind: str) -> list[Dock]:
    return [dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, KINDS[kind])]


def frames_of(viewer: Any) -> list[QDockWidget]:
    """All frames with a dock of ours, and those that are empty."""
    frames = viewer.window._qt_window.findChildren(QDockWidget)
    return [frame for frame in frames if frame.widget() is None or isinstance(frame.widget(), Dock)]


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


def test_however_a_dock_is_asked_for_the_one_that_is_open_comes_to_the_front(viewer, qtbot):
    pairs = [("segment", first, second) for first in WAYS for second in WAYS]
    for kind, first, second in (
        *pairs,
        ("correct", by_code, by_menu),
        ("train", by_menu, by_code),
        ("models", by_code, by_another_dock),
    ):
        first(viewer, kind)
        (opened,) = docks_of(viewer, kind)
        if not (first is second is by_menu):  # napari's own check mark, which hides what it showed
            second(viewer, kind)
        assert docks_of(viewer, kind) == [opened], (kind, first.__name__, second.__name__)
        qtbot.waitUntil(lambda: len(frames_of(viewer)) == 1, timeout=5000)
        (frame,) = frames_of(viewer)
        assert frame.widget() is opened
        assert not frame.isHidden()
        with qtbot.waitSignal(opened.destroyed, timeout=5000):
            frame.destroyOnClose()
        assert find_dock(viewer, KINDS[kind]) is None


def test_a_dock_that_was_hidden_or_lies_behind_another_is_shown(viewer):
    segment = open_dock(viewer, SegmentDock)
    open_dock(viewer, TrainDock)
    segment.parent().hide()
    assert open_dock(viewer, SegmentDock) is segment
    assert not segment.parent().isHidden()


def test_a_dock_needs_no_window_to_be_made_twice(qtbot, viewer):
    from napari.components import ViewerModel

    alone = ViewerModel()
    assert find_dock(alone, SegmentDock) is None
    assert open_dock(alone, SegmentDock) is None
    docks = [SegmentDock(alone), SegmentDock(alone)]
    for dock in docks:
        qtbot.addWidget(dock)
    assert docks[0] is not docks[1]
