import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fake_card import CUDA, put_on_card
from napari_braintumor import engine
from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import Noted, SlicesDone, Started
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.card import Metric
from napari_braintumor.engine.models.model_file import file_sha256, load_weights, read_card, save_model
from napari_braintumor.engine.segmenting import network, resolve
from napari_braintumor.engine.segmenting import segment as segmenting_flow
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume
from segmenting import result_of
from toy_cases import segment_plainly, write_case


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


def test_a_streamed_slice_that_is_not_finite_is_refused(make_volume, toy_model) -> None:
    volume, _ = make_volume(7)
    volume.data[1, 4, 3, 2] = np.nan
    with pytest.raises(DataError, match=f"Image '{volume.modalities[1]}' has voxels that are NaN or infinite"):
        result_of(streamed(volume), model=str(toy_model))


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
    real = network.start_runner

    def start(path, sha256, runtime, device, shape, *precision):
        runner = real(path, sha256, runtime, torch.device("cpu"), shape, *precision)
        return FillingCard(runner, calls) if device == CUDA else runner

    monkeypatch.setattr(network, "start_runner", start)
    monkeypatch.setattr(resolve, "choose_where", lambda *_: (CUDA, "torch"))
    monkeypatch.setattr(segmenting_flow, "describe_device", lambda device: device.type)
    events = list(segment(volume, SegmentConfig(model=str(toy_model), runtime="torch", batch_size=2, **settings)))
    result = events[-1].segmentation
    assert np.array_equal(result.labels, expected.labels)
    if settings.get("probabilities"):
        np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-3)
    full = Noted("Memory ran out on cuda with a single slice; continuing on the CPU, more slowly.")
    assert (full in events) == (calls < 99) == (full.text in result.provenance["notes"])
    assert result.provenance["device"] == ("cuda" if calls == 99 else "cpu")


def test_a_segmentation_can_be_left_between_slices(make_volume, toy_model) -> None:
    events = segment(make_volume(0)[0], SegmentConfig(model=str(toy_model), device="cpu"))
    assert [type(next(events)) for _ in range(2)] == [Started, SlicesDone]
    events.close()


def test_any_subset_of_the_modalities_will_do(make_volume, toy_model) -> None:
    volume, reference = make_volume(7)
    result = result_of(volume.with_modalities(("FLAIR",)), model=str(toy_model))
    assert volume_dice(result.labels > 0, reference.regions["whole tumor"]) > 0.3
    assert result.provenance["modalities_used"] == ["FLAIR"]


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
    (*_, plain), (*_, measured) = segment(volume, config), segmenting_flow.segment(volume, config, all_regions=True)
    assert not plain.segmentation.labels.any()
    assert plain.segmentation.volumes_ml == {}
    assert measured.segmentation.not_measurable == {}
    assert np.array_equal(measured.segmentation.labels, result_of(volume, model=str(toy_model), runtime="torch").labels)


def test_weights_that_do_not_fit_their_card_are_refused(make_volume, toy_model, tmp_path) -> None:
    card = read_card(toy_model).model_copy(update={"options": {"width": 6}})
    path = save_model(tmp_path / "wrong.safetensors", load_weights(toy_model), card)
    with pytest.raises(ModelError, match="do not fit the architecture on its card"):
        result_of(make_volume(0)[0], model=str(path))


def test_memory_that_runs_out_halfway_is_noted_and_changes_nothing(make_volume, toy_model, monkeypatch) -> None:
    volume, _ = make_volume(7)
    expected = result_of(volume, model=str(toy_model), runtime="torch").labels
    real = network.start_runner

    def start_cramped(*args):
        runner = real(*args)

        class Cramped:
            device, runtime = runner.device, runner.runtime

            def __call__(self, batch):
                if len(batch) > 2:
                    raise MemoryError
                return runner(batch)

        return Cramped()

    monkeypatch.setattr(network, "start_runner", start_cramped)
    events = list(segment(volume, SegmentConfig(model=str(toy_model), device="cpu", runtime="torch", batch_size=8)))
    assert [event.text for event in events if isinstance(event, Noted)][-1].endswith(
        "continuing with 2 slices at a time."
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


def test_labels_of_slices_come_as_soon_as_these_are_done(make_volume, toy_model) -> None:
    *events, last = segment(make_volume(7)[0], SegmentConfig(model=str(toy_model), device="cpu", min_volume_ml=0))
    done = [event for event in events if isinstance(event, SlicesDone)]
    first = next(event for event in done if event.labels)
    assert first.done < first.total
    seen = {z: plane for event in done for z, plane in event.labels.items()}
    labels = np.asarray(last.segmentation.labels)
    assert set(np.flatnonzero(labels.any((1, 2)))) <= set(seen)
    assert np.mean([np.mean(seen[z] == labels[z]) for z in seen]) > 0.99


def test_no_region_appears_that_will_not_be_drawn(make_volume, toy_model, with_card) -> None:
    metric = Metric(data="x", region="tumor core", modalities=("FLAIR",), mean=0.0, n=3, held_out=True)
    volume = make_volume(7)[0].with_modalities(("FLAIR",))
    config = SegmentConfig(model=with_card(toy_model, metrics=(metric,)), device="cpu")
    planes = [
        plane for event in segment(volume, config) if isinstance(event, SlicesDone) for plane in event.labels.values()
    ]
    assert planes
    assert not any((plane == 1).any() for plane in planes)
