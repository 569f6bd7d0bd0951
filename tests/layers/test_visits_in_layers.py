"""Two visits in one window: which layers are shown, where they lie, and that everything is as before afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.anatomy import LABEL_COLORS, LABELS
from napari_braintumor.engine.volumes import Reference
from napari_braintumor.layers.display import make_reference_layer
from napari_braintumor.layers.masks import masks_in
from napari_braintumor.layers.placement import find_placement
from napari_braintumor.layers.selection import scans_in
from napari_braintumor.layers.visits import VISIT_VIEWS, MovedVisit, VisitsView, list_modalities
from open_layers import open_case


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def open_visit(viewer: ViewerModel, volume: Any) -> Labels:
    """Open the scans of a visit, and the mask that was drawn on them."""
    open_case(viewer, volume)
    mask = np.zeros(volume.shape, bool)
    mask[2:4, 5:12, 5:12] = True
    data, options, _ = make_reference_layer(Reference({"whole tumor": mask}, "whole", volume.source), volume.name)
    return viewer.add_labels(data, **options)


def move(volume: Any) -> MovedVisit:
    """The later visit, as if it had been moved; the place of its labels says so."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[3, 6:9, 6:9] = 2
    return MovedVisit("FLAIR", np.asarray(volume.data[0]), labels, {2: LABELS[2]}, LABEL_COLORS)


def shown(viewer: ViewerModel) -> set[str]:
    return {layer.name for layer in viewer.layers if layer.visible}


def cells(viewer: ViewerModel) -> dict[tuple[int, int], set[str]]:
    return {
        place: {viewer.layers[index].name for index in inside}
        for place, inside in viewer.canvas.grid.iter_viewboxes(viewer.layers)
    }


LEFT = {"FLAIR [p7_2024-01-10]", "Reference [p7_2024-01-10]"}
RIGHT = {"FLAIR, later visit moved [Reference [p7_2024-01-10]]", "Later visit moved [Reference [p7_2024-01-10]]"}


@pytest.fixture
def earlier(viewer: ViewerModel, synthetic_volume: Any) -> Labels:
    labels = open_visit(viewer, synthetic_volume(name="p7_2024-01-10"))
    open_visit(viewer, synthetic_volume(name="p7_2024-04-09"))
    return labels


def test_visits_are_seen_in_turn_and_side_by_side_and_everything_is_as_before_afterwards(
    viewer, earlier, synthetic_volume
) -> None:
    before = {layer.name: layer.visible for layer in viewer.layers}
    view = VisitsView(viewer)
    moved = move(synthetic_volume())
    expected = {"side by side": LEFT | RIGHT, "earlier": LEFT, "later": RIGHT}
    for name in ("earlier", "later", "side by side", "later"):
        view.show(name, earlier, moved)
        assert view.shown == name
        assert shown(viewer) == expected[name]
        assert viewer.canvas.grid.enabled == (name == "side by side")
    later = viewer.layers["Later visit moved [Reference [p7_2024-01-10]]"]
    assert np.array_equal(find_placement(later).from_layer(later.data), moved.labels_ZYX)
    assert np.allclose(later.data_to_world((3, 6, 6)), earlier.data_to_world((3, 6, 6)))
    view.leave()
    assert {layer.name: layer.visible for layer in viewer.layers} == before
    assert not viewer.canvas.grid.enabled


def test_visits_side_by_side_stay_apart_whatever_is_opened_or_moved(viewer, earlier, synthetic_volume) -> None:
    view = VisitsView(viewer)
    viewer.layers.events.inserted.connect(lambda _: view.refresh())
    viewer.layers.events.removed.connect(lambda _: view.refresh())
    viewer.layers.events.reordered.connect(lambda _: view.refresh())
    view.show("side by side", earlier, move(synthetic_volume()))
    assert cells(viewer) == {(0, 0): LEFT, (0, 1): RIGHT}
    viewer.add_points(np.zeros((1, 3)), name="note")
    assert cells(viewer) == {(0, 0): LEFT | {"note"}, (0, 1): RIGHT}
    viewer.layers.move(0, len(viewer.layers))
    assert cells(viewer) == {(0, 0): LEFT | {"note"}, (0, 1): RIGHT}
    viewer.layers.remove("note")
    assert cells(viewer) == {(0, 0): LEFT, (0, 1): RIGHT}
    viewer.layers.remove(next(iter(RIGHT)))
    assert view.shown == ""
    assert not viewer.canvas.grid.enabled
    assert not shown(viewer) & RIGHT


def test_a_moved_visit_is_neither_a_scan_to_segment_nor_a_mask_to_measure(viewer, earlier, synthetic_volume) -> None:
    scans, masks = scans_in(viewer.layers), masks_in(viewer.layers)
    view = VisitsView(viewer)
    for name in VISIT_VIEWS:
        view.show(name, earlier, move(synthetic_volume()))
        assert scans_in(viewer.layers) == scans
        assert masks_in(viewer.layers) == masks


def test_changes_lie_over_the_scan_on_which_they_are_seen(viewer, earlier, synthetic_volume) -> None:
    known = {"braintumor": {"role": "changes", "of": earlier.name}}
    changes = viewer.add_labels(np.zeros_like(earlier.data), name="changes", metadata=known)
    view = VisitsView(viewer)
    for name in ("changes", "side by side", "changes"):
        view.show(name, earlier, move(synthetic_volume()))
        order = [layer.name for layer in viewer.layers if layer.visible]
        assert (order[-1] == "changes") == (name == "changes")
    scan = viewer.layers["FLAIR, later visit moved [Reference [p7_2024-01-10]]"]
    assert viewer.layers.index(scan) < viewer.layers.index(changes)


def test_a_grid_that_was_on_comes_back(viewer, earlier, synthetic_volume) -> None:
    grid = viewer.canvas.grid
    grid.stride, grid.shape, grid.enabled = 2, (-1, 3), True
    view = VisitsView(viewer)
    view.show("earlier", earlier, move(synthetic_volume()))
    assert not grid.enabled
    view.leave()
    assert (grid.stride, grid.shape, grid.enabled) == (2, (-1, 3), True)


def test_the_modality_that_is_seen_of_a_visit_is_the_first_to_be_shown_of_both(viewer, earlier) -> None:
    later = viewer.layers["Reference [p7_2024-04-09]"]
    for name in ("p7_2024-01-10", "p7_2024-04-09"):
        viewer.layers[f"FLAIR [{name}]"].visible = False
    first, *_ = list_modalities(viewer.layers, [earlier, later])
    assert first == "T1ce"
    viewer.layers["T2 [p7_2024-04-09]"].visible = True
    assert list_modalities(viewer.layers, [earlier, later])[0] == "T2"
