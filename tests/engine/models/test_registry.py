"""One contract for every architecture: whoever adds a row gets these tests for nothing."""

import copy

import pytest
import torch
from torch.nn import functional

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.registry import ARCHITECTURES, build_network

SMALL = {
    "unet": {"width": 4},
    "res_unet": {"width": 4},
    "u2net": {},
    "u2net_small": {},
    **{f"fcn{stride}s": {"width": 8, "trunk_width": 4} for stride in (32, 16, 8)},
}
KINDS = [
    (name, dims) for name, row in ARCHITECTURES.items() for dims in row.spatial_dims if (name, dims) != ("u2net", 3)
]
SIZES = {2: [(155, 155), (33, 47), (240, 240)], 3: [(17, 20, 23)]}


def build(name: str, dims: int, **more) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {**SMALL.get(name, {}), **more}
    return build_network(name, in_channels=4, out_channels=3, spatial_dims=dims, options=options)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_any_size_goes_in_and_finite_logits_of_that_size_come_out(name: str, dims: int) -> None:
    network = build(name, dims).eval()
    for size in SIZES[dims]:
        with torch.no_grad():
            logits = network(torch.rand(1, 4, *size))
        assert logits.shape == (1, 3, *size)
        assert logits.isfinite().all()


def test_full_u2net_can_be_built_in_three_dimensions() -> None:
    with torch.device("meta"):
        network = build("u2net", 3).eval()
        assert network(torch.rand(1, 4, 17, 20, 23)).shape == (1, 3, 17, 20, 23)


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_every_weight_gets_a_gradient_and_training_lowers_the_loss(name: str, dims: int) -> None:
    network = build(name, dims, **({"dropout": 0.0} if name.startswith(("unet", "fcn")) else {})).train()
    generator = torch.Generator().manual_seed(0)
    side, rate = {2: (32, 1e-2), 3: (16, 1e-3)}[dims]
    image = torch.rand(2, 4, *(side,) * dims, generator=generator)
    target = (image[:, :3] > 0.5).float()
    optimizer = torch.optim.SGD(network.parameters(), rate)
    losses = []
    for _ in range(4):
        outputs = network(image)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        loss = torch.stack([functional.binary_cross_entropy_with_logits(each, target) for each in outputs]).sum()
        optimizer.zero_grad()
        loss.backward()
        gradients = {key: weight.grad for key, weight in network.named_parameters()}
        assert [key for key, gradient in gradients.items() if gradient is None] == []
        # In 3-D the deepest map is a single voxel, which batch norm over two images makes +-1 whatever the weights.
        assert (
            dims == 3 or [key for key, gradient in gradients.items() if gradient.ndim > 1 and not gradient.any()] == []
        )
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("name", "dims"), KINDS)
def test_evaluation_is_repeatable_and_weights_survive_a_state_dict(name: str, dims: int) -> None:
    network = build(name, dims).eval()
    image = torch.rand(1, 4, *{2: (33, 33), 3: (17, 17, 17)}[dims])
    torch.manual_seed(1)
    other = build_network(name, in_channels=4, out_channels=3, spatial_dims=dims, options=SMALL.get(name)).eval()
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    with torch.no_grad():
        first = network(image)
        assert torch.equal(network(image), first)
        assert torch.equal(other(image), first)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_divisor_is_enough_for_a_shift_by_it_to_shift_the_result(name: str) -> None:
    divisor = ARCHITECTURES[name].divisor
    assert divisor & (divisor - 1) == 0
    network = build(name, 2).eval()
    # Eight cells: the farthest that an FCN sees of the square then still lies inside.
    image = torch.zeros(1, 4, 8 * divisor, 8 * divisor)
    image[..., 3 * divisor : 4 * divisor, 3 * divisor : 4 * divisor] = torch.rand(1, 4, divisor, divisor)
    with torch.no_grad():
        logits, shifted = network(image), network(image.roll((divisor, divisor), (2, 3)))
    inside = (..., slice(3 * divisor, 4 * divisor), slice(3 * divisor, 4 * divisor))
    moved = shifted.roll((-divisor, -divisor), (2, 3))
    assert (logits[inside] - moved[inside]).abs().max() < 0.1 * logits[inside].abs().max()


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no architecture 'resnet'. Choose one of: unet, "):
        build("resnet", 2)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ModelError, match=r"U-Net cannot be built with these options: .*depth"):
        build("unet", 2, depth=3)


def test_an_architecture_that_has_no_such_dimensions_is_refused() -> None:
    with pytest.raises(ModelError, match="FCN-8s cannot be built in 3-D"):
        build("fcn8s", 3)


def test_every_architecture_that_is_trained_here_is_cited_and_its_laptop_options_are_its_own() -> None:
    for name, row in ARCHITECTURES.items():
        assert row.citation.doi.startswith("10.")
        with torch.device("meta"):
            assert build_network(name, in_channels=4, out_channels=3, options=row.laptop)
