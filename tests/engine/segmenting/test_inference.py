import os
import subprocess
import sys
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch

from fake_card import CUDA, OnCard, put_on_card
from napari_braintumor import engine
from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES
from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import Noted, Segmented, SlicesDone, Started
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import file_sha256, load_weights, read_card, save_model
from napari_braintumor.engine.preparing.transforms import survey
from napari_braintumor.engine.segmenting import inference
from napari_braintumor.engine.segmenting.inference import (
    count_voxels,
    drop_small_regions,
    leave_out,
    nest_logits,
    paint_labels,
    remove_islands,
)
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume, Volume
from toy_cases import segment_plainly, write_case


def result_of(volume, **settings):
    events = list(segment(volume, SegmentConfig(device="cpu", **settings)))
    assert isinstance(events[-1], Segmented)
    return events[-1].segmentation


def test_a_trained_model_finds_the_tumor_of_a_case_it_never_saw(make_volume, toy_model) -> None:
    volume, reference = make_volume(7)
    result = result_of(volume, model=str(toy_model))
    assert result.labels.shape == volume.shape
    assert volume_dice(result.labels > 0, reference.regions["whole tumor"]) > 0.6
    assert set(np.unique(result.labels)) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    "settings", [{"runtime": "openvino"}, {"runtime": "torch"}, {"runtime": "torch", "batch_size": 5}]
)
def test_the_result_does_not_depend_on_runtime_batch_size_or_crop(make_volume, toy_model, settings) -> None:
    volume, _ = make_volume(7)
    plain = segment_plainly(volume, toy_model)
    labels = result_of(volume, model=str(toy_model), **settings).labels
    head = volume.data.any(axis=0)
    assert (plain > 0).sum() > 500
    assert (labels == plain)[head].mean() >= 0.999


def test_a_model_with_its_own_grid_answers_on_the_case_s_grid(make_volume, toy_model, tmp_path) -> None:
    volume, reference = make_volume(7)
    card = read_card(toy_model).model_copy(update={"spacing": (None, 1.25, 1.25)})
    path = save_model(tmp_path / "coarse.safetensors", load_weights(toy_model), card)
    result = result_of(volume, model=str(path))
    assert volume_dice(result.labels > 0, reference.regions["whole tumor"]) > 0.5
    assert (result.labels == segment_plainly(volume, path)).mean() >= 0.999


def streamed(volume, slab_slices: int = 1) -> StreamedVolume:
    return StreamedVolume(tuple(volume.data), volume.modalities, volume.source, volume.name, slab_slices)


@pytest.mark.parametrize("slab_slices", [1, 5])
def test_a_volume_that_is_read_while_it_is_used_gives_the_same_labels(make_volume, toy_model, slab_slices: int) -> None:
    volume, _ = make_volume(7)
    expected = result_of(volume, model=str(toy_model), probabilities=True)
    result = result_of(streamed(volume, slab_slices), model=str(toy_model), probabilities=True)
    assert np.array_equal(np.asarray(result.labels), expected.labels)
    assert np.array_equal(np.asarray(result.probabilities), expected.probabilities)
    assert result.volumes_ml == expected.volumes_ml


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


