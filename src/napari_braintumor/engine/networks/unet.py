"""U-Net: a contracting and an expanding path, joined at every depth by concatenated skips."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """U-Net with five levels of two 3x3 'same' convolutions.

    Levels have 1, 2, 4, 8 and 16 times `width` channels; max-pooling by 2 leads down, a 2x2 transposed convolution up,
    and a 1x1 convolution makes the logits. Any input size works: the far sides are padded with zeros to multiples of 16
    and the logits cropped back.

    Parameters
    ----------
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        2 for slices, 3 for volumes.
    width
        Channels of the first level; the paper's is 64.
    batch_norm
        Normalize after each convolution.
    activation
        ``"leaky_relu"`` with slope 0.1, or ``"relu"`` as in the paper.
    dropout
        Share of values dropped in training after the last contracting level and after the bottom; 0 turns it off.

    Raises
    ------
    ValueError
        If an option has an invalid value.

    References
    ----------
    Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation, arXiv 1505.04597; here
    with padded convolutions, so that the output is as large as the input. He-normal weights: He et al. 2015.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        width: int = 32,
        batch_norm: bool = True,
        activation: str = "leaky_relu",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2 or 3")
        if width < 1:
            raise ValueError(f"width is {width}, must be at least 1")
        if activation not in ("leaky_relu", "relu"):
            raise ValueError(f"activation is '{activation}', must be 'leaky_relu' or 'relu'")
        conv = getattr(nn, f"Conv{spatial_dims}d")
        norm = getattr(nn, f"BatchNorm{spatial_dims}d")
        transposed_conv = getattr(nn, f"ConvTranspose{spatial_dims}d")

        def make_level(channels_in: int, channels_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for channels in (channels_in, channels_out):
                layers.append(conv(channels, channels_out, 3, padding=1))
                if batch_norm:
                    layers.append(norm(channels_out))
                layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.LeakyReLU(0.1, inplace=True))
            return nn.Sequential(*layers)

        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(
            make_level(above, here) for above, here in zip([in_channels, *widths[:3]], widths[:4], strict=True)
        )
        self.pool = getattr(nn, f"MaxPool{spatial_dims}d")(2)
        self.bottom = make_level(widths[3], widths[4])
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(transposed_conv(2 * here, here, 2, stride=2) for here in widths[3::-1])
        self.merge = nn.ModuleList(make_level(2 * here, here) for here in widths[3::-1])
        self.head = conv(width, out_channels, 1)

        for module in self.modules():
            if isinstance(module, (conv, transposed_conv)):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, out_channels, ...)`` of images ``(N, in_channels, ...)``, the same size."""
        size = x.shape[2:]
        x = F.pad(x, [n for side in reversed(size) for n in (0, -side % 16)])
        skips = []
        for level in self.down:
            x = level(x)
            if level is self.down[-1]:
                x = self.dropout(x)
            skips.append(x)
            x = self.pool(x)
        x = self.dropout(self.bottom(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        for axis, side in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, side)
        return logits
