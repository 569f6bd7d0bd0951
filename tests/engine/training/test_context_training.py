"""Networks that learn to see the slices above and below as well."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

from napari_braintumor.engine import train
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import Noted, Trained
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.models.model_file import load_weights, read_card
from napari_braintumor.engine.preparing.context import take_images
from napari_braintumor.engine.training.augmentation import vary
from napari_braintumor.engine.training.device_batches import DeviceSlices
from napari_braintumor.engine.training.drawing import CONTEXT_DROPOUT, SliceDataset, drop_context
from napari_braintumor.engine.training.plan import TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.prepared import find_archived, read_archived, take_slices, write_archive
from napari_braintumor.engine.training.training_cases import load_data, load_training_case
from segmenting import result_of


@pytest.fixture(scope="module")
def plan(toy_plan) -> TrainPlan:
    plain = {"augmentation": "none", "modality_dropout": 0.0, "patch": (112, 96)}  # a whole head somewhere in a patch
    return toy_plan.model_copy(update={"context_mm": 3.0, **plain})


@pytest.fixture(scope="module")
def data(plan, tmp_path_factory):
    *_, data = load_data(plan, tmp_path_factory.mktemp("cache"))
    return data


def framed(image: np.ndarray) -> np.ndarray:
    """What is not zero around a slice itself, with the same piece of the slices beside it."""
    rows, columns = (np.flatnonzero(image[:4].any(axis=(0, axis))) for axis in (2, 1))
    return image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw(data, plan, count: int) -> np.ndarray:
    dataset = SliceDataset(data.training, (), plan)
    return np.stack([dataset[number][0].numpy() for number in range(count)])


def draw_on_device(data, plan, count: int) -> np.ndarray:
    dataset = SliceDataset(data.training, (), plan.model_copy(update={"batch_size": count}))
    return DeviceSlices(dataset, torch.device("cpu")).make_batch(0)[0].numpy()


@pytest.mark.parametrize("draw_some", [draw, draw_on_device])
def test_a_slice_is_drawn_with_those_beside_it_or_now_and_then_without(plan, data, draw_some) -> None:
    known = []
    for part in data.training:
        for image in take_images(part.case.prepared, part.slices).swapaxes(0, 1):
            alone = image.copy()
            alone[4:] = 0
            known += [(framed(image), True), (framed(alone), False)]
    shown = []
    for one in draw_some(data, plan, 30):
        piece = framed(one)
        fits = [
            with_context
            for other, with_context in known
            if piece.shape == other.shape and np.abs(piece - other).max() < 1e-3
        ]
        assert fits
        shown.append(fits[0])
    assert 0.6 < np.mean(shown) < 1


def test_context_is_dropped_as_often_as_stated_and_never_the_slice_itself() -> None:
    random = np.random.default_rng(0)
    shown = np.stack([drop_context(3, random) for _ in range(2000)])
    assert shown[:, 0].all()
    assert np.array_equal(shown[:, 1], shown[:, 2])
    assert 1 - shown[:, 1].mean() == pytest.approx(CONTEXT_DROPOUT, abs=0.03)
    assert drop_context(1, random).tolist() == [True]


def test_a_missing_modality_is_missing_beside_a_slice_too(plan, data) -> None:
    image = draw(data, plan.model_copy(update={"modality_dropout": 1.0}), 40).reshape(40, 3, 4, -1)
    there = image.any(-1)
    assert (there[:, 1:] <= there[:, :1]).all()
    assert not there[:, 0].all()


@pytest.mark.parametrize("draw_some", [draw, draw_on_device])
def test_slices_beside_are_zero_outside_of_their_own_head(plan, data, draw_some) -> None:
    image = draw_some(data, plan.model_copy(update={"augmentation": "light"}), 40).reshape(40, 3, 4, -1)
    areas = (image != 0).any(2).mean(-1)
    assert len(np.unique(areas[:, 0] - areas[:, 1])) > 10  # heads of different size
    zero_somewhere = (image == 0).all(2).mean(-1)
    assert (zero_somewhere > 0.2).all()


ALIKE = {
    "scale": RandScaleIntensityd("image", factors=0.3, prob=1, channel_wise=True),
    "shift": RandShiftIntensityd("image", offsets=0.5, prob=1, channel_wise=True),
    "contrast": RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=1, retain_stats=True),
    "bias": RandBiasFieldd("image", degree=3, coeff_range=(0.05, 0.1), prob=1),
    "smoothing": RandGaussianSmoothd("image", sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), prob=1),
    "resolution": RandSimulateLowResolutiond(
        "image", prob=1, zoom_range=(0.5, 0.7), downsample_mode="area", upsample_mode="bilinear"
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_the_intensities_of_slices_beside_are_varied_like_those_of_the_slice(name: str) -> None:
    one = torch.rand(4, 32, 24, generator=torch.Generator().manual_seed(0))
    item = {"image": one.repeat(3, 1, 1), "masks": torch.zeros(4, 32, 24)}
    image = vary([ALIKE[name]], item, 5, stacked_slices=3)["image"]
    assert image.shape == (12, 32, 24)
    assert not torch.allclose(image[:4], one, atol=1e-3)
    assert torch.allclose(image[4:8], image[:4], atol=1e-5)
    assert torch.allclose(image[8:], image[:4], atol=1e-5)


def test_noise_is_new_in_every_slice() -> None:
    step = RandGaussianNoised("image", std=0.15, prob=1)
    item = {"image": torch.zeros(12, 32, 24), "masks": torch.zeros(4, 32, 24)}
    image = vary([step], item, 5, stacked_slices=3)["image"]
    assert image.std() > 0.01
    assert not torch.allclose(image[:4], image[4:8])


@pytest.fixture(scope="module")
def trained_on(plan, toy_model, tmp_path_factory):
    """A short training from the weights of a model without context."""
    more = {"augmentation": "full", "epochs": 1, "steps_per_epoch": 3, "patch": (64, 64), "learning_rate": 1e-4}
    folder = tmp_path_factory.mktemp("with-context")
    started = plan.model_copy(update={"start_from": str(toy_model), "output": folder, "keep": "last", **more})
    *events, last = train(started)
    assert isinstance(last, Trained)
    return events, last.path


def test_training_goes_on_from_a_model_without_context_and_the_card_says_what_is_seen(trained_on, make_volume) -> None:
    events, path = trained_on
    notes = [event.text for event in events if isinstance(event, Noted)]
    assert any("T1 above, T1ce above" in note and "starts at zero" in note for note in notes)
    card = read_card(path)
    assert card.context_mm == 3.0
    assert card.inputs[:5] == ("T1", "T1ce", "T2", "FLAIR", "T1 above")
    assert len(card.inputs) == 12
    first = load_weights(path)["down.0.0.weight"]
    assert first.shape[1] == 12
    assert first[:, 4:].any()
    assert card.plans[-1]["context_mm"] == 3.0
    assert (result_of(make_volume(7)[0], model=str(path), runtime="torch").labels > 0).any()


def test_a_model_with_context_is_fine_tuned_with_it(trained_on, case_folder, tmp_path) -> None:
    _, path = trained_on
    card = read_card(path)
    tuning = plan_fine_tuning(
        card, str(path), "tuned", (case_folder / "case0", case_folder / "case1"), output=tmp_path, split_by="slice",
        held_out=("case7",), epochs=1, steps_per_epoch=2, batch_size=4, device="cpu", threads=1, learning_rate=2e-3,
        patch=(64, 64),
    )  # fmt: skip
    assert tuning.context_mm == card.context_mm
    *_, last = train(tuning)
    assert isinstance(last, Trained)
    if last.path is not None:
        assert read_card(last.path).inputs == card.inputs


def test_an_archive_of_prepared_cases_keeps_how_far_slices_lie_apart(plan, toy_plan, case_folder, tmp_path) -> None:
    case = load_training_case(find_cases(case_folder)[0], toy_plan)
    assert case.prepared.slice_mm == 3.0
    write_archive(tmp_path / "a.cases.zip", toy_plan, [case])  # prepared for a plan without context
    (file,) = find_archived(tmp_path / "a.cases.zip")
    for stated in (toy_plan, plan):
        after = read_archived(file, stated).prepared
        assert (after.slice_mm, after.context_mm) == (3.0, stated.context_mm)


def test_an_archive_that_does_not_say_how_far_slices_lie_apart_has_no_context(plan, toy_plan, case_folder, tmp_path):
    write_archive(tmp_path / "a.cases.zip", toy_plan, [load_training_case(find_cases(case_folder)[0], toy_plan)])
    with zipfile.ZipFile(tmp_path / "a.cases.zip") as old, zipfile.ZipFile(tmp_path / "old.cases.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "index.json":
                index = json.loads(content)
                del index["cases"]["case0"]["slice_mm"]
                content = json.dumps(index).encode()
            new.writestr(name, content)
    (file,) = find_archived(tmp_path / "old.cases.zip")
    read_archived(file, toy_plan)
    with pytest.raises(DataError, match="does not say how far slices lie apart, but the plan wants those 3 mm above"):
        read_archived(file, plan)


@pytest.mark.parametrize(("every", "step"), [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_where_thin_slices_are_left_out_context_stays_as_far_away(plan, case_folder, every: int, step: int) -> None:
    case = load_training_case(find_cases(case_folder)[0], plan)
    thin = replace(case, prepared=replace(case.prepared, slice_mm=1.0))
    assert take_slices(thin, every).prepared.context_step == step
    unknown = replace(case, prepared=replace(case.prepared, slice_mm=None))
    assert take_slices(unknown, every).prepared.slice_mm is None
