"""Bundles of MONAI: a folder or zip file with metadata, weights and a configuration that MONAI can run.

Configurations of MONAI are programs: ``monai.bundle run`` evaluates what begins with ``$``. Here they are read as texts
only. A network is built from its plain values if it is one of a few of MONAI's, and the tensors must fit it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
from torch import Tensor

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_WORDS, REGION_LABELS, REGION_WORDS, WHOLE, Region
from napari_braintumor.engine.atomic import making_folder
from napari_braintumor.engine.errors import DataError, DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange._monai_steps import read_grid, read_normalisation, read_steps
from napari_braintumor.engine.exchange.archive import Archive, shown
from napari_braintumor.engine.exchange.packages import (
    CARD_KEY,
    describe,
    pack,
    read_card,
    read_network_source,
    read_text,
    save_weights,
    to_plain,
    write_page,
)
from napari_braintumor.engine.exchange.recognize import card_name, count_parameters
from napari_braintumor.engine.exchange.state_dict import fit_card, read_state_dict
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.models.axes import in_network_order
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import ONNX, find_architecture, find_divisor
from napari_braintumor.engine.models.store import StoredModel, load_weights

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
METADATA = "configs/metadata.json"
CONFIGURATIONS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
NETWORKS = {
    "SegResNet": "monai_segresnet",
    "UNet": "monai_unet",
    "BasicUNet": "monai_basicunet",
    "DynUNet": "monai_dynunet",
    "SwinUNETR": "monai_swinunetr",
}
"""The classes of MONAI that a bundle may name, and what they are called here."""

OUTDATED = ("img_size",)
"""Options that older versions of MONAI wanted, and that change nothing about the weights."""

_Known = TypeVar("_Known", str, int)


def export(model: StoredModel, target: Path) -> Path:
    """Write a model as a bundle that ``python -m monai.bundle run`` runs.

    Parameters
    ----------
    model
        A usable model of the store.
    target
        A zip file where it ends in ``.zip``, else a new folder.

    Raises
    ------
    ModelError
        If the model is an ONNX graph, or its file is damaged.
    DataError
        If the bundle cannot be written, or the folder exists.
    """
    assert model.card is not None
    card = model.card
    if card.architecture == ONNX:
        raise ModelError(f"'{card.name}' is an ONNX graph and has no network to pack. Export it as ONNX.")
    files = {
        METADATA: _to_json(_write_metadata(card)),
        CONFIGURATIONS[0]: _to_json(_write_configuration(card)),
        "models/model.pt": save_weights(load_weights(model.path)),
        "docs/README.md": write_page(card, _USE.format(patterns=", ".join(_patterns(card)))).encode(),
        "docs/license.txt": f"{card.licence or 'The card of this model states no licence.'}\n".encode(),
        "scripts/__init__.py": b'"""What MONAI needs to run this model."""\n',
        "scripts/case.py": Path(__file__).with_name("_monai_case.py").read_bytes(),
        "scripts/head.py": (Path(__file__).parents[1] / "inspecting" / "foreground.py").read_bytes(),
    }
    module = find_architecture(card.architecture).target.partition(":")[0]
    if "." not in module:
        files[f"scripts/{module}.py"] = read_network_source(module)
    if target.suffix.lower() == ".zip":
        return pack({f"{target.stem}/{name}": content for name, content in files.items()}, target)
    return _write_folder(files, target)


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read a bundle.

    Parameters
    ----------
    path
        A zip file or a folder.
    description
        What the bundle does not tell: its modalities, regions and intensities. Where it is given, it is believed.

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
        If it is no bundle, is damaged, or needs a network that is not known here.
    """
    with Archive(path) as archive:
        found = [name for name in archive.names() if f"/{name}".endswith(f"/{METADATA}")]
        if not found:
            raise ModelError(f"'{path.name}' holds no {METADATA}, so it is no MONAI bundle. Choose the whole bundle.")
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


# ------------------------------------------------------------------------------------------------------ what is read


