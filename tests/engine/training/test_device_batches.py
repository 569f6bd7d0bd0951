from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, GaussianSmooth, RandBiasField, RandSimulateLowResolution

from napari_braintumor.engine.training import device_batches
from napari_braintumor.engine.training.augmentation import INTENSITY_SCALE, INTENSITY_SHIFT_Z
from napari_braintumor.engine.training.device_batches import DeviceSlices, fits, keep_modalities, make_device_batches
from napari_braintumor.engine.training.device_variation import draw_variation
from napari_braintumor.engine.training.drawing import SliceDataset, drop_modalities
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.engine.training.training_cases import load_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(toy_plan, tmp_path_factory):
    *_, data = load_data(toy_plan, tmp_path_factory.mktemp("cache"))
    return data


def dataset_of(data, plan, **update) -> SliceDataset:
    return SliceDataset(data.training, data.replay, plan.model_copy(update=update))


def test_batches_look_like_those_of_the_loader(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan, augmentation="full")
    (image, regions, known), *_ = make_device_batches(dataset, 0, 3, CPU)
    size = toy_plan.batch_size
    assert image.shape == (size, 4, *toy_plan.patch)
    assert image.dtype == torch.float32
    assert regions.shape == (size, 3, *toy_plan.patch)
    assert set(regions.unique().tolist()) <= {0.0, 1.0}
    assert known.shape == (size, 3)
    assert known.dtype == torch.bool
    assert image.isfinite().all()


def test_without_variation_a_batch_holds_the_prepared_slices_somewhere_in_its_patches(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan, augmentation="none", modality_dropout=0.0, batch_size=24, patch=(112, 96))
    known = [
        _framed(part.case.prepared.data[:, z], part.case.regions[:, z]) for part in data.training for z in part.slices
    ]
    image, regions, _ = DeviceSlices(dataset, CPU).make_batch(0)
    for one, masks in zip(image, regions, strict=True):
        framed = _framed(one.numpy(), masks.numpy())
        assert any(framed.shape == other.shape and np.allclose(framed, other, atol=1e-3) for other in known)


def test_patches_smaller_than_a_slice_lie_inside_of_it(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan, augmentation="none", modality_dropout=0.0, batch_size=24, patch=(32, 32))
    image, _, _ = DeviceSlices(dataset, CPU).make_batch(0)
    rows = _rows(data, 32)
    for one in image.numpy():
        assert (np.abs(rows - one[3, 16]) < 1e-3).all(1).any()


def _framed(image, masks) -> np.ndarray:
    """Cut image and masks to what is not zero."""
    rows, columns = (np.flatnonzero((image != 0).any(0).any(axis)) for axis in (1, 0))
    inside = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.concatenate([image[inside], masks[inside]]).astype(np.float32)


def _rows(data, width) -> np.ndarray:
    """All stretches of rows of FLAIR."""
    planes = [part.case.prepared.data[3].astype(np.float32) for part in data.training]
    return np.concatenate([np.lib.stride_tricks.sliding_window_view(p, width, 2).reshape(-1, width) for p in planes])


def test_masks_move_with_their_image(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan, augmentation="full", modality_dropout=0.0, tumor_share=1.0, batch_size=32)
    image, regions, _ = DeviceSlices(dataset, CPU).make_batch(0)
    inside, ring = regions[:, 0] > 0, (image[:, 3] != 0) & (regions[:, 0] == 0)
    brighter = [
        float(image[n, 3][inside[n]].mean() - image[n, 3][ring[n]].mean()) for n in range(32) if inside[n].sum() > 30
    ]
    assert len(brighter) > 12
    assert min(brighter) > 0.3


def test_a_resumed_run_draws_the_same_slices(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan, augmentation="full")
    whole = list(make_device_batches(dataset, 0, 4, CPU))
    rest = list(make_device_batches(dataset, 2, 4, CPU))
    assert len(rest) == 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(whole[0][0], whole[1][0])
    assert list(make_device_batches(dataset, 4, 4, CPU)) == []


