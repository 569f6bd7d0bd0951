import itertools
from dataclasses import replace

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import labels_from_regions
from napari_braintumor.engine.grid import default_grid, grid_from_affine
from napari_braintumor.engine.volumes import StreamedVolume, Volume

ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_any_orientation_is_brought_to_superior_posterior_left_and_back(axes, signs) -> None:
    shape, sizes = (3, 4, 5), (1.0, 2.0, 3.0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for source_axis, world_axis in enumerate(axes):
        affine[world_axis, source_axis] = signs[source_axis] * sizes[source_axis]
    affine[:3, 3] = (10, -20, 30)
    grid = grid_from_affine(shape, affine)
    world = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    # What each of our axes must follow: superior, posterior, left.
    for axis, follow in enumerate((world[..., 2], -world[..., 1], -world[..., 0])):
        ours = grid.from_source(follow)
        steps = np.diff(ours, axis=axis)
        assert (steps > 0).all()
        assert steps == pytest.approx(np.full(steps.shape, grid.spacing[axis]))
        assert ours[0, 0, 0] == pytest.approx(grid.origin[axis])
    assert np.array_equal(grid.to_source(grid.from_source(world[..., 0])), world[..., 0])


def test_an_oblique_grid_takes_the_closest_axes() -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[-np.cos(angle), np.sin(angle)], [-np.sin(angle), -np.cos(angle)]]
    grid = grid_from_affine((3, 4, 5), affine)
    assert (grid.axes, grid.flips) == ((2, 1, 0), (False, False, False))


def test_an_array_without_a_file_lies_at_the_origin_in_our_own_axes() -> None:
    grid = default_grid((2, 3, 4), (3, 2, 1))
    assert grid.spacing == (3, 2, 1)
    assert grid.origin == (0, 0, 0)
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(grid.from_source(array), array)


def test_modalities_can_be_chosen_and_ordered() -> None:
    volume = Volume(
        np.arange(3.0, dtype=np.float32).reshape(3, 1, 1, 1), ("T1", "T2", "FLAIR"), default_grid((1, 1, 1))
    )
    chosen = volume.with_modalities(("FLAIR", "T1"))
    assert chosen.modalities == ("FLAIR", "T1")
    assert chosen.data.ravel().tolist() == [2, 0]


def test_labels_are_painted_outermost_first_whatever_the_order_of_the_regions() -> None:
    whole, core = np.array([[[1, 1, 0]]], bool), np.array([[[1, 0, 0]]], bool)
    assert labels_from_regions({"tumor core": core, "whole tumor": whole}).ravel().tolist() == [1, 2, 0]


def test_a_label_has_what_its_region_has_beyond_the_next_within(synthetic_volume, synthetic_segmentation) -> None:
    result = synthetic_segmentation(synthetic_volume())
    voxel_ml = np.prod(result.source.spacing) / 1000
    counted = {label: (result.labels == label).sum() * voxel_ml for label in (1, 2, 3)}
    assert result.label_volumes_ml == pytest.approx(counted)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_voxel_size_that_a_user_states_replaces_the_guess_and_only_the_note_of_it(streamed) -> None:
    grid = replace(default_grid((2, 3, 4)), spacing_known=False, spacing_note="A guess.")
    data = np.ones((1, 2, 3, 4), np.float32)
    notes = ("Another file was left out.", *grid.notes)
    if streamed:
        case = StreamedVolume(tuple(data), ("T1",), grid, notes=notes)
    else:
        case = Volume(data, ("T1",), grid, notes=notes)
    stated = case.with_spacing((5, 0.9, 0.8))
    assert stated.spacing == pytest.approx((5, 0.9, 0.8))
    assert stated.source.spacing_known
    assert stated.notes == ("Another file was left out.",)
    assert stated.source.voxel_ml == pytest.approx(5 * 0.9 * 0.8 / 1000)
