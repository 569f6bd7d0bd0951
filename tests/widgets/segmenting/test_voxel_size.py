from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_braintumor.engine.grid import default_grid
from napari_braintumor.layers import (
    figures_of,
    find_placement,
    layers_from_case,
    select_layers,
    source_of,
    update_or_add_labels,
    volume_from_layers,
)
from napari_braintumor.widgets.segmenting.dock import SegmentDock

SHAPE = (6, 20, 16)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel) -> SegmentDock:
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    return dock


def open_ours(viewer: ViewerModel, volume: Any) -> None:
    unknown = replace(volume, source=default_grid(SHAPE, spacing_known=False))
    for layer in layers_from_case(unknown):
        viewer.add_layer(Layer.create(*layer))


def open_arrays(viewer: ViewerModel, volume: Any) -> None:
    for modality, channel in zip(volume.modalities, volume.data, strict=True):
        viewer.add_image(channel, name=f"p_{modality}")


def open_flipped(viewer: ViewerModel, volume: Any) -> None:
    for modality, channel in zip(volume.modalities, volume.data, strict=True):
        viewer.add_image(channel[:, ::-1], name=f"p_{modality}", scale=(1, -1, 1))


def state(dock: SegmentDock, *spacing: float) -> None:
    """Type a voxel size, and press the button."""
    for box, size in zip(dock.voxel_size.boxes.values(), spacing, strict=True):
        box.native.setValue(size)
    dock.voxel_size.button.native.click()


@pytest.mark.parametrize("open_case", [open_ours, open_arrays, open_flipped])
def test_a_stated_voxel_size_is_that_of_all_layers_of_the_case(open_case, dock, viewer, volume, synthetic_segmentation):
    open_case(viewer, volume)
    assert not dock.voxel_size.isHidden()
    assert "mL are a guess" in dock.check_line.text()
    selection = select_layers(dock.chosen)
    result = synthetic_segmentation(volume_from_layers(dock.chosen))
    tumor = update_or_add_labels(viewer, result, selection.placement, made_from=selection.made_from)
    scan = viewer.layers[0]
    painted = viewer.add_labels(np.ones(SHAPE, np.uint8), scale=scan.scale, translate=scan.translate)
    before_ml = dict(figures_of(tumor).region_ml)
    state(dock, 4, 0.5, 0.25)
    for layer in viewer.layers:
        np.testing.assert_allclose(np.abs(layer.scale), (4, 0.5, 0.25))
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        grid = source_of(layer)
        assert grid.spacing == pytest.approx((4, 0.5, 0.25))
        assert grid.spacing_known
        np.testing.assert_allclose(find_placement(layer).matrix, find_placement(scan).matrix)
    assert figures_of(tumor).region_ml == pytest.approx({name: ml / 2 for name, ml in before_ml.items()})
    assert np.isin(painted.data, 1).all()
    assert "voxels of 4 x 0.5 x 0.25 mm" in dock.check_line.text()
    assert "guess" not in dock.check_line.text()
    state(dock, 2, 1, 1)  # it can be corrected
    assert "voxels of 2 x 1 x 1 mm" in dock.check_line.text()
    assert figures_of(tumor).region_ml == pytest.approx({name: ml * 2 for name, ml in before_ml.items()})


def test_an_impossible_voxel_size_is_refused_and_changes_nothing(dock, viewer, volume):
    open_arrays(viewer, volume)
    for wrong in ((0, 1, 1), (500, 1, 1)):
        state(dock, *wrong)
        assert "are not possible for a scan" in dock.voxel_size.line.text()
        assert all(tuple(layer.scale) == (1, 1, 1) for layer in viewer.layers)


def test_layers_of_another_case_keep_their_voxel_size(dock, viewer, volume):
    open_arrays(viewer, volume)
    others = [
        viewer.add_image(channel, name=f"q_{m}") for m, channel in zip(volume.modalities, volume.data, strict=True)
    ]
    state(dock, 4, 0.5, 0.25)
    assert {tuple(layer.scale) for layer in others} == {(4, 0.5, 0.25)}
    assert {tuple(layer.scale) for layer in viewer.layers if layer not in others} == {(1, 1, 1)}


def test_a_doubtful_header_is_asked_about_with_its_reason(dock, viewer, volume):
    note = "'p.nii' states a head of 160 m, so its voxels were taken as mm."
    grid = replace(default_grid(SHAPE), spacing_known=False, spacing_note=note)
    for layer in layers_from_case(replace(volume, source=grid)):
        viewer.add_layer(Layer.create(*layer))
    assert dock.voxel_size.line.text().startswith(note)
    state(dock, 4, 0.5, 0.25)
    assert note not in dock.voxel_size.line.text()


def test_a_known_voxel_size_is_not_asked_for(dock, viewer, volume):
    assert dock.voxel_size.isHidden()
    for layer in layers_from_case(volume):
        viewer.add_layer(Layer.create(*layer))
    assert dock.voxel_size.isHidden()
