import pytest
import torch
from torch.nn import functional

from napari_braintumor.engine.networks.unet import UNet


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(**options).parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"in_channels": 1, "out_channels": 2}, 7_759_554),
        ({"in_channels": 4, "out_channels": 3}, 7_760_451),
        ({"in_channels": 1, "out_channels": 2, "spatial_dims": 3}, 22_575_362),
        ({"in_channels": 1, "out_channels": 2, "width": 64, "activation": "relu"}, 31_030_658),
    ],
)
def test_the_network_has_the_known_number_of_weights(options, expected: int) -> None:
    assert count(batch_norm=False, **options) == expected


def test_dropout_acts_in_training_only_and_can_be_turned_off() -> None:
    x = torch.rand(1, 1, 32, 32)
    dropping = UNet(in_channels=1, out_channels=1, width=2, batch_norm=False)
    steady = UNet(in_channels=1, out_channels=1, width=2, batch_norm=False, dropout=0)
    assert not torch.equal(dropping(x), dropping(x))
    assert torch.equal(steady(x), steady(x))
    assert torch.equal(dropping.eval()(x), dropping(x))


def test_an_odd_size_gives_what_padding_with_zeros_to_the_divisor_would() -> None:
    network = UNet(in_channels=1, out_channels=1, width=2).eval()
    x = torch.rand(1, 1, 50, 61)
    with torch.no_grad():
        padded = network(functional.pad(x, (0, 3, 0, 14)))
        assert torch.equal(network(x), padded[..., :50, :61])


@pytest.mark.parametrize("options", [{"width": 0}, {"activation": "tanh"}, {"spatial_dims": 4}])
def test_an_impossible_option_is_refused(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        UNet(in_channels=1, out_channels=1, **options)
