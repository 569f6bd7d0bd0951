"""FCN-32s, FCN-16s and FCN-8s: a VGG-16 classification network turned into a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""3x3 convolutions before each of VGG-16's five poolings."""


class FCN(nn.Module):
    """Fully convolutional network on the trunk of VGG-16.

    The trunk pools five times; `fc6` and `fc7` are the classifier's layers as 7x7 and 1x1 convolutions; a 1x1
    convolution scores every position of the coarse map, and bias-free transposed convolutions, which start as bilinear
    interpolation, bring the scores back to the input's size. The finer networks add scores of pool4 (and pool3) on the
    way. Any input size works: the far sides are padded with zeros to multiples of 32 and the logits cropped back.

    Parameters
    ----------
    in_channels, out_channels
        Modalities in, regions out.
    spatial_dims
        Only 2.
    stride
        32, 16 or 8: the grid, in pixels, of the last scores before they are up-sampled.
    width
        Channels of `fc6` and `fc7`.
    trunk_width
        Channels of the trunk's first layer; VGG-16 has 64.
    dropout
        Share of values dropped in training after `fc6` and after `fc7`.

    Raises
    ------
    ValueError
        If an option has an invalid value.

    References
    ----------
    Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, arXiv 1411.4038; here `fc6` pads its
    input by 3, in place of the first layer by 100, so that maps stay aligned without cropping.
    Simonyan and Zisserman 2015, Very Deep Convolutional Networks, arXiv 1409.1556, configuration D.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 2,
        stride: int = 8,
        width: int = 4096,
        trunk_width: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ValueError(f"spatial_dims is {spatial_dims}, must be 2")
        if stride not in (8, 16, 32):
            raise ValueError(f"stride is {stride}, must be 32, 16 or 8")
        if min(width, trunk_width) < 1:
            raise ValueError(f"width is {width} and trunk_width {trunk_width}, must be at least 1")

        self.features = nn.Sequential()
        self.pools = []
        channels = in_channels
        for level, convolutions in enumerate(_CONVOLUTIONS):
            for _ in range(convolutions):
                here = trunk_width * min(2**level, 8)
                self.features.extend([nn.Conv2d(channels, here, 3, padding=1), nn.ReLU(inplace=True)])
                channels = here
            self.pools.append(len(self.features))
            self.features.append(nn.MaxPool2d(2))
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, width, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score = nn.Conv2d(width, out_channels, 1)
        skips = {32: [], 16: [8], 8: [8, 4]}[stride]
        self.skip_scores = nn.ModuleList(nn.Conv2d(trunk_width * times, out_channels, 1) for times in skips)
        self.up = nn.ModuleList(make_bilinear(out_channels, 2) for _ in skips)
        self.up_last = make_bilinear(out_channels, stride)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, out_channels, H, W)`` of images ``(N, in_channels, H, W)``."""
        height, width = x.shape[2:]
        x = F.pad(x, [0, -width % 32, 0, -height % 32])
        pooled = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.pools:
                pooled.append(x)
        scores: Tensor = self.score(self.classifier(x))
        for up, skip_score, skip in zip(self.up, self.skip_scores, (pooled[3], pooled[2]), strict=False):
            scores = up(scores) + skip_score(skip)
        logits: Tensor = self.up_last(scores)
        return logits.narrow(2, 0, height).narrow(3, 0, width)

    def load_vgg16(self, state: Mapping[str, Tensor]) -> list[str]:
        """Start the trunk from a VGG-16 that was trained to classify photographs.

        As modalities are not colors, the first layer's kernels are averaged over red, green and blue and scaled by 3/M
        for M modalities: M equal images give what the gray photograph would.

        Parameters
        ----------
        state
            Tensors named ``features.0.weight`` to ``features.28.bias``, as torchvision names those of its `vgg16`;
            other tensors are ignored.

        Returns
        -------
        list of str
            The names of the tensors that were loaded.

        Raises
        ------
        ValueError
            If a tensor is missing or has another shape than the trunk's. Then nothing is loaded.
        """
        own = self.features.state_dict()
        modalities = own["0.weight"].shape[1]
        loaded = {}
        for name, tensor in own.items():
            source = f"features.{name}"
            expected = tuple(tensor.shape) if name != "0.weight" else (len(tensor), 3, 3, 3)
            if source not in state:
                raise ValueError(f"'{source}' is missing, must be a tensor of shape {expected} as in VGG-16")
            if tuple(state[source].shape) != expected:
                raise ValueError(f"'{source}' has shape {tuple(state[source].shape)}, must be {expected}")
            loaded[name] = state[source]
        gray = loaded["0.weight"].mean(dim=1, keepdim=True)
        loaded["0.weight"] = gray.expand(-1, modalities, -1, -1) * (3 / modalities)
        self.features.load_state_dict(loaded)
        return [f"features.{name}" for name in loaded]


def make_bilinear(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Return a bias-free transposed convolution that starts as bilinear interpolation of each channel by itself.

    Parameters
    ----------
    channels
        Channels in and out.
    factor
        How many times longer the sides become; even.

    Returns
    -------
    nn.ConvTranspose2d
        The layer, with a learnable kernel.
    """
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    tent = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(tent, tent))
    return layer
