"""Reading a bundle of MONAI: a folder or zip file with metadata, weights and a configuration that MONAI can run.

Configurations of MONAI are programs: ``monai.bundle run`` evaluates what begins with ``$``. Here they are read as texts
only. A network is built from its plain values if it is one of a few of MONAI's, and the tensors must fit it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from napari_braintumor.engine.anatomy import (
    GLIOMA_REGIONS,
    LABEL_WORDS,
    REGION_LABELS,
    REGION_WORDS,
    REGIONS,
    WHOLE,
    Region,
)
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange.archive import Archive, shorten
from napari_braintumor.engine.exchange.monai.steps import read_grid, read_normalization, read_steps
from napari_braintumor.engine.exchange.packages import CARD_KEY, read_card, read_text
from napari_braintumor.engine.exchange.recognize import card_name, count_parameters
from napari_braintumor.engine.exchange.state_dict import fit_card, read_state_dict
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import IMPORTED

METADATA = "configs/metadata.json"
CONFIGURATIONS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
NETWORKS = {
    row.target.partition(":")[2]: name
    for name, row in IMPORTED.items()
    if row.target.startswith("monai.networks.nets:")
}
"""The classes of MONAI that a bundle may name, and our names for them."""

OUTDATED = ("img_size",)
"""Options that older versions of MONAI required, and that do not affect the weights."""

_Known = TypeVar("_Known", str, int)


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read a bundle.

    Parameters
    ----------
    path
        A zip file or a folder.
    description
        What the bundle does not state: its modalities, regions and intensities. It overrides the bundle.

    Returns
    -------
    tuple
        The weights and the card.

    Raises
    ------
    DescriptionNeeded
        If it does not say in plain values what its channels are, how images are prepared, which way they lie and at
        which voxel size, and no description is given.
    ModelError
        If it is not a bundle, is damaged, or needs an unknown network.
    """
    with Archive(path) as archive:
        found = [name for name in archive.names() if f"/{name}".endswith(f"/{METADATA}")]
        if not found:
            raise ModelError(
                f"'{path.name}' holds no {METADATA}, so it is not a MONAI bundle. Choose the whole bundle."
            )
        root = min(found, key=lambda name: (name.count("/"), name)).removesuffix(METADATA)
        metadata = read_text(archive, root + METADATA)
        if CARD_KEY in metadata:
            card = read_card(metadata[CARD_KEY], path.name)
        else:
            configurations = [root + name for name in CONFIGURATIONS if root + name in archive.names()]
            if not configurations:
                raise ModelError(
                    f"'{path.name}' holds no {CONFIGURATIONS[0]}, so its network is unknown. Choose the whole bundle."
                )
            configuration = read_text(archive, configurations[0])
            network = _read_network(configuration, path.name)
            card = _make_card(network, metadata, configuration, description, path)
        weights = read_state_dict(archive.read(f"{root}models/model.pt"))
    fit_card(weights, card)
    return weights, card if card.parameters else card.model_copy(update={"parameters": count_parameters(weights)})


