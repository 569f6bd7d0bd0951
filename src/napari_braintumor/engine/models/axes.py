"""Convert arrays between Z, Y, X and the axes on a network's card."""

# C channel, Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_braintumor.engine.models.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor


def to_network_axes(array_CZYX: Tensor, card: ModelCard) -> Tensor:
    """Turn an array (or several, along leading axes) to the network's own axes."""
    if card.axes == "LPS zyx":
        return array_CZYX
    return (array_CZYX.flip(-2, -1) if card.axes == "RAS xyz" else array_CZYX).transpose(-3, -1)


def from_network_axes(array: Tensor, card: ModelCard) -> Tensor:
    """Undo `to_network_axes`."""
    if card.axes == "LPS zyx":
        return array
    array_CZYX = array.transpose(-3, -1)
    return array_CZYX.flip(-2, -1) if card.axes == "RAS xyz" else array_CZYX


def order_for_network(zyx: Sequence[Any], card: ModelCard) -> tuple[Any, ...]:
    """Return values for Z, Y and X in the order of the network's own axes."""
    return tuple(zyx if card.axes == "LPS zyx" else zyx[::-1])
