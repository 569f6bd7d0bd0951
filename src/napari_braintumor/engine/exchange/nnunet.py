"""Trained folders of nnU-Net v2, read without it: its plain U-Net is MONAI's DynUNet under other names.

The names differ, and MONAI's convolutions have no bias. A bias before an instance norm changes nothing, as the norm
takes the mean away again, so it is left out.

References
----------
Isensee et al. 2021, nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature
Methods 18.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from napari_braintumor.engine.anatomy import REGION_NAMES, REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange.archive import Archive, shorten
from napari_braintumor.engine.exchange.recognize import card_name
from napari_braintumor.engine.exchange.state_dict import build_on_meta, fit_card, read_state_dict
from napari_braintumor.engine.files.naming import find_modality
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.settings import describe_problem

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
MAX_TEXT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class _Plan:
    """One configuration of the plans, as far as it is used here."""

    name: str
    window: tuple[int, ...]
    spacing: tuple[float, ...]
    options: Mapping[str, Any]


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the network of one fold.

    Images are assumed to have the axes of BraTS: the first axis from left to right, the second from front to back.

    Parameters
    ----------
    path
        The folder of a trainer, with ``plans.json``, ``dataset.json`` and folders of folds, or a zip file of it.
    description
        Modalities and regions, if ``dataset.json`` does not use our names.

    Returns
    -------
    tuple
        The weights by MONAI's names, and the card.

    Raises
    ------
    DescriptionNeeded
        If the channels are unknown, and no description is given.
    ModelError
        If it is not such a folder, is damaged, or its network or preprocessing is not supported.
    """
    with Archive(path) as archive:
        found = [name for name in archive.names() if f"/{name}".endswith(f"/{PLANS}")]
        root = min(found, key=lambda name: name.count("/")).removesuffix(PLANS) if found else ""
        plans, dataset = _read(archive, root + PLANS), _read(archive, root + DATASET)
        checkpoint = _choose_checkpoint(archive, f"{root}fold_")
        content = archive.read(checkpoint)
    try:
        known = [_read_plan(name, _inherit(plans["configurations"], name)) for name in plans["configurations"]]
        described = _describe(dataset, plans, path.name) if description is None else {}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"The plans in '{path.name}' cannot be understood. Use the folder as nnU-Net wrote it."
        ) from error
    theirs = read_state_dict(content)
    head = theirs.get("decoder.seg_layers.0.weight")
    dims, outputs = (0, 0) if head is None else (head.ndim - 2, len(head))
    fitting: list[tuple[dict[str, Tensor], _Plan]] = []
    problem = "its network is not one of nnU-Net's plain U-Nets"
    for plan in known:
        if plan is None or len(plan.window) != dims:
            continue
        try:
            fitting.append((_rename(theirs, plan, outputs), plan))
        except ModelError as error:
            problem = str(error)
    named = [each for each in fitting if each[1].name in path.resolve().name.split("__")]
    chosen = named or fitting
    if not chosen:
        raise ModelError(f"'{path.name}' cannot be imported: {problem.rstrip('.')}.")
    if len({(plan.window, plan.spacing) for _, plan in chosen}) > 1:
        names = ", ".join(plan.name for _, plan in chosen)
        raise ModelError(
            f"'{path.name}' may be any of the configurations {names}. Give the folder its name of nnU-Net again, as "
            "nnUNetTrainer__nnUNetPlans__3d_fullres."
        )
    weights, plan = chosen[0]
    base = description.model_dump() if description is not None else {"name": card_name(path.stem).lower(), **described}
    try:
        card = ModelCard.model_validate({**base, **_list_plan_fields(plan), "parameters": _count(weights)})
    except ValidationError as error:
        raise ModelError(f"'{path.name}' cannot be imported: {describe_problem(error)}. Describe it.") from error
    fit_card(weights, card)
    return weights, card


