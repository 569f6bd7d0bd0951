"""The Segment dock is worked with by keys alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from dicom import Acquisition, affine_of, write_series
from napari_braintumor import engine
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.widgets.segmenting import open_case
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared.keys import list_stops, order_tabs


@pytest.fixture
def dock(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> SegmentDock:
    monkeypatch.setattr(engine, "warm_up", lambda config: None)
    dock = SegmentDock(ViewerModel())
    qtbot.addWidget(dock)
    dock.resize(320, 1200)
    dock.show()
    return dock


@pytest.fixture
def with_table(qtbot: Any, dock: SegmentDock, tmp_path: Path) -> SegmentDock:
    """A dock with a case whose table is open."""
    for number, name in enumerate(("ax t1", "ax flair", "localizer"), start=1):
        values = np.random.default_rng(number).integers(1, 400, (8, 20, 20))
        place = affine_of(spacing=(5.0, 4.0, 4.0), shape=values.shape)
        write_series(
            tmp_path / str(number), values, place, Acquisition(name, number, echo_time=None, repetition_time=None)
        )
    dock.opener.open([tmp_path])
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=60_000)
    assert not dock.message.text().startswith("Not opened"), dock.message.text()
    assert dock.opener.series.view.isVisible()
    return dock


def tab_chain(dock: SegmentDock) -> list[QWidget]:
    """Return where Tab stops, from the first row on."""
    order_tabs(dock)
    stops = list_stops(dock)
    chain, widget = [stops[0]], stops[0].nextInFocusChain()
    while widget is not stops[0]:
        chain.append(widget)
        widget = widget.nextInFocusChain()
    return [widget for widget in chain if widget in stops and widget.isVisibleTo(dock)]


def rows_of(dock: SegmentDock, widgets: list[QWidget]) -> list[tuple[bool, int]]:
    """Return for each widget whether it is in the footer, and the height of its middle."""
    body = dock.scroll_area.widget()
    inside = [body.isAncestorOf(widget) for widget in widgets]
    middles = [
        widget.mapTo(body if within else dock, widget.rect().center()).y()
        for widget, within in zip(widgets, inside, strict=True)
    ]
    return [(not within, middle) for within, middle in zip(inside, middles, strict=True)]


def test_tab_goes_down_the_dock_as_the_eye_does(dock: SegmentDock):
    chain = tab_chain(dock)
    rows = rows_of(dock, chain)
    assert rows == sorted(rows), [widget.accessibleName() for widget in chain]
    names = [widget.accessibleName() for widget in chain]
    assert names[:2] == ["Open case", "Model"]
    assert names.index("Layer of T1") < names.index("Layer of FLAIR")
    assert "Threshold" not in names  # Advanced is closed


def test_tab_goes_through_the_boxes_of_the_table_where_they_are(with_table: SegmentDock):
    names = [widget.accessibleName() for widget in tab_chain(with_table)]
    boxes = [name for name in names if name.startswith("Use of")]
    assert boxes == ["Use of series 1 'ax t1'", "Use of series 2 'ax flair'"]
    assert names.index("Series") < names.index(boxes[0]) < names.index("Model")
    assert names[-1] == "Segment"


@pytest.mark.parametrize("within", ["dock", "box"])
def test_escape_cancels_what_runs(qtbot: Any, dock: SegmentDock, monkeypatch: pytest.MonkeyPatch, within: str):
    def endless(paths: Any) -> Any:
        while True:
            yield PhaseReached("looking for scans")

    monkeypatch.setattr(open_case, "open_paths", endless)
    dock.opener.open([Path("scans")])
    QTest.keyClick(dock if within == "dock" else dock.model_choice.box, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=60_000)
    assert dock.message.text() == "Canceled. No scan was opened."


@pytest.mark.parametrize("within", ["dock", "table", "box"])
def test_escape_closes_the_table_of_series(with_table: SegmentDock, within: str):
    opener = with_table.opener
    box = opener.series.box_of(opener.case.rows[0].key)
    QTest.keyClick({"dock": with_table, "table": opener.series.view, "box": box}[within], Qt.Key.Key_Escape)
    assert not opener.series_part.isExpanded()
    assert not opener.series.view.isVisible()
    assert len(with_table._viewer.layers) == 2  # the scans stay


def test_a_key_segments_and_one_offers_to_open_a_case(dock: SegmentDock, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    dock.segment_button.clicked.disconnect()
    dock.segment_button.clicked.connect(lambda: done.append("segment"))
    monkeypatch.setattr(dock.opener.open_button.button, "showMenu", lambda: done.append("open"))
    dock.segment_button.setEnabled(True)
    QTest.keyClick(dock.model_choice.box, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClick(dock.model_choice.box, Qt.Key.Key_F3)
    assert done == ["segment", "open"]


def test_keys_are_named_in_tooltips(dock: SegmentDock):
    assert "(F3)" in dock.opener.open_button.button.toolTip()
    assert "(Esc)" in dock.footer.cancel_button.toolTip()


def test_a_key_that_has_nothing_to_do_is_left_to_others(dock: SegmentDock):
    event = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(dock, event)
    assert not event.isAccepted()