def _read_network(configuration: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the network that a configuration describes, with its plain values."""
    described = [configuration[key] for key in ("network_def", "network", "net") if _is_part(configuration.get(key))]
    if not described:
        raise ModelError(
            f"The configuration in '{origin}' has no 'network_def' with the name of a class, so its network is "
            "unknown. Bundles that compute their network cannot be imported."
        )
    target = str(described[0].get("_target_", described[0].get("_name_")))
    package, _, name = target.rpartition(".")
    if name not in NETWORKS or (package and not f"{package}.".startswith("monai.networks.nets.")):
        raise ModelError(
            f"'{origin}' needs the network '{shorten(target)}', which this plugin does not have, and nothing of a "
            f"bundle is ever run. Supported are MONAI's {', '.join(NETWORKS)}."
        )
    values = {key: value for key, value in described[0].items() if not key.startswith("_") and key not in OUTDATED}
    for key, value in values.items():
        _refuse_expressions(key, value, origin)
    return {**values, "architecture": NETWORKS[name]}


def _is_part(value: object) -> bool:
    return isinstance(value, dict) and ("_target_" in value or "_name_" in value)


def _refuse_expressions(key: str, value: object, origin: str) -> None:
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        raise ModelError(
            f"The network's '{shorten(key)}' in '{origin}' is the expression '{shorten(value)}', and expressions are "
            "never evaluated here. Write the value itself into the configuration, if you know it."
        )
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_expressions(key, item, origin)


def _make_card(
    network: dict[str, Any],
    metadata: dict[str, Any],
    configuration: dict[str, Any],
    description: ModelCard | None,
    path: Path,
) -> ModelCard:
    options = dict(network)
    architecture = options.pop("architecture")
    dims = options.pop("spatial_dims", options.pop("dimensions", 3))
    in_channels, out_channels = options.pop("in_channels", None), options.pop("out_channels", None)
    network_fields = {"architecture": architecture, "options": options, "spatial_dims": dims}
    if description is not None:
        return read_card({**description.model_dump(), **network_fields}, path.name)
    modalities = _read_modalities(metadata, path.name)
    regions = _read_regions(metadata, path.name)
    for what, count, expected in (
        ("images", len(modalities), in_channels),
        ("outputs", regions.pop("outputs"), out_channels),
    ):
        if expected is not None and count != expected:
            raise DescriptionNeeded(
                f"The metadata of '{path.name}' names {count} {what}, but its network has {expected}. Describe the "
                "model."
            )
    references = metadata.get("references")
    steps = read_steps(configuration, path.name)
    normalization = read_normalization(steps, path.name)
    axes, spacing = read_grid(steps, metadata, dims, path.name)
    return read_card(
        {
            **network_fields,
            **regions,
            "name": card_name(str(metadata.get("name") or path.stem)).lower(),
            "version": str(metadata.get("version", "1"))[:40],
            "title": str(metadata.get("name") or metadata.get("task") or "")[:80],
            "modalities": modalities,
            "axes": axes,
            "spacing": spacing,
            "window": _read_window(configuration),
            "normalization": normalization,
            "license": str(metadata.get("license") or metadata.get("copyright") or "")[:200],
            "intended_use": str(metadata.get("intended_use") or "Research. Not a medical device.")[:500],
            "limitations": "; ".join(map(str, references))[:500] if isinstance(references, list) else "",
        },
        path.name,
    )


def _list_channel_names(metadata: dict[str, Any], side: str, tensor: str) -> list[str]:
    """Return the channels of a tensor, in order, as the metadata names them."""
    described: Any = metadata
    for key in ("network_data_format", side, tensor, "channel_def"):
        described = described.get(key) if isinstance(described, dict) else None
    if not isinstance(described, dict) or not 1 <= len(described) <= 16:
        return []
    return [str(described.get(str(number), "")).strip() for number in range(len(described))]


def _read_modalities(metadata: dict[str, Any], origin: str) -> list[str]:
    names = _list_channel_names(metadata, "inputs", "image")
    modalities = [find_modality(name) for name in names]
    if not names or None in modalities or len(set(modalities)) < len(modalities):
        raise DescriptionNeeded(
            f"The metadata of '{origin}' does not state which image is which "
            f"({shorten(', '.join(names)) or 'nothing'}). Describe its modalities and regions."
        )
    return [name for name in modalities if name]


def _read_regions(metadata: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the regions, their channels and the activation, if the outputs have known names."""
    names = [name.lower() for name in _list_channel_names(metadata, "outputs", "pred")]
    regions = _find_places(names, REGION_WORDS)
    if names and len(regions) == len(names):
        kept = [region for region in REGIONS if region.name in regions]
        channels: list[list[int]] = [[regions[region.name]] for region in kept]
        return {**_dump(kept), "channels": channels, "activation": "sigmoid", "outputs": len(names)}
    classes = _find_places(names, {label: LABEL_WORDS[label] for label in REGION_LABELS[WHOLE]})
    if names and names[0] == "background" and len(classes) == len(names) - 1 == len(REGION_LABELS[WHOLE]):
        channels = [[classes[label] for label in sorted(REGION_LABELS[region.name])] for region in GLIOMA_REGIONS]
        return {**_dump(list(GLIOMA_REGIONS)), "channels": channels, "activation": "softmax", "outputs": len(names)}
    raise DescriptionNeeded(
        f"The metadata of '{origin}' does not state what the network finds ({shorten(', '.join(names)) or 'nothing'}). "
        "Describe its modalities and regions."
    )


def _find_places(names: list[str], words: Mapping[_Known, frozenset[str]]) -> dict[_Known, int]:
    """Return the position at which each known thing is named, by any of its words."""
    return {known: place for place, name in enumerate(names) for known, alike in words.items() if name in alike}


def _dump(regions: list[Region]) -> dict[str, Any]:
    return {"regions": [region.model_dump() for region in regions]}


def _read_window(configuration: dict[str, Any]) -> list[int] | None:
    inferer = configuration.get("inferer")
    roi = inferer.get("roi_size") if isinstance(inferer, dict) else None
    if not isinstance(roi, list) or len(roi) != 3 or not all(isinstance(side, int) for side in roi):
        return None
    return roi[::-1]