def test_two_processes_share_the_batches_that_one_would_draw(toy_plan, data) -> None:
    dataset = dataset_of(data, toy_plan)
    alone = list(make_device_batches(dataset, 0, 4, CPU))
    halves = [list(make_device_batches(dataset, 0, 2, CPU, rank=rank, processes=2)) for rank in (0, 1)]
    for number, batch in enumerate(alone):
        assert torch.equal(halves[number % 2][number // 2][0], batch[0])


@pytest.mark.parametrize("augmentation", ["none", "light", "full"])
def test_images_are_spread_as_those_of_the_loader(toy_plan, data, augmentation) -> None:
    dataset = dataset_of(data, toy_plan, augmentation=augmentation, batch_size=256)
    image, regions, _ = DeviceSlices(dataset, CPU).make_batch(1)
    theirs = [torch.stack(parts) for parts in zip(*(dataset[n] for n in range(256)), strict=True)]
    there, their = image != 0, theirs[0] != 0
    assert float(there.float().mean()) == pytest.approx(float(their.float().mean()), abs=0.03)
    assert float(image[there].std()) == pytest.approx(float(theirs[0][their].std()), rel=0.08)
    assert float(image[there].mean()) == pytest.approx(float(theirs[0][their].mean()), abs=0.08)
    assert float(regions.mean()) == pytest.approx(float(theirs[1].mean()), rel=0.25)


def test_a_share_of_the_slices_holds_on_to_old_knowledge(toy_plan, data) -> None:
    plan = toy_plan.model_copy(
        update={
            "start_from": "x",
            "fine_tuning": FineTuning(replay_share=0.25),
            "batch_size": 8,
            "augmentation": "none",
        }
    )
    old = [replace(part, case=replace(part.case, known=np.zeros(3, bool))) for part in data.validation]
    slices = DeviceSlices(SliceDataset(data.training, old, plan), CPU)
    known = torch.cat([slices.make_batch(number)[2] for number in range(4)])
    assert (~known[:, 0]).sum() == 8


def drawn_for(plan, size=4000):
    return draw_variation(plan.model_copy(update={"augmentation": "full"}), (size, 2), np.random.default_rng(0))


def test_chances_and_ranges_are_those_of_the_loader_s_variation(toy_plan) -> None:
    drawn = drawn_for(toy_plan)
    shares = {"deformed": 0.25, "contrast": 0.25, "biased": 0.15, "smoothed": 0.15, "coarsened": 0.1, "noisy": 0.2}
    for name, share in shares.items():
        assert len(getattr(drawn, name)) / 4000 == pytest.approx(share, abs=0.025), name
    mirrored = np.linalg.det(drawn.affine[:, :, :2]) < 0
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)
    still = (np.abs(np.abs(drawn.affine) - np.eye(2, 3)) < 1e-9).all((1, 2))
    assert still.mean() == pytest.approx(0.75 * 0.2, abs=0.02)
    assert drawn.scale.min() == pytest.approx(1 - INTENSITY_SCALE, abs=0.01)
    assert np.abs(drawn.shift).max() == pytest.approx(INTENSITY_SHIFT_Z, abs=0.01)


@pytest.mark.parametrize("name", ["contrast", "biased", "smoothed", "coarsened"])
def test_intensities_vary_as_monai_s_steps_do(toy_plan, name) -> None:
    drawn = drawn_for(toy_plan, 80)
    nobody = np.zeros(0, np.intp)
    others = {key: nobody for key in ("contrast", "biased", "smoothed", "coarsened", "noisy") if key != name}
    zooms = drawn.zooms if name == "coarsened" else np.zeros(0)
    drawn = replace(drawn, scale=np.ones((80, 2)), shift=np.zeros((80, 2)), zooms=zooms, **others)
    image = torch.randn(80, 2, 32, 24, generator=torch.Generator().manual_seed(0))
    on_card = device_batches._upload(vars(drawn), CPU)
    varied = device_batches.vary_intensities(image.clone(), drawn, on_card, torch.Generator())
    members = getattr(drawn, name)
    assert len(members) > 1
    for place, member in enumerate(members):
        if name == "contrast":
            expected = AdjustContrast(float(drawn.gamma[place]), retain_stats=True)(image[member])
        elif name == "biased":
            step = RandBiasField(degree=3, prob=1.0)
            step._coeff, step._do_transform = drawn.coefficients[place].tolist(), True
            expected = step(image[member], randomize=False)
        elif name == "smoothed":
            expected = GaussianSmooth(drawn.sigma[place].tolist())(image[member])
        else:
            step = RandSimulateLowResolution(prob=1.0, downsample_mode="area", upsample_mode="bilinear")
            step.zoom_factor, step._do_transform = float(drawn.zooms[place]), True
            expected = step(image[member], randomize=False)
        assert torch.allclose(varied[member], torch.as_tensor(expected).as_subclass(torch.Tensor), atol=2e-3), place
    rest = np.setdiff1d(np.arange(80), members)
    assert torch.equal(varied[rest], image[rest])


def test_modalities_are_blanked_as_for_single_slices() -> None:
    random = np.random.default_rng(0)
    present = np.array([[True, True, False, True]] * 4000 + [[False, True, False, False]] * 10)
    kept = keep_modalities(present, 0.5, random)
    assert kept.any(1).all()
    assert not (kept & ~present).any()
    assert (kept[4000:] == present[4000:]).all()
    ours = np.bincount(kept[:4000].sum(1), minlength=4) / 4000
    singly = [drop_modalities(present[0], 0.5, random).sum() for _ in range(4000)]
    assert ours == pytest.approx(np.bincount(singly, minlength=4) / 4000, abs=0.04)


def test_only_a_card_with_room_takes_the_slices(toy_plan, data, monkeypatch) -> None:
    dataset = dataset_of(data, toy_plan)
    assert not fits(dataset, CPU)
    needed = device_batches._count_bytes(dataset)
    for free, expected in ((needed * 5, True), (needed * 3, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert fits(dataset, torch.device("cuda")) is expected
