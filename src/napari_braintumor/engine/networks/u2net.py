"""U²-Net: a U of small U's, supervised at every depth."""

# N batch, C channels; the rest is spatial

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Levels of a block, or 0 for the dilated one without pooling; channels in (0: the image's), in the middle, out.
_Row = tuple[int, int, int, int]
_FULL: dict[str, _Row] = {
    "stage1": (7, 0, 32, 64),
    "stage2": (6, 64, 32, 128),
    "stage3": (5, 128, 64, 256),
    "stage4": (4, 256, 128, 512),
    "stage5": (0, 512, 256, 512),
    "stage6": (0, 512, 256, 512),
    "stage5d": (0, 1024, 256, 512),
    "stage4d": (4, 1024, 128, 256),
    "stage3d": (5, 512, 64, 128),
    "stage2d": (6, 256, 32, 64),
    "stage1d": (7, 128, 16, 64),
}
_SMALL: dict[str, _Row] = {
    name: (levels, 0 if name == "stage1" else 128 if name.endswith("d") else 64, 16, 64)
    for name, (levels, *_) in _FULL.items()
}


class U2Net(nn.Module):
    """U²-Net: eleven stages, each a small U-Net with a residual path (RSU), joined like a U-Net.

    The names of modules and parameters are those of the authors' published code (``stage1.rebnconvin.conv_s1.weight`` …
    ``outconv.weight``), so that their state dicts load.

    Parameters
    ----------
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        2 for slices, 3 for volumes.
    size
        ``"full"`` (44 million weights) or ``"small"`` (1.1 million).

    Raises
    ------
    ValueError
        If an option has an invalid value.

    References
    ----------
    Qin et al. 2020, U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection, arXiv 2005.09007.
    """

    def __init__(self, *, in_channels: int, out_channels: int, spatial_dims: int = 2, size: str = "full") -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2 or 3")
        if size not in ("full", "small"):
            raise ValueError(f"size is '{size}', must be 'full' or 'small'")
        rows = _FULL if size == "full" else _SMALL
        for name, (levels, channels, middle, out) in rows.items():
            sizes = (channels or in_channels, middle, out, spatial_dims)
            self.add_module(name, ResidualU(levels, *sizes) if levels else DilatedResidualU(*sizes))
        conv = getattr(nn, f"Conv{spatial_dims}d")
        for depth, name in enumerate(("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6"), start=1):
            self.add_module(f"side{depth}", conv(rows[name][3], out_channels, 3, padding=1))
        self.outconv = conv(6 * out_channels, out_channels, 1)
        self.pool = _pool(spatial_dims)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits ``(N, out_channels, ...)`` of images ``(N, in_channels, ...)``, the same size.

        In training mode the fused map is followed by the six side maps, each to be supervised.

        Returns
        -------
        Tensor or list of Tensor
            The fused logits; in training a list that begins with them.
        """
        encoded: list[Tensor] = []
        for depth in range(1, 7):
            encoded.append(self.get_submodule(f"stage{depth}")(self.pool(encoded[-1]) if encoded else x))
        decoded = [encoded.pop()]
        for depth in range(5, 0, -1):
            skip = encoded.pop()
            joined = torch.cat([_resize(decoded[0], skip), skip], dim=1)
            decoded.insert(0, self.get_submodule(f"stage{depth}d")(joined))
        sides = [_resize(self.get_submodule(f"side{depth}")(each), x) for depth, each in enumerate(decoded, start=1)]
        fused: Tensor = self.outconv(torch.cat(sides, dim=1))
        return [fused, *sides] if self.training else fused


class ResidualU(nn.Module):
    """RSU-L: a small U-Net whose output is added to its own first map.

    Parameters
    ----------
    levels
        L, its depth.
    channels_in, middle, channels_out
        Channels before, inside and after.
    spatial_dims
        2 or 3.
    """

    def __init__(self, levels: int, channels_in: int, middle: int, channels_out: int, spatial_dims: int) -> None:
        super().__init__()
        self.levels = levels
        self.rebnconvin = ConvNormReLU(channels_in, channels_out, 1, spatial_dims)
        for level in range(1, levels + 1):
            channels = channels_out if level == 1 else middle
            self.add_module(
                f"rebnconv{level}", ConvNormReLU(channels, middle, 2 if level == levels else 1, spatial_dims)
            )
        for level in range(1, levels):
            out = channels_out if level == 1 else middle
            self.add_module(f"rebnconv{level}d", ConvNormReLU(2 * middle, out, 1, spatial_dims))
        self.pool = _pool(spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map ``(N, channels_out, ...)``, the same size."""
        first: Tensor = self.rebnconvin(x)
        encoded: list[Tensor] = []
        for level in range(1, self.levels):
            encoded.append(self.get_submodule(f"rebnconv{level}")(self.pool(encoded[-1]) if encoded else first))
        decoded: Tensor = self.get_submodule(f"rebnconv{self.levels}")(encoded[-1])
        for level in range(self.levels - 1, 0, -1):
            skip = encoded.pop()
            decoded = self.get_submodule(f"rebnconv{level}d")(torch.cat([_resize(decoded, skip), skip], dim=1))
        return decoded + first


class DilatedResidualU(nn.Module):
    """RSU-4F: the same without pooling; dilations of 1, 2, 4 and 8 widen the view instead.

    Parameters
    ----------
    channels_in, middle, channels_out
        Channels before, inside and after.
    spatial_dims
        2 or 3.
    """

    def __init__(self, channels_in: int, middle: int, channels_out: int, spatial_dims: int) -> None:
        super().__init__()
        self.rebnconvin = ConvNormReLU(channels_in, channels_out, 1, spatial_dims)
        self.rebnconv1 = ConvNormReLU(channels_out, middle, 1, spatial_dims)
        self.rebnconv2 = ConvNormReLU(middle, middle, 2, spatial_dims)
        self.rebnconv3 = ConvNormReLU(middle, middle, 4, spatial_dims)
        self.rebnconv4 = ConvNormReLU(middle, middle, 8, spatial_dims)
        self.rebnconv3d = ConvNormReLU(2 * middle, middle, 4, spatial_dims)
        self.rebnconv2d = ConvNormReLU(2 * middle, middle, 2, spatial_dims)
        self.rebnconv1d = ConvNormReLU(2 * middle, channels_out, 1, spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map ``(N, channels_out, ...)``, the same size."""
        first = self.rebnconvin(x)
        one = self.rebnconv1(first)
        two = self.rebnconv2(one)
        three = self.rebnconv3(two)
        four = self.rebnconv4(three)
        up = self.rebnconv3d(torch.cat([four, three], dim=1))
        up = self.rebnconv2d(torch.cat([up, two], dim=1))
        out: Tensor = self.rebnconv1d(torch.cat([up, one], dim=1)) + first
        return out


class ConvNormReLU(nn.Module):
    """A 3x3 convolution with bias and dilation, batch norm and ReLU (REBNCONV).

    Parameters
    ----------
    channels_in, channels_out
        Channels before and after.
    dilation
        Also the padding, so that the size stays.
    spatial_dims
        2 or 3.
    """

    def __init__(self, channels_in: int, channels_out: int, dilation: int, spatial_dims: int) -> None:
        super().__init__()
        conv, norm = getattr(nn, f"Conv{spatial_dims}d"), getattr(nn, f"BatchNorm{spatial_dims}d")
        self.conv_s1 = conv(channels_in, channels_out, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map ``(N, channels_out, ...)``, the same size."""
        return functional.relu(self.bn_s1(self.conv_s1(x)), inplace=True)


def _pool(spatial_dims: int) -> nn.Module:
    pool: nn.Module = getattr(nn, f"MaxPool{spatial_dims}d")(2, stride=2, ceil_mode=True)
    return pool


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate a map to the size of another."""
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return functional.interpolate(x, like.shape[2:], mode=mode, align_corners=False)
