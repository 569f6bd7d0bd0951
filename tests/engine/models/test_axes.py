import torch

from napari_braintumor.engine.models.axes import from_network_axes, order_for_network, to_network_axes
from napari_braintumor.engine.models.card import ModelCard

CARD = ModelCard(name="solid", architecture="unet", spatial_dims=3, window=(16, 32, 32))


def test_a_network_of_ras_arrays_sees_x_first_and_right_and_anterior_rising() -> None:
    data = torch.zeros(1, 3, 4, 5)
    data[0, 2, 3, 4] = 1  # the most superior, posterior, left voxel
    turned = to_network_axes(data[None], CARD.model_copy(update={"axes": "RAS xyz"}))
    assert turned.shape == (1, 1, 5, 4, 3)
    assert turned[0, 0, 0, 0, 2] == 1
    assert to_network_axes(data[None], CARD.model_copy(update={"axes": "LPS xyz"}))[0, 0, 4, 3, 2] == 1


def test_turning_to_the_network_s_axes_is_undone() -> None:
    data = torch.randn(2, 3, 4, 5)
    for axes in ("LPS zyx", "LPS xyz", "RAS xyz"):
        card = CARD.model_copy(update={"axes": axes})
        turned = to_network_axes(data, card)
        assert turned.shape[1:] == order_for_network(data.shape[1:], card)
        assert torch.equal(from_network_axes(turned, card), data)
