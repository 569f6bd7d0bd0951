"""In a real window: three planes through one point, opened by a button, followed and closed again."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt

from napari_braintumor.layers import default_placement, show_plane, update_or_add_labels
from napari_braintumor.widgets.planes.dock import PlanesDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.dock import find_dock, open_dock
from open_layers import open_case


def test_a_button_opens_the_other_two_planes_and_dragging_there_moves_the_slider(
    make_napari_viewer: Any, qtbot: Any, synthetic_volume: Any, synthetic_segmentation: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1100, 900)
    volume = synthetic_volume()
    open_case(viewer, volume)
    labels = update_or_add_labels(viewer, synthetic_segmentation(volume), default_placement(volume.source))
    show_plane(viewer, "axial")
    segment = open_dock(viewer, SegmentDock)
    assert segment is not None
    segment.view_bar.planes_button.click()
    dock = find_dock(viewer, PlanesDock)
    assert dock is not None
    qtbot.waitUntil(lambda: len(dock.views) == 2, timeout=20_000)
    assert dock.linked.shown == ("coronal", "sagittal")
    # The middle of the picture is the middle of the head, so dragging upward goes to superior.
    canvas = dock.views[0].canvas.native
    qtbot.waitUntil(lambda: canvas.width() > 50 and canvas.height() > 50, timeout=20_000)
    qtbot.wait(200)
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    start = viewer.dims.point[0]
    qtbot.mouseMove(canvas, middle - QPoint(0, canvas.height() // 5))
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle - QPoint(0, canvas.height() // 5))
    qtbot.waitUntil(lambda: viewer.dims.point[0] > start, timeout=5000)
    # A stroke of the brush is in the pictures beside, which no list of layers of the window shows.
    before = dock.views[0].canvas.screenshot()
    labels.data_setitem(tuple(np.indices(labels.data.shape).reshape(3, -1)), 2)
    qtbot.wait(100)
    after = dock.views[0].canvas.screenshot()
    assert before != after
    assert all(layer.name != "crosshair" for layer in viewer.layers)
    with qtbot.waitSignal(dock.destroyed, timeout=5000):
        dock.parent().destroyOnClose()
    show_plane(viewer, "coronal")
    labels.undo()
    assert find_dock(viewer, PlanesDock) is None
