"""Two real visits, from their folder to the change between them, by the buttons of a real window."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager

from napari_braintumor.widgets.measuring.dock import MeasureDock
from napari_braintumor.widgets.segmenting.dock import SegmentDock

pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(2400)]

WAIT_MS = 1_200_000


def test_two_real_visits_are_segmented_registered_compared_and_seen(make_napari_viewer, qtbot, real_data) -> None:
    notification_manager.records.clear()
    viewer = make_napari_viewer(show=True)
    viewer.open(str(real_data / "brats_reg" / "BraTSReg_002"), plugin="napari-braintumor")
    _, segment = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    assert isinstance(segment, SegmentDock)
    made: list[Labels] = []
    box = segment.scans.case_bar.box
    for name in ("BraTSReg_002_00_0000", "BraTSReg_002_01_0262"):
        box.setCurrentIndex(box.findText(name))
        box.activated.emit(box.currentIndex())  # as the mouse does
        qtbot.waitUntil(lambda name=name: segment.check_line.text().startswith(f"Ready: {name}"), timeout=WAIT_MS)
        segment.segment_button.click()
        qtbot.waitUntil(lambda: segment.footer.job is None, timeout=WAIT_MS)
        layer = segment.result_card.layer
        assert layer is not None
        assert f"[{name}]" in segment.result_card.headline.text()
        made.append(layer)

    begun_s = time.monotonic()
    _, measure = viewer.window.add_plugin_dock_widget("napari-braintumor", "Measure")
    assert isinstance(measure, MeasureDock)
    earlier, later = made
    viewer.layers.selection.active = later
    assert measure.target is later
    measure.visits_part.expand(animate=False)
    assert measure.visits_box.earlier_slot.layer is earlier  # paired by their names
    measure.visits_box.compare_button.click()
    qtbot.waitUntil(lambda: measure.footer.job is None, timeout=WAIT_MS)
    said = measure.visits_box.changes_line.text()
    print(f"{said}\ncompared in {time.monotonic() - begun_s:.0f} s")
    assert said.startswith("262 days apart.")
    before, after = (float(ml) for ml in re.findall(r"whole tumor: ([\d.]+) to ([\d.]+) mL", said)[0])
    # The program that counts knows nothing of the window.
    assert before == pytest.approx(np.count_nonzero(earlier.data) / 1000, abs=0.06)
    assert after == pytest.approx(np.count_nonzero(later.data) / 1000, abs=0.06)
    assert after < 0.75 * before  # the edema has receded
    assert re.search(r"enhancing tumor: (PR|CR) by diameters", said)
    assert "RANO" in measure.visits_box.rule_line.text()

    assert viewer.canvas.grid.enabled
    cells = {
        place: [viewer.layers[index].name for index in inside]
        for place, inside in viewer.canvas.grid.iter_viewboxes(viewer.layers)
    }
    assert [len(inside) for inside in cells.values()] == [2, 2]
    assert all("later visit moved" in name.lower() for name in cells[0, 1])
    moved: Any = viewer.layers[f"Later visit moved [{earlier.name}]"]
    assert np.count_nonzero(moved.data) == pytest.approx(np.count_nonzero(later.data), rel=0.03)
    assert (moved.data != later.data).any()  # they were moved, if only a little
    for name, button in measure.visits_box.view_buttons.items():
        if not button.isChecked():
            button.click()
        qtbot.wait(500)
        assert measure.visits_box.view_buttons[name].isChecked()
    measure.visits_box.view_buttons["changes"].click()
    assert not viewer.canvas.grid.enabled
    assert moved not in viewer.layers
    assert not notification_manager.records
