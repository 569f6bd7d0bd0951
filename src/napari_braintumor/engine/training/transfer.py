"""Carrying a trained model's weights over to a network with other modalities or regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.model_file import SUFFIX, load_weights
from napari_braintumor.engine.models.registry import build_network, find_architecture
from napari_braintumor.engine.models.store import StoredModel

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Transfer:
    """What became of a parent's tensors.

    Attributes
    ----------
    loaded
        Tensors that were taken over as they were.
    adapted
        For each tensor of the stem or the head that had to be changed, the channels carried over and the new ones.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]

    def describe(self) -> list[str]:
        """Return lines to print."""
        lines = [f"{len(self.loaded)} tensors loaded as they were."]
        return lines + [f"{name}: {notes}" for name, notes in self.adapted.items()]


def transfer_weights(
    network: nn.Module,
    architecture: str,
    options: Mapping[str, Any],
    inputs: Sequence[str],
    regions: Sequence[str],
    parent: StoredModel,
) -> Transfer:
    """Load a parent's weights into a network; its stem and head are adapted by the names of inputs and regions.

    A modality, or a slice beside, that the parent did not know starts with zero weights, so that the network begins as
    the parent does without it; a new region starts with fresh weights.

    Parameters
    ----------
    network
        Freshly built; it is changed.
    architecture, options
        What it was built from.
    inputs, regions
        What its channels are.
    parent
        The model to start from.

    Returns
    -------
    Transfer
        The weights that were loaded, and the changes made to them.

    Raises
    ------
    ModelError
        If the parent is of another architecture, or its file is damaged.
    """
    card = parent.card
    assert card is not None
    if card.architecture != architecture:
        theirs, ours = (find_architecture(name).title for name in (card.architecture, architecture))
        raise ModelError(
            f"'{parent.name}' is a {theirs}, but the plan's architecture is {ours}. Weights go from one network to "
            f"another of the same architecture only: choose {theirs}, or another model to start from."
        )
    weights = load_weights(parent.path)
    own = network.state_dict()
    by_input, by_region = (
        _find_growing(architecture, options, len(inputs), len(regions), grown) for grown in ((1, 0), (0, 1))
    )
    their_regions = [region.name for region in card.regions]
    loaded, adapted, result = [], {}, dict(own)
    for name, tensor in own.items():
        names = [(by_input.get(name, ()), inputs, card.inputs), (by_region.get(name, ()), regions, their_regions)]
        try:
            if name not in weights:
                raise ValueError("is missing")
            result[name], notes = _carry_over(tensor, weights[name], names, zero_inputs=by_input.get(name, ()))
        except ValueError as error:
            raise ModelError(
                f"'{parent.name}' does not fit the plan's network: its tensor '{name}' {error}. Use the options that "
                f"it was made with: {dict(card.options) or 'none'}."
            ) from error
        if notes:
            adapted[name] = notes
        else:
            loaded.append(name)
    network.load_state_dict(result)
    return Transfer(tuple(loaded), adapted)


def load_trunk(network: nn.Module, path: Path) -> list[str]:
    """Start an FCN's trunk from a VGG-16, ``.safetensors`` or torchvision's ``.pth``; return what was loaded.

    Returns
    -------
    list of str
        Names of weights in the network.

    Raises
    ------
    ModelError
        If the network has no such trunk, or the file does not hold its weights.
    """
    if not hasattr(network, "load_vgg16"):
        raise ModelError("VGG-16 weights were given, but only FCN has its trunk. Leave vgg16 empty, or choose an FCN.")
    try:
        if path.suffix == SUFFIX:
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # never runs code from the file
        names: list[str] = network.load_vgg16(state)  # type: ignore[operator]
    except Exception as error:
        raise ModelError(
            f"'{path.name}' does not hold VGG-16 weights: {str(error).splitlines()[0]} Expected a state dict as "
            "torchvision saves it, or the same as .safetensors."
        ) from error
    return names


def _find_growing(
    architecture: str, options: Mapping[str, Any], inputs: int, outputs: int, grown: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Return for each tensor the axes that are longer in a network with one more modality (or region)."""

    def shapes(more_in: int, more_out: int) -> Shapes:
        with torch.device("meta"):
            network = build_network(
                architecture, in_channels=inputs + more_in, out_channels=outputs + more_out, options=options
            )
        return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

    small, large = shapes(0, 0), shapes(*grown)
    return {
        name: tuple(axis for axis, (a, b) in enumerate(zip(shape, large[name], strict=True)) if a != b)
        for name, shape in small.items()
        if shape != large[name]
    }


def _carry_over(
    own: Tensor,
    theirs: Tensor,
    names: Sequence[tuple[tuple[int, ...], Sequence[str], Sequence[str]]],
    zero_inputs: tuple[int, ...],
) -> tuple[Tensor, str]:
    """Copy what has the same names along the axes that go by names; everything else must fit exactly."""
    by_axis = {axis: (ours, other) for axes, ours, other in names for axis in axes}
    expected = []
    to: list[Tensor] = []
    source: list[Tensor] = []
    notes = []
    for axis, length in enumerate(own.shape):
        ours, other = by_axis.get(axis, ((), ()))
        if not ours or tuple(ours) == tuple(other):
            expected.append(length)
            to.append(torch.arange(length))
            source.append(torch.arange(length))
            continue
        # The axis is made of blocks, each with all names once; U²-Net joins its side outputs so.
        blocks = length // len(ours)
        expected.append(blocks * len(other))
        shared = [name for name in ours if name in other]
        pairs = [
            (b * len(ours) + list(ours).index(n), b * len(other) + list(other).index(n))
            for b in range(blocks)
            for n in shared
        ]
        to.append(torch.tensor([pair[0] for pair in pairs], dtype=torch.long))
        source.append(torch.tensor([pair[1] for pair in pairs], dtype=torch.long))
        new = [name for name in ours if name not in other]
        note = f"{', '.join(shared) or 'nothing'} carried over"
        if new:
            note += f"; {', '.join(new)} {'starts at zero' if axis in zero_inputs else 'is new'}"
        notes.append(note)
    if tuple(theirs.shape) != tuple(expected):
        raise ValueError(f"has the shape {tuple(theirs.shape)}, not {tuple(expected)}")
    if not notes:
        return theirs, ""
    result = own.clone()
    for axis in zero_inputs:
        if axis in by_axis and tuple(by_axis[axis][0]) != tuple(by_axis[axis][1]):
            result.zero_()
    if all(len(index) for index in to):
        # New columns of old rows must not disturb what those rows give.
        old_rows = to[0]
        if own.ndim > 1 and len(to[1]) < own.shape[1]:
            result[old_rows] = 0
        result[torch.meshgrid(*to, indexing="ij")] = theirs[torch.meshgrid(*source, indexing="ij")]
    return result, "; ".join(notes)
