"""The tumor from outside: surfaces where the labels are, and everything as before when one goes back."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Surface

from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import (
    SOLID,
    build_solids,
    show_plane,
    show_solids,
    shown_plane,
)
from open_layers import open_result


@pytest.fixture
def result(volume: Volume, segmentation: Segmentation) -> tuple[ViewerModel, Labels]:
    return open_result(volume, segmentation)


def solids_in(viewer: ViewerModel) -> list[Surface]:
    return [layer for layer in viewer.layers if isinstance(layer, Surface)]


def test_surfaces_lie_where_the_labels_lie(result):
    viewer, layer = result
    solids = build_solids(layer, viewer.layers[3])
    assert solids.names == ("enhancing tumor", "tumor core", "whole tumor", "head")
    opaque = solids.vertices[solids.colors[:, 3] == 1]
    inside = np.array(np.nonzero(layer.data == 3)).T @ np.diag(layer.scale) + layer.translate
    assert np.abs(opaque.mean(0) - inside.mean(0)).max() < 1.5
    assert solids.faces.max() == len(solids.vertices) - 1


def test_outer_regions_are_translucent_and_drawn_last(result):
    viewer, layer = result
    colors = build_solids(layer, viewer.layers[3]).colors
    opacity = [float(each) for each in dict.fromkeys(colors[:, 3])]
    assert opacity == sorted(opacity, reverse=True)
    assert opacity[0] == 1
    assert len(opacity) == 4


def test_a_tumor_of_one_label_is_opaque(result):
    _, layer = result
    layer.data = np.where(layer.data > 0, 2, 0).astype(np.uint8)
    solids = build_solids(layer)
    assert solids.names == ("whole tumor",)
    assert set(solids.colors[:, 3]) == {1}


def test_a_single_voxel_has_a_surface(result):
    _, layer = result
    labels = np.zeros_like(layer.data)
    labels[3, 9, 9] = 7
    layer.data = labels
    solids = build_solids(layer)
    assert solids.names == ("label 7",)
    assert np.abs(solids.vertices.mean(0) - layer.data_to_world((3, 9, 9))).max() < 1


def test_nothing_labeled_has_no_surface(result):
    _, layer = result
    layer.data = np.zeros_like(layer.data)
    assert len(build_solids(layer).vertices) == 0


def test_going_back_to_a_plane_shows_all_as_it_was(result):
    viewer, layer = result
    viewer.layers.selection.active = layer
    before = {each.name: each.visible for each in viewer.layers}
    show_solids(viewer, build_solids(layer, viewer.layers[3]), "patient7")
    (surface,) = solids_in(viewer)
    assert surface.name == "Tumor in 3-D [patient7]"
    assert [each.name for each in viewer.layers if each.visible] == [surface.name]
    assert shown_plane(viewer) == SOLID
    assert viewer.layers.selection.active is layer
    show_plane(viewer, "coronal")
    assert solids_in(viewer) == []
    assert {each.name: each.visible for each in viewer.layers} == before


def test_looking_from_outside_again_shows_what_is_labeled_now(result):
    viewer, layer = result
    before = {each.name: each.visible for each in viewer.layers}
    show_solids(viewer, build_solids(layer), "patient7")
    layer.data = np.where(layer.data == 3, 0, layer.data)
    show_solids(viewer, build_solids(layer), "patient7")
    (surface,) = solids_in(viewer)
    assert set(surface.vertex_colors[:, 3]) == {1, np.float32(0.3)}
    viewer.dims.ndisplay = 2  # napari's own button
    assert {each.name: each.visible for each in viewer.layers} == before


def test_layers_that_were_deleted_meanwhile_stay_away(result):
    viewer, layer = result
    show_solids(viewer, build_solids(layer), "patient7")
    viewer.layers.remove(layer)
    show_plane(viewer, "axial")
    assert layer not in viewer.layers
    assert solids_in(viewer) == []
