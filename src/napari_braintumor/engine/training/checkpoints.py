"""All that a training needs to go on exactly where it was, in one safetensors file that is replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError, ModelError

STATE_KEY = "napari_braintumor_state"


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write modules, optimizer and numbers, every tensor to the bit.

    Parameters
    ----------
    path
        The file.
    modules
        The network and, where there is one, its running average, by name.
    optimizer
        Over the network's parameters.
    state
        JSON values.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        tensors.update({f"{prefix}/{name}": tensor for name, tensor in module.state_dict().items()})
    for index, values in optimizer.state_dict()["state"].items():
        tensors.update(
            {f"optimizer/{index}/{name}": value for name, value in values.items() if isinstance(value, Tensor)}
        )
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    blob = save(plain, metadata={STATE_KEY: json.dumps(dict(state))})
    with replacing(path) as temporary:
        temporary.write_bytes(blob)


def load_checkpoint(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put modules and optimizer into the state of a checkpoint and return its numbers.

    Returns
    -------
    dict
        The numbers that were saved, by name.

    Raises
    ------
    ModelError
        If the checkpoint is of another architecture.
    DataError
        If the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()[STATE_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The checkpoint '{path}' cannot be read: {error}. Delete it to begin the run anew, or copy it again."
        ) from error
    for prefix, module in modules.items():
        part = {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}
        try:
            module.load_state_dict(part)
        except RuntimeError as error:
            raise ModelError(
                f"The checkpoint '{path}' is of another architecture than the plan's: "
                f"{str(error).splitlines()[1].strip()} Give the plan another name, so that it begins anew."
            ) from error
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(("optimizer/", "optimiser/")):  # the latter as earlier versions wrote
            _, index, key = name.split("/", 2)
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return state
