from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from napari_braintumor.engine import segment
from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.preparing import context
from napari_braintumor.engine.segmenting import network, slices
from napari_braintumor.engine.segmenting.cleaning import remove_small_components
from napari_braintumor.engine.segmenting.network import Network
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume, Volume
from segmenting import result_of


def test_a_streamed_volume_is_read_in_slabs_that_keep_to_what_is_stored_together(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    ranges: list[tuple[int, int]] = []

    class Stored:
        def __init__(self, image: np.ndarray) -> None:
            self.image, self.shape = image, image.shape

        def __getitem__(self, index: slice) -> np.ndarray:
            ranges.append((index.start, index.stop))
            return self.image[index]

    images = tuple(Stored(image) for image in volume.data)
    result_of(StreamedVolume(images, volume.modalities, volume.source, slab_slices=16), model=str(toy_model))
    assert {start // 16 == (stop - 1) // 16 for start, stop in ranges} == {True}
    assert len(ranges) == len(volume.modalities) * 2  # once to measure, once to prepare


def test_only_slices_near_tumor_are_looked_at_and_the_labels_stay_the_same(
    make_tall_volume, toy_model, with_card, monkeypatch
):
    volume = make_tall_volume()
    path = with_card(toy_model, min_volume_ml=0.05)
    looked_at = count_slices(monkeypatch)
    everything = result_of(volume, model=path, search_step_mm=0)
    all_of_them = looked_at[0]
    result = result_of(volume, model=path)
    assert np.array_equal(result.labels, everything.labels)
    assert (result.labels > 0).any()
    assert looked_at[0] - all_of_them < all_of_them


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"min_volume_ml": 0}, {}),
        ({"min_volume_ml": 0, "search_step_mm": 4}, {}),
        ({"probabilities": True}, {}),
        ({"search_step_mm": 0}, {}),
        ({"search_step_mm": 4}, {"spacing_known": False}),
    ],
)
def test_all_slices_are_looked_at_where_thin_tumor_matters_or_it_is_asked_for(
    make_tall_volume, toy_model, with_card, monkeypatch, settings, changes
) -> None:
    volume = make_tall_volume()
    volume = replace(volume, source=replace(volume.source, **changes))
    looked_at = count_slices(monkeypatch)
    events = list(
        segment(volume, SegmentConfig(model=with_card(toy_model, min_volume_ml=0.05), device="cpu", **settings))
    )
    total = next(event.total for event in events if isinstance(event, SlicesDone))
    assert looked_at[0] == total


