"""Writing a bundle of MONAI: metadata, weights, and a configuration with which MONAI runs it alone."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from napari_braintumor.engine.anatomy import count_nested
from napari_braintumor.engine.atomic import making_folder
from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.exchange.monai.reading import CONFIGURATIONS, METADATA
from napari_braintumor.engine.exchange.packages import (
    CARD_KEY,
    describe,
    pack,
    read_network_source,
    save_weights,
    to_plain,
    write_page,
)
from napari_braintumor.engine.models.axes import order_for_network
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import load_weights
from napari_braintumor.engine.models.registry import ONNX, find_architecture, find_divisor
from napari_braintumor.engine.models.store import StoredModel

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_USE = """Put the images of a case, named {patterns}, into a folder, and run inside the bundle:

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir FOLDER

The labels lie in `eval`. It needs monai with nibabel, pytorch-ignite, fire and scipy. `scripts/case.py` prepares images
and paints labels as napari-braintumor does."""


def export(model: StoredModel, target: Path) -> Path:
    """Write a model as a bundle that ``python -m monai.bundle run`` runs.

    Parameters
    ----------
    model
        A usable model of the store.
    target
        A zip file where it ends in ``.zip``, else a new folder.

    Returns
    -------
    Path
        The zip file or the folder.

    Raises
    ------
    ModelError
        If the model is an ONNX graph, has a region that is not nested, or its file is damaged.
    DataError
        If the bundle cannot be written, or the folder exists.
    """
    assert model.card is not None
    card = model.card
    if card.architecture == ONNX:
        raise ModelError(f"'{card.name}' is an ONNX graph and has no network to pack. Export it as ONNX.")
    if count_nested(card.regions) < len(card.regions):
        raise ModelError(
            f"'{card.name}' has a region that is not nested, which a bundle cannot paint. Export it as ONNX."
        )
    files = {
        METADATA: _to_json(_write_metadata(card)),
        CONFIGURATIONS[0]: _to_json(_write_configuration(card)),
        "models/model.pt": save_weights(load_weights(model.path)),
        "docs/README.md": write_page(card, _USE.format(patterns=", ".join(_list_patterns(card)))).encode(),
        "docs/license.txt": f"{card.license or 'The card of this model states no license.'}\n".encode(),
        "scripts/__init__.py": b'"""What MONAI needs to run this model."""\n',
        "scripts/case.py": Path(__file__).with_name("case.py").read_bytes(),
        "scripts/head.py": (Path(__file__).parents[2] / "inspecting" / "foreground.py").read_bytes(),
    }
    module = find_architecture(card.architecture).target.partition(":")[0]
    if "." not in module:
        files[f"scripts/{module}.py"] = read_network_source(module)
    if target.suffix.lower() == ".zip":
        return pack({f"{target.stem}/{name}": content for name, content in files.items()}, target)
    return _write_folder(files, target)


def _to_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _list_patterns(card: ModelCard) -> list[str]:
    return [f"*_{re.sub('[^a-z0-9]', '', modality.lower())}.nii.gz" for modality in card.modalities]


def _write_metadata(card: ModelCard) -> dict[str, Any]:
    divisor = find_divisor(card.architecture, card.options)
    sides = [f"{divisor}*{letter}" for letter in "nmk"[: card.spatial_dims]]
    outputs = {str(number): f"channel {number}" for number in range(card.out_channels)}
    for region, channels in zip(card.regions, _list_channels(card), strict=True):
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
        "copyright": card.license or "not stated",
        "data_source": "; ".join(source.name for source in card.trained_on) or "not stated",
        "data_type": "nibabel",
        "image_classes": f"{len(card.inputs)} channels: {', '.join(card.inputs)}",
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
                    "num_channels": len(card.inputs),
                    "value_range": [-5, 5] if card.normalization == "head z-score" else [],
                    "channel_def": {str(number): name for number, name in enumerate(card.inputs)},
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


def _list_channels(card: ModelCard) -> list[list[int]]:
    if card.channels is None:
        return [[number] for number in range(len(card.regions))]
    return [list(channels) for channels in card.channels]


def _write_configuration(card: ModelCard) -> dict[str, Any]:
    row = find_architecture(card.architecture)
    module, _, name = row.target.partition(":")
    divisor = find_divisor(card.architecture, card.options)
    window = None if card.window is None else list(order_for_network(card.window, card))
    slices = {"_target_": "SliceInferer", "roi_size": [-1, -1], "spatial_dim": 0, "sw_batch_size": 8}
    windows = {"_target_": "scripts.case.WindowInferer", "window": window, "divisor": divisor}
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "patterns": _list_patterns(card),
        "datalist": "$[{'image': list(files)} for files in zip(*[sorted(glob.glob(os.path.join(@dataset_dir, pattern)))"
        " for pattern in @patterns], strict=True)]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": f"{module}.{name}" if "." in module else f"scripts.{module}.{name}",
            "in_channels": len(card.inputs),
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
                    "normalization": card.normalization,
                    "axes": card.axes,
                    "context_mm": card.context_mm,
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
                    "channels": _list_channels(card),
                    "softmax": card.activation == "softmax",
                    "labels": [region.label for region in card.regions],
                    "threshold": card.threshold,
                    "least_ml": [region.least_ml for region in card.regions],
                    "min_volume_ml": card.min_volume_ml,
                    "solid_core": list(card.solid_core.model_dump().values()) if card.solid_core else None,
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
    """Write files into a new folder, which appears only once it is complete."""
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
            f"'{target}' cannot be written: {error.strerror or error}. Choose a folder that you can write to."
        ) from error
    return target
