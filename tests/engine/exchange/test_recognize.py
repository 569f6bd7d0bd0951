"""Networks written here once more, from the papers and the public names alone, give what the imported models give."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange.recognize import Network, card_name, load, recognize
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network


class Step(nn.Module):
    def __init__(self, channels: int, out: int, spread: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, out, 3, padding=spread, dilation=spread)
        self.bn_s1 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_s1(self.conv_s1(x)).clamp_min(0)


class Block(nn.Module):
    """An RSU of the public U²-Net; flat ones widen their kernels where the others halve the image."""

    def __init__(self, depth: int, channels: int, middle: int, out: int, flat: bool = False) -> None:
        super().__init__()
        self.depth, self.flat = depth, flat
        self.rebnconvin = Step(channels, out)
        for n in range(1, depth + 1):
            spread = 2 ** (n - 1) if flat else 2 if n == depth else 1
            setattr(self, f"rebnconv{n}", Step(out if n == 1 else middle, middle, spread))
        for n in range(depth - 1, 0, -1):
            setattr(self, f"rebnconv{n}d", Step(2 * middle, out if n == 1 else middle, 2 ** (n - 1) if flat else 1))

    def forward(self, x: Tensor) -> Tensor:
        start = self.rebnconvin(x)
        here, kept = start, []
        for n in range(1, self.depth + 1):
            if not self.flat and 1 < n < self.depth:
                here = F.max_pool2d(here, 2, 2, ceil_mode=True)
            here = getattr(self, f"rebnconv{n}")(here)
            kept.append(here)
        kept.pop()
        for n in range(self.depth - 1, 0, -1):
            skip = kept.pop()
            here = F.interpolate(here, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            here = getattr(self, f"rebnconv{n}d")(torch.cat((here, skip), 1))
        return start + here


class PublicU2Net(nn.Module):
    def __init__(self, small: bool, channels: int = 3, out: int = 1) -> None:
        super().__init__()
        depths = [7, 6, 5, 4, 4, 4]
        outs = [64] * 6 if small else [64, 128, 256, 512, 512, 512]
        middles = [16] * 6 if small else [32, 32, 64, 128, 256, 256]
        ups = [64] * 5 if small else [64, 64, 128, 256, 512]
        up_middles = [16] * 5 if small else [16, 32, 64, 128, 256]
        for n in range(6):
            setattr(self, f"stage{n + 1}", Block(depths[n], outs[n - 1] if n else channels, middles[n], outs[n], n > 3))
        for n in range(4, -1, -1):
            below = outs[5] if n == 4 else ups[n + 1]
            setattr(self, f"stage{n + 1}d", Block(depths[n], below + outs[n], up_middles[n], ups[n], n > 3))
        for n, width in enumerate([*ups, outs[5]], start=1):
            setattr(self, f"side{n}", nn.Conv2d(width, out, 3, padding=1))
        self.outconv = nn.Conv2d(6 * out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, here = [], x
        for n in range(1, 7):
            here = getattr(self, f"stage{n}")(here if n == 1 else F.max_pool2d(here, 2, 2, ceil_mode=True))
            kept.append(here)
        made = [kept.pop()]
        for n in range(5, 0, -1):
            skip = kept.pop()
            up = F.interpolate(made[-1], size=skip.shape[-2:], mode="bilinear", align_corners=False)
            made.append(getattr(self, f"stage{n}d")(torch.cat((up, skip), 1)))
        sides = [getattr(self, f"side{n}")(each) for n, each in enumerate(reversed(made), start=1)]
        sides = [F.interpolate(side, size=x.shape[-2:], mode="bilinear", align_corners=False) for side in sides]
        return torch.sigmoid(self.outconv(torch.cat(sides, 1)))


class PublicBuda(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def pair(channels: int, out: int, name: str) -> nn.Sequential:
            made = nn.Sequential()
            for n in ("1", "2"):
                made.add_module(
                    f"{name}conv{n}", nn.Conv2d(channels if n == "1" else out, out, 3, padding=1, bias=False)
                )
                made.add_module(f"{name}norm{n}", nn.BatchNorm2d(out))
                made.add_module(f"{name}relu{n}", nn.ReLU())
            return made

        self.encoder1 = pair(3, width, "enc1")
        self.encoder2 = pair(width, 2 * width, "enc2")
        self.encoder3 = pair(2 * width, 4 * width, "enc3")
        self.encoder4 = pair(4 * width, 8 * width, "enc4")
        self.bottleneck = pair(8 * width, 16 * width, "bottleneck")
        self.upconv4 = nn.ConvTranspose2d(16 * width, 8 * width, 2, 2)
        self.decoder4 = pair(16 * width, 8 * width, "dec4")
        self.upconv3 = nn.ConvTranspose2d(8 * width, 4 * width, 2, 2)
        self.decoder3 = pair(8 * width, 4 * width, "dec3")
        self.upconv2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.decoder2 = pair(4 * width, 2 * width, "dec2")
        self.upconv1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.decoder1 = pair(2 * width, width, "dec1")
        self.conv = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.encoder1(x)
        two = self.encoder2(F.max_pool2d(one, 2))
        three = self.encoder3(F.max_pool2d(two, 2))
        four = self.encoder4(F.max_pool2d(three, 2))
        here = self.bottleneck(F.max_pool2d(four, 2))
        here = self.decoder4(torch.cat((self.upconv4(here), four), 1))
        here = self.decoder3(torch.cat((self.upconv3(here), three), 1))
        here = self.decoder2(torch.cat((self.upconv2(here), two), 1))
        here = self.decoder1(torch.cat((self.upconv1(here), one), 1))
        return torch.sigmoid(self.conv(here))


COLOR = ModelCard(name="mine", architecture="unet", modalities=("T1", "T1ce", "FLAIR"), regions=GLIOMA_REGIONS[:1])


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network statistics that are not those of a fresh one, so that none of them goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean") or (tensor.ndim == 1 and tensor.is_floating_point()):
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network.eval()


def imported(path: Path, weights: dict[str, Tensor], card: ModelCard) -> nn.Module:
    return load_network(save_model(path.with_suffix(".safetensors"), weights, card))


@pytest.mark.parametrize(
    ("small", "parameters"),
    [pytest.param(False, 44_009_869, marks=pytest.mark.slow), (True, 1_131_181)],
)
@torch.no_grad()
def test_the_public_u2net_gives_what_its_authors_network_gives(tmp_path: Path, small: bool, parameters: int) -> None:
    torch.manual_seed(1)
    reference = lively(PublicU2Net(small))
    path = tmp_path / "u2net.pth"
    torch.save(reference.state_dict(), path)
    weights, card = load(path, COLOR)
    assert (card.architecture, card.options) == ("u2net_small" if small else "u2net", {})
    assert (card.parameters, card.name, card.modalities) == (parameters, "mine", COLOR.modalities)
    images = torch.randn(2, 3, 64, 96)
    given = torch.sigmoid(imported(path, weights, card)(images))
    assert (given - reference(images)).abs().max() < 1e-5


@torch.no_grad()
def test_budas_public_weights_need_no_description(tmp_path: Path) -> None:
    torch.manual_seed(2)
    reference = lively(PublicBuda())
    path = tmp_path / "unet-e012d006.pt"
    torch.save(reference.state_dict(), path)
    weights, card = load(path)
    assert len(weights) == 118
    assert card.parameters == 7_763_041
    assert (card.name, card.architecture, card.modalities) == ("unet-e012d006", "buda_unet", ("T1", "FLAIR", "T1ce"))
    assert [region.name for region in card.regions] == ["whole tumor"]
    assert (card.normalization, card.spacing, card.license) == ("percentile z-score", (None, None, None), "MIT")
    images = torch.randn(1, 3, 96, 64)
    assert (torch.sigmoid(imported(path, weights, card)(images)) - reference(images)).abs().max() < 1e-5


def test_another_network_of_budas_design_is_not_taken_for_the_public_one(tmp_path: Path) -> None:
    torch.save(PublicBuda(4).state_dict(), tmp_path / "own.pt")
    with pytest.raises(DescriptionNeeded, match=r"U-Net of Buda et al\. with 3 channels in and 1 out, but not which"):
        load(tmp_path / "own.pt")
    _, card = load(tmp_path / "own.pt", COLOR)
    assert (card.architecture, card.options) == ("buda_unet", {"width": 4})


@torch.no_grad()
def test_monais_segresnet_comes_in_by_a_description(tmp_path: Path) -> None:
    from monai.networks.nets import SegResNet

    options = {"init_filters": 8, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]}
    torch.manual_seed(3)
    reference = SegResNet(spatial_dims=3, in_channels=4, out_channels=3, dropout_prob=0.2, **options).eval()
    torch.save({"model": reference.state_dict()}, tmp_path / "model.pt")
    described = ModelCard(
        name="brats",
        architecture="monai_segresnet",
        options=options,
        spatial_dims=3,
        modalities=("T1ce", "T1", "T2", "FLAIR"),
        regions=(GLIOMA_REGIONS[0], *GLIOMA_REGIONS[1:]),
        channels=((1,), (0,), (2,)),
        normalization="nonzero z-score",
    )
    weights, card = load(tmp_path / "model.pt", described)
    assert len(weights) == 83
    assert card == described.model_copy(update={"parameters": sum(p.numel() for p in reference.parameters())})
    images = torch.randn(1, 4, 16, 24, 16)
    assert (imported(tmp_path / "model.pt", weights, card)(images) - reference(images)).abs().max() < 1e-5


OURS = [
    Network("unet", 4, 3, 2, {"width": 2}),
    Network("unet", 2, 1, 3, {"width": 2, "batch_norm": False}),
    Network("res_unet", 4, 3, 2, {"width": 4}),
    Network("res_unet", 4, 3, 3, {"width": 4, "attention": False}),
    Network("u2net", 4, 3, 2),
    Network("u2net_small", 4, 3, 3),
    Network("fcn32s", 4, 3, 2, {"width": 5, "trunk_width": 2}),
    Network("fcn16s", 4, 3, 2, {"width": 5, "trunk_width": 2}),
    Network("fcn8s", 4, 3, 2, {"width": 5, "trunk_width": 2}),
]


@pytest.mark.parametrize("network", OURS, ids=lambda network: f"{network.architecture}-{network.spatial_dims}d")
def test_our_own_networks_are_known_by_names_and_shapes(network: Network) -> None:
    with torch.device("meta"):
        built = build_network(
            network.architecture,
            in_channels=network.in_channels,
            out_channels=network.out_channels,
            spatial_dims=network.spatial_dims,
            options=network.options,
        )
    assert recognize(built.state_dict()) == network


def test_tensors_of_other_ranks_under_known_names_are_not_taken_for_a_network() -> None:
    for tensor in (torch.tensor(1.0), torch.ones(3)):
        names = ("down.0.0.weight", "head.weight", "stem.weight", "features.0.weight", "score.weight")
        assert recognize(dict.fromkeys((*names, "classifier.0.weight"), tensor)) is None


def test_a_description_that_fits_keeps_the_options_that_leave_no_trace(tmp_path: Path) -> None:
    options = {"width": 2, "activation": "relu"}
    torch.save(build_network("unet", in_channels=3, out_channels=1, options=options).state_dict(), tmp_path / "a.pt")
    _, card = load(tmp_path / "a.pt", COLOR.model_copy(update={"options": options}))
    assert card.options == options
    _, card = load(tmp_path / "a.pt", COLOR.model_copy(update={"architecture": "res_unet"}))
    assert (card.architecture, card.options) == ("unet", {"width": 2})


def test_what_nobody_describes_is_asked_for(tmp_path: Path) -> None:
    torch.save(
        build_network("unet", in_channels=4, out_channels=3, options={"width": 2}).state_dict(), tmp_path / "a.pt"
    )
    with pytest.raises(DescriptionNeeded, match="2-D U-Net with 4 channels in and 3 out, but not which modalities"):
        load(tmp_path / "a.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "b.pt")
    with pytest.raises(DescriptionNeeded, match="1 tensors of a network that is not known"):
        load(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"modalities": ("T1", "T2")}, "names 2 modalities, but these weights are those of a U-Net with 3"),
        ({"regions": GLIOMA_REGIONS}, "names 3 channels for regions, but .* with 1"),
        ({"spatial_dims": 3}, "names 3 dimensions, but .* with 2"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, update: dict[str, object], message: str) -> None:
    torch.save(
        build_network("unet", in_channels=3, out_channels=1, options={"width": 2}).state_dict(), tmp_path / "a.pt"
    )
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "a.pt", COLOR.model_copy(update=update))
    torch.save({"a": torch.ones(2)}, tmp_path / "b.pt")
    with pytest.raises(ModelError, match="136 tensors are missing"):
        load(tmp_path / "b.pt", COLOR)
    with pytest.raises(ModelError, match="A state dict is not an ONNX graph"):
        load(tmp_path / "b.pt", COLOR.model_copy(update={"architecture": "onnx"}))


def test_a_models_name_is_made_of_its_files() -> None:
    assert card_name("my model (best)") == "my-model-best"
    assert card_name("…") == "imported"
    assert card_name("x" * 200) == "x" * 80