def cylinder(shape: tuple[int, int, int]) -> np.ndarray:
    """The head of a case: as wide as its frame, in all slices."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    return np.broadcast_to(y**2 + x**2 < 0.9, shape)


@pytest.fixture
def found_by_intensity(toy_model, with_card, monkeypatch):
    """Segment with a network to which bright voxels of a case are tumor, and nothing else is."""

    class Bright:
        runtime, device = "torch", torch.device("cpu")

        def __call__(self, batch):
            whole = torch.where(batch[:, 3:] > 2, 10.0, -10.0)
            return torch.cat([whole, *[torch.full_like(whole, -10.0)] * 2], 1)

    monkeypatch.setattr(network, "start_runner", lambda *_: Bright())
    path = with_card(toy_model, min_volume_ml=1.0, spacing=(None,) * 3, normalization="nonzero z-score")

    def find(planted, spacing, **settings):
        noise = np.random.default_rng(0).normal(100, 0.3, planted.shape)
        image = np.where(planted, 400, noise * cylinder(planted.shape)).astype(np.float32)
        volume = Volume(image[None], ("FLAIR",), default_grid(planted.shape, spacing))
        return result_of(volume, model=path, **settings).labels > 0

    return find


@pytest.mark.parametrize("seed", range(12))
def test_a_tumor_as_large_as_what_is_kept_is_found_whatever_its_shape_and_place(found_by_intensity, seed) -> None:
    random = np.random.default_rng(seed)
    spacing = tuple(random.choice([1.0, 1.5, 3.0], 3))
    planted = np.zeros((60, 96, 80), bool)
    while planted.sum() * np.prod(spacing) < 1000:  # thin plates, rods and boxes
        size = np.maximum(1, random.choice([1, 2, 3, 5, 12, 30], 3))
        start = [random.integers(0, n - k + 1) for n, k in zip(planted.shape, size, strict=True)]
        planted[:] = False
        planted[tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))] = True
        planted &= cylinder(planted.shape)
    along_z = np.flatnonzero(planted.any((1, 2)))
    sheet = len(along_z) * spacing[0] < 3 and along_z[0] > 0 and along_z[-1] < len(planted) - 1
    assert np.array_equal(found_by_intensity(planted, spacing), planted & (not sheet))
    assert np.array_equal(found_by_intensity(planted, spacing, search_step_mm=0), planted & (not sheet))


@pytest.mark.parametrize("thickness", [0.5, 0.8, 1.0, 1.4, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_search_finds_lesions_of_any_shape_and_place_as_a_look_at_every_slice_does(
    found_by_intensity, thickness: float, seed: int
) -> None:
    planted = plant_lesions(np.random.default_rng(seed), (60, 96, 80)) & cylinder((60, 96, 80))
    searched, everything = (
        found_by_intensity(planted, (thickness, 1.0, 1.0), min_volume_ml=0.1, **settings)
        for settings in ({}, {"search_step_mm": 0})
    )
    assert everything.any()
    assert np.array_equal(searched, everything)


def plant_lesions(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Sheets, rods, crumbs and balls, alone or touching, in the middle or cut off by the stack's ends."""
    planted = np.zeros(shape, bool)
    grid = np.indices(shape)
    for _ in range(random.integers(1, 30)):
        center = [random.integers(0, side) for side in shape]
        radii = random.choice([0.6, 1, 1.5, 2.5, 4, 9, 20], 3)
        distance = sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(grid, center, radii, strict=True))
        planted |= distance < 1
    return planted & (random.random(shape) > random.choice([0, 0.1, 0.4]))


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**31), step=st.integers(2, 7), min_vox=st.sampled_from([2, 5, 30, 200]), largest=st.booleans()
)
def test_what_a_search_leaves_out_would_not_be_kept(seed: int, step: int, min_vox: int, largest: bool) -> None:
    random = np.random.default_rng(seed)
    planted = plant_lesions(random, (random.integers(6, 40), 20, 22))
    head = np.flatnonzero(random.random(len(planted)) > random.choice([0, 0.2]))
    head = head if len(head) else np.array([3])
    everything = np.zeros(planted.shape, np.uint8)
    everything[head] = planted[head]
    found, hits = np.zeros_like(everything), []
    for looked_at in slices.search(head, hits, step):
        found[looked_at] = everything[looked_at]
        hits += [z for z in looked_at if everything[z].any()]
    for depth in (found, everything):
        remove_small_components(depth, min_vox, largest, max(1, min_vox // 4), step)
    assert np.array_equal(found, everything)


def test_a_plate_thinner_than_a_step_is_found(found_by_intensity) -> None:
    for first in range(20, 26):
        planted = np.zeros((60, 96, 80), bool)
        planted[first : first + 3, 20:60, 20:60] = True
        assert np.array_equal(found_by_intensity(planted, (1.0, 1.0, 1.0)), planted)


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
@pytest.mark.parametrize("thickness", [0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("settings", [{}, {"search_step_mm": 20}])
def test_in_a_short_stack_of_any_thickness_a_tumor_is_found_that_is_as_large_as_a_slice_can_show(
    found_by_intensity, slices: int, thickness: float, settings
) -> None:
    for only in range(slices):
        planted = np.zeros((slices, 96, 80), bool)
        planted[only, 30:42, 30:42] = True  # 1.4 cm2: a sphere of 1 mL shows 1.2 in its largest section
        assert np.array_equal(found_by_intensity(planted, (thickness, 1.0, 1.0), **settings), planted)
    planted = np.zeros((slices, 96, 80), bool)
    planted[-1, 30:34, 30:34] = True
    assert not found_by_intensity(planted, (min(thickness, 3.0), 1.0, 1.0), **settings).any()


@pytest.mark.parametrize("at_end", [True, False])
def test_a_tumor_that_may_go_on_beyond_a_stack_is_judged_by_its_section(found_by_intensity, at_end: bool) -> None:
    planted = np.zeros((40, 96, 80), bool)
    planted[-1 if at_end else 20, 30:42, 30:42] = True
    assert found_by_intensity(planted, (1.0, 1.0, 1.0)).any() == at_end


def test_progress_ends_at_all_slices_also_where_nothing_was_found(make_tall_volume, toy_model, with_card) -> None:
    config = SegmentConfig(
        model=with_card(toy_model, min_volume_ml=0.05), device="cpu", threshold=0.9999999, search_step_mm=4
    )
    events = list(segment(make_tall_volume(), config))
    assert not events[-1].segmentation.labels.any()
    last = [event for event in events if isinstance(event, SlicesDone)][-1]
    assert last.done == last.total


@pytest.fixture
def make_tall_volume(make_volume):
    """A case of many thin slices: each of a made-up case's several times."""

    def make():
        volume, _ = make_volume(7)
        data = np.repeat(volume.data, 4, axis=1)
        return replace(volume, data=data, source=default_grid(data.shape[1:]))

    return make


def count_slices(monkeypatch) -> list[int]:
    """Count the slices that go through a network."""
    count = [0]
    real = Network.__call__

    def counted(this, batch):
        count[0] += len(batch)
        return real(this, batch)

    monkeypatch.setattr(Network, "__call__", counted)
    return count


def test_while_one_chunk_runs_the_next_is_prepared(make_volume, toy_model, monkeypatch) -> None:
    monkeypatch.setattr(slices, "CHUNK_SLICES", 2)
    order: list[str] = []
    real_run, real_prepare = Network.__call__, context.prepare_slices
    second_is_prepared = Event()

    def run(*args):
        assert order.count("prepared") >= 2 or second_is_prepared.wait(20)
        return real_run(*args)

    def prepare(*args):
        order.append("prepared")
        if len(order) == 2:
            second_is_prepared.set()
        return real_prepare(*args)

    monkeypatch.setattr(Network, "__call__", run)
    monkeypatch.setattr(context, "prepare_slices", prepare)
    result_of(make_volume(7)[0], model=str(toy_model), batch_size=1, search_step_mm=0)


def test_progress_counts_the_slices_with_head(make_volume, toy_model) -> None:
    events = list(segment(make_volume(0)[0], SegmentConfig(model=str(toy_model), device="cpu")))
    counts = [event for event in events if isinstance(event, SlicesDone)]
    assert counts[-1].done == counts[-1].total == 10  # of 12 slices the first and last hold no head
    assert [count.done for count in counts] == sorted(count.done for count in counts)
