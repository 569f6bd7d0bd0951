import pytest
import torch

from napari_braintumor.engine.networks.res_unet import AttentionGate, ResidualBlock, ResUNet


@pytest.mark.parametrize(
    ("channels", "attention", "expected"),
    [((1, 2), False, 8_255_170), ((4, 3), False, 8_256_963), ((1, 2), True, 8_385_317), ((4, 3), True, 8_387_110)],
)
def test_the_network_has_the_known_number_of_weights(channels, attention: bool, expected: int) -> None:
    with torch.device("meta"):
        network = ResUNet(in_channels=channels[0], out_channels=channels[1], attention=attention)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_without_attention_the_running_statistics_are_as_many_as_known() -> None:
    with torch.device("meta"):
        network = ResUNet(in_channels=1, out_channels=2, attention=False)
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert statistics == 9_088


def test_a_fresh_gate_lets_nearly_everything_through() -> None:
    gate = AttentionGate(8, 16, 2).eval()
    skip = torch.rand(1, 8, 12, 12)
    with torch.no_grad():
        weighted = gate(skip, torch.rand(1, 16, 6, 6))
    assert (weighted > 0.85 * skip).all()
    assert (weighted < skip).all()


def test_a_gate_weights_all_channels_of_a_place_alike() -> None:
    gate = AttentionGate(8, 16, 2).eval()
    skip = torch.rand(1, 8, 12, 12) + 0.1
    with torch.no_grad():
        weights = gate(skip, torch.rand(1, 16, 6, 6) * 5) / skip
    assert torch.allclose(weights, weights[:, :1].expand_as(weights), atol=1e-5)


@pytest.mark.parametrize("options", [{"width": 1}, {"spatial_dims": 1}])
def test_an_impossible_option_is_refused(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        ResUNet(in_channels=1, out_channels=1, **options)


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_a_block_of_stride_two_is_safe_in_channels_last_order(channels: int) -> None:
    block = ResidualBlock(channels, 2 * channels, 2, 2).to(memory_format=torch.channels_last)
    for _ in range(4):  # with a strided 1x1 convolution torch 2.13 crashes here
        image = torch.rand(2, channels, 32, 32).contiguous(memory_format=torch.channels_last)
        block(image.requires_grad_()).mean().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
