"""Planes are upright, and the letters tell the truth however the view is turned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import (
    PLANES,
    SOLID,
    go_to_largest_section,
    is_neurological,
    layers_from_case,
    show_letters,
    show_plane,
    shown_plane,
)
from napari_braintumor.layers.orientation import AXES_RAS, Edges, find_edges
from open_layers import napari_nifti_layer, open_case

_TURNS = list(itertools.permutations(range(3)))


@pytest.fixture
def opened(volume: Volume) -> ViewerModel:
    viewer = ViewerModel()
    open_case(viewer, volume)
    return viewer


@pytest.fixture(scope="module")
def turned() -> ViewerModel:
    """A viewer for many turns: making one takes longer than turning it."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 5, 6)))
    return viewer


@pytest.mark.parametrize(
    ("name", "neurological", "edges"),
    [
        ("axial", False, Edges("A", "P", "R", "L")),
        ("axial", True, Edges("A", "P", "L", "R")),
        ("coronal", False, Edges("S", "I", "R", "L")),
        ("coronal", True, Edges("S", "I", "L", "R")),
        ("sagittal", False, Edges("S", "I", "A", "P")),
        ("sagittal", True, Edges("S", "I", "A", "P")),
    ],
)
def test_a_plane_is_upright_with_its_sides_where_the_convention_has_them(opened, name, neurological, edges):
    show_plane(opened, name, neurological)
    assert find_edges(opened) == edges
    assert shown_plane(opened) == name
    assert is_neurological(opened) is (None if name == "sagittal" else neurological)


@pytest.mark.parametrize("name", PLANES)
def test_the_point_that_is_shown_stays_when_the_plane_changes(opened, name):
    opened.dims.set_point((0, 1, 2), (6.0, 9.0, 4.0))
    before = opened.dims.point
    show_plane(opened, name)
    assert opened.dims.point == before


def test_a_head_is_seen_from_its_front_with_the_top_up_from_outside(opened):
    show_plane(opened, SOLID)
    edges = find_edges(opened)
    assert shown_plane(opened) == SOLID
    assert (edges.top, edges.bottom) == ("S", "I")
    assert edges.left[0] == "R"
    assert edges.right[0] == "L"


@pytest.mark.parametrize("before", PLANES)
@pytest.mark.parametrize("neurological", [False, True])
def test_napari_s_own_button_for_3d_does_not_mirror_the_head(opened, before, neurological):
    show_plane(opened, before, neurological)
    opened.dims.ndisplay = 3
    order, (depth, vertical, horizontal) = opened.dims.order, map(str, opened.scene.camera.orientation)
    towards_viewer, up, right = AXES_RAS[list(order)] * np.array(
        [[1 if depth == "towards" else -1], [1 if vertical == "up" else -1], [1 if horizontal == "right" else -1]]
    )
    np.testing.assert_array_equal(np.cross(right, up), towards_viewer)


@given(
    order=st.sampled_from(_TURNS),
    sides=st.tuples(
        st.sampled_from(("away", "towards")), st.sampled_from(("up", "down")), st.sampled_from(("left", "right"))
    ),
)
@settings(deadline=None, max_examples=24)
def test_the_letters_of_3d_looked_at_straight_are_those_of_the_same_plane_in_2d(turned, order, sides):
    viewer = turned
    viewer.dims.ndisplay = 2
    viewer.dims.order, viewer.scene.camera.orientation = order, sides
    flat = find_edges(viewer)
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = (0, 0, 0)
    assert find_edges(viewer) == flat


@given(turn=st.tuples(*(st.floats(-180, 180) for _ in range(3))))
@settings(deadline=None, max_examples=24)
def test_opposite_edges_have_opposite_letters_wherever_the_camera_is(turned, turn):
    viewer = turned
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = turn
    edges = find_edges(viewer)
    against = str.maketrans("LRAPSI", "RLPAIS")
    assert edges.top.translate(against) == edges.bottom
    assert edges.left.translate(against) == edges.right
    assert edges.top
    assert edges.left


def letters(viewer: ViewerModel) -> dict[str, str]:
    overlays = viewer.canvas.overlays
    return {
        side: overlays[f"brain_tumor_{side}"].text if overlays[f"brain_tumor_{side}"].visible else ""
        for side in ("top", "bottom", "left", "right")
    }


