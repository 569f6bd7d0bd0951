"""The tables of architectures. A new one is a file in `networks` and a row here; nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_braintumor.engine.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Signature:
    """How a state dict of an architecture is recognized, by the names of its tensors.

    Attributes
    ----------
    first, last
        The first and the last kernel; their shapes give the channels in and out, and the dimensions.
    sizes
        Options that equal the first side of a tensor, each with that tensor's name.
    parts
        Options that are False if no tensor's name starts with this.
    """

    first: str
    last: str
    sizes: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Citation:
    """The paper of an architecture: its authors, year and title, and its DOI."""

    text: str
    doi: str


@dataclass(frozen=True)
class Architecture:
    """A network design.

    Attributes
    ----------
    title
        Display name.
    target
        ``module:Class`` under `napari_braintumor.engine.networks`, or of MONAI where the module has dots.
    citation
        What to cite.
    defaults
        Options that this row fixes or changes.
    divisor
        Input sides that are multiples of this need no padding inside the network.
    spatial_dims
        The dimensions it can be built for.
    convertible
        Whether a trace of it holds for inputs of other sizes, so that it can be converted for OpenVINO.
    encoder
        How the names of the parameters of each encoder stage begin, from the input inwards; for staged unfreezing.
    decoder
        The modules whose maps tell tissues apart, from the output inwards; to follow strokes.
    signature
        How its state dict is recognized, if it can be.
    laptop
        Options that let a laptop train it in an hour or two; the papers' widths need a GPU.
    """

    title: str
    target: str
    citation: Citation
    defaults: Mapping[str, Any] = field(default_factory=dict)
    divisor: int = 16
    spatial_dims: tuple[int, ...] = (2, 3)
    convertible: bool = True
    encoder: tuple[tuple[str, ...], ...] = ()
    decoder: tuple[str, ...] = ()
    signature: Signature | None = None
    laptop: Mapping[str, int] = field(default_factory=dict)


_UNET_STAGES = (("down.0.",), ("down.1.",), ("down.2.",), ("down.3.",), ("bottom.",))
_RES_UNET_STAGES = (("stem.", "stem_residual."), ("down.0.",), ("down.1.",), ("down.2.",))
_U2NET_STAGES = tuple((f"stage{number}.",) for number in range(1, 7))
_VGG_STAGES = tuple(
    tuple(f"features.{layer}." for layer in layers)
    for layers in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
)

_U2NET_PAPER = Citation("Qin et al. 2020, U²-Net", "10.1016/j.patcog.2020.107404")
_FCN_PAPER = Citation("Long et al. 2015, Fully Convolutional Networks", "10.1109/CVPR.2015.7298965")
_MONAI_PAPER = Citation("Cardoso et al. 2022, MONAI", "10.48550/arXiv.2211.02701")

_U2NET_SIGNATURE = Signature("stage1.rebnconvin.conv_s1.weight", "outconv.weight")
_FCN_SIGNATURE = Signature(
    "features.0.weight",
    "score.weight",
    sizes={"width": "classifier.0.weight", "trunk_width": "features.0.weight"},
)
_FCN_LAPTOP = {"width": 256, "trunk_width": 24}

ARCHITECTURES: Mapping[str, Architecture] = {
    "unet": Architecture(
        "U-Net",
        "unet:UNet",
        divisor=16,
        encoder=_UNET_STAGES,
        decoder=("merge.3", "merge.2"),
        citation=Citation("Ronneberger et al. 2015, U-Net", "10.1007/978-3-319-24574-4_28"),
        signature=Signature(
            "down.0.0.weight",
            "head.weight",
            sizes={"width": "down.0.0.weight"},
            parts={"batch_norm": "down.0.1.running_mean"},
        ),
        laptop={"width": 24},
    ),
    "res_unet": Architecture(
        "Res-UNet with attention",
        "res_unet:ResUNet",
        divisor=8,
        encoder=_RES_UNET_STAGES,
        decoder=("merge.2", "merge.1"),
        citation=Citation("Zhang et al. 2018, Road Extraction by Deep Residual U-Net", "10.1109/LGRS.2018.2802944"),
        signature=Signature(
            "stem.weight", "head.weight", sizes={"width": "stem.weight"}, parts={"attention": "gates."}
        ),
        laptop={"width": 24},
    ),
    **{
        name: Architecture(
            title,
            "u2net:U2Net",
            defaults={"size": size},
            divisor=32,
            encoder=_U2NET_STAGES,
            decoder=("stage1d", "stage2d", *(f"side{depth}" for depth in range(1, 7))),
            citation=_U2NET_PAPER,
            signature=_U2NET_SIGNATURE,
        )
        for name, title, size in (("u2net", "U²-Net", "full"), ("u2net_small", "U²-Net small", "small"))
    },
    **{
        f"fcn{stride}s": Architecture(
            f"FCN-{stride}s",
            "fcn:FCN",
            defaults={"stride": stride},
            divisor=32,
            spatial_dims=(2,),
            encoder=_VGG_STAGES,
            citation=_FCN_PAPER,
            signature=_FCN_SIGNATURE,
            laptop=_FCN_LAPTOP,
        )
        for stride in (32, 16, 8)
    },
}
"""Architectures that can be trained here."""

_MONAI = "monai.networks.nets"
ONNX = "onnx"
"""The architecture of a model that is an ONNX graph, stored whole in its one tensor ``graph``."""

IMPORTED: Mapping[str, Architecture] = {
    "buda_unet": Architecture(
        "U-Net of Buda et al.",
        "buda_unet:BudaUNet",
        spatial_dims=(2,),
        citation=Citation("Buda et al. 2019, radiogenomics of lower-grade gliomas", "10.1016/j.compbiomed.2019.05.002"),
        signature=Signature("encoder1.enc1conv1.weight", "conv.weight", sizes={"width": "encoder1.enc1conv1.weight"}),
    ),
    "monai_segresnet": Architecture("MONAI SegResNet", f"{_MONAI}:SegResNet", divisor=8, citation=_MONAI_PAPER),
    "monai_unet": Architecture("MONAI UNet", f"{_MONAI}:UNet", citation=_MONAI_PAPER),
    "monai_basicunet": Architecture("MONAI BasicUNet", f"{_MONAI}:BasicUNet", citation=_MONAI_PAPER),
    "monai_dynunet": Architecture("MONAI DynUNet", f"{_MONAI}:DynUNet", citation=_MONAI_PAPER),
    "monai_swinunetr": Architecture(
        "MONAI SwinUNETR",
        f"{_MONAI}:SwinUNETR",
        divisor=32,
        convertible=False,
        citation=Citation("Hatamizadeh et al. 2022, Swin UNETR", "10.1007/978-3-031-08999-2_22"),
    ),
    ONNX: Architecture("ONNX graph", "", citation=_MONAI_PAPER),  # for the windows it runs in
}
"""Architectures that are only used, with weights trained elsewhere."""


def find_architecture(name: str) -> Architecture:
    """Return a row of the table.

    Returns
    -------
    Architecture
        The row.

    Raises
    ------
    ModelError
        If there is no such architecture.
    """
    known = {**ARCHITECTURES, **IMPORTED}
    if name not in known:
        raise ModelError(f"There is no architecture '{name}'. Choose one of: {', '.join(known)}.")
    return known[name]


def check_trainable(name: str) -> None:
    """Refuse an architecture that cannot be trained here.

    Raises
    ------
    ModelError
        If it cannot, or there is no such architecture.
    """
    title = find_architecture(name).title
    if name not in ARCHITECTURES:
        raise ModelError(f"{title} cannot be trained here. Choose one of: {', '.join(ARCHITECTURES)}.")


def find_divisor(name: str, options: Mapping[str, Any]) -> int:
    """Return what the sides of a network's input must be multiples of.

    It is the row's, unless the options give strides or, for a graph, the divisor.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ModelError
        If there is no such architecture.
    """
    row = find_architecture(name)
    if name == ONNX:
        return int(options.get("divisor", row.divisor))
    if strides := options.get("strides"):
        return int(np.prod([np.max(stride) for stride in strides]))
    return row.divisor


def build_network(
    name: str, *, in_channels: int, out_channels: int, spatial_dims: int = 2, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name
        A key of `ARCHITECTURES` or `IMPORTED`.
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        2 or 3.
    options
        The architecture's own options; they override the row's defaults.

    Returns
    -------
    nn.Module
        The network, on the CPU.

    Raises
    ------
    ModelError
        If the architecture is unknown, cannot be built for these dimensions, or refuses an option.
    """
    row = find_architecture(name)
    if spatial_dims not in row.spatial_dims:
        raise ModelError(f"{row.title} cannot be built in {spatial_dims}-D. Choose one of {row.spatial_dims}.")
    module, _, cls = row.target.partition(":")
    if not module:
        raise ModelError(f"A model of the kind '{row.title}' has no network to build: it is run as it is.")
    network = getattr(import_module(module if "." in module else f"napari_braintumor.engine.networks.{module}"), cls)
    try:
        built: nn.Module = network(
            in_channels=in_channels,
            out_channels=out_channels,
            spatial_dims=spatial_dims,
            **{**row.defaults, **(options or {})},
        )
    except Exception as error:  # MONAI's networks raise many types
        raise ModelError(f"{row.title} cannot be built with these options: {error}.") from error
    return built
