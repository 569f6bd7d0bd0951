"""Average the weights of models that were trained from the same start: less is learned by heart than by any of them.

A model that sees one slice joins others that see those beside it as well: what it knows nothing of has zero weights.
The card is that of the first model.

References
----------
Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time.

Usage: python tools/average_models.py OUTPUT.safetensors MODEL MODEL ...
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from napari_braintumor.engine.models.model_file import save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.training.transfer import transfer_weights


def main(output: Path, models: list[str]) -> None:
    stored = [ModelStore().find(name) for name in models]
    card = stored[0].card
    assert card is not None
    states = [carry_over(stored[0], other) for other in stored]
    averaged = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
    save_model(output, averaged, card)


def carry_over(first: StoredModel, other: StoredModel) -> dict[str, Tensor]:
    """Return a model's weights in the network of the first one."""
    card = first.card
    assert card is not None
    regions = [region.name for region in card.regions]
    channels = {"in_channels": len(card.inputs), "out_channels": len(regions)}
    network = build_network(card.architecture, options=card.options, **channels)
    transfer_weights(network, card.architecture, card.options, card.inputs, regions, other)
    return network.state_dict()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
