from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import (
    PreparedScans,
    Selection,
    align_selection,
    even_out,
    layers_from_scans,
    make_checkerboard,
    match_modalities,
    scans_in,
    select_layers,
)
from napari_braintumor.layers.alignment import is_check, make_check_layer
from napari_braintumor.layers.placement import default_placement, find_placement, placement_beside, world_matrix

BY_HEADER = AlignConfig(registration="never")


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], tilt_deg: float = 0) -> SourceGrid:
    """A grid around the world's origin, tilted about the axis from right to left."""
    turn = np.deg2rad(tilt_deg)
    tilt = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = default_grid(shape, spacing).affine.copy()
    affine[:3, :3] = tilt @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return grid_from_affine(shape, affine, format="nifti")


def head(where: SourceGrid) -> np.ndarray:
    """A round head with a bright spot in front of its middle, up and to the left."""
    index = np.indices(where.shape_ZYX).reshape(3, -1)
    ras = where.affine_ZYX[:3, :3] @ index + where.affine_ZYX[:3, 3:]
    inside = (np.linalg.norm(ras, axis=0) < 40) * 100.0
    spot = np.linalg.norm(ras - np.array([[-12.0], [15.0], [9.0]]), axis=0)
    return (inside + 150 * np.exp(-((spot / 6) ** 2))).reshape(where.shape_ZYX).astype(np.float32)


FLAIR, T1, TILTED = grid((20, 48, 48), (5, 2, 2)), grid((48, 50, 52), (2, 2, 2)), grid((20, 48, 48), (5, 2, 2), 12)


def open_scans(viewer: ViewerModel, **grids: SourceGrid) -> dict[str, Layer]:
    scans = {modality: Scan(head(where), where, modality, "frame") for modality, where in grids.items()}
    layers = [viewer.add_layer(Layer.create(*data)) for data in layers_from_scans(scans, "p7")]
    return {layer.metadata["braintumor"]["modality"]: layer for layer in layers}


def check_shown_alike(one: Layer, two: Layer) -> None:
    """Check that places in the scanner are shown in the same places of the window, whichever layer shows them."""
    places = np.array([(-12, 15, 9, 1), (20, 0, -15, 1), (0, -30, 5, 1)], float).T
    shown = [world_matrix(each) @ np.linalg.solve(find_placement(each).grid.affine_ZYX, places) for each in (one, two)]
    np.testing.assert_allclose(*shown, atol=1e-6)
    spot = shown[0][:3, 0]
    values = [each.data[tuple(np.rint(each.world_to_data(spot)).astype(int))] for each in (one, two)]
    assert min(values) > 150  # it is bright in both


def prepare(layers: dict[str, Layer], config: AlignConfig = BY_HEADER) -> tuple[Selection, PreparedScans]:
    selection = select_layers(layers, config)
    *_, volume = align_selection(selection, config)
    assert isinstance(volume, Volume)
    return selection, PreparedScans(selection, config, volume)


# ------------------------------------------------------------------------------------------------ where they are shown


@pytest.mark.parametrize("other", [T1, grid((60, 24, 24), (1.5, 3, 3))], ids=["finer", "coarser"])
def test_scans_on_several_grids_are_shown_where_they_lie(other):
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=other)
    check_shown_alike(layers["FLAIR"], layers["T1"])


def test_scans_that_are_tilted_alike_are_shown_where_they_lie():
    layers = open_scans(ViewerModel(), FLAIR=TILTED, T2=grid((40, 60, 60), (2.5, 1.5, 1.5), 12))
    check_shown_alike(layers["FLAIR"], layers["T2"])


def test_the_middle_of_a_scan_that_is_tilted_against_the_others_is_at_its_place():
    place = placement_beside(T1, TILTED)
    middle = np.array([*((size - 1) / 2 for size in T1.shape_ZYX), 1])
    beside = np.array([*((size - 1) / 2 for size in TILTED.shape_ZYX), 1])
    np.testing.assert_allclose(place.matrix @ middle, default_placement(TILTED).matrix @ beside, atol=1e-9)
    np.testing.assert_array_equal(place.matrix[:3, :3], default_placement(T1).matrix[:3, :3])


def test_the_scan_that_gives_the_grid_lies_as_ever():
    for where in (FLAIR, TILTED, T1):
        place = placement_beside(where, where)
        np.testing.assert_allclose(place.matrix, default_placement(where).matrix, atol=1e-9)


def test_a_scan_whose_place_is_not_known_lies_as_ever():
    unknown = replace(T1, orientation_known=False)
    np.testing.assert_array_equal(placement_beside(unknown, FLAIR).matrix, default_placement(unknown).matrix)


