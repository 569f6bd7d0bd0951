"""A model's file: weights as safetensors, with the card as JSON in the header.

So a model can be listed, checked and described without loading torch or running any code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.settings import describe_problem

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "napari_braintumor_card"
DIGEST_KEY = "weights_sha256"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 1024 * 1024


def read_card(path: Path) -> ModelCard:
    """Read a model's card without its weights.

    Returns
    -------
    ModelCard
        The card.

    Raises
    ------
    ModelError
        If the file is missing, is not a model, or has no valid card.
    """
    return _read_card(path, _fingerprint(path))


def has_card(path: Path) -> bool:
    """Return whether a safetensors file has a card of this plugin, valid or not.

    Returns
    -------
    bool
        False for the weights of other programs.

    Raises
    ------
    ModelError
        If it is not a safetensors file, or cannot be read.
    """
    return CARD_KEY in _read_header(path).get("__metadata__", {})


def read_weights_sha256(path: Path) -> str:
    """Return the checksum of the weights that a model's file states; changing the card does not change it.

    Returns
    -------
    str
        Hexadecimal digits; empty if the file states none.

    Raises
    ------
    ModelError
        If the file is missing or is not a model.
    """
    return _read_header(path).get("__metadata__", {}).get(DIGEST_KEY, "")


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's weights as float32 tensors, after checking them against the checksum in the file.

    Returns
    -------
    dict
        A state dict: the tensor of each name, on the CPU; integers are kept as they are.

    Raises
    ------
    ModelError
        If the file is damaged or the checksum does not match.
    """
    from safetensors.torch import load

    header = _read_header(path)
    raw = path.read_bytes()
    expected = header.get("__metadata__", {}).get(DIGEST_KEY)
    start = 8 + int.from_bytes(raw[:8], "little")
    if expected is None or hashlib.sha256(raw[start:]).hexdigest() != expected:
        raise ModelError(
            f"The weights in '{path.name}' do not match their checksum: the file was damaged or changed. "
            "Copy or download it again."
        )
    try:
        tensors = load(raw)
    except Exception as error:  # safetensors raises a type of its own, from Rust
        raise ModelError(f"'{path.name}' is damaged: {error}. Copy or download it again.") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_model(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> Path:
    """Write weights with their card, atomically: kernels as float16 where that loses nothing, the rest unchanged.

    Parameters
    ----------
    path
        The file; its folder is created if needed.
    weights
        A state dict; integer tensors are kept as they are.
    card
        Goes into the header.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        If the file cannot be written.
    ModelError
        If a weight is not finite.
    """
    import torch
    from safetensors.torch import save

    # Copies, because some networks hold a tensor under two names.
    kept = {
        name: _shrink(tensor.detach().cpu()).clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    if broken := [name for name, tensor in kept.items() if not bool(torch.isfinite(tensor).all())]:
        raise ModelError(f"The model was not saved: '{broken[0]}' holds values that are not finite. Train it again.")
    # The checksum covers the tensors alone, which follow the header and do not change with it.
    plain = save(kept)
    digest = hashlib.sha256(plain[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    blob = save(kept, metadata={CARD_KEY: card.model_dump_json(), DIGEST_KEY: digest})
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(blob)
    return path


def change_card(path: Path, **changes: Any) -> None:
    """Change fields of a model file's card, atomically; its weights stay as they are.

    Raises
    ------
    ModelError
        If it is not a model file.
    DataError
        If it cannot be written.
    """
    card = read_card(path)
    if changed := {name: value for name, value in changes.items() if getattr(card, name) != value}:
        with replacing(path) as temporary:
            copy_with_card(path, temporary, ModelCard.model_validate({**card.model_dump(), **changed}))


def halve_kernels(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round kernels to float16, which costs a network nothing and halves its file.

    Biases and statistics stay as they are: they are few, and the variance of a deep layer may overflow float16.

    Returns
    -------
    dict
        A state dict of the same names.
    """
    return {
        name: tensor.half().to(tensor.dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in weights.items()
    }


def _shrink(tensor: Tensor) -> Tensor:
    import torch

    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


def file_sha256(path: Path) -> str:
    """Return the sha256 of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_with_card(source: Path, target: Path, card: ModelCard) -> None:
    """Copy a model file with another card in its header; what the checksum covers is copied as it is."""
    header = _read_header(source)
    header["__metadata__"] = {**header["__metadata__"], CARD_KEY: card.model_dump_json()}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with source.open("rb") as old, target.open("wb") as new:
        old.seek(8 + int.from_bytes(old.read(8), "little"))
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new)


def _fingerprint(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"The model file '{path}' cannot be read: {error.strerror}. Check the path.") from error
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _read_card(path: Path, fingerprint: tuple[int, int]) -> ModelCard:
    metadata = _read_header(path).get("__metadata__", {})
    if CARD_KEY not in metadata:
        raise ModelError(
            f"'{path.name}' has no model card, so its modalities and regions are unknown. "
            "Use a model made by napari-braintumor, or train one."
        )
    try:
        return ModelCard.model_validate_json(metadata[CARD_KEY])
    except ValidationError as error:
        raise ModelError(
            f"The card of '{path.name}' is not valid: {describe_problem(error)}. Make the model again."
        ) from error


def _read_header(path: Path) -> dict[str, dict[str, str]]:
    """Read the JSON header of a safetensors file by hand: it must be checked before anything is allocated."""
    not_a_model = ModelError(f"'{path.name}' is not a model file. Expected a '{SUFFIX}' file with a model card.")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= MAX_HEADER_BYTES:
                raise not_a_model
            header = json.loads(file.read(size))
    except OSError as error:
        raise ModelError(f"The model file '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise not_a_model from error
    if not isinstance(header, dict):
        raise not_a_model
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise not_a_model
    return header
