"""Label layers to be measured, and the layers that show measurements."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.anatomy import CONVENTIONS, LABELS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.converting import values_from_regions
from napari_braintumor.engine.grid import default_grid, grid_from_affine
from napari_braintumor.engine.measuring.measurements import measure_regions
from napari_braintumor.layers.display import make_label_layer
from napari_braintumor.layers.masks import label_names
from napari_braintumor.layers.measuring import (
    add_converted,
    drawn_labels_of,
    find_earlier,
    go_to_slice,
    index_in_layer,
    remove_diameters,
    scans_of,
    update_or_add_diameters,
    update_or_add_differences,
)
from napari_braintumor.layers.placement import Placement, default_placement
from open_layers import open_case

NAMES, COLORS = {2: "edema", 1: "necrosis", 3: "enhancing tumor"}, {1: "#d64550", 2: "#4fae5b", 3: "#f2c14e"}

NAMES_OF_OWN = {label: LABELS[label] for label in (1, 2, 3)}


def add_labels(viewer: ViewerModel, case: str = "p1") -> Labels:
    labels = np.zeros((12, 40, 30), np.uint8)
    labels[3:9, 10:30, 5:20] = 2
    labels[4:7, 15:22, 8:14] = 3
    place = default_placement(default_grid(labels.shape, (3.0, 1.0, 1.0)))
    data, options, _ = make_label_layer(labels, place, f"tumor [{case}]", NAMES, COLORS, case=case, role="reference")
    return viewer.add_labels(data, **options)


def test_a_layer_is_read_as_regions_when_the_worker_asks() -> None:
    viewer = ViewerModel()
    layer = add_labels(viewer)
    drawn = drawn_labels_of(layer, viewer.layers)
    layer.data[0, 0, 0] = 2
    read = drawn.read()
    assert np.count_nonzero(read.regions["whole tumor"]) == np.count_nonzero(layer.data)
    assert np.count_nonzero(read.regions["enhancing tumor"]) == 3 * 7 * 6
    assert drawn.case == "p1"


def test_labels_of_other_programs_need_a_meaning() -> None:
    viewer = ViewerModel()
    layer = viewer.add_labels(np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 4)
    with pytest.raises(DataError, match="Choose the convention"):
        drawn_labels_of(layer, viewer.layers).read()
    assert "whole tumor" in drawn_labels_of(layer, viewer.layers, "decathlon").read().regions
    flat = viewer.add_labels(np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match="has 2 dimensions"):
        drawn_labels_of(flat, viewer.layers)


def test_labels_are_never_measured_on_the_scans_of_another_case(synthetic_volume) -> None:
    viewer = ViewerModel()
    first, second = synthetic_volume(name="p1"), synthetic_volume(name="p2")
    labels = add_labels(viewer, "p1")
    drawn = viewer.add_labels(np.zeros(first.shape, np.uint8))
    open_case(viewer, second)
    assert drawn_labels_of(labels, viewer.layers).scans == {}
    assert scans_of(viewer.layers, drawn)  # drawn here, it belongs to what is open
    mine = open_case(viewer, first)
    assert scans_of(viewer.layers, labels) == mine


@pytest.mark.parametrize("convention", [name for name, each in CONVENTIONS.items() if not each.binary])
def test_labels_go_to_another_convention_and_come_back(convention: str) -> None:
    viewer = ViewerModel()
    layer = add_labels(viewer)
    layer.data[4, 16, 9] = 1
    before = drawn_labels_of(layer, viewer.layers).read().regions
    values, _ = values_from_regions(before, convention)
    made = add_converted(viewer, layer, values, convention)
    assert viewer.layers.selection.active is layer
    assert made.name == f"tumor [p1] {convention}"
    assert np.allclose(made.extent.world, layer.extent.world)
    assert set(np.unique(made.data)) <= CONVENTIONS[convention].values
    # It knows its numbers, whatever is said of labels that do not.
    back = drawn_labels_of(made, viewer.layers, "decathlon").read().regions
    for region in CONVENTIONS[convention].regions:
        if region in before:
            assert np.array_equal(back[region], before[region])
    again, _ = values_from_regions(back, "brats2023") if len(back) > 2 else (None, ())
    if again is not None:
        own = add_converted(viewer, made, again, "brats2023")
        assert np.array_equal(own.data, layer.data)
        assert label_names(own) == NAMES_OF_OWN


def test_diameters_are_drawn_where_they_are_measured_and_taken_away() -> None:
    viewer = ViewerModel()
    layer = add_labels(viewer)
    rows = measure_regions({"whole tumor": np.asarray(layer.data) > 0}, default_grid((12, 40, 30), (3.0, 1.0, 1.0)))
    for _ in range(2):  # the second time replaces the first
        made = update_or_add_diameters(viewer, layer, rows)
    assert made is not None
    assert [each for each in viewer.layers if each.name.startswith("Diameters")] == [made]
    assert viewer.layers.selection.active is layer
    assert np.allclose(made.scale, layer.scale)  # so that the slider still goes slice by slice
    assert viewer.dims.range[0].step == 3
    longest, across = (np.linalg.norm((line[1] - line[0]) * made.scale) for line in made.data)
    assert longest == pytest.approx(rows[0].values["axial_mm"])
    assert across == pytest.approx(rows[0].values["across_mm"])
    assert np.mean(made.data[0], axis=0) == pytest.approx((rows[0].values["slice_z"], 19.5, 12), abs=1.1)
    remove_diameters(viewer, layer)
    assert made not in viewer.layers
    assert update_or_add_diameters(viewer, layer, ()) is None


def test_the_slider_goes_to_a_slice() -> None:
    viewer = ViewerModel()
    layer = add_labels(viewer)
    go_to_slice(viewer, layer, 7)
    assert viewer.dims.current_step[0] == 7


def test_differences_are_a_layer_that_is_updated_and_is_no_mask() -> None:
    viewer = ViewerModel()
    layer = add_labels(viewer)
    first = update_or_add_differences(viewer, layer, np.full(layer.data.shape, 2, np.uint8))
    second = update_or_add_differences(viewer, layer, np.full(layer.data.shape, 3, np.uint8))
    assert first is second
    assert np.unique(second.data).tolist() == [3]
    assert np.allclose(second.scale, layer.scale)
    assert viewer.layers.selection.active is layer


def test_indices_follow_the_order_of_the_layer() -> None:
    grid = grid_from_affine((5, 6, 7), np.diag([2.0, 2.0, 3.0, 1.0]))  # axes x, y, z of RAS
    place = Placement(grid, True, {}, np.eye(4))
    volume = np.zeros((5, 6, 7))
    volume[1, 2, 3] = 1
    (point,) = np.argwhere(grid.from_source(volume))
    assert index_in_layer(place, point).tolist() == [1, 2, 3]


def test_the_earlier_visit_of_the_same_patient_is_found() -> None:
    viewer = ViewerModel()
    cases = ("p1_2024-09-01", "p1_2024-01-05", "p1_2024-03-07", "p2_2024-01-01", "p1_2025-01-01")
    latest, *others = (add_labels(viewer, case) for case in cases)
    found = find_earlier(latest, others)
    assert found is not None
    assert found.name == "tumor [p1_2024-03-07]"
    assert find_earlier(others[0], [latest, *others[1:]]) is None
    reg = [add_labels(viewer, case) for case in ("BraTSReg_002_00_0000", "BraTSReg_002_01_0262")]
    assert find_earlier(reg[1], [latest, reg[0]]) is reg[0]
