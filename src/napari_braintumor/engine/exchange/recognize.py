"""State dicts without a card: names and shapes show which network they belong to.

References
----------
Qin et al. 2020, U²-Net, arXiv 2005.09007, whose authors' state dicts have the names of our `U2Net`.
Buda et al. 2019, Computers in Biology and Medicine 109, whose public weights have the names of our `BudaUNet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange.state_dict import fit, read_state_dict
from napari_braintumor.engine.models.card import DataSource, ModelCard
from napari_braintumor.engine.models.registry import ARCHITECTURES, IMPORTED, ONNX, Signature, find_architecture

BUDA_PARAMETERS = 7_763_041

_PUBLIC_BUDA = ModelCard(
    name="buda_unet",
    title="U-Net of Buda et al.",
    architecture="buda_unet",
    modalities=("T1", "FLAIR", "T1ce"),
    regions=GLIOMA_REGIONS[:1],
    normalization="percentile z-score",
    threshold=0.5,
    parameters=BUDA_PARAMETERS,
    trained_on=(
        DataSource(
            name="LGG MRI segmentation (TCGA-LGG)",
            patients=110,
            license="CC BY-NC-SA 4.0",
            defines=("whole tumor",),
            note="Public weights of mateuszbuda/brain-segmentation-pytorch, known by their names and shapes; some of "
            "these patients were kept for validation.",
        ),
    ),
    license="MIT",
    limitations="Lower-grade gliomas. Where a sequence was missing, its authors put FLAIR in its place.",
)


@dataclass(frozen=True)
class Network:
    """What a state dict shows about its network.

    Attributes
    ----------
    architecture
        A key of the registry.
    in_channels, out_channels, spatial_dims
        Of the network.
    options
        Those that the weights show.
    """

    architecture: str
    in_channels: int
    out_channels: int
    spatial_dims: int
    options: Mapping[str, Any] = field(default_factory=dict)


_PUBLIC_BUDA_NETWORK = Network("buda_unet", 3, 1, 2, {"width": 32})


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read a state dict that has no card, and write its card.

    Parameters
    ----------
    path
        A ``.pt``, ``.pth`` or ``.safetensors`` file.
    description
        What the file does not state: modalities, regions, spacing, normalization. Its architecture and options are
        used where the weights fit them, else what the weights show; it is not needed for the public weights of Buda et
        al.

    Returns
    -------
    tuple
        The weights, which fit the card's architecture, and the card.

    Raises
    ------
    DescriptionNeeded
        If the network is recognized but not what its channels are.
    ModelError
        If the file cannot be read or belongs to no known network.
    """
    weights = read_state_dict(path)
    network = recognize(weights)
    if description is None:
        if network is None:
            raise DescriptionNeeded(
                f"'{path.name}' holds {len(weights)} tensors of a network that is not known by their names. "
                "Describe it: architecture, options, modalities and regions."
            )
        if network != _PUBLIC_BUDA_NETWORK:
            raise DescriptionNeeded(
                f"'{path.name}' holds a {network.spatial_dims}-D {find_architecture(network.architecture).title} with "
                f"{network.in_channels} channels in and {network.out_channels} out, but not which modalities and "
                "regions these are. Describe them."
            )
        description = _PUBLIC_BUDA.model_copy(update={"name": card_name(path.stem)})
    card = _card(description, weights, network)
    return weights, card


def recognize(weights: Mapping[str, Tensor]) -> Network | None:
    """Return which network of the registry a state dict belongs to, or None.

    Options that leave no trace in the weights, such as a U-Net's activation, keep the architecture's defaults.

    Returns
    -------
    Network or None
        The architecture with its options and channels; None if no network of the registry fits.
    """
    for name, row in {**ARCHITECTURES, **IMPORTED}.items():
        signature = row.signature
        if signature is None or not {signature.first, signature.last, *signature.sizes.values()} <= weights.keys():
            continue
        try:
            network = _read_network(name, signature, weights)
            fit(weights, *_as_arguments(network))
        except (IndexError, TypeError, ModelError):  # a tensor of another rank, or another network
            continue
        return network
    return None


def _read_network(name: str, signature: Signature, weights: Mapping[str, Tensor]) -> Network:
    first = weights[signature.first]
    options: dict[str, Any] = {option: len(weights[tensor]) for option, tensor in signature.sizes.items()}
    for option, prefix in signature.parts.items():
        if not any(tensor.startswith(prefix) for tensor in weights):
            options[option] = False
    return Network(name, int(first.shape[1]), int(weights[signature.last].shape[0]), first.ndim - 2, options)


def card_name(text: str) -> str:
    """Return the name of a model after a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "imported"


def count_parameters(weights: Mapping[str, Tensor]) -> int:
    """Return how many numbers of a state dict were learned; running statistics were not."""
    return sum(
        tensor.numel()
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var"))
    )


def _card(description: ModelCard, weights: Mapping[str, Tensor], network: Network | None) -> ModelCard:
    asked = Network(
        description.architecture,
        len(description.inputs),
        description.out_channels,
        description.spatial_dims,
        description.options,
    )
    counted = {"parameters": count_parameters(weights)}
    if asked.architecture == ONNX:
        raise ModelError("A state dict is not an ONNX graph. Name the architecture that its weights belong to.")
    try:
        fit(weights, *_as_arguments(asked))
    except ModelError:
        if network is None:
            raise
        _check_channels(asked, network)
        update = {"architecture": network.architecture, "options": dict(network.options)}
        return ModelCard.model_validate({**description.model_dump(), **counted, **update})
    return description.model_copy(update=counted)


def _check_channels(asked: Network, found: Network) -> None:
    for what, described, there in (
        ("modalities", asked.in_channels, found.in_channels),
        ("channels for regions", asked.out_channels, found.out_channels),
        ("dimensions", asked.spatial_dims, found.spatial_dims),
    ):
        if described != there:
            raise ModelError(
                f"The description names {described} {what}, but these weights are those of a "
                f"{find_architecture(found.architecture).title} with {there}. Describe what it was trained with."
            )


def _as_arguments(network: Network) -> tuple[str, int, int, int, Mapping[str, Any]]:
    return network.architecture, network.in_channels, network.out_channels, network.spatial_dims, network.options