def test_a_streamed_slice_that_is_not_finite_is_refused(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    volume.data[1, 4, 3, 2] = np.nan
    with pytest.raises(DataError, match=f"Image '{volume.modalities[1]}' has voxels that are NaN or infinite"):
        result_of(streamed(volume), model=str(toy_model))


def test_only_slices_near_tumor_are_looked_at_and_the_labels_stay_the_same(
    make_tall_volume, toy_model, with_card, monkeypatch
):
    volume = make_tall_volume()
    path = with_card(toy_model, min_volume_ml=0.05)
    looked_at = count_slices(monkeypatch)
    everything = result_of(volume, model=path, search_step_mm=0)
    all_of_them = looked_at[0]
    result = result_of(volume, model=path, search_step_mm=4)
    assert np.array_equal(result.labels, everything.labels)
    assert (result.labels > 0).any()
    assert looked_at[0] - all_of_them < all_of_them


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"min_volume_ml": 0}, {}),
        ({"min_volume_ml": 0, "search_step_mm": 4}, {}),
        ({"probabilities": True, "search_step_mm": 4}, {}),
        ({"search_step_mm": 0}, {}),
        ({}, {}),
        ({"search_step_mm": 4}, {"spacing_known": False}),
    ],
)
def test_all_slices_are_looked_at_unless_a_step_is_asked_for_and_thin_tumor_does_not_matter(
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

    monkeypatch.setattr(inference, "start_runner", lambda *_: Bright())
    path = with_card(toy_model, min_volume_ml=1.0, spacing=(None,) * 3, normalisation="nonzero z-score")

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
    assert np.array_equal(found_by_intensity(planted, spacing), planted)


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


@pytest.fixture
def with_card(tmp_path):
    """Write a model with another card, and return its path."""

    def write(model, **update) -> str:
        card = read_card(model).model_copy(update=update)
        return str(save_model(tmp_path / "changed.safetensors", load_weights(model), card))

    return write


def count_slices(monkeypatch) -> list[int]:
    """Count the slices that go through a network."""
    count = [0]
    real = inference.Ladder.__call__

    def counted(ladder, batch):
        count[0] += len(batch)
        return real(ladder, batch)

    monkeypatch.setattr(inference.Ladder, "__call__", counted)
    return count


def test_while_one_chunk_runs_the_next_is_prepared(make_volume, toy_model, monkeypatch) -> None:
    monkeypatch.setattr(inference, "CHUNK_SLICES", 2)
    order: list[str] = []
    real_run, real_prepare = inference._run, inference.prepare_slices
    second_is_prepared = Event()

    def run(*args):
        assert order.count("prepared") >= 2 or second_is_prepared.wait(20)
        return real_run(*args)

    def prepare(*args):
        order.append("prepared")
        if len(order) == 2:
            second_is_prepared.set()
        return real_prepare(*args)

    monkeypatch.setattr(inference, "_run", run)
    monkeypatch.setattr(inference, "prepare_slices", prepare)
    result_of(make_volume(7)[0], model=str(toy_model), batch_size=1, search_step_mm=0)


class FillingCard:
    """A runner on a card that has room for some calls only; what it gives lies on the card."""

    runtime, device = "torch", CUDA

    def __init__(self, runner, calls: int) -> None:
        self.runner, self.calls = runner, calls

    def __call__(self, batch):
        self.calls -= 1
        if self.calls < 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return put_on_card(self.runner(batch))


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 99])
@pytest.mark.parametrize("settings", [{}, {"test_time_mirroring": True}, {"probabilities": True}])
def test_a_card_that_runs_full_at_any_moment_changes_nothing_but_the_time(
    make_volume, toy_model, monkeypatch, calls, settings
) -> None:
    volume, _ = make_volume(7)
    expected = result_of(volume, model=str(toy_model), runtime="torch", **settings)
    real = inference.start_runner

    def start(path, sha256, runtime, device, shape, *precision):
        runner = real(path, sha256, runtime, torch.device("cpu"), shape, *precision)
        return FillingCard(runner, calls) if device == CUDA else runner

    monkeypatch.setattr(inference, "start_runner", start)
    monkeypatch.setattr(inference, "choose_where", lambda *_: (CUDA, "torch"))
    monkeypatch.setattr(inference, "describe_device", lambda device: device.type)
    events = list(segment(volume, SegmentConfig(model=str(toy_model), runtime="torch", batch_size=2, **settings)))
    result = events[-1].segmentation
    assert np.array_equal(result.labels, expected.labels)
    if settings.get("probabilities"):
        np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-3)
    full = Noted("Memory ran out on cuda with a single slice; going on, slower, on the CPU.")
    assert (full in events) == (calls < 99) == (full.text in result.provenance["notes"])
    assert result.provenance["device"] == ("cuda" if calls == 99 else "cpu")


