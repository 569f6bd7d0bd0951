from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fake_card import CUDA
from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.events import Noted
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.card import Metric
from napari_braintumor.engine.models.model_file import file_sha256, load_weights, read_card, save_model
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting import resolve as resolving
from napari_braintumor.engine.segmenting.resolve import check_precision, choose_runtime, resolve
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume
from segmenting import result_of
from toy_cases import add_skull

CPU = torch.device("cpu")


def test_what_the_settings_leave_open_comes_from_the_card(make_volume, toy_model, with_card) -> None:
    path = with_card(toy_model, threshold=0.3, min_volume_ml=0.7)
    task = resolve(make_volume(7)[0], SegmentConfig(model=path, device="cpu", runtime="torch"))
    assert (task.threshold, task.min_volume_ml) == (0.3, 0.7)
    assert (task.device.type, task.runtime, task.sha256) == ("cpu", "torch", file_sha256(task.path))
    with pytest.raises(FrozenInstanceError):
        task.threshold = 0.5


@pytest.mark.parametrize(
    ("thickness", "config", "min_slices", "step"),
    [
        (1.0, {}, 3, 3),
        (1.0, {"search_step_mm": 0}, 3, 1),
        (1.0, {"probabilities": True}, 3, 1),
        (1.0, {"min_volume_ml": 0}, 1, 1),
        (0.999, {}, 3, 3),
        (1.5, {}, 2, 2),
        (1.5, {"search_step_mm": 6}, 2, 4),
        (1.6, {}, 1, 1),
        (5.0, {}, 1, 1),
    ],
)
def test_a_search_steps_over_no_more_slices_than_a_tumor_reaches_over(
    make_volume, toy_model, with_card, thickness, config, min_slices, step
) -> None:
    volume, _ = make_volume(7)
    volume = replace(volume, source=default_grid(volume.shape, (thickness, 1.0, 1.0)))
    task = resolve(volume, SegmentConfig(model=with_card(toy_model, min_volume_ml=1.0), device="cpu", **config))
    assert (task.min_slices, task.search_step) == (min_slices, step)


def test_settings_win_over_the_card(make_volume, toy_model, with_card) -> None:
    path = with_card(toy_model, threshold=0.3, min_volume_ml=0.7)
    volume, _ = make_volume(7)
    config = SegmentConfig(model=path, device="cpu", threshold=0.6, min_volume_ml=0.1, search_step_mm=9)
    task = resolve(volume, config)
    assert (task.threshold, task.min_volume_ml) == (0.6, 0.1)
    assert task.search_step == int(9 // volume.spacing[0])


def test_a_2d_model_with_slices_of_its_own_thickness_is_refused(make_volume, toy_model, with_card) -> None:
    with pytest.raises(ModelError, match="works on slices of 2 mm"):
        result_of(make_volume(0)[0], model=with_card(toy_model, spacing=(2.0, None, None)))


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


@pytest.mark.parametrize(
    ("chosen_runtime", "device", "able"),
    [("openvino", CPU, True), ("openvino", CPU, False), ("torch", CPU, False), ("torch", CUDA, True)],
)
def test_bfloat16_is_refused_where_there_are_no_instructions_for_it(
    monkeypatch, chosen_runtime: str, device: torch.device, able: bool
) -> None:
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "BF16"] if able else ["FP32"])
    monkeypatch.setattr(resolving, "openvino_core", lambda: core)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    check_precision("auto", chosen_runtime, device)
    if able:
        check_precision("bfloat16", chosen_runtime, device)
    else:
        with pytest.raises(SettingsError, match="bfloat16 is not supported here"):
            check_precision("bfloat16", chosen_runtime, device)


