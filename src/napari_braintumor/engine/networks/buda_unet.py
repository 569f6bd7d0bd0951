"""The 2-D U-Net of Buda et al., with the names of its public weights.

References
----------
Buda, Saha and Mazurowski 2019, Association of genomic subtypes of lower-grade gliomas with shape features
automatically extracted by a deep learning algorithm, Computers in Biology and Medicine 109.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

LEVELS = 4


class BudaUNet(nn.Module):
    """A U-Net of four levels: 3x3 convolutions without bias, batch norm, ReLU, transposed convolutions.

    Parameters
    ----------
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        2.
    width
        Channels of the first level; 32 in the public weights.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int = 2, width: int = 32) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ValueError("it is two-dimensional")
        widths = [width * 2**level for level in range(LEVELS + 1)]
        for level in range(LEVELS):
            channels = in_channels if level == 0 else widths[level - 1]
            setattr(self, f"encoder{level + 1}", _block(channels, widths[level], f"enc{level + 1}"))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = _block(widths[-2], widths[-1], "bottleneck")
        for level in reversed(range(LEVELS)):
            setattr(self, f"upconv{level + 1}", nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2))
            setattr(self, f"decoder{level + 1}", _block(2 * widths[level], widths[level], f"dec{level + 1}"))
        self.conv = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)`` of images ``(N, M, H, W)`` with sides that are multiples of 16."""
        skips = []
        for level in range(1, LEVELS + 1):
            x = getattr(self, f"encoder{level}")(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for level in range(LEVELS, 0, -1):
            x = getattr(self, f"upconv{level}")(x)
            x = getattr(self, f"decoder{level}")(torch.cat([x, skips[level - 1]], dim=1))
        logits: Tensor = self.conv(x)
        return logits


def _block(in_channels: int, out_channels: int, name: str) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, channels in ((1, in_channels), (2, out_channels)):
        layers[f"{name}conv{number}"] = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        layers[f"{name}norm{number}"] = nn.BatchNorm2d(out_channels)
        layers[f"{name}relu{number}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
