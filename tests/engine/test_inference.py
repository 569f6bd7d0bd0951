import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_braintumor.engine import inference, segment
from napari_braintumor.engine.card import GLIOMA_REGIONS, ModelCard
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.inference import drop_small_regions, nest_logits, paint_labels, remove_islands
from napari_braintumor.engine.metrics import volume_dice
from napari_braintumor.engine.store import load_weights, read_card, save_model
from napari_braintumor.engine.types import Noted, Segmented, SlicesDone, Started
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


def test_a_three_dimensional_model_is_refused_for_now(make_volume, toy_model, tmp_path) -> None:
    card = read_card(toy_model).model_copy(update={"spatial_dims": 3})
    path = save_model(tmp_path / "solid.safetensors", load_weights(toy_model), card)
    with pytest.raises(ModelError, match="is three-dimensional, which cannot be run yet"):
        result_of(make_volume(0)[0], model=str(path))


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
    regions = np.zeros((2, 5, 20, 20), bool)
    regions[0, 1:4, 2:8, 2:8] = True
    regions[0, 2, 15, 15] = True
    regions[1, 2, 15, 15] = True
    cleaned = remove_islands(regions, 5, False)
    assert cleaned.sum() == 3 * 6 * 6
    assert remove_islands(regions, 0, True).sum() == 3 * 6 * 6
    assert remove_islands(regions, 0, False) is regions
    assert remove_islands(np.zeros_like(regions), 5, True).sum() == 0


def test_a_region_too_small_to_be_believed_counts_as_the_one_around_it() -> None:
    regions = np.zeros((3, 1, 4, 10), bool)
    regions[0], regions[1, :, :2], regions[2, :, :1, :2] = True, True, True
    whole, core, enhancing = GLIOMA_REGIONS
    card = ModelCard(
        name="a", architecture="unet", regions=(whole, core, enhancing.model_copy(update={"least_ml": 3.0}))
    )
    kept = drop_small_regions(regions, card, voxel_ml=1.0)
    assert [int(region.sum()) for region in kept] == [40, 20, 0]
    assert regions[2].any()  # what it was given stays as it was
    assert drop_small_regions(regions, card, voxel_ml=2.0) is regions
    card = card.model_copy(update={"regions": (whole, core.model_copy(update={"least_ml": 30.0}), enhancing)})
    assert [int(region.sum()) for region in drop_small_regions(regions, card, 1.0)] == [40, 0, 0]


def test_nested_logits_never_rise_inwards_and_change_only_where_they_contradict() -> None:
    import torch

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


def test_painting_goes_from_the_outermost_region_inwards() -> None:
    card = ModelCard(name="x", architecture="unet", regions=GLIOMA_REGIONS)
    regions = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], bool)[:, None, None]
    assert paint_labels(regions, card).ravel().tolist() == [0, 2, 1, 3]


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
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases, read_case
from pathlib import Path
config = SegmentConfig(model={str(toy_model)!r}, device="cpu", runtime="openvino")
list(segment(read_case(find_cases(Path({str(tmp_path)!r}))[0]), config))
time.sleep(1)
assert not opened, opened
"""
    environment = {key: value for key, value in os.environ.items() if key != "CI"}  # some programs keep quiet under CI
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
