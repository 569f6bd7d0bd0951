"""Planes beside the one that is shown: the same layers through the same point, whatever happens to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.layers import PLANES, LinkedPlanes, last_step, show_plane, shown_plane
from napari_braintumor.layers.linked_planes import CROSSHAIR


@pytest.fixture
def linked(drawn: tuple[ViewerModel, Labels]) -> LinkedPlanes:
    return LinkedPlanes(drawn[0])


def copies(linked: LinkedPlanes, name: str) -> list[Any]:
    return [plane.model.layers[name] for plane in linked.planes]


def count_drawn(layer: Any) -> list[object]:
    drawn: list[object] = []
    layer.events.set_data.connect(drawn.append)
    return drawn


def drag(viewer: Any, *positions: tuple[float, ...], **event: Any) -> None:
    """Press the button of the mouse at the first position, move it over the others, and let go."""
    for callback in list(viewer.mouse_drag_callbacks):
        now = SimpleNamespace(type="mouse_press", button=1, modifiers=[], position=positions[0], **event)
        steps = callback(viewer, now)
        if steps is None:
            continue
        for kind, position in (*(("mouse_move", each) for each in positions[1:]), ("mouse_release", positions[-1])):
            next(steps, None)
            now.type, now.position = kind, position
        next(steps, None)


@pytest.mark.parametrize("name", PLANES)
def test_the_planes_beside_are_those_that_the_viewer_does_not_show(drawn, linked, name):
    show_plane(drawn[0], name)
    assert {*linked.shown, name} == set(PLANES)
    assert tuple(shown_plane(plane.model) for plane in linked.planes) == linked.shown


def test_they_keep_the_convention_of_the_viewer(drawn, linked):
    show_plane(drawn[0], "axial", neurological=True)
    coronal = linked.planes[linked.shown.index("coronal")].model
    assert str(coronal.scene.camera.orientation[2]) == "left"


def test_layers_share_their_voxels_and_the_viewer_gets_no_new_ones(drawn, linked):
    viewer, labels = drawn
    assert all(np.shares_memory(copy.data, labels.data) for copy in copies(linked, "mine"))
    assert CROSSHAIR not in viewer.layers
    names = [layer.name for layer in viewer.layers]
    assert all([layer.name for layer in plane.model.layers] == [*names, CROSSHAIR] for plane in linked.planes)


def test_planes_go_through_the_point_of_the_viewer(drawn, linked):
    viewer, _ = drawn
    show_plane(viewer, "axial")
    viewer.dims.set_point([0, 1, 2], [9.0, 6.0, 4.0])
    for plane in linked.planes:
        across = PLANES[plane.name].order[0]
        assert plane.model.dims.point[across] == viewer.dims.point[across]
        starts = plane.model.layers[CROSSHAIR].data[:, 0]
        assert all(start[across] == plane.model.dims.point[across] for start in starts)


def test_dragging_in_a_plane_beside_moves_the_point_of_all(drawn, linked):
    viewer, _ = drawn
    show_plane(viewer, "axial")
    coronal, sagittal = linked.planes
    before = viewer.dims.point[1]
    drag(coronal.model, (3.0, before, 2.0), (12.0, before, 8.0))
    assert viewer.dims.point == (12.0, before, 8.0)
    assert sagittal.model.dims.point[2] == 8.0


def test_scrolling_a_plane_beside_moves_the_point_of_the_viewer(drawn, linked):
    viewer, _ = drawn
    show_plane(viewer, "axial")
    linked.planes[0].model.dims.set_point(1, 6.0)
    assert viewer.dims.point[1] == 6.0


def test_the_pointer_moves_the_point_with_shift_and_by_a_click_but_not_while_painting(drawn, linked):
    viewer, labels = drawn
    show_plane(viewer, "axial")
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, SimpleNamespace(modifiers=["Shift"], position=(0.0, 4.5, 3.0)))
    assert viewer.dims.point[1:] == (4.5, 3.0)
    drag(viewer, (0.0, 6.0, 5.0))
    assert viewer.dims.point[1:] == (6.0, 5.0)
    drag(viewer, (0.0, 7.5, 6.0), (0.0, 9.0, 7.0))  # pans
    labels.mode = "paint"
    viewer.layers.selection.active = labels
    drag(viewer, (0.0, 7.5, 6.0))
    assert viewer.dims.point[1:] == (6.0, 5.0)


def test_what_is_painted_and_undone_is_drawn_anew(drawn, linked):
    _, labels = drawn
    for act in (lambda: labels.paint((2, 3, 4), 2), labels.undo, labels.redo):
        drawn_anew = [count_drawn(copy) for copy in copies(linked, "mine")]
        act()
        assert all(drawn_anew)
    assert last_step(labels) is not None
    assert all(copy.data[2, 3, 4] == 2 for copy in copies(linked, "mine"))


def test_a_slider_that_moves_draws_no_labels_beside_anew(drawn, linked):
    viewer, _ = drawn
    show_plane(viewer, "axial")
    drawn_anew = [count_drawn(copy) for copy in copies(linked, "mine")]
    viewer.dims.set_point(0, 9.0)
    assert not any(drawn_anew)


def test_other_data_looks_and_order_follow(drawn, linked):
    viewer, labels = drawn
    labels.data = np.ones_like(labels.data)
    labels.opacity, labels.contour, labels.visible = 0.3, 1, False
    viewer.layers[0].contrast_limits = (1.0, 2.0)
    for copy in copies(linked, "mine"):
        assert copy.data is labels.data
        assert (copy.opacity, copy.contour, copy.visible) == (0.3, 1, False)
    assert all(tuple(copy.contrast_limits) == (1.0, 2.0) for copy in copies(linked, viewer.layers[0].name))
    viewer.layers.move(len(viewer.layers) - 1, 0)
    names = [layer.name for layer in viewer.layers]
    assert all([layer.name for layer in plane.scans] == names for plane in linked.planes)


def test_layers_come_and_go_and_an_empty_viewer_has_empty_planes(drawn, linked):
    viewer, labels = drawn
    viewer.layers.remove(labels)
    viewer.add_points(np.zeros((1, 3)))
    assert all("mine" not in plane.model.layers for plane in linked.planes)
    assert all(len(plane.scans) == len(viewer.layers) - 1 for plane in linked.planes)
    viewer.layers.clear()
    assert all(not plane.model.layers for plane in linked.planes)
    viewer.add_labels(np.ones((4, 5, 6), np.uint8), name="again")
    assert all(plane.model.layers["again"].data.all() for plane in linked.planes)
    assert tuple(shown_plane(plane.model) for plane in linked.planes) == linked.shown


def test_beside_a_series_over_time_only_the_last_three_axes_count(drawn, linked):
    viewer, _ = drawn
    viewer.add_image(np.zeros((2, 4, 5, 6), np.float32))
    viewer.dims.set_point(2, 6.0)
    assert linked.planes[0].model.dims.point[1] == 6.0
    linked.planes[0].model.dims.set_point(1, 3.0)
    assert viewer.dims.point[2] == 3.0


def test_closed_planes_follow_nothing(drawn, linked):
    viewer, labels = drawn
    linked.close()
    labels.opacity = 0.1
    viewer.layers.remove(labels)
    viewer.dims.set_point(1, 6.0)
    assert all(copy.opacity != 0.1 for copy in copies(linked, "mine"))
    assert not viewer.mouse_move_callbacks