def _read_network(configuration: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the plain values that a configuration describes its network with, and which network it is."""
    described = [configuration[key] for key in ("network_def", "network", "net") if _is_part(configuration.get(key))]
    if not described:
        raise ModelError(
            f"The configuration in '{where}' has no 'network_def' with the name of a class, so its network is unknown. "
            "Bundles that compute their network cannot be imported."
        )
    target = str(described[0].get("_target_", described[0].get("_name_")))
    package, _, name = target.rpartition(".")
    if name not in NETWORKS or (package and not f"{package}.".startswith("monai.networks.nets.")):
        raise ModelError(
            f"'{where}' needs the network '{shown(target)}', which is not known here, and nothing of a bundle is ever "
            f"run. Known are MONAI's {', '.join(NETWORKS)}."
        )
    values = {key: value for key, value in described[0].items() if not key.startswith("_") and key not in OUTDATED}
    for key, value in values.items():
        _refuse_expressions(key, value, where)
    return {**values, "architecture": NETWORKS[name]}


def _is_part(value: object) -> bool:
    return isinstance(value, dict) and ("_target_" in value or "_name_" in value)


def _refuse_expressions(key: str, value: object, where: str) -> None:
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        raise ModelError(
            f"The network's '{shown(key)}' in '{where}' is the expression '{shown(value)}', and expressions are never "
            "evaluated here. Write the value itself into the configuration, if you know it."
        )
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_expressions(key, item, where)


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
    told = {"architecture": architecture, "options": options, "spatial_dims": dims}
    if description is not None:
        return read_card({**description.model_dump(), **told}, path.name)
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
    normalisation = read_normalisation(steps, path.name)
    axes, spacing = read_grid(steps, metadata, dims, path.name)
    return read_card(
        {
            **told,
            **regions,
            "name": card_name(str(metadata.get("name") or path.stem)).lower(),
            "version": str(metadata.get("version", "1"))[:40],
            "title": str(metadata.get("name") or metadata.get("task") or "")[:80],
            "modalities": modalities,
            "axes": axes,
            "spacing": spacing,
            "window": _read_window(configuration),
            "normalisation": normalisation,
            "licence": str(metadata.get("license") or metadata.get("copyright") or "")[:200],
            "intended_use": str(metadata.get("intended_use") or "Research. Not a medical device.")[:500],
            "limitations": "; ".join(map(str, references))[:500] if isinstance(references, list) else "",
        },
        path.name,
    )


def _channel_names(metadata: dict[str, Any], side: str, tensor: str) -> list[str]:
    """Return what the metadata says that the channels of a tensor are, in their order."""
    described: Any = metadata
    for key in ("network_data_format", side, tensor, "channel_def"):
        described = described.get(key) if isinstance(described, dict) else None
    if not isinstance(described, dict) or not 1 <= len(described) <= 16:
        return []
    return [str(described.get(str(number), "")).strip() for number in range(len(described))]


def _read_modalities(metadata: dict[str, Any], where: str) -> list[str]:
    names = _channel_names(metadata, "inputs", "image")
    modalities = [find_modality(name) for name in names]
    if not names or None in modalities or len(set(modalities)) < len(modalities):
        raise DescriptionNeeded(
            f"The metadata of '{where}' does not tell which image is which ({shown(', '.join(names)) or 'nothing'}). "
            "Describe its modalities and regions."
        )
    return [name for name in modalities if name]


def _read_regions(metadata: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the regions, their channels and the activation, if the outputs have names that are known."""
    names = [name.lower() for name in _channel_names(metadata, "outputs", "pred")]
    regions = _places(names, REGION_WORDS)
    if names and len(regions) == len(names):
        kept = [region for region in GLIOMA_REGIONS if region.name in regions]
        channels: list[list[int]] = [[regions[region.name]] for region in kept]
        return {**_dump(kept), "channels": channels, "activation": "sigmoid", "outputs": len(names)}
    classes = _places(names, {label: LABEL_WORDS[label] for label in REGION_LABELS[WHOLE]})
    if names and names[0] == "background" and len(classes) == len(names) - 1 == len(REGION_LABELS[WHOLE]):
        channels = [[classes[label] for label in sorted(REGION_LABELS[region.name])] for region in GLIOMA_REGIONS]
        return {**_dump(list(GLIOMA_REGIONS)), "channels": channels, "activation": "softmax", "outputs": len(names)}
    raise DescriptionNeeded(
        f"The metadata of '{where}' does not tell what the network finds ({shown(', '.join(names)) or 'nothing'}). "
        "Describe its modalities and regions."
    )


def _places(names: list[str], words: Mapping[_Known, frozenset[str]]) -> dict[_Known, int]:
    """Return for each thing that is known by some words at which place it is named."""
    return {known: place for place, name in enumerate(names) for known, alike in words.items() if name in alike}


def _dump(regions: list[Region]) -> dict[str, Any]:
    return {"regions": [region.model_dump() for region in regions]}


def _read_window(configuration: dict[str, Any]) -> list[int] | None:
    inferer = configuration.get("inferer")
    roi = inferer.get("roi_size") if isinstance(inferer, dict) else None
    if not isinstance(roi, list) or len(roi) != 3 or not all(isinstance(side, int) for side in roi):
        return None
    return roi[::-1]


# ------------------------------------------------------------------------------------------------- what is written

_USE = """Put the images of a case, named {patterns}, into a folder, and run inside of the bundle:

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir FOLDER

The labels lie in `eval`. It needs monai with nibabel, pytorch-ignite, fire and scipy. `scripts/case.py` prepares images
and paints labels as napari-braintumor does; but it looks at every slice, so that it may find islands thinner than 4 mm
that napari-braintumor does not look for."""


def _to_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _patterns(card: ModelCard) -> list[str]:
    return [f"*_{re.sub('[^a-z0-9]', '', modality.lower())}.nii.gz" for modality in card.modalities]


def _write_metadata(card: ModelCard) -> dict[str, Any]:
    divisor = find_divisor(card.architecture, card.options)
    sides = [f"{divisor}*{letter}" for letter in "nmk"[: card.spatial_dims]]
    outputs = {str(number): f"channel {number}" for number in range(card.out_channels)}
    for region, channels in zip(card.regions, _channels(card), strict=True):
        if len(channels) == 1:
            outputs[str(channels[0])] = region.name
    whole = {"type": "image", "dtype": "float32", "is_patch_data": card.window is not None, "spatial_shape": sides}
    return {
        "schema": SCHEMA,
        "version": card.version,
        "changelog": {card.version: "exported by napari-braintumor"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "nibabel": version("nibabel"),
            "pytorch-ignite": "0.4.11",
            "fire": "0.7.0",
            "scipy": version("scipy"),
        },
        "supported_apps": {},
        "name": card.title or card.name,
        "task": f"Segmentation of {', '.join(region.name for region in card.regions)}",
        "description": describe(card),
        "authors": "napari-braintumor developers",
        "copyright": card.licence or "not stated",
        "data_source": "; ".join(source.name for source in card.trained_on) or "not stated",
        "data_type": "nibabel",
        "image_classes": f"{len(card.modalities)} channels: {', '.join(card.modalities)}",
        "label_classes": ", ".join(f"{region.label} {region.label_name}" for region in card.regions),
        "pred_classes": f"{card.out_channels} channels: {', '.join(outputs.values())}",
        "eval_metrics": {
            f"{metric.measure}, {metric.region}, {metric.data}": metric.mean
            for metric in card.metrics
            if metric.held_out
        },
        "intended_use": card.intended_use,
        "references": [],
        "network_data_format": {
            "inputs": {
                "image": {
                    **whole,
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": len(card.modalities),
                    "value_range": [-5, 5] if card.normalisation == "head z-score" else [],
                    "channel_def": {str(number): name for number, name in enumerate(card.modalities)},
                }
            },
            "outputs": {
                "pred": {
                    **whole,
                    "format": "segmentation",
                    "num_channels": card.out_channels,
                    "value_range": [],
                    "channel_def": outputs,
                }
            },
        },
        CARD_KEY: card.model_dump(mode="json"),
    }


def _channels(card: ModelCard) -> list[list[int]]:
    if card.channels is None:
        return [[number] for number in range(len(card.regions))]
    return [list(channels) for channels in card.channels]


def _write_configuration(card: ModelCard) -> dict[str, Any]:
    row = find_architecture(card.architecture)
    module, _, name = row.target.partition(":")
    divisor = find_divisor(card.architecture, card.options)
    window = None if card.window is None else list(in_network_order(card.window, card))
    slices = {"_target_": "SliceInferer", "roi_size": [-1, -1], "spatial_dim": 0, "sw_batch_size": 8}
    windows = {"_target_": "scripts.case.WindowInferer", "window": window, "divisor": divisor}
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "patterns": _patterns(card),
        "datalist": "$[{'image': list(files)} for files in zip(*[sorted(glob.glob(os.path.join(@dataset_dir, pattern)))"
        " for pattern in @patterns], strict=True)]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": f"{module}.{name}" if "." in module else f"scripts.{module}.{name}",
            "in_channels": len(card.modalities),
            "out_channels": card.out_channels,
            "spatial_dims": card.spatial_dims,
            **to_plain({**row.defaults, **card.options}),
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {
                    "_target_": "scripts.case.PrepareCase",
                    "spacing": list(card.spacing),
                    "divisor": divisor,
                    "normalisation": card.normalisation,
                    "axes": card.axes,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": slices if card.spatial_dims == 2 else windows,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "scripts.case.PaintCase",
                    "channels": _channels(card),
                    "softmax": card.activation == "softmax",
                    "labels": [region.label for region in card.regions],
                    "threshold": card.threshold,
                    "least_ml": [region.least_ml for region in card.regions],
                    "min_volume_ml": card.min_volume_ml,
                    "axes": card.axes,
                },
                {"_target_": "scripts.case.SaveLabels", "folder": "@output_dir"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _write_folder(files: dict[str, bytes], target: Path) -> Path:
    """Write files into a new folder, which is not seen before it is complete."""
    if target.exists():
        raise DataError(f"'{target}' exists already. Choose the name of a new folder, or one that ends in .zip.")
    try:
        with making_folder(target) as temporary:
            for name, content in files.items():
                path = temporary / PurePosixPath(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except OSError as error:
        raise DataError(
            f"'{target}' cannot be written: {error.strerror or error}. Choose a folder that may be written to."
        ) from error
    return target
