import pytest
import torch
from torch.nn import functional

from napari_braintumor.engine.networks.fcn import FCN, make_bilinear


def vgg16_state(width: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = FCN(in_channels=3, out_channels=1, width=4, trunk_width=width)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.1
        for name, tensor in network.state_dict().items()
        if name.startswith("features.")
    } | {"classifier.0.weight": torch.zeros(1)}


@pytest.mark.parametrize("factor", [2, 8])
def test_up_sampling_starts_as_bilinear_interpolation(factor: int) -> None:
    image = torch.rand(1, 3, 6, 7)
    layer = make_bilinear(3, factor)
    expected = functional.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    edge = factor  # at the border interpolation repeats the outermost pixel, a convolution sees zeros
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    assert torch.allclose(layer(image)[inside], expected[inside], atol=1e-6)
    assert layer.bias is None


def test_the_trunk_has_the_names_and_shapes_of_vgg16() -> None:
    with torch.device("meta"):
        state = FCN(in_channels=3, out_channels=2).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("features.")}
    expected = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
    expected += [(17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)]
    assert shapes == {f"features.{n}.weight": (o, i, 3, 3) for n, i, o in expected} | {
        f"features.{n}.bias": (o,) for n, _, o in expected
    }


def test_a_gray_image_excites_the_first_layer_as_the_rgb_kernels_did() -> None:
    state = vgg16_state(8)
    network = FCN(in_channels=4, out_channels=1, width=4, trunk_width=8)
    loaded = network.load_vgg16(state)
    assert len(loaded) == 26
    gray = torch.rand(1, 1, 16, 16)
    before = functional.conv2d(
        gray.expand(-1, 3, -1, -1), state["features.0.weight"], state["features.0.bias"], padding=1
    )
    assert torch.allclose(network.features[0](gray.expand(-1, 4, -1, -1)), before, atol=1e-5)
    assert torch.equal(network.features[28].weight, state["features.28.weight"])


def test_a_file_without_the_trunk_or_with_another_one_is_refused() -> None:
    network = FCN(in_channels=4, out_channels=1, width=4, trunk_width=8)
    state = vgg16_state(8)
    with pytest.raises(ValueError, match=r"'features.0.weight' is missing"):
        network.load_vgg16({})
    with pytest.raises(ValueError, match=r"'features.2.weight' has shape \(9,\), must be \(8, 8, 3, 3\)"):
        network.load_vgg16(state | {"features.2.weight": torch.zeros(9)})


@pytest.mark.parametrize(("stride", "expected"), [(32, 134_285_122), (16, 134_273_924), (8, 134_271_430)])
def test_the_published_width_has_the_published_number_of_weights(stride: int, expected: int) -> None:
    with torch.device("meta"):
        network = FCN(in_channels=3, out_channels=2, stride=stride)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("options", [{"stride": 4}, {"spatial_dims": 3}, {"width": 0}])
def test_an_impossible_option_is_refused(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        FCN(in_channels=1, out_channels=1, **options)