def test_an_older_cuda_card_is_refused_bfloat16(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(SettingsError, match=r"supported here \(cuda, torch\)"):
        check_precision("bfloat16", "torch", CUDA)


def test_auto_runtime_is_openvino_on_the_cpu_only_where_it_is_installed(monkeypatch) -> None:
    monkeypatch.setattr(resolving, "find_spec", lambda _: SimpleNamespace())
    assert choose_runtime("auto", CPU) == "openvino"
    assert choose_runtime("auto", CUDA) == "torch"
    monkeypatch.setattr(resolving, "find_spec", lambda _: None)
    assert choose_runtime("auto", CPU) == "torch"


def test_openvino_where_it_cannot_run_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(resolving, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="OpenVINO is not installed"):
        choose_runtime("openvino", CPU)
    monkeypatch.setattr(resolving, "find_spec", lambda _: SimpleNamespace())
    with pytest.raises(SettingsError, match="OpenVINO runs on the CPU here"):
        choose_runtime("openvino", CUDA)


# ---------------------------------------------------------------------------------------------------- with the skull


def head_of(volume):
    """Return the head of a volume that was skull-stripped."""
    return replace(volume, data=np.stack([add_skull(image) for image in volume.data]))


def make_streamed(volume):
    return StreamedVolume(tuple(volume.data), volume.modalities, volume.source, volume.name, slab_slices=4)


@pytest.mark.parametrize("way", [lambda volume: volume, make_streamed], ids=["in memory", "streamed"])
def test_a_modality_that_training_never_saw_with_the_skull_is_left_out_with_a_note(
    make_volume, toy_model, with_card, way
) -> None:
    path = with_card(toy_model, accepts_missing=True, seen_with_skull=("T1", "T1ce", "FLAIR"))
    volume = way(head_of(make_volume(7)[0]))
    *events, last = segment(volume, SegmentConfig(model=path, device="cpu"))
    (note,) = (event.text for event in events if isinstance(event, Noted) and "left out" in event.text)
    assert note.startswith("T2 was left out: toy has never seen T2 with the skull.")
    result = last.segmentation
    assert result.provenance["modalities_used"] == ["T1", "T1ce", "FLAIR"]
    assert note in result.provenance["notes"]
    without = segment(head_of(make_volume(7)[0]).with_modalities(("T1", "T1ce", "FLAIR")), SegmentConfig(model=path))
    *_, expected = without
    np.testing.assert_array_equal(np.asarray(result.labels), expected.segmentation.labels)


@pytest.mark.parametrize(
    ("card", "settings", "stripped", "modalities", "used"),
    [
        ({"seen_with_skull": ("T1",)}, {}, True, MODALITIES, MODALITIES),
        ({"seen_with_skull": None}, {}, False, MODALITIES, MODALITIES),
        ({"seen_with_skull": MODALITIES}, {}, False, MODALITIES, MODALITIES),
        ({"seen_with_skull": ("T1",)}, {"skull": "keep"}, False, MODALITIES, MODALITIES),
        ({"seen_with_skull": ("T1",)}, {}, False, MODALITIES, ("T1",)),
        ({"seen_with_skull": ("T1",)}, {}, False, ("T2", "FLAIR"), ("T2", "FLAIR")),  # none would remain
        ({"seen_with_skull": ("T1",), "accepts_missing": False}, {}, False, MODALITIES, MODALITIES),
    ],
)
def test_everything_is_used_that_training_saw_so_or_that_the_model_or_the_user_needs(
    make_volume, toy_model, with_card, card, settings, stripped, modalities, used
) -> None:
    volume = make_volume(7)[0].with_modalities(modalities)
    path = with_card(toy_model, **{"accepts_missing": True, **card})
    task = resolve(volume if stripped else head_of(volume), SegmentConfig(model=path, device="cpu", **settings))
    assert task.volume.modalities == used
    assert any("left out" in note for note in task.notes) == (used != modalities)


def test_voxels_are_looked_at_only_if_a_modality_could_be_left_out(make_volume, toy_model, monkeypatch) -> None:
    monkeypatch.setattr(resolving, "see_skull", lambda volume: pytest.fail("looked"))
    resolve(make_volume(7)[0], SegmentConfig(model=str(toy_model), device="cpu"))


def test_regions_that_only_the_left_out_modality_shows_are_not_drawn(make_volume, toy_model, with_card) -> None:
    figures = [
        Metric(data="toys", region="tumor core", modalities=modalities, mean=mean, n=9, held_out=True)
        for modalities, mean in ((MODALITIES, 0.9), (("T1", "T1ce", "FLAIR"), 0.1))
    ]
    path = with_card(toy_model, accepts_missing=True, seen_with_skull=("T1", "T1ce", "FLAIR"), metrics=tuple(figures))
    config = SegmentConfig(model=path, device="cpu")
    assert resolve(head_of(make_volume(7)[0]), config).not_measurable == {"tumor core": "not measurable without T2"}
    assert resolve(make_volume(7)[0], config).not_measurable == {}


@pytest.mark.parametrize("name", ["glioma-u2net", "glioma-unet", "glioma-res-unet"])
def test_the_bundled_models_say_that_they_never_saw_t2_with_the_skull(name) -> None:
    card = ModelStore().find(name).card
    assert card is not None
    assert card.leaves_out(MODALITIES, MODALITIES) == ("T2",)
