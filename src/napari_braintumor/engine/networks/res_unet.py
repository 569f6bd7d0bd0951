"""Res-UNet: a U-Net of residual blocks, its skips weighted by attention."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResUNet(nn.Module):
    """Deep residual U-Net of depth three with attention on its skips.

    Pre-activated residual blocks of 1, 2, 4 and 8 times `width` channels; a stride of 2 leads down, nearest-neighbor
    up-sampling up, and a 1x1 convolution makes the logits. Any input size works: the far sides are padded with zeros
    to multiples of 8 and the logits cropped back.

    Parameters
    ----------
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        2 for slices, 3 for volumes.
    width
        Channels of the first level; the paper's is 64.
    attention
        Weight every skip by an additive attention gate; False gives the paper's network.

    Raises
    ------
    ValueError
        If an option has an invalid value.

    Notes
    -----
    The project that this one re-implements names a "weighted attention" after Xiao et al. 2018, Weighted Res-UNet, but
    its code has none. It is read here as the additive gate of Oktay et al. 2018, with batch normalization, on all
    three skips.

    References
    ----------
    Zhang et al. 2018, Road Extraction by Deep Residual U-Net, arXiv 1711.10684.
    Oktay et al. 2018, Attention U-Net: Learning Where to Look for the Pancreas, arXiv 1804.03999.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        width: int = 64,
        attention: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2 or 3")
        if width < 2:
            raise ValueError(f"width is {width}, must be at least 2")
        conv = getattr(nn, f"Conv{spatial_dims}d")
        norm = getattr(nn, f"BatchNorm{spatial_dims}d")
        widths = [width * 2**level for level in range(4)]

        self.stem = conv(in_channels, width, 3, padding=1)
        self.stem_residual = nn.Sequential(
            conv(width, width, 3, padding=1, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
            conv(width, width, 3, padding=1),
        )
        self.down = nn.ModuleList(ResidualBlock(above, here, 2, spatial_dims) for above, here in pairwise(widths))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = nn.ModuleList(ResidualBlock(3 * here, here, 1, spatial_dims) for here in widths[2::-1])
        self.head = conv(width, out_channels, 1)

        for module in self.modules():
            if isinstance(module, conv):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Made last, because gates start with weights of their own.
        self.gates = nn.ModuleList(
            AttentionGate(here, 2 * here, spatial_dims) if attention else _NoGate() for here in widths[2::-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, out_channels, ...)`` of images ``(N, in_channels, ...)``, the same size."""
        size = x.shape[2:]
        x = self.stem(F.pad(x, [n for side in reversed(size) for n in (0, -side % 8)]))
        x = x + self.stem_residual(x)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for gate, merge in zip(self.gates, self.merge, strict=True):
            skip = gate(skips.pop(), x)
            x = merge(torch.cat([self.upsample(x), skip], dim=1))
        logits: Tensor = self.head(x)
        for axis, side in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, side)
        return logits


class ResidualBlock(nn.Module):
    """Two pre-activated 3x3 convolutions, plus the raw input through a normalized 1x1 convolution.

    Parameters
    ----------
    channels_in, channels_out
        Channels before and after.
    stride
        2 halves every side.
    spatial_dims
        2 or 3.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, spatial_dims: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{spatial_dims}d")
        norm = getattr(nn, f"BatchNorm{spatial_dims}d")
        self.residual = nn.Sequential(
            norm(channels_in),
            nn.ReLU(inplace=True),
            conv(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            norm(channels_out),
            nn.ReLU(inplace=True),
            conv(channels_out, channels_out, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Sequential(conv(channels_in, channels_out, 1, bias=False), norm(channels_out))
        # A 1x1 convolution with a stride is one of every stride-th voxel. Written out, because torch 2.13 on a CPU
        # corrupts memory in the backward pass of the strided one for 8 or fewer channels in channels-last order.
        self.every: tuple[Any, ...] = (..., *(slice(None, None, stride),) * spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map ``(N, channels_out, ...)`` with sides divided by the stride."""
        total: Tensor = self.residual(x) + self.shortcut(x[self.every])
        return total


class AttentionGate(nn.Module):
    """Weight a skip, 0 to 1 at each position, by what the coarser decoder level sees there.

    Fresh weights let nearly everything through, so that training starts close to the network without attention.

    Parameters
    ----------
    skip_channels, coarse_channels
        Channels of the skip and of the decoder's map, whose sides are half as long.
    spatial_dims
        2 or 3.
    """

    def __init__(self, skip_channels: int, coarse_channels: int, spatial_dims: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{spatial_dims}d")
        norm = getattr(nn, f"BatchNorm{spatial_dims}d")
        inner = skip_channels // 2
        self.from_skip = nn.Sequential(conv(skip_channels, inner, 1, bias=False), norm(inner))
        self.from_coarse = nn.Sequential(
            conv(coarse_channels, inner, 1, bias=False),
            norm(inner),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )
        self.psi = conv(inner, 1, 1)
        nn.init.normal_(self.psi.weight, std=0.5 / inner**0.5)
        nn.init.constant_(self.psi.bias, 4.0)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Return the skip ``(N, skip_channels, ...)``, all channels of a position weighted alike."""
        return skip * torch.sigmoid(self.psi(F.relu(self.from_skip(skip) + self.from_coarse(coarse))))


class _NoGate(nn.Module):
    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        return skip