def _read(archive: Archive, name: str) -> dict[str, Any]:
    if name not in archive.names():
        raise ModelError(
            f"'{archive.name}' holds no {name}, so it is not a trained folder of nnU-Net. Choose the whole folder."
        )
    try:
        found = json.loads(archive.read(name, MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{name}' in '{archive.name}' is not JSON. Use the folder as nnU-Net wrote it.") from error
    if not isinstance(found, dict):
        raise ModelError(f"'{name}' in '{archive.name}' holds no names and values. Use the folder as nnU-Net wrote it.")
    return found


def _choose_checkpoint(archive: Archive, folds: str) -> str:
    for ending in CHECKPOINTS:
        found = [name for name in archive.names() if name.startswith(folds) and name.endswith(f"/{ending}")]
        if found:
            return min(found, key=lambda name: (not name.startswith(f"{folds}all/"), name))
    raise ModelError(f"'{archive.name}' holds no fold_0/{CHECKPOINTS[0]}. Choose the folder of a finished training.")


def _inherit(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _ in range(8):
        here = configurations[name]
        merged = {**here, **merged}
        name = here.get("inherits_from", "")
        if not name:
            break
    return merged


def _read_plan(name: str, plan: dict[str, Any]) -> _Plan | None:
    """Return a configuration; None if its network or preprocessing is not supported."""
    architecture = plan.get("architecture") or {
        "network_class_name": plan["UNet_class_name"],
        "arch_kwargs": {
            "kernel_sizes": plan["conv_kernel_sizes"],
            "strides": plan["pool_op_kernel_sizes"],
            "features_per_stage": [
                min(plan["UNet_base_num_features"] * 2**stage, plan["unet_max_num_features"])
                for stage in range(len(plan["pool_op_kernel_sizes"]))
            ],
            "n_conv_per_stage": plan["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": plan["n_conv_per_stage_decoder"],
        },
    }
    values = architecture["arch_kwargs"]
    convolutions = {*_as_list(values["n_conv_per_stage"]), *_as_list(values["n_conv_per_stage_decoder"])}
    if (
        str(architecture["network_class_name"]).rpartition(".")[2] != "PlainConvUNet"
        or convolutions != {2}
        or any(kernel != values["kernel_sizes"][0] for kernel in values["kernel_sizes"])  # MONAI's decoder has others
        or set(plan["normalization_schemes"]) != {"ZScoreNormalization"}
        or not all(plan["use_mask_for_norm"])
        or "InstanceNorm" not in str(values.get("norm_op", "InstanceNorm"))
        or "LeakyReLU" not in str(values.get("nonlin", "LeakyReLU"))
        or plan.get("previous_stage")
    ):
        return None
    return _Plan(
        name,
        tuple(map(int, plan["patch_size"])),
        tuple(map(float, plan["spacing"])),
        {
            "kernel_size": values["kernel_sizes"],
            "strides": values["strides"],
            "upsample_kernel_size": values["strides"][1:],
            "filters": values["features_per_stage"],
            "trans_bias": bool(values.get("conv_bias", True)),
        },
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _describe(dataset: dict[str, Any], plans: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return modalities and regions, if they have known names."""
    if list(plans.get("transpose_forward", [0, 1, 2])) != [0, 1, 2]:
        raise ModelError(f"'{origin}' was trained with swapped axes, which is not supported.")
    names = dataset.get("channel_names") or dataset["modality"]
    images = [str(names[str(number)]) for number in range(len(names))]
    modalities = [find_modality(name) for name in images]
    labels = {str(name).lower(): value for name, value in dataset["labels"].items()}
    regions = [name for name in labels if name not in ("background", "ignore")]
    known = set(REGION_NAMES)
    nested = any(isinstance(value, list) for value in labels.values())
    if None in modalities or len(set(modalities)) < len(modalities) or not nested or not set(regions) <= known:
        raise DescriptionNeeded(
            f"The {DATASET} of '{origin}' names the images {shorten(', '.join(images))} and the labels "
            f"{shorten(', '.join(regions))}, which do not state modalities and regions. Describe them."
        )
    kept = [region for region in REGIONS if region.name in regions]
    return {
        "modalities": modalities,
        "regions": [region.model_dump() for region in kept],
        "channels": [[regions.index(region.name)] for region in kept],
        "title": str(dataset.get("name", ""))[:80],
        "normalization": "nonzero z-score",
        "license": str(dataset.get("licence") or dataset.get("license") or "")[:200],
        "limitations": "One fold of nnU-Net, without its mirrored passes and with images resampled linearly.",
    }


def _list_plan_fields(plan: _Plan) -> dict[str, Any]:
    flat = len(plan.window) == 2
    return {
        "architecture": "monai_dynunet",
        "options": dict(plan.options),
        "spatial_dims": len(plan.window),
        "spacing": (None, *plan.spacing) if flat else plan.spacing,
        "window": None if flat else plan.window,
    }


def _rename(theirs: Mapping[str, Tensor], plan: _Plan, out_channels: int) -> dict[str, Tensor]:
    """Return the weights by MONAI's names; MONAI has some of them under two."""
    stages = len(plan.options["strides"])
    first = theirs.get("encoder.stages.0.0.convs.0.conv.weight")
    if first is None:
        raise ModelError("its tensors have other names than those of nnU-Net's plain U-Net")
    network = build_on_meta("monai_dynunet", first.shape[1], out_channels, len(plan.window), plan.options)
    ours: dict[str, str] = {"output_block.conv.conv": f"decoder.seg_layers.{stages - 2}"}
    for stage in range(stages):
        block = "input_block" if stage == 0 else "bottleneck" if stage == stages - 1 else f"downsamples.{stage - 1}"
        _add_block(ours, block, f"encoder.stages.{stage}.0")
    for stage in range(stages - 1):
        ours[f"upsamples.{stage}.transp_conv.conv"] = f"decoder.transpconvs.{stage}"
        _add_block(ours, f"upsamples.{stage}.conv_block", f"decoder.stages.{stage}")
    state = network.state_dict(keep_vars=True)
    place = {id(tensor): name for name, tensor in state.items() if not name.startswith("skip_layers.")}
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, kind = place[id(tensor)].rpartition(".")
        source = f"{ours.get(module, module)}.{kind}"
        if source not in theirs:
            raise ModelError(f"the tensor '{source}' is missing")
        if theirs[source].shape != tensor.shape:
            raise ModelError(
                f"the tensor '{source}' has the shape {tuple(theirs[source].shape)} where {tuple(tensor.shape)} is "
                "expected"
            )
        weights[name] = theirs[source].clone()
    return weights


def _add_block(ours: dict[str, str], block: str, source: str) -> None:
    for number in (1, 2):
        ours[f"{block}.conv{number}.conv"] = f"{source}.convs.{number - 1}.conv"
        ours[f"{block}.norm{number}"] = f"{source}.convs.{number - 1}.norm"


def _count(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in weights.items() if not name.startswith("skip_layers."))