def test_the_letters_on_the_canvas_follow_the_axes(opened):
    show_letters(opened)
    assert letters(opened) == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    assert opened.canvas.overlays.scale_bar.visible
    opened.dims.order = (2, 0, 1)
    assert letters(opened) == {"top": "I", "bottom": "S", "left": "A", "right": "P"}
    opened.scene.camera.orientation = ("away", "up", "left")
    assert letters(opened) == {"top": "S", "bottom": "I", "left": "P", "right": "A"}


def test_the_letters_are_put_on_the_canvas_once(opened):
    show_letters(opened)
    count = len(opened.canvas.overlays)
    show_letters(opened)
    assert len(opened.canvas.overlays) == count


def test_a_scan_that_states_no_sides_gets_no_letters(opened):
    show_letters(opened)
    opened.add_image(np.zeros((6, 20, 16)), name="from a script")
    assert set(letters(opened).values()) == {""}
    opened.layers.remove("from a script")
    assert letters(opened)["left"] == "R"


def test_a_picture_gets_no_letters(opened):
    show_letters(opened)
    opened.add_image(np.zeros((8, 8, 3), np.uint8), rgb=True)
    assert set(letters(opened).values()) == {""}


def test_labels_that_a_person_adds_leave_the_letters_alone(opened):
    show_letters(opened)
    opened.add_labels(np.zeros((6, 20, 16), np.uint8))
    assert letters(opened)["left"] == "R"


def test_a_scan_that_another_plugin_opened_gets_letters(volume):
    viewer = ViewerModel()
    show_letters(viewer)
    assert set(letters(viewer).values()) == {""}
    viewer.add_layer(napari_nifti_layer(volume))
    assert letters(viewer) == {"top": "A", "bottom": "P", "left": "R", "right": "L"}


def test_a_slice_alone_has_no_planes():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((8, 8)))
    show_letters(viewer)
    show_plane(viewer, "coronal")
    assert viewer.dims.order == (0, 1)
    assert shown_plane(viewer) == ""
    assert find_edges(viewer) is None


def test_a_series_over_time_keeps_time_in_front():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5, 6)))
    show_plane(viewer, "sagittal")
    assert viewer.dims.order == (0, 3, 1, 2)
    assert shown_plane(viewer) == "sagittal"


@pytest.mark.parametrize(("name", "axis", "at"), [("axial", 0, 3), ("coronal", 1, 7), ("sagittal", 2, 9)])
def test_the_slider_goes_to_the_largest_section_of_the_plane(opened, name, axis, at):
    scan: Image = opened.layers[0]
    labels = np.zeros(scan.data.shape, np.uint8)
    labels[1:5, 7, 9] = 2
    labels[3, 5:9, 9] = 2
    labels[3, 7, 6:12] = 3
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units}
    layer: Labels = opened.add_labels(labels, **place)
    show_plane(opened, name)
    assert go_to_largest_section(opened, layer)
    assert opened.dims.point[axis] == pytest.approx(layer.data_to_world((3, 7, 9))[axis])
    assert round(layer.world_to_data(opened.dims.point)[axis]) == at


def test_there_is_no_largest_section_of_nothing(opened):
    layer = opened.add_labels(np.zeros((6, 20, 16), np.uint8))
    before = opened.dims.point
    assert not go_to_largest_section(opened, layer)
    assert opened.dims.point == before


def test_a_case_of_the_readers_is_in_the_radiological_convention_from_the_start(volume):
    viewer = ViewerModel()
    for data, options, _ in layers_from_case(volume):
        viewer.add_image(data, **options)
    assert find_edges(viewer) == Edges("A", "P", "R", "L")


def test_the_scale_bar_comes_with_the_first_scan_and_stays_away_when_it_is_hidden(volume):
    viewer = ViewerModel()
    show_letters(viewer)
    assert not viewer.canvas.overlays.scale_bar.visible
    open_case(viewer, volume)
    assert viewer.canvas.overlays.scale_bar.visible
    viewer.canvas.overlays.scale_bar.visible = False
    viewer.dims.order = (1, 0, 2)
    assert not viewer.canvas.overlays.scale_bar.visible
