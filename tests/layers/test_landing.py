from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid, default_grid
from napari_braintumor.layers import labels_from_layer
from napari_braintumor.writers import save_labels
from open_layers import napari_nifti_layer, open_case


@pytest.fixture
def tilted(viewer, oblique_grid, synthetic_volume):
    """An oblique scan, its file's axes turned against ours."""
    return open_case(viewer, synthetic_volume(("T1", "FLAIR"), oblique_grid, "patient7"))["T1"]


def new_labels(viewer: ViewerModel, *selected: str) -> Labels:
    """What napari's New labels layer button makes."""
    viewer.layers.selection = {viewer.layers[name] for name in selected}
    viewer._new_labels()
    return viewer.layers[-1]


def mark(layer: Labels, scan: Image, index: tuple[int, int, int] = (4, 3, 2)) -> None:
    """Paint the voxel that is shown over a voxel of a scan."""
    at = np.rint(layer.world_to_data(scan.data_to_world(index))).astype(int)
    layer.data[tuple(at)] = 2


def check_marked(landing, grid: SourceGrid, index: tuple[int, int, int] = (4, 3, 2)) -> None:
    assert landing.labels_ZYX.shape == grid.shape_ZYX
    np.testing.assert_array_equal(np.argwhere(landing.labels_ZYX), [index])
    np.testing.assert_allclose(landing.grid.affine, grid.affine)


@pytest.mark.parametrize("selected", [["T1 [patient7]"], ["T1 [patient7]", "FLAIR [patient7]"]])
def test_labels_drawn_in_naparis_own_layer_are_written_on_the_grid_of_the_scan(
    viewer, tilted, oblique_grid, tmp_path, selected
):
    layer = new_labels(viewer, *selected)
    mark(layer, tilted)
    check_marked(labels_from_layer(layer, viewer.layers), oblique_grid)
    layer.name = "anything"
    (path,) = save_labels(layer, tmp_path / "drawn.nii.gz", viewer.layers)
    written = nib.load(path)
    np.testing.assert_allclose(written.affine, oblique_grid.affine, atol=1e-5)
    (there,) = np.argwhere(np.asarray(written.dataobj))
    (here,) = np.argwhere(oblique_grid.to_source(labels_from_layer(layer, viewer.layers).labels_ZYX))
    np.testing.assert_array_equal(there, here)


def test_napari_saves_its_own_new_layer_onto_the_scan_that_is_open(viewer, tilted, oblique_grid, tmp_path, plugins):
    layer = new_labels(viewer, tilted.name)
    mark(layer, tilted)
    (path,) = viewer.layers.selection.active.save(str(tmp_path / "drawn.nii.gz"), plugin="napari-braintumor")
    np.testing.assert_allclose(nib.load(path).affine, oblique_grid.affine, atol=1e-5)


def test_labels_find_the_grid_of_a_scan_that_was_closed_meanwhile(viewer, tilted, oblique_grid):
    layer = new_labels(viewer, tilted.name)
    mark(layer, tilted)
    viewer.layers.remove(tilted)
    viewer.layers.remove("FLAIR [patient7]")
    check_marked(labels_from_layer(layer, viewer.layers), oblique_grid)


@pytest.mark.parametrize("pad", [(0, 0, 0), (1, 2, 3), (-1, -2, -1)])
def test_labels_in_a_larger_or_smaller_frame_are_cut_or_filled_up_to_that_of_the_scan(
    viewer, tilted, oblique_grid, pad
):
    shape = np.array(tilted.data.shape) + 2 * np.array(pad)
    corner = np.array(tilted.translate) - np.array(pad) * tilted.scale
    layer = viewer.add_labels(np.zeros(shape, np.int32), scale=tilted.scale, translate=corner, units=tilted.units)
    mark(layer, tilted)
    landing = labels_from_layer(layer, viewer.layers)
    check_marked(landing, oblique_grid)
    assert bool(landing.note) == any(pad)


def test_the_frame_around_two_scans_gives_labels_to_the_one_that_they_lie_on(viewer, oblique_grid, synthetic_volume):
    away = oblique_grid.affine.copy()
    away[:3, 3] += (0, 0, 30)  # ten slices higher
    other = replace(oblique_grid, affine=away)
    one = open_case(viewer, synthetic_volume(("T1",), oblique_grid, "one"))["T1"]
    two = open_case(viewer, synthetic_volume(("T1",), other, "two"))["T1"]
    layer = new_labels(viewer, one.name, two.name)
    assert layer.data.shape[0] > one.data.shape[0]
    mark(layer, two)
    landing = labels_from_layer(layer, viewer.layers)
    assert landing.labels_ZYX.sum() == 2
    np.testing.assert_allclose(landing.grid.affine, away)


