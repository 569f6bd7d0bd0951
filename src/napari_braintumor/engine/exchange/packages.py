"""What packages for other programs share: text files, a card inside them, weights, a page to read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.exchange.archive import Archive, shorten
from napari_braintumor.engine.models.card import ModelCard, Normalization
from napari_braintumor.engine.models.card_text import architecture_title, card_as_markdown
from napari_braintumor.engine.settings import describe_problem

MAX_TEXT_BYTES = 2**20
MAX_LEVELS = 32
CARD_KEY = "napari_braintumor"
PREPARATION: Mapping[Normalization, str] = {
    "head z-score": "The head is what is not air in any image, with holes filled slice by slice. Each image is clipped "
    "to its percentiles 0.5 and 99.5 in the head to find mean and deviation; its values become z-scores, are clipped "
    "to ±5, and are zero outside the head.",
    "nonzero z-score": "Each image becomes z-scores over its voxels that are not zero; these stay zero.",
    "percentile z-score": "All images are clipped to their common percentiles 10 and 99; then each becomes z-scores "
    "over all of its voxels.",
}


class _Loader(yaml.SafeLoader):
    """Refuses references, which let a short text stand for an endless one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to parts of itself")
        return super().compose_node(parent, index)


def read_text(archive: Archive, name: str) -> dict[str, Any]:
    """Return a file of JSON or YAML, which must hold names and values.

    Returns
    -------
    dict
        The values by name.

    Raises
    ------
    ModelError
        If it cannot be read, or holds something else.
    """
    content = archive.read(name, MAX_TEXT_BYTES)
    try:
        found = json.loads(content) if name.endswith(".json") else yaml.load(content, _Loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = shorten(str(error).partition("\n")[0])
        raise ModelError(
            f"'{shorten(name)}' in '{archive.name}' cannot be read: {reason}. Use the package as it was published."
        ) from error
    if not isinstance(found, dict) or _is_deep(found):
        raise ModelError(
            f"'{shorten(name)}' in '{archive.name}' holds no plain names and values. Use the package as published."
        )
    return found


def _is_deep(content: object) -> bool:
    """Return whether values are nested deeper than in any real description."""
    level = [content]
    for _ in range(MAX_LEVELS):
        inner = [value for each in level if isinstance(each, dict) for value in each.values()]
        inner += [value for each in level if isinstance(each, list) for value in each]
        if not inner:
            return False
        level = inner
    return True


def read_card(card: object, origin: str) -> ModelCard:
    """Validate a card that lies in a package.

    Returns
    -------
    ModelCard
        The card.

    Raises
    ------
    ModelError
        If it is not valid.
    """
    try:
        return ModelCard.model_validate(card)
    except ValidationError as error:
        raise ModelError(
            f"The card in '{origin}' is not valid: {describe_problem(error)}. Export the model again."
        ) from error


def to_plain(value: Any) -> Any:
    """Return options with lists in place of tuples, as in JSON and YAML."""
    return json.loads(json.dumps(value))


def read_network_source(module: str) -> bytes:
    """Return the source of one of our own networks, by the name of its file: it needs nothing but torch."""
    return (Path(__file__).parents[1] / "networks" / f"{module}.py").read_bytes()


def save_weights(weights: dict[str, Tensor]) -> bytes:
    """Return a state dict as ``torch.save`` writes it, the same for the same weights: safetensors shuffles them."""
    stream = io.BytesIO()
    torch.save(dict(sorted(weights.items())), stream)
    return stream.getvalue()


def pack(files: Mapping[str, bytes], target: Path) -> Path:
    """Write files into a zip file, which is the same for the same files.

    Returns
    -------
    Path
        The zip file.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o644 << 16
            packed.writestr(member, content, zipfile.ZIP_DEFLATED)
    return target


def describe(card: ModelCard) -> str:
    """Return a sentence that says what a model does."""
    regions = ", ".join(region.name for region in card.regions)
    return f"{architecture_title(card)} that finds {regions} in brain MRI ({', '.join(card.modalities)})."


def _describe_channels(card: ModelCard) -> str:
    if card.context_mm is None:
        return ""
    return (
        f"\n\nThe network also sees the slices {card.context_mm:g} mm above and below, the nearest ones and at least "
        f"the next, which are zero beyond the ends of a scan. Its channels: {', '.join(card.inputs)}."
    )


def write_page(card: ModelCard, use: str) -> str:
    """Return a page in Markdown: how images are prepared, what comes out, and all of the card.

    Parameters
    ----------
    card
        The model's.
    use
        How the package is run.

    Returns
    -------
    str
        The page.
    """
    spacing = ", ".join("as scanned" if size is None else f"{size:g} mm" for size in card.spacing)
    corner, order = card.axes.split()
    axes = f"{'left, posterior' if corner == 'LPS' else 'right, anterior'}, superior; {', '.join(order.upper())}"
    missing = "An image that is missing is all zero." if card.accepts_missing else "All of them are needed."
    labels = ", ".join(f"{region.label} {region.label_name}" for region in card.regions)
    return f"""# {card.title or card.name}

{describe(card)}

## Input
Images on one grid, in this order: {", ".join(card.modalities)}. {missing} Voxels along Z, Y, X: {spacing}. Axes grow to
{axes}. {PREPARATION[card.normalization]}{_describe_channels(card)}

## Output
Probabilities by {card.activation}; a voxel lies in a region where its probability exceeds {card.threshold:g}. Labels,
each painted over the ones before: {labels}. Tumors of less than {card.min_volume_ml:g} mL are removed.

## Use
{use}

## Validation
Measure Dice of each region on cases with a reference that training never saw. What is known is on the card.

## Card
{card_as_markdown(card)}"""