@pytest.mark.usefixtures("card")
def test_logits_that_do_not_fit_the_card_are_restored_on_the_cpu(make_volume, monkeypatch) -> None:
    volume, _ = make_volume(7)
    known = survey(volume, MODALITIES)
    logits = torch.randn(2, 3, *known.head.shape[1:])
    expected, _ = inference.restore(known, np.array([3, 4]), logits, 0.5)
    tried = []
    real = inference.nest_logits

    def cramped(given):
        tried.append(type(given))
        if isinstance(given, OnCard):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(given)

    monkeypatch.setattr(inference, "nest_logits", cramped)
    found, _ = inference.restore(known, np.array([3, 4]), put_on_card(logits), 0.5)
    assert tried == [OnCard, torch.Tensor]
    assert np.array_equal(found, expected)


def test_a_2d_model_with_slices_of_its_own_thickness_is_refused(make_volume, toy_model, with_card) -> None:
    with pytest.raises(ModelError, match="works on slices of 2 mm"):
        result_of(make_volume(0)[0], model=with_card(toy_model, spacing=(2.0, None, None)))


def test_progress_counts_the_slices_with_head(make_volume, toy_model) -> None:
    events = list(segment(make_volume(0)[0], SegmentConfig(model=str(toy_model), device="cpu")))
    counts = [event for event in events if isinstance(event, SlicesDone)]
    assert counts[-1].done == counts[-1].total == 10  # of 12 slices the first and last hold no head
    assert [count.done for count in counts] == sorted(count.done for count in counts)


def test_a_segmentation_can_be_left_between_slices(make_volume, toy_model) -> None:
    events = segment(make_volume(0)[0], SegmentConfig(model=str(toy_model), device="cpu"))
    assert [type(next(events)) for _ in range(2)] == [Started, SlicesDone]
    events.close()


def test_any_subset_of_the_modalities_will_do(make_volume, toy_model) -> None:
    volume, reference = make_volume(7)
    result = result_of(volume.with_modalities(("FLAIR",)), model=str(toy_model))
    assert volume_dice(result.labels > 0, reference.regions["whole tumor"]) > 0.3
    assert result.provenance["modalities_used"] == ["FLAIR"]


def test_a_model_that_needs_all_modalities_says_which_are_missing(make_volume, toy_model, tmp_path) -> None:
    card = read_card(toy_model).model_copy(update={"accepts_missing": False})
    path = save_model(tmp_path / "strict.safetensors", load_weights(toy_model), card)
    with pytest.raises(ModelError, match="lacks T2, FLAIR"):
        result_of(make_volume(0)[0].with_modalities(("T1", "T1ce")), model=str(path))


def test_a_modality_the_model_does_not_know_is_noted_and_left_out(make_volume, toy_model) -> None:
    volume, _ = make_volume(0)
    odd = replace(volume, modalities=("T1", "T1ce", "T2", "DWI"))
    events = list(segment(odd, SegmentConfig(model=str(toy_model), device="cpu")))
    assert events[0] == Noted("The model does not use DWI.")


def test_unknown_voxel_sizes_are_noted(make_volume, toy_model) -> None:
    volume, _ = make_volume(0)
    unknown = replace(volume, source=replace(volume.source, spacing_known=False))
    assert "mm and mL are guesses" in next(segment(unknown, SegmentConfig(model=str(toy_model), device="cpu"))).text


