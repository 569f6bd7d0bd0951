import numpy as np
import pytest
import torch

from napari_braintumor.engine.anatomy import CAVITY, CORE, ENHANCING, WHOLE
from napari_braintumor.engine.training.device_batches import DeviceSlices
from napari_braintumor.engine.training.drawing import SliceDataset
from napari_braintumor.engine.training.mixing import MARGINS_PX, draw_mixture, know_empty, mix_tumors
from napari_braintumor.engine.training.training_cases import load_data

NAMES = (WHOLE, CORE, ENHANCING)


def batch_of_two():
    """A head of ones without a tumor, and a head of twos with one of 4 x 4 pixels."""
    image = torch.ones(2, 1, 20, 20) * torch.tensor([1.0, 2.0])[:, None, None, None]
    regions = torch.zeros(2, 3, 20, 20)
    regions[1, 0, 8:12, 8:12] = 1
    regions[1, 1, 9:11, 9:11] = 1
    known = torch.tensor([[True, False, False], [True, True, False]])
    return image, regions, known, torch.ones(2, 20, 20, dtype=torch.bool)


def test_a_slice_gets_the_tumor_of_another_with_a_margin_and_keeps_the_rest() -> None:
    image, regions, known, heads = batch_of_two()
    mixed, masks, _ = mix_tumors(image, regions, known, heads, torch.tensor([1, 1]), 2, NAMES)
    assert (mixed[0, 0] == 2).sum() == 8 * 8
    assert (mixed[0, 0, 6:14, 6:14] == 2).all()
    assert torch.equal(masks[0], regions[1])
    assert torch.equal(mixed[1], image[1])
    assert torch.equal(masks[1], regions[1])


def test_nothing_is_put_outside_of_either_head() -> None:
    image, regions, known, heads = batch_of_two()
    heads[0, :, 10:] = False
    heads[1, :9] = False
    mixed, masks, _ = mix_tumors(image, regions, known, heads, torch.tensor([1, 1]), 2, NAMES)
    taken = mixed[0, 0] == 2
    assert taken.any()
    assert not taken[:, 10:].any()
    assert not taken[:9].any()
    assert not (masks[0].bool() & ~taken).any()


def test_a_mixed_slice_knows_what_both_patients_define_and_that_nothing_lies_within_nothing() -> None:
    image, regions, known, heads = batch_of_two()
    *_, mixed = mix_tumors(image, regions, known, heads, torch.tensor([1, 1]), 2, NAMES)
    # The first has no tumor, so no core either; of the second nobody said whether it enhances.
    assert mixed.tolist() == [[True, True, False], [True, True, False]]


def test_a_region_that_does_not_nest_is_not_known_from_those_around() -> None:
    known = torch.tensor([[True, False, False]])
    assert know_empty(torch.zeros(1, 3, 4, 4), known, (WHOLE, CORE, CAVITY)).tolist() == [[True, True, False]]
    full = torch.zeros(1, 3, 4, 4)
    full[0, 0, 1, 1] = 1
    assert know_empty(full, known, (WHOLE, CORE, CAVITY)).tolist() == known.tolist()


def test_slices_without_a_modality_in_common_are_not_mixed() -> None:
    present = np.array([[True, False], [False, True], [True, True]])
    donors = np.array([draw_mixture(present, 1.0, np.random.default_rng(seed)).donors for seed in range(40)])
    assert set(donors[:, 0].tolist()) == {0, 2}
    assert set(donors[:, 1].tolist()) == {1, 2}
    assert set(donors[:, 2].tolist()) == {0, 1}


def test_as_many_slices_are_mixed_as_the_plan_asks_for() -> None:
    present = np.ones((4000, 2), bool)
    mixture = draw_mixture(present, 0.3, np.random.default_rng(0))
    assert (mixture.donors != np.arange(4000)).mean() == pytest.approx(0.3, abs=0.03)
    assert mixture.margin_px in MARGINS_PX


@pytest.mark.parametrize("on_device", [False, True], ids=["drawn one by one", "drawn on the device"])
def test_with_mixing_slices_hold_more_tumor_all_of_it_inside_their_head(toy_plan, tmp_path, on_device) -> None:
    plan = toy_plan.model_copy(
        update={"tumor_mixing": 1.0, "tumor_share": 0.5, "augmentation": "none", "modality_dropout": 0.0}
    )
    *_, data = load_data(plan, tmp_path)

    def tumor_pixels(plan) -> float:
        dataset = SliceDataset(data.training, (), plan.model_copy(update={"batch_size": 48}))
        if on_device:
            image, regions, _ = DeviceSlices(dataset, torch.device("cpu")).make_batch(0)
        else:
            image, regions, _ = map(torch.stack, zip(*(dataset[n] for n in range(48)), strict=True))
        seen = (image != 0).any(1)
        assert ((regions[:, 0] > 0) & ~seen).float().sum() <= 0.02 * (regions[:, 0] > 0).sum()
        return float((regions[:, 0] > 0).flatten(1).sum(1).float().mean())

    assert tumor_pixels(plan) > 1.2 * tumor_pixels(plan.model_copy(update={"tumor_mixing": 0.0}))
