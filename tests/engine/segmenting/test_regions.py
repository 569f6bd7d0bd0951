import numpy as np
import pytest
import torch

from fake_card import OnCard, put_on_card
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.preparing.prepare import prepare, survey
from napari_braintumor.engine.preparing.working_grid import resize
from napari_braintumor.engine.segmenting import regions
from napari_braintumor.engine.segmenting.regions import nest_logits, restore_slices, restore_volume, threshold_slices


@pytest.mark.usefixtures("card")
def test_logits_that_do_not_fit_the_card_are_restored_on_the_cpu(make_volume, monkeypatch) -> None:
    volume, _ = make_volume(7)
    known = survey(volume, MODALITIES)
    logits = torch.randn(2, 3, *known.foreground.shape[1:])
    expected, _ = threshold_slices(known, np.array([3, 4]), logits, 0.5, GLIOMA_REGIONS)
    tried = []
    real = regions.nest_logits

    def cramped(given):
        tried.append(type(given))
        if isinstance(given, OnCard):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(given)

    monkeypatch.setattr(regions, "nest_logits", cramped)
    found, _ = threshold_slices(known, np.array([3, 4]), put_on_card(logits), 0.5, GLIOMA_REGIONS)
    assert tried == [OnCard, torch.Tensor]
    assert np.array_equal(found, expected)


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


@pytest.mark.parametrize("spacing", [(None, None, None), (2.0, 2.0, 2.0), (3.0, 1.3, 1.7)])
def test_a_whole_crop_is_brought_back_along_z_too(make_volume, spacing) -> None:
    volume, reference = make_volume(1)
    prepared = prepare(volume, MODALITIES, spacing)
    mask = torch.from_numpy(reference.regions["whole tumor"].astype(np.float32))[None]
    on_crop = torch.from_numpy(prepared.crop(resize(mask, prepared.frame).numpy())) * 20 - 10
    restored = restore_volume(prepared, on_crop)[0].numpy() > 0
    assert restored.shape == volume.shape
    assert volume_dice(restored, reference.regions["whole tumor"]) > 0.85


@pytest.mark.parametrize("spacing", [(None, None, None), (None, 2.0, 2.0), (None, 1.3, 1.7)])
def test_what_lies_on_the_crop_is_brought_back_to_its_own_place(make_volume, spacing) -> None:
    volume, reference = make_volume(1)
    prepared = prepare(volume, MODALITIES, spacing)
    mask = torch.from_numpy(reference.regions["whole tumor"].astype(np.float32))[None]
    on_crop = torch.from_numpy(prepared.crop(resize(mask, prepared.frame).numpy())) * 20 - 10
    restored = np.zeros(volume.shape, bool)
    restored[prepared.box[0]] = (restore_slices(prepared, on_crop)[0] > 0).numpy()
    truth = reference.regions["whole tumor"]
    overlap = 2 * (restored & truth).sum() / (restored.sum() + truth.sum())
    assert overlap > (0.999 if spacing == (None, None, None) else 0.93)