def test_volumes_agree_with_the_labels_and_regions_are_nested(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    result = result_of(volume, model=str(toy_model))
    voxel_ml = 3 * 1 * 1 / 1000
    assert result.volumes_ml["whole tumor"] == pytest.approx((result.labels > 0).sum() * voxel_ml)
    assert result.volumes_ml["tumor core"] == pytest.approx(np.isin(result.labels, (1, 3)).sum() * voxel_ml)
    assert result.volumes_ml["enhancing tumor"] == pytest.approx((result.labels == 3).sum() * voxel_ml)


def test_a_lower_threshold_finds_more(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    small, large = (result_of(volume, model=str(toy_model), threshold=t).volumes_ml["whole tumor"] for t in (0.9, 0.1))
    assert large > small


def test_probabilities_lie_on_the_case_s_grid_and_agree_with_the_labels(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    result = result_of(volume, model=str(toy_model), probabilities=True)
    assert result.probabilities.shape == (3, *volume.shape)
    assert ((result.probabilities.max(0) > 0.51) <= (result.labels > 0)).all()
    assert ((result.labels > 0) <= (result.probabilities.max(0) > 0.49)).all()


def test_mirroring_a_mirrored_scan_mirrors_the_result(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    mirrored = replace(volume, data=np.ascontiguousarray(volume.data[..., ::-1]))
    first = result_of(volume, model=str(toy_model), test_time_mirroring=True).labels
    second = result_of(mirrored, model=str(toy_model), test_time_mirroring=True).labels
    assert (first == second[..., ::-1]).mean() > 0.999


def test_provenance_names_the_model_the_settings_and_the_runtime(make_volume, toy_model) -> None:
    provenance = result_of(make_volume(0)[0], model=str(toy_model)).provenance
    assert provenance["model"] == "toy"
    assert len(provenance["model_sha256"]) == 64
    assert provenance["runtime"] == "openvino"
    assert provenance["settings"]["keep_largest"] is False


def test_small_islands_are_removed_and_the_largest_kept() -> None:
    nesting = np.zeros((5, 20, 20), np.uint8)
    nesting[1:4, 2:8, 2:8] = 1
    nesting[2, 15, 15] = 2

    def cleaned(min_vox: int, keep_largest: bool) -> np.ndarray:
        copy = nesting.copy()
        remove_islands(copy, min_vox, keep_largest)
        return copy

    assert cleaned(5, False).sum() == 3 * 6 * 6
    assert cleaned(0, True).sum() == 3 * 6 * 6
    assert np.array_equal(cleaned(0, False), nesting)
    empty = np.zeros_like(nesting)
    remove_islands(empty, 5, True)
    assert not empty.any()


def test_a_region_too_small_to_be_believed_counts_as_the_one_around_it() -> None:
    nesting = np.ones((1, 4, 10), np.uint8)
    nesting[0, :2], nesting[0, :1, :2] = 2, 3
    whole, core, enhancing = GLIOMA_REGIONS

    def kept(least_core: float, least_enhancing: float, voxel_ml: float) -> list[int]:
        regions = (
            whole,
            core.model_copy(update={"least_ml": least_core}),
            enhancing.model_copy(update={"least_ml": least_enhancing}),
        )
        card, copy = ModelCard(name="a", architecture="unet", regions=regions), nesting.copy()
        drop_small_regions(copy, card, voxel_ml)
        return count_voxels(copy, card)

    assert kept(0.0, 3.0, voxel_ml=1.0) == [40, 20, 0]
    assert kept(0.0, 3.0, voxel_ml=2.0) == [40, 20, 2]
    assert kept(30.0, 0.0, voxel_ml=1.0) == [40, 0, 0]


def dice_rows(**means: float) -> dict:
    """Figures of a card for all modalities: whole, core and enhancing."""
    names = {"whole": "whole tumor", "core": "tumor core", "enhancing": "enhancing tumor"}
    rows = (
        Metric(data="BraTS", region=names[short], modalities=MODALITIES, mean=mean, n=3, held_out=True)
        for short, mean in means.items()
    )
    return {"metrics": tuple(rows)}


@pytest.mark.parametrize("bad", [("core",), ("enhancing",), ("whole",), ("whole", "core"), ("core", "enhancing")])
def test_regions_that_the_scans_cannot_show_are_neither_drawn_nor_measured_and_the_record_says_so(
    make_volume, toy_model, with_card, bad
) -> None:
    volume, _ = make_volume(7)
    everything = result_of(volume, model=str(toy_model), min_volume_ml=0, runtime="torch")
    assert all(everything.volumes_ml.values())
    card = dice_rows(**{name: 0.1 if name in bad else 0.8 for name in ("whole", "core", "enhancing")})
    settings = {"device": "cpu", "runtime": "torch", "min_volume_ml": 0}
    events = list(segment(volume, SegmentConfig(model=with_card(toy_model, **card), **settings)))
    result = events[-1].segmentation
    labels = {"whole": (2, "whole tumor"), "core": (1, "tumor core"), "enhancing": (3, "enhancing tumor")}
    missing = {labels[name][1]: "not measurable with this model" for name in bad}
    assert result.not_measurable == missing == result.provenance["not_measurable"]
    assert result.volumes_ml == {
        name: pytest.approx(ml) for name, ml in everything.volumes_ml.items() if name not in missing
    }
    assert not np.isin(result.labels, [labels[name][0] for name in bad]).any()
    for name, text in missing.items():
        assert Noted(f"{name.capitalize()} is not drawn: {text}.") in events
        assert f"{name.capitalize()} is not drawn: {text}." in result.provenance["notes"]
    counted = sum((result.labels == label).sum() for label in (1, 2, 3)) * result.source.voxel_ml
    assert sum(result.label_volumes_ml.values()) == pytest.approx(counted)
    assert result.label_volumes_ml == pytest.approx(
        {label: (result.labels == label).sum() * result.source.voxel_ml for label in result.label_names}
    )


def test_an_evaluation_measures_regions_that_are_not_drawn_for_users(make_volume, toy_model, with_card) -> None:
    volume, _ = make_volume(7)
    path = with_card(toy_model, **dice_rows(whole=0.1, core=0.1, enhancing=0.1))
    config = SegmentConfig(model=path, device="cpu", runtime="torch")
    (*_, plain), (*_, measured) = segment(volume, config), inference.segment(volume, config, all_regions=True)
    assert not plain.segmentation.labels.any()
    assert plain.segmentation.volumes_ml == {}
    assert measured.segmentation.not_measurable == {}
    assert np.array_equal(measured.segmentation.labels, result_of(volume, model=str(toy_model), runtime="torch").labels)


def test_what_lies_in_a_region_that_is_left_out_counts_as_the_next_around_it() -> None:
    card = ModelCard(name="x", architecture="unet", regions=GLIOMA_REGIONS)

    def painted(*names: str) -> list[int]:
        nesting = np.array([[[0, 1, 2, 3]]], np.uint8)
        leave_out(nesting, card, names)
        paint_labels(nesting, card)
        return nesting.ravel().tolist()

    assert painted() == [0, 2, 1, 3]
    assert painted("enhancing tumor") == [0, 2, 1, 1]
    assert painted("tumor core") == [0, 2, 2, 3]
    assert painted("whole tumor") == [0, 0, 1, 3]
    assert painted("whole tumor", "tumor core") == [0, 0, 0, 3]
    assert painted("whole tumor", "tumor core", "enhancing tumor") == [0, 0, 0, 0]


def test_a_region_that_is_dropped_is_not_painted_as_one_that_is_left_out() -> None:
    whole, core, enhancing = GLIOMA_REGIONS
    regions = (whole, core, enhancing.model_copy(update={"least_ml": 5.0}))
    card, nesting = ModelCard(name="a", architecture="unet", regions=regions), np.array([[[1, 1, 3, 3]]], np.uint8)
    drop_small_regions(nesting, card, 1.0, {"tumor core": "not measurable without T1ce"})
    assert nesting.ravel().tolist() == [1, 1, 1, 1]


def test_nested_logits_never_rise_inwards_and_change_only_where_they_contradict() -> None:
    logits = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    nested = nest_logits(logits)
    assert (nested.diff(dim=1) <= 1e-6).all()
    agreeing = (logits.diff(dim=1) <= 0).all(dim=1, keepdim=True).expand_as(logits)
    assert torch.allclose(nested[agreeing], logits[agreeing], atol=1e-5)
    assert torch.allclose(nest_logits(nested), nested, atol=1e-5)
    one = nest_logits(torch.tensor([-4.0, 2.0, 8.0]).reshape(1, 3, 1, 1))
    assert one.flatten().tolist() == pytest.approx([2.0, 2.0, 2.0])
    two = nest_logits(torch.tensor([-4.0, 6.0, -9.0]).reshape(1, 3, 1, 1))
    assert two.flatten().tolist() == pytest.approx([1.0, 1.0, -9.0])


def test_a_voxel_gets_the_label_of_the_innermost_region_it_lies_in() -> None:
    nesting = np.array([[[0, 1, 2, 3]]], np.uint8)
    paint_labels(nesting, ModelCard(name="x", architecture="unet", regions=GLIOMA_REGIONS))
    assert nesting.ravel().tolist() == [0, 2, 1, 3]


def test_weights_that_do_not_fit_their_card_are_refused(make_volume, toy_model, tmp_path) -> None:
    card = read_card(toy_model).model_copy(update={"options": {"width": 6}})
    path = save_model(tmp_path / "wrong.safetensors", load_weights(toy_model), card)
    with pytest.raises(ModelError, match="do not fit the architecture on its card"):
        result_of(make_volume(0)[0], model=str(path))


def test_memory_that_runs_out_halfway_is_noted_and_changes_nothing(make_volume, toy_model, monkeypatch) -> None:
    volume, _ = make_volume(7)
    expected = result_of(volume, model=str(toy_model), runtime="torch").labels
    real = inference.start_runner

    def start_cramped(*args):
        runner = real(*args)

        class Cramped:
            device, runtime = runner.device, runner.runtime

            def __call__(self, batch):
                if len(batch) > 2:
                    raise MemoryError
                return runner(batch)

        return Cramped()

    monkeypatch.setattr(inference, "start_runner", start_cramped)
    events = list(segment(volume, SegmentConfig(model=str(toy_model), device="cpu", runtime="torch", batch_size=8)))
    assert [event.text for event in events if isinstance(event, Noted)][-1].endswith(
        "going on with 2 slices at a time."
    )
    assert np.array_equal(events[-1].segmentation.labels, expected)


def test_segmenting_opens_no_connection(make_volume, toy_model, tmp_path) -> None:
    write_case(tmp_path, *make_volume(0))
    code = f"""
import sys
opened = []
outwards = {{"socket." + name for name in ("connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg")}}
sys.addaudithook(lambda event, args: opened.append((event, args)) if event in outwards else None)
import time
from napari_braintumor.engine import segment
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from pathlib import Path
config = SegmentConfig(model={str(toy_model)!r}, device="cpu", runtime="openvino")
list(segment(read_case(find_cases(Path({str(tmp_path)!r}))[0]), config))
time.sleep(1)
assert not opened, opened
"""
    environment = {key: value for key, value in os.environ.items() if key != "CI"}  # some programs keep quiet under CI
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


def test_slices_are_segmented_without_the_libraries_that_take_seconds_to_load(make_volume, toy_model, tmp_path) -> None:
    write_case(tmp_path, *make_volume(0))
    code = f"""
import sys
from pathlib import Path
from napari_braintumor.engine import segment
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
config = SegmentConfig(model={str(toy_model)!r}, device="cpu", runtime="torch")
list(segment(read_case(find_cases(Path({str(tmp_path)!r}))[0]), config))
loaded = {{"monai", "matplotlib", "skimage", "bioimageio"}} & set(sys.modules)
assert not loaded, loaded
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_warm_runtime_has_the_model_converted(toy_model, converted_folder) -> None:
    engine.warm_up(SegmentConfig(model=str(toy_model), device="cpu", runtime="openvino"))
    sha256 = file_sha256(toy_model)
    assert list(converted_folder.glob(f"{sha256[:40]}*/model.xml"))
