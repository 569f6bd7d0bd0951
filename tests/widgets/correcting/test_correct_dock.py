"""The Correct dock: whatever is drawn or clicked changes the labels as it says, and one undo takes it back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.layers import (
    NOTHING,
    default_placement,
    mark_reviewed,
    reviewed_slices,
    show_plane,
    show_region,
    update_or_add_labels,
)
from napari_braintumor.widgets.correcting.dock import KEYS, CorrectDock
from napari_braintumor.widgets.correcting.tissues import BRUSH, STROKES
from trusting import TRUST, TRUST_IN_WORDS


def go_to(viewer: ViewerModel, layer: Labels, at: tuple[int, int, int]) -> None:
    viewer.dims.set_point((0, 1, 2), layer.data_to_world(at))


def test_without_a_result_there_is_nothing_to_correct(qtbot, viewer):
    dock = CorrectDock(viewer)
    qtbot.addWidget(dock)
    assert dock.target_line.text().startswith("There is no tumor to correct yet. Segment a case first")
    for button in (dock.go_on_button, dock.undo_button, *dock.tissues.way_buttons.values()):
        assert not button.isEnabled()
    dock.tissues.choose_number(1)
    dock.review.mark_and_go_on()
    dock.undo()
    assert dock.target is None


def test_the_dock_says_how_far_the_model_s_answer_can_be_trusted_if_that_is_known(
    qtbot, viewer, volume, segmentation, dock
):
    assert not dock.trust_line.isVisibleTo(dock)
    known = replace(segmentation, name="second", provenance={**segmentation.provenance, "trust": TRUST})
    viewer.layers.selection.active = update_or_add_labels(viewer, known, default_placement(volume.source))
    assert dock.trust_line.text() == TRUST_IN_WORDS


def test_tissues_have_names_and_not_numbers_from_outside_to_inside(dock):
    texts = [button.text() for button in dock.tissues.tissue_buttons.values()]
    assert texts == ["Edema", "Core", "Enhancing", "Nothing"]
    assert dock.target_line.text() == "Correcting patient7"


@pytest.mark.parametrize(("number", "label"), [(1, 2), (2, 1), (3, 3), (0, 0)])
def test_the_brush_paints_the_tissue_that_is_chosen(dock, viewer, target, number, label):
    dock.shortcuts["Alt+B"].activated.emit()
    dock.shortcuts[f"Alt+{number}"].activated.emit()
    assert viewer.layers.selection.active is target
    assert (target.mode, target.selected_label) == ("paint", label)
    assert dock.tissues.tissue_buttons[label].isChecked()
    dock.tissues.size_box.setValue(9)
    assert target.brush_size == 9
    dock.shortcuts["Esc"].activated.emit()
    assert target.mode == "pan_zoom"
    assert dock.tissues.way == ""


def test_a_region_shown_as_one_does_not_lock_the_brush_that_is_taken_here(dock, target):
    show_region(target, "whole tumor", {1: "#ff0000", 2: "#00ff00", 3: "#0000ff"}, (1, 2, 3))
    dock.tissues.choose_way(BRUSH)
    assert target.mode == "paint"


def test_a_stroke_is_followed_and_undone_whole(dock, viewer, target, settle, gathered):
    before = target.data.copy()
    dock.tissues.choose_number(1)
    settle()
    (config,) = gathered
    assert config.model.endswith("fake.safetensors")
    strokes = viewer.layers.selection.active
    assert strokes.name == "Strokes [patient7]"
    assert (strokes.mode, strokes.selected_label) == ("paint", 2)
    strokes.brush_size = 3
    strokes.paint((2, 3, 2), 2)
    settle()
    assert dock.message.text().startswith("Stroke followed: ")
    assert target.data[2, 3, 2] == 2
    np.testing.assert_array_equal(target.data[3:], before[3:])
    dock.undo_button.click()
    settle()
    np.testing.assert_array_equal(target.data, before)
    assert not strokes.data.any()


def test_strokes_drawn_before_all_is_gathered_are_followed_afterwards(dock, viewer, target, settle):
    dock.tissues.choose_number(1)
    strokes = viewer.layers.selection.active
    strokes.brush_size = 1
    strokes.paint((2, 3, 2), 2)
    strokes.paint((0, 1, 1), NOTHING)
    settle()
    assert target.data[2, 3, 2] == 2
    assert target.data[0, 1, 1] == 0


def test_reviewed_slices_stay_under_strokes(dock, viewer, target, settle):
    mark_reviewed(target, 2)
    dock.tissues.choose_number(1)
    settle()
    strokes = viewer.layers.selection.active
    strokes.paint((2, 3, 2), 2)
    settle()
    assert not target.data[2].any()


def test_nothing_is_a_stroke_too(dock, viewer, target, settle):
    dock.tissues.choose_way(STROKES)
    dock.tissues.choose_number(0)
    settle()
    strokes = viewer.layers.selection.active
    assert strokes.selected_label == NOTHING
    strokes.paint((0, 2, 2), NOTHING)
    settle()
    assert target.data[0, 2, 2] == 0


def test_strokes_need_the_scans_that_the_model_saw(dock, viewer, target):
    viewer.layers.remove(viewer.layers[0])
    dock.tissues.choose_way(STROKES)
    assert "are no longer all open" in dock.message.text()
    dock.tissues.choose_way(BRUSH)
    assert target.mode == "paint"


def test_strokes_need_the_model(dock, target, tmp_path):
    (tmp_path / "fake.safetensors").unlink()
    dock.tissues.choose_way(STROKES)
    assert "The model that drew 'Tumor [patient7]' is no longer there" in dock.message.text()


def test_two_docks_in_a_row_follow_a_stroke_once(qtbot, viewer, target, gathered):
    for _ in range(2):
        dock = CorrectDock(viewer)
        dock.tissues.choose_way(STROKES)
        qtbot.waitUntil(lambda each=dock: each.footer.job is None, timeout=20_000)
        strokes = viewer.layers.selection.active
        with qtbot.waitSignal(dock.destroyed):
            dock.deleteLater()
    strokes.paint((2, 3, 2), 2)
    assert target.metadata["braintumor"].get("strokes", ()) == ()


# ------------------------------------------------------------------------------------------------ edits of regions


def clicks(dock: CorrectDock) -> dict[str, Any]:
    regions, sections = dock.region_tools, dock.section_tools
    return {
        "more": lambda: regions.amount_slider.setValue(10),
        "less": lambda: regions.amount_slider.setValue(-20),
        "holes": regions.holes_button.click,
        "smooth": regions.smooth_button.click,
        "grow": regions.grow_button.click,
        "shrink": regions.shrink_button.click,
        "before": sections.below_button.click,
        "after": sections.above_button.click,
        "between": sections.between_button.click,
        "restore slice": sections.restore_slice_button.click,
        "restore all": sections.restore_all_button.click,
    }


EDITS = ("more", "less", "holes", "smooth", "grow", "shrink", "before", "after", "between", "restore slice",
         "restore all")  # fmt: skip


@pytest.mark.parametrize("here", [True, False], ids=["in this section", "everywhere"])
@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_changes_labels_says_so_and_is_one_step(qtbot, dock, viewer, target, settle, edit, here):
    dock.follower.gather(target)
    settle()
    edited = target.data.copy()
    edited[0, 2, 2] = 0  # a hole
    edited[4] = edited[0]
    edited[2, 2, 2] = 2
    target.data_setitem(np.nonzero(edited != target.data), edited[edited != target.data])
    dock.region_tools.scope_box.setCurrentIndex(0 if here else 1)
    dock.region_tools.mm_box.setValue(1.5)
    go_to(viewer, target, (2 if edit in ("more", "before", "after", "between") else 0, 0, 0))
    before = target.data.copy()
    steps = len(target._undo_history)
    clicks(dock)[edit]()
    qtbot.wait(200)
    settle()
    assert "changed. Ctrl+Z undoes it." in dock.message.text() or edit == "holes", dock.message.text()
    assert len(target._undo_history) <= steps + 1
    changed = np.flatnonzero((target.data != before).any((1, 2)))
    assert changed.size or edit == "holes"
    if here and edit not in ("between", "restore all"):
        assert changed.size <= 1
    dock.undo()
    np.testing.assert_array_equal(target.data, before if changed.size else target.data)


def test_the_slider_is_one_step_however_often_it_moves(qtbot, dock, viewer, target, settle):
    dock.follower.gather(target)
    settle()
    before, steps = target.data.copy(), len(target._undo_history)
    for value in (10, -20, 5, 10):
        dock.region_tools.amount_slider.setValue(value)
        qtbot.wait(200)
        settle()
    assert np.count_nonzero(target.data[2]) == 20
    assert len(target._undo_history) == steps + 1
    dock.region_tools.amount_slider.setValue(0)
    qtbot.wait(200)
    settle()
    np.testing.assert_array_equal(target.data, before)
    assert len(target._undo_history) == steps


def test_an_edit_between_two_moves_of_the_slider_is_kept(qtbot, dock, target, settle):
    dock.follower.gather(target)
    settle()
    dock.region_tools.amount_slider.setValue(10)
    qtbot.wait(200)
    settle()
    target.data_setitem((np.array([4]), np.array([9]), np.array([9])), 3)
    dock.region_tools.amount_slider.setValue(-20)
    qtbot.wait(200)
    settle()
    assert target.data[4, 9, 9] == 3


def test_without_what_the_model_sees_there_is_no_less_or_more(dock):
    assert not dock.region_tools.amount_slider.isEnabled()


@pytest.mark.parametrize(("way", "left"), [("remove", (0, 1)), ("keep", (4,))])
def test_a_part_is_removed_or_kept_by_a_click(dock, viewer, target, settle, way, left):
    target.data_setitem(tuple(np.array([[4, 4], [10, 10], [8, 9]])), 2)
    dock.region_tools.part_buttons[way].click()
    assert dock.region_tools.picking
    assert dock.shortcuts["Esc"].isEnabled()
    dock.region_tools.pick_at(target.data_to_world((4, 10, 8)))
    settle()
    assert tuple(np.flatnonzero(target.data.any((1, 2)))) == left
    assert not dock.region_tools.picking


def test_esc_takes_the_click_on_a_part_back(dock, target):
    callbacks = len(target.mouse_drag_callbacks)
    dock.region_tools.part_buttons["remove"].click()
    dock.shortcuts["Esc"].activated.emit()
    assert not dock.region_tools.picking
    assert len(target.mouse_drag_callbacks) == callbacks
    assert not dock.shortcuts["Esc"].isEnabled()


@pytest.mark.parametrize("at", [(4, 10, 8), (40, 10, 8)])
def test_a_click_beside_the_tumor_says_so(dock, target, settle, at):
    dock.region_tools.part_buttons["remove"].click()
    dock.region_tools.pick_at(target.data_to_world(at))
    settle()
    assert dock.message.text() == "There is no whole tumor where you clicked. Click inside a part of it."


def test_to_interpolate_there_must_be_corrected_slices_on_both_sides(dock, viewer, target):
    go_to(viewer, target, (2, 0, 0))
    dock.section_tools.between_button.click()
    assert dock.message.text().startswith("There are no two corrected slices around this one.")


@pytest.mark.parametrize("button", ["between_button", "restore_slice_button"])
def test_what_is_done_slice_by_slice_needs_the_axial_plane(dock, viewer, target, button):
    show_plane(viewer, "coronal")
    getattr(dock.section_tools, button).click()
    assert "Choose Axial." in dock.message.text()


def test_there_is_nothing_to_copy_before_the_first_section(dock, viewer, target):
    go_to(viewer, target, (0, 0, 0))
    dock.section_tools.below_button.click()
    assert dock.message.text() == "There is no section -1 of 6. Expected 0 to 5. Move the slider."


def test_the_outline_of_what_the_model_drew_is_shown_and_hidden(dock, viewer, target):
    dock.section_tools.outline_box.click()
    outline = viewer.layers["Model [patient7]"]
    assert outline.visible
    dock.section_tools.outline_box.click()
    assert not outline.visible
    dock.section_tools.outline_box.click()
    viewer.layers.remove(outline)
    assert not dock.section_tools.outline_box.isChecked()


# ------------------------------------------------------------------------------------------------ review


def test_slices_are_marked_and_one_goes_on_to_the_most_doubtful(dock, viewer, target, settle):
    dock.follower.gather(target)
    settle()
    assert dock.review.doubtful[0] == 2
    go_to(viewer, target, (0, 0, 0))
    dock.go_on_button.click()
    assert reviewed_slices(target) == (0,)
    assert dock.review.current == 2
    assert dock.review.mark_button.text() == "Reviewed"
    dock.shortcuts["Alt+R"].activated.emit()
    assert reviewed_slices(target) == (0, 2)
    assert dock.review.mark_button.text() == "Not reviewed"
    dock.shortcuts["Alt+R"].activated.emit()
    assert reviewed_slices(target) == (0,)


def test_without_doubts_one_goes_on_to_the_next_slice_with_tumor(dock, viewer, target):
    go_to(viewer, target, (0, 0, 0))
    dock.go_on_button.click()
    assert dock.review.current == 1
    dock.go_on_button.click()
    assert dock.message.text() == "All slices with tumor are reviewed."
    assert "Reviewed: 2 of 2 slices with tumor." in dock.review.line.text()


def test_the_strip_says_what_was_reviewed_and_edited(dock, viewer, target):
    target.data_setitem((np.array([3]), np.array([9]), np.array([9])), 3)
    mark_reviewed(target, 1)
    go_to(viewer, target, (3, 0, 0))
    states = dock.review.strip.states
    assert set(states.reviewed) == {1}
    assert set(states.edited) == {3}
    assert states.describe(3) == "Slice 3: tumor, edited by hand"
    assert dock.review.strip.accessibleDescription() == "Slice 3: tumor, edited by hand"


def test_a_click_on_the_strip_goes_there(qtbot, dock, viewer, target):
    from qtpy.QtCore import QPoint, Qt

    strip = dock.review.strip
    strip.resize(60, 58)
    qtbot.mouseClick(strip, Qt.MouseButton.LeftButton, pos=QPoint(45, 10))
    assert dock.review.current == 4
    qtbot.keyClick(strip, Qt.Key.Key_Left)
    assert dock.review.current == 3
    strip.grab()


# ------------------------------------------------------------------------------------------------ the dock


def test_the_dock_works_on_the_selected_result_and_lets_go_of_one_that_is_gone(dock, viewer, target):
    viewer.layers.selection.active = viewer.layers[0]
    assert dock.target is target
    dock.tissues.choose_way(BRUSH)
    viewer.layers.remove(target)
    assert dock.target is None
    assert dock.tissues.way == ""


def test_the_dock_fits_300_pixels_and_every_control_has_a_name_and_a_tooltip(dock):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QSlider

    for part in (dock.regions_part, dock.sections_part, dock.keys_part):
        part.expand(animate=False)
    assert dock.scroll_area.widget().minimumSizeHint().width() <= 285
    controls = [
        each
        for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QSlider)
        for each in dock.scroll_area.widget().findChildren(kind)
        if not each.objectName().startswith("qt_") and "Collapsible" not in type(each.parent()).__name__
    ]
    assert len(controls) > 25
    nameless = [each.accessibleName() or each.text() for each in controls if not each.toolTip()]
    assert not nameless


def test_every_key_of_the_dock_is_listed(dock):
    listed = KEYS.replace("Alt+1 to Alt+4", "Alt+1, Alt+2, Alt+3, Alt+4")
    assert [key for key in dock.shortcuts if key not in listed] == []


@pytest.mark.parametrize("way", [BRUSH, STROKES])
def test_esc_puts_away_what_is_in_hand(dock, viewer, target, settle, way):
    dock.tissues.choose_way(way)
    settle()
    assert dock.shortcuts["Esc"].isEnabled()
    dock.shortcuts["Esc"].activated.emit()
    assert dock.tissues.way == ""
    assert not dock.shortcuts["Esc"].isEnabled()
