import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.transforms import Rand2DElastic, RandAffine, RandFlipd

from napari_braintumor.engine.training.augmentation import (
    KEYS,
    ROTATION,
    SHIFT_PX,
    ZOOM,
    RandMovement,
    build_augmentation,
    vary,
)
from napari_braintumor.engine.training.plan import TrainPlan


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As slices are prepared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        RandMovement(1.0),
        RandMovement(elastic_px=10.0, deformed=1.0),
    ],
    ids=["mirror", "affine", "elastic"],
)
def test_the_mask_moves_with_its_image(step) -> None:
    moved = 0
    for seed in range(20):
        before, after = make_item(), vary([step], make_item(), seed)
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
    light, full = (build_augmentation(make_plan(augmentation=preset)) for preset in ("light", "full"))
    assert [type(step).__name__ for step in light] == [
        "RandFlipd",
        "RandMovement",
        "RandScaleIntensityd",
        "RandShiftIntensityd",
    ]
    assert {"RandAdjustContrastd", "RandBiasFieldd", "RandGaussianNoised"} <= {type(step).__name__ for step in full}
    still = build_augmentation(make_plan(augmentation="full", elastic_px=0))
    assert [steps[1].deformed > 0 for steps in (light, full, still)] == [False, True, False]


STILL = {"rotation": 0.0, "zoom": 0.0, "shift_px": 0.0}


@pytest.mark.parametrize(
    ("step", "monai"),
    [
        (RandMovement(1.0, **STILL | {"rotation": ROTATION}), RandAffine(1.0, rotate_range=ROTATION)),
        (RandMovement(1.0, **STILL | {"zoom": ZOOM}), RandAffine(1.0, scale_range=(ZOOM, ZOOM))),
        (RandMovement(1.0, **STILL | {"shift_px": SHIFT_PX}), RandAffine(1.0, translate_range=(SHIFT_PX, SHIFT_PX))),
    ],
    ids=["rotation", "zoom", "shift"],
)
def test_slices_are_moved_as_often_and_as_far_as_by_monai(step: RandMovement, monai) -> None:
    # A blob wanders, turns and grows as the draws say; where it lies and how it is shaped tells what they were.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    blob = torch.exp(-((y - 26) ** 2) / 98 - ((x - 46) ** 2) / 32)[None]

    def measure(moved_1HW: torch.Tensor) -> torch.Tensor:
        moved = moved_1HW[0].as_subclass(torch.Tensor)
        mass = moved.sum()
        cy, cx = (y * moved).sum() / mass, (x * moved).sum() / mass
        second = [(a * b * moved).sum() / mass for a, b in ((y - cy, y - cy), (x - cx, x - cx), (y - cy, x - cx))]
        return torch.stack([cy, cx, *second])

    monai.set_random_state(0)
    own = torch.stack([measure(vary([step], {"image": blob, "masks": blob}, n)["image"]) for n in range(300)])
    theirs = torch.stack([measure(monai(blob, padding_mode="zeros")) for _ in range(300)])
    assert torch.allclose(own.mean(0), theirs.mean(0), rtol=0.05, atol=0.5)
    assert torch.allclose(own.std(0), theirs.std(0), rtol=0.15, atol=0.1)


def test_slices_are_deformed_as_far_as_by_monai() -> None:
    # Pixels that hold their own place tell where they came from.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([y, x])
    own, monai = RandMovement(elastic_px=3.0, deformed=1.0, **STILL), Rand2DElastic((32, 40), (3.0, 3.0), prob=1.0)
    for step in (own, monai):
        step.set_random_state(state=np.random.RandomState(0))
    drawn = torch.stack([own({"image": image, "masks": image})["image"] for _ in range(300)])
    theirs = torch.stack([monai(image, padding_mode="zeros") for _ in range(300)])
    inside = np.s_[:, 16:-16:4, 20:-20:4]
    assert torch.allclose(drawn.std(0)[inside].mean(), theirs.std(0)[inside].mean(), rtol=0.05)
    assert (drawn.mean(0) - image)[inside].abs().max() < 0.6  # MONAI's are biased by up to 1.6


def test_elastic_displacements_have_the_standard_deviation_asked_for_at_their_nodes() -> None:
    elastic = RandMovement(elastic_px=10.0, deformed=1.0)
    elastic.set_random_state(np.random.RandomState(0))
    moved = torch.stack([elastic.draw_displacements((96, 96)) for _ in range(400)])
    at_nodes = moved[..., 24::48, 24::48]  # half a patch apart, in the middle of its halves
    assert at_nodes.shape[-2:] == (2, 2)
    assert float(at_nodes.std()) == pytest.approx(10, rel=0.06)


def test_elastic_displacements_are_smooth_between_their_nodes() -> None:
    elastic = RandMovement(elastic_px=10.0, deformed=1.0)
    elastic.set_random_state(np.random.RandomState(0))
    moved = elastic.draw_displacements((112, 96))
    assert moved.shape == (2, 112, 96)
    assert float(moved.diff(dim=1).abs().max()) < 2


def test_a_variation_travels_to_a_worker_process() -> None:
    augment = build_augmentation(make_plan(augmentation="full"))
    there = pickle.loads(pickle.dumps(augment))
    assert torch.equal(vary(augment, make_item(), 3)["image"], vary(there, make_item(), 3)["image"])
