"""What a run has found so far is shown, stays out of the way, and goes."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_braintumor.layers import Appearing, appearing, masks_in, select_layers, show_plane
from open_layers import open_case


@pytest.fixture
def begun(viewer: ViewerModel, volume):
    return viewer, select_layers(open_case(viewer, volume)), Appearing(viewer)


def test_slices_appear_one_after_another_and_go_at_the_end(begun, segmentation):
    viewer, selection, so_far = begun
    active = viewer.layers.selection.active
    so_far.show(selection, {})
    assert so_far.layer is None
    for z in (1, 0):
        so_far.show(selection, {z: segmentation.labels[z]})
        np.testing.assert_array_equal(so_far.layer.data[z], segmentation.labels[z])
    np.testing.assert_array_equal(so_far.layer.data, segmentation.labels)
    assert viewer.layers.selection.active is active
    assert so_far.layer not in masks_in(viewer.layers)
    layer = so_far.layer
    so_far.clear()
    assert layer not in viewer.layers
    so_far.clear()


def test_they_lie_where_they_belong_in_layers_of_other_axes(
    viewer, synthetic_volume, synthetic_segmentation, oblique_grid
):
    volume = synthetic_volume(source=oblique_grid)
    so_far, labels = Appearing(viewer), synthetic_segmentation(volume).labels
    selection = select_layers(open_case(viewer, volume))
    so_far.show(selection, {0: labels[0], 1: labels[1]})
    np.testing.assert_array_equal(selection.placement.from_layer(so_far.layer.data), labels)


def test_the_picture_is_drawn_anew_only_if_what_appears_is_in_it(begun, segmentation):
    viewer, selection, so_far = begun
    so_far.show(selection, {5: segmentation.labels[0]})
    viewer.dims.set_point(0, so_far.layer.data_to_world((4, 0, 0))[0])
    drawn = []
    so_far.layer.events.set_data.connect(drawn.append)
    so_far.show(selection, {0: segmentation.labels[0]})
    assert not drawn
    so_far.show(selection, {4: segmentation.labels[0]})
    assert len(drawn) == 1
    show_plane(viewer, "coronal")
    drawn.clear()
    so_far.show(selection, {1: segmentation.labels[1]})
    assert drawn


def test_a_layer_that_a_person_deleted_stays_away_until_the_next_run(begun, segmentation):
    viewer, selection, so_far = begun
    so_far.show(selection, {0: segmentation.labels[0]})
    viewer.layers.remove(so_far.layer)
    so_far.show(selection, {1: segmentation.labels[1]})
    assert len(viewer.layers) == 4
    so_far.clear()
    so_far.show(selection, {1: segmentation.labels[1]})
    assert so_far.layer in viewer.layers


def test_a_case_that_would_fill_memory_is_shown_when_it_is_done(begun, segmentation, monkeypatch):
    _, selection, so_far = begun
    monkeypatch.setattr(appearing, "MOST_VOXELS", 10)
    so_far.show(selection, {0: segmentation.labels[0]})
    assert so_far.layer is None
