import pickle

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAffined, RandFlipd

from napari_braintumor.engine.augmentation import KEYS, MODES, PLACE, build_augmentation, make_elastic, vary
from napari_braintumor.engine.plan import TrainPlan


def make_plan(**more) -> TrainPlan:
    return TrainPlan(**{"name": "a", "cases": ("b",), **more})


def make_item() -> dict[str, torch.Tensor]:
    """Two discs, and an image that is bright exactly in the first."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    disc = ((y - 40) ** 2 + (x - 60) ** 2 < 200).float()
    head = ((y - 48) ** 2 + (x - 48) ** 2 < 1600).float()
    return {"image": (disc * 3)[None].repeat(2, 1, 1), "masks": torch.stack([disc, head])}


@pytest.mark.parametrize("preset", ["none", "light", "full"])
def test_masks_stay_binary_and_keep_their_number(preset: str) -> None:
    augment = build_augmentation(make_plan(augmentation=preset))
    for seed in range(30):
        varied = vary(augment, make_item(), seed)
        assert set(varied["masks"].unique().tolist()) <= {0.0, 1.0}
        assert varied["image"].shape == (2, 96, 96)
        assert varied["masks"].shape == (2, 96, 96)
        assert varied["image"].isfinite().all()


@pytest.mark.parametrize(
    "step",
    [
        RandFlipd(KEYS, prob=1, spatial_axis=1),
        RandAffined(KEYS, prob=1, mode=MODES, **PLACE),
        make_elastic(make_plan()),
    ],
    ids=["mirror", "affine", "elastic"],
)
def test_the_mask_moves_with_its_image(step) -> None:
    augment = Compose([step])
    moved = 0
    for seed in range(20):
        before, after = make_item(), vary(augment, make_item(), seed)
        bright, mask = after["image"][0] > 1.5, after["masks"][0] > 0.5
        assert 2 * (bright & mask).sum() >= 0.97 * (bright.sum() + mask.sum())
        moved += not torch.equal(before["masks"], after["masks"])
    assert moved == 20


@pytest.mark.parametrize("preset", ["light", "full"])
def test_the_seed_alone_decides_whatever_was_drawn_before(preset: str) -> None:
    first, second = (build_augmentation(make_plan(augmentation=preset)) for _ in range(2))
    for seed in (5, 1, 9):
        vary(second, make_item(), seed + 100)
        one, two = vary(first, make_item(), seed), vary(second, make_item(), seed)
        assert all(torch.equal(one[key], two[key]) for key in KEYS)
    assert not torch.equal(vary(first, make_item(), 1)["image"], vary(first, make_item(), 2)["image"])


def test_none_changes_nothing() -> None:
    varied = vary(build_augmentation(make_plan(augmentation="none")), make_item(), 0)
    assert all(torch.equal(varied[key], make_item()[key]) for key in KEYS)


def test_light_does_not_deform_and_full_varies_more() -> None:
    names = {
        preset: [type(step).__name__ for step in build_augmentation(make_plan(augmentation=preset)).transforms]
        for preset in ("light", "full")
    }
    assert names["light"] == ["RandFlipd", "RandAffined", "RandScaleIntensityd", "RandShiftIntensityd"]
    assert {"OneOf", "RandAdjustContrastd", "RandBiasFieldd", "RandGaussianNoised"} <= set(names["full"])
    still = build_augmentation(make_plan(augmentation="full", elastic_px=0)).transforms
    assert "OneOf" not in [type(step).__name__ for step in still]


def test_elastic_displacements_have_the_standard_deviation_asked_for() -> None:
    elastic = make_elastic(make_plan(elastic_px=10.0, patch=(96, 96)))
    grid = elastic.rand_2d_elastic.deform_grid
    grid.set_random_state(0)
    moved = []
    for _ in range(300):
        moved.append(grid((96, 96))[:2].numpy())
    rest = np.mean(moved, axis=0)
    displacements = np.array(moved) - rest
    assert displacements.std() == pytest.approx(10, rel=0.05)
    assert displacements.shape[-2:] == (6, 6)  # nodes half a patch apart, and a margin beyond its edge


def test_a_variation_travels_to_a_worker_process() -> None:
    augment = build_augmentation(make_plan(augmentation="full"))
    there = pickle.loads(pickle.dumps(augment))
    assert torch.equal(vary(augment, make_item(), 3)["image"], vary(there, make_item(), 3)["image"])