def test_labels_outside_of_the_scan_are_not_dropped_unsaid(viewer, tilted):
    layer = viewer.add_labels(
        np.ones(np.add(tilted.data.shape, (0, 0, 2)), np.int32), scale=tilted.scale, translate=tilted.translate
    )
    with pytest.raises(DataError, match=r"\d+ voxels of labels '.*' lie outside the scan 'T1 \[patient7\]'"):
        labels_from_layer(layer, [tilted])


@pytest.mark.parametrize("change", [{"scale": (2, 2, 2)}, {"translate": (0.5, 0, 0)}])
def test_labels_over_an_oblique_scan_whose_voxels_they_do_not_share_are_refused(viewer, tilted, change):
    layer = new_labels(viewer, tilted.name)
    for name, value in change.items():
        setattr(layer, name, np.array(value) if name == "scale" else np.array(getattr(layer, name)) + value)
    with pytest.raises(DataError, match=r"do not match the voxels of the oblique scan .* Select the scan, press New"):
        labels_from_layer(layer, viewer.layers)


def test_labels_on_two_scans_of_different_files_that_are_shown_alike_go_by_case_or_name(
    viewer, oblique_grid, synthetic_volume
):
    turned = oblique_grid.affine.copy()
    turned[:3, :3] = np.diag((1, 1, -1)) @ turned[:3, :3] @ np.diag((1, 1, 1))
    placed = open_case(viewer, synthetic_volume(("T1",), oblique_grid, "one"))["T1"]
    other = replace(oblique_grid, affine=turned)
    second = open_case(viewer, synthetic_volume(("T1",), other, "two"))["T1"]
    second.translate = placed.translate
    second.metadata["braintumor"]["matrix"] = placed.metadata["braintumor"]["matrix"]
    layer = viewer.add_labels(
        np.zeros(placed.data.shape, int), scale=placed.scale, translate=placed.translate, units="mm", name="mine"
    )
    layer.data[4, 3, 2] = 2
    with pytest.raises(DataError, match=r"'mine' lie on 'T1 \[one\]', 'T1 \[two\]', whose files have different"):
        labels_from_layer(layer, viewer.layers)
    layer.name = "T1 [two] - Labels"
    check_marked(labels_from_layer(layer, viewer.layers), other)
    layer.name = "mine of one"
    check_marked(labels_from_layer(layer, viewer.layers), oblique_grid)


def test_labels_over_a_scan_of_napari_nifti_are_written_where_the_scan_lies(viewer, volume):
    image = napari_nifti_layer(volume)
    viewer.add_layer(image)
    layer = new_labels(viewer, image.name)
    layer.data[0, 0, 0] = 1
    landing = labels_from_layer(layer, viewer.layers)
    np.testing.assert_allclose(landing.grid.affine, labels_from_layer(layer, [image]).grid.affine)
    assert landing.labels_ZYX.shape == volume.shape


def test_labels_of_another_plugin_on_no_scan_are_written_where_they_are_shown_with_a_note(tmp_path):
    layer = Labels(np.ones((6, 20, 17), np.int32), scale=(3, -1.5, 1), translate=(10, 20, 30), units="mm", name="own")
    landing = labels_from_layer(layer)
    assert landing.grid.flips == (False, True, False)
    assert landing.grid.spacing == (3, 1.5, 1)
    np.testing.assert_allclose(landing.grid.affine @ (0, 0, 0, 1), (-30, -20, 10, 1))
    assert "'own' do not match the voxels of any open scan, so they are written where they are shown" in landing.note


def test_labels_that_are_no_scans_size_but_lie_on_an_upright_one_may_be_written_where_they_are_shown(
    viewer, synthetic_volume
):
    open_case(viewer, synthetic_volume(("T1",), default_grid((6, 20, 16), (3, 1.5, 1))))
    layer = viewer.add_labels(np.ones((12, 20, 16), int), scale=(1.5, 1.5, 1), units="mm")
    landing = labels_from_layer(layer, viewer.layers)
    assert landing.grid.spacing == (1.5, 1.5, 1)
    assert landing.note
