"""Models of every architecture with few weights, for what is written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import read_card, save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import StoredModel

TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 2},
    "res_unet": {"width": 4},
    "u2net": {},
    "u2net_small": {},
    "fcn32s": {"width": 4, "trunk_width": 2},
    "fcn16s": {"width": 4, "trunk_width": 2},
    "fcn8s": {"width": 4, "trunk_width": 2},
    "buda_unet": {"width": 2},
    "monai_segresnet": {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "monai_unet": {"channels": [4, 8, 16], "strides": [2, 2]},
    "monai_basicunet": {"features": [4, 4, 8, 8, 16, 4]},
    "monai_dynunet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 16],
    },
}


def store_tiny(folder: Path, architecture: str, dims: int = 2, **fields: Any) -> StoredModel:
    """A model with fresh weights in a file; statistics are such that batch norms do something."""
    torch.manual_seed(1)
    said: dict[str, Any] = {
        "name": f"tiny-{architecture}",
        "architecture": architecture,
        "options": TINY[architecture],
        "spatial_dims": dims,
        "spacing": (None, 2.0, 2.0) if dims == 2 else (2.0, 2.0, 2.0),
        "license": "BSD-3-Clause",
        **fields,
    }
    card = ModelCard.model_validate(said)
    network = build_network(
        architecture,
        in_channels=len(card.inputs),
        out_channels=card.out_channels,
        spatial_dims=dims,
        options=card.options,
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.1)
    path = save_model(folder / f"{card.name}.safetensors", network.state_dict(), card)
    return StoredModel(card.name, path, read_card(path))
