"""Correcting in a real window: every control is clicked, the mouse draws, and whatever was done is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QPushButton, QSlider, QWidget

from features_seen import make_features
from napari_braintumor import engine
from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import (
    default_placement,
    layers_from_case,
    reviewed_slices,
    scans_in,
    select_layers,
    show_plane,
    update_or_add_labels,
)
from napari_braintumor.widgets.correcting.dock import CorrectDock
from napari_braintumor.widgets.correcting.strip import SliceStrip

SECONDS = 30
SAME_ROW_PX = 10


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    notification_manager.records.clear()
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1300, 900)
    return viewer


@pytest.fixture
def target(viewer: Any, volume: Volume, segmentation: Segmentation, monkeypatch: Any, tmp_path: Path) -> Labels:
    def gather(seen: Any, config: Any) -> Iterator[Any]:
        yield SlicesDone(3, 6)
        yield make_features(segmentation)

    monkeypatch.setattr(engine, "gather_features", gather)
    model = tmp_path / "fake.safetensors"
    model.touch()
    for data, options, _ in layers_from_case(volume):
        viewer.add_image(data, **options)
    scans = {layer.metadata["braintumor"]["modality"]: layer for layer in scans_in(viewer.layers)}
    made_from = select_layers(scans).made_from
    return update_or_add_labels(
        viewer, segmentation, default_placement(volume.source), made_from=made_from, model_path=model
    )


@pytest.fixture
def dock(viewer: Any, target: Labels) -> CorrectDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Correct")
    for part in (dock.regions_part, dock.sections_part, dock.keys_part):
        part.expand(animate=False)
    return dock


@pytest.fixture
def settle(qtbot: Any, dock: CorrectDock) -> Callable[[], None]:
    def wait() -> None:
        qtbot.wait(150)
        qtbot.waitUntil(lambda: dock.footer.job is None and not dock.edits.busy, timeout=SECONDS * 1000)
        qtbot.waitUntil(lambda: not dock.follower.busy and dock.view_bar.idle, timeout=SECONDS * 1000)

    return wait


def place_of(viewer: Any, layer: Labels, at: tuple[int, int, int]) -> tuple[int, int]:
    """Where a voxel of the axial slice that is shown is on the canvas."""
    canvas = viewer.window._qt_viewer.canvas
    _, row, column = layer.data_to_world(at)
    there = canvas.view.scene.transform.map([column, row])
    return round(float(there[0] / there[3])), round(float(there[1] / there[3]))


def drag(qtbot: Any, viewer: Any, way: list[tuple[int, int]]) -> None:
    """Press the mouse on the canvas, move it, and let it go."""
    events = viewer.window._qt_viewer.canvas._scene_canvas.events
    press = events.mouse_press(pos=way[0], modifiers=(), button=1)
    for pos in way[1:]:
        qtbot.wait(50)
        events.mouse_move(pos=pos, modifiers=(), button=1, press_event=press, buttons=[1])
    events.mouse_release(pos=way[-1], modifiers=(), button=1)


def show(qtbot: Any, viewer: Any, target: Labels, z: int) -> None:
    show_plane(viewer, "axial")
    viewer.dims.set_point(0, target.data_to_world((z, 0, 0))[0])
    viewer.reset_view()
    qtbot.wait(50)


def test_a_stroke_of_the_mouse_is_followed_and_undone(qtbot, viewer, dock, target, settle):
    before = target.data.copy()
    show(qtbot, viewer, target, 2)
    dock.tissues.tissue_buttons[2].click()
    settle()
    strokes = viewer.layers.selection.active
    assert strokes.name == "Strokes [patient7]"
    drag(qtbot, viewer, [place_of(viewer, target, (2, row, 2)) for row in (1, 2, 3, 4)])
    settle()
    (stroke,) = target.metadata["braintumor"]["strokes"]
    assert stroke.region == "whole tumor"
    assert {round(point[0]) for point in stroke.points} == {2}
    assert len(stroke.points) >= 4
    assert (target.data[2, 1:5, 2] == 2).all()
    dock.undo_button.click()
    settle()
    np.testing.assert_array_equal(target.data, before)
    assert not strokes.data.any()


def test_the_brush_paints_with_the_mouse_and_is_undone(qtbot, viewer, dock, target, settle):
    before = target.data.copy()
    show(qtbot, viewer, target, 4)
    dock.tissues.way_buttons["brush"].click()
    dock.tissues.tissue_buttons[3].click()
    drag(qtbot, viewer, [place_of(viewer, target, (4, 10, column)) for column in (6, 7, 8)])
    assert (target.data[4, 10, 6:9] == 3).all()
    dock.undo_button.click()
    np.testing.assert_array_equal(target.data, before)


def test_a_part_is_removed_with_a_click_of_the_mouse_and_undone(qtbot, viewer, dock, target, settle):
    before = target.data.copy()
    show(qtbot, viewer, target, 0)
    dock.region_tools.part_buttons["remove"].click()
    drag(qtbot, viewer, [place_of(viewer, target, (0, 3, 2))])
    settle()
    assert not target.data.any()
    dock.undo_button.click()
    np.testing.assert_array_equal(target.data, before)


@pytest.mark.slow
def test_every_button_can_be_clicked_and_whatever_it_did_is_undone(qtbot, viewer, dock, target, settle):
    dock.follower.gather(target)
    settle()
    before = target.data.copy()
    names = []
    for button in dock.findChildren(QPushButton):
        name = button.accessibleName()
        show(qtbot, viewer, target, 1)
        if not button.isVisible() or not button.isEnabled() or not name:
            continue
        names.append(name)
        button.click()
        settle()
        dock.put_away()
        while target._undo_history:
            target.undo()
        np.testing.assert_array_equal(target.data, before, err_msg=name)
        for z in reviewed_slices(target):
            dock.review.go_to(z)
            dock.review.toggle_mark()
    assert {
        "Axial", "Coronal", "Sagittal", "3-D", "Largest section", "Strokes", "Brush", "Edema", "Nothing", "Undo",
        "Reviewed", "Next doubtful", "Next not reviewed", "Remove part", "Keep only part", "Fill holes", "Smooth",
        "Grow", "Shrink", "Copy from before", "Copy from after", "Interpolate", "Restore this slice", "Restore all",
        "Reviewed, and on",
    } <= set(names)  # fmt: skip
    assert not [record for record in notification_manager.records if str(record.severity) != "info"]


@pytest.mark.slow
def test_every_other_control_can_be_used_and_nothing_stays_of_it(qtbot, viewer, dock, target, settle):
    dock.follower.gather(target)
    settle()
    before = target.data.copy()
    kinds = (QComboBox, QAbstractSpinBox, QSlider, SliceStrip)
    used = []
    for control in [each for kind in kinds for each in dock.findChildren(kind)]:
        show(qtbot, viewer, target, 1)
        if not control.isVisible() or not control.isEnabled() or not control.accessibleName():
            continue
        used.append(control.accessibleName())
        if isinstance(control, QComboBox):
            for index in (*range(control.count()), 0):
                control.setCurrentIndex(index)
        elif isinstance(control, QAbstractSpinBox):
            control.stepBy(1)
            control.stepBy(-1)
        elif isinstance(control, QSlider):
            qtbot.keyClick(control, Qt.Key.Key_End)
        else:
            qtbot.mouseClick(control, Qt.MouseButton.LeftButton, pos=control.rect().center())
        settle()
        dock.put_away()
        while target._undo_history:
            target.undo()
        np.testing.assert_array_equal(target.data, before, err_msg=used[-1])
    assert {"Region", "Where", "Distance", "Less or more", "Slices"} <= set(used)
    assert not [record for record in notification_manager.records if str(record.severity) != "info"]


def test_the_slider_is_moved_with_keys_and_undone(qtbot, viewer, dock, target, settle):
    dock.follower.gather(target)
    settle()
    before = target.data.copy()
    show(qtbot, viewer, target, 2)
    qtbot.keyClick(dock.region_tools.amount_slider, Qt.Key.Key_End)
    settle()
    assert target.data[2].any()
    dock.undo_button.click()
    np.testing.assert_array_equal(target.data, before)


def test_the_keyboard_alone_reaches_every_control_in_the_order_on_screen(qtbot, dock):
    dock.follower.gather(dock.target)
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=SECONDS * 1000)
    body = dock.scroll_area.widget()
    reached: list[QWidget] = []
    each = body.nextInFocusChain()
    while each is not None and each is not body and len(reached) < 500:
        takes = each.focusPolicy() & Qt.FocusPolicy.TabFocus and each.isVisibleTo(body) and each.isEnabled()
        if takes and body.isAncestorOf(each):
            reached.append(each)
        each = each.nextInFocusChain()
    kinds = (QPushButton, QComboBox, QAbstractSpinBox, QSlider, SliceStrip)
    controls = [each for kind in kinds for each in body.findChildren(kind) if each.isVisibleTo(body)]
    assert {each for each in controls if each.isEnabled()} <= set(reached)
    rows = [round(each.mapTo(body, each.rect().center()).y() / SAME_ROW_PX) for each in reached]
    assert rows == sorted(rows)


@pytest.mark.parametrize(("key", "name"), [(Qt.Key.Key_B, "brush"), (Qt.Key.Key_D, "strokes")])
def test_keys_work_while_the_picture_has_the_focus(qtbot, viewer, dock, target, settle, key, name):
    window = viewer.window._qt_window
    window.activateWindow()
    QApplication.setActiveWindow(window)
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.keyClick(canvas, key, Qt.KeyboardModifier.AltModifier)
    assert dock.tissues.way == name
    qtbot.keyClick(canvas, Qt.Key.Key_3, Qt.KeyboardModifier.AltModifier)
    assert dock.tissues.label == 3
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    assert dock.tissues.way == ""
    settle()