def test_a_layer_beside_others_still_knows_the_grid_of_its_file():
    layers = open_scans(ViewerModel(), FLAIR=TILTED, T1=T1)
    assert find_placement(layers["T1"]).grid is T1
    assert find_placement(layers["FLAIR"]).grid is TILTED


# ------------------------------------------------------------------------------------------------ which are matched


def test_scans_of_a_case_are_matched_whatever_their_grids():
    viewer = ViewerModel()
    layers = open_scans(viewer, T1=T1, FLAIR=FLAIR)
    assert match_modalities(viewer.layers) == {"T1": layers["T1"], "FLAIR": layers["FLAIR"]}


def test_layers_of_other_shapes_that_do_not_say_where_they_lie_are_not_matched():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((5, 6, 7)), name="p_t1")
    viewer.add_image(np.zeros((5, 6, 8)), name="p_flair")
    assert list(match_modalities(viewer.layers)) == ["FLAIR"]


def test_of_two_scans_of_a_modality_the_one_on_the_grid_of_the_anchor_is_matched():
    viewer = ViewerModel()
    layers = open_scans(viewer, FLAIR=FLAIR, T1=FLAIR)
    finer = open_scans(viewer, T1=T1)["T1"]
    assert match_modalities(viewer.layers, layers["FLAIR"])["T1"] is layers["T1"]
    assert match_modalities(viewer.layers, finer)["T1"] is finer


# ------------------------------------------------------------------------------------------------ kept for the next run


def test_what_was_aligned_serves_until_something_changes():
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=T1)
    selection, prepared = prepare(layers)
    again = prepared.serve(select_layers(layers, BY_HEADER), BY_HEADER)
    assert again is not None
    assert again.volume is prepared.volume
    assert prepared.serve(selection, AlignConfig(registration="always")) is None
    assert prepared.serve(select_layers(layers, AlignConfig(reference="T1")), BY_HEADER) is None
    layers["T1"].translate = layers["T1"].translate + 3
    assert prepared.serve(select_layers(layers, BY_HEADER), BY_HEADER) is None


def test_new_voxels_are_aligned_anew():
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=T1)
    _, prepared = prepare(layers)
    layers["T1"].data = layers["T1"].data * 2
    assert prepared.serve(select_layers(layers, BY_HEADER), BY_HEADER) is None


def test_leaving_a_scan_out_needs_no_new_alignment():
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=T1, T2=grid((30, 40, 40), (3, 2.5, 2.5)))
    _, prepared = prepare(layers)
    less = prepared.serve(select_layers({m: layers[m] for m in ("FLAIR", "T2")}, BY_HEADER), BY_HEADER)
    assert less is not None
    assert less.volume.modalities == ("FLAIR", "T2")
    assert set(less.volume.alignment.scans) == {"FLAIR", "T2"}
    assert any(note.startswith("T2 was brought") for note in less.volume.notes)
    assert not any(note.startswith("T1 was brought") for note in less.volume.notes)
    whole = dict(zip(prepared.volume.modalities, prepared.volume.data, strict=True))
    np.testing.assert_array_equal(less.volume.data[1], whole["T2"])


def test_scans_of_one_scanner_coordinate_system_are_known_as_such():
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=T1)
    made_from = select_layers(layers).made_from
    assert {scan["frame_of_reference"] for scan in made_from.values()} == {"frame"}


def test_aligning_reports_its_phases():
    layers = open_scans(ViewerModel(), FLAIR=FLAIR, T1=T1)
    *phases, _ = align_selection(select_layers(layers, BY_HEADER), BY_HEADER)
    assert [each.phase for each in phases if isinstance(each, PhaseReached)] == ["resampling T1 to the grid of FLAIR"]


# ------------------------------------------------------------------------------------------------ looked at


def test_a_checkerboard_shows_both_images_in_squares_of_24_mm():
    one, two = np.zeros((3, 48, 24), np.float32), np.ones((3, 48, 24), np.float32)
    board = make_checkerboard(one, two, (5.0, 1.0, 2.0))
    assert np.all(board == board[0])
    assert (board[0, :24, :12] == 0).all()
    assert (board[0, 24:, :12] == 1).all()
    assert (board[0, :24, 12:] == 1).all()
    assert (board[0, 24:, 12:] == 0).all()


def test_images_to_compare_have_the_same_brightness():
    dim = np.random.default_rng(0).uniform(1, 50, FLAIR.shape_ZYX) * (head(FLAIR) > 1)
    np.testing.assert_allclose(even_out(dim), even_out(dim * 7 + 30), atol=1e-4)
    assert even_out(dim).min() == 0
    assert even_out(dim).max() == 1


def test_a_layer_to_look_at_is_no_scan():
    layer = make_check_layer(head(FLAIR), default_placement(FLAIR), "check", "p7")
    assert is_check(layer)
    assert scans_in([layer]) == []
