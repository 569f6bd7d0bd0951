"""A model's network with its weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.model_file import load_weights, read_card
from napari_braintumor.engine.models.registry import build_network


def load_network(path: Path) -> nn.Module:
    """Build a model's network with its weights, ready for use.

    Returns
    -------
    nn.Module
        On the CPU, in float32 and evaluation mode; its parameters need no gradients.

    Raises
    ------
    ModelError
        If the file is damaged or its tensors do not fit its architecture.
    """
    card = read_card(path)
    network = build_network(
        card.architecture,
        in_channels=len(card.inputs),
        out_channels=card.out_channels,
        spatial_dims=card.spatial_dims,
        options=card.options,
    )
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise ModelError(
            f"The tensors in '{path.name}' do not fit the architecture on its card ({card.architecture}): "
            f"{str(error).splitlines()[-1].strip()}. Use the file as it was made."
        ) from error
    return network.eval().requires_grad_(False)
