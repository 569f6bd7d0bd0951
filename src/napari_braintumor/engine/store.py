"""The models on disk: those that ship with the package, and the user's own folder.

A model is one ``.safetensors`` file with its card as JSON in the header, so that a model can be listed, checked and
described without loading torch or running any code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path
from pydantic import ValidationError

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "napari_braintumor_card"
DIGEST_KEY = "weights_sha256"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class StoredModel:
    """A model file, readable or not.

    Attributes
    ----------
    name
        The card's name, or the file's where there is no card.
    path
        The file.
    card
        None where the file cannot be used.
    problem
        Why it cannot be used, or empty.
    bundled
        True for models that ship with the package.
    """

    name: str
    path: Path
    card: ModelCard | None
    problem: str = ""
    bundled: bool = False


def bundled_folder() -> Path:
    """Return the folder of the models that ship with the package."""
    return Path(__file__).parent / "bundled"


def user_folder() -> Path:
    """Return the folder of the user's own models; ``BRAINTUMOR_MODELS`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_MODELS")
    return Path(chosen) if chosen else user_data_path("napari-braintumor", appauthor=False) / "models"


class ModelStore:
    """The models that can be chosen by name.

    Parameters
    ----------
    folder
        The user's model folder; `user_folder` if left out. A user's model wins over a bundled one of the same name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_folder()

    def list(self) -> list[StoredModel]:
        """Return all models, bundled ones first; damaged files are listed with their problem."""
        found: list[StoredModel] = []
        for folder, bundled in ((bundled_folder(), True), (self.folder, False)):
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                try:
                    card = read_card(path)
                    found.append(StoredModel(card.name, path, card, bundled=bundled))
                except ModelError as error:
                    found.append(StoredModel(path.stem, path, None, str(error), bundled))
        return found

    def find(self, name_or_path: str | Path) -> StoredModel:
        """Return a model by its name in the store or by the path of its file.

        Raises
        ------
        ModelError
            If there is no such model, or its file cannot be used.
        """
        path = Path(name_or_path)
        if path.suffix == SUFFIX:
            card = read_card(path)
            return StoredModel(card.name, path, card)
        models = self.list()
        for model in reversed(models):
            if model.name == str(name_or_path):
                if model.card is None:
                    raise ModelError(model.problem)
                return model
        names = ", ".join(model.name for model in models if model.card) or "none"
        raise ModelError(f"There is no model '{name_or_path}'. Known are: {names}. A path must end in '{SUFFIX}'.")

    def install(self, path: Path) -> StoredModel:
        """Copy a model file into the user's folder, under its card's name.

        Raises
        ------
        ModelError
            If the file is no model, or another model of that name is there.
        DataError
            If it cannot be written.
        """
        card = read_card(path)
        target = self.folder / f"{card.name}{SUFFIX}"
        taken = target.exists() or card.name in {model.name for model in self.list() if model.bundled}
        if taken and not (target.exists() and file_sha256(target) == file_sha256(path)):
            raise ModelError(
                f"There is another model '{card.name}' already. Give the new one another name, or remove the old one."
            )
        with replacing(target) as temporary:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary)
        return StoredModel(card.name, target, card)

    def remove(self, name: str) -> None:
        """Delete a model of the user's folder.

        Raises
        ------
        ModelError
            If there is no such model, or it ships with the package.
        """
        mine = [model for model in self.list() if model.name == name and not model.bundled]
        if not mine:
            raise ModelError(f"There is no model '{name}' of your own to remove. Models of the package stay.")
        mine[0].path.unlink()


def read_card(path: Path) -> ModelCard:
    """Read a model's card without its weights.

    Raises
    ------
    ModelError
        If the file is missing, is not a model, or has no valid card.
    """
    return _read_card(path, _fingerprint(path))


def read_weights_sha256(path: Path) -> str:
    """Return the checksum of a model's weights that its file states: it stays when only the card is changed.

    Raises
    ------
    ModelError
        If the file is missing or is not a model.
    """
    return _read_header(path).get("__metadata__", {}).get(DIGEST_KEY, "")


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's weights as float32 tensors, after checking them against the checksum in the file.

    Raises
    ------
    ModelError
        If the file is damaged or the checksum does not fit.
    """
    from safetensors.torch import load

    header = _read_header(path)
    raw = path.read_bytes()
    expected = header.get("__metadata__", {}).get(DIGEST_KEY)
    start = 8 + int.from_bytes(raw[:8], "little")
    if expected is None or hashlib.sha256(raw[start:]).hexdigest() != expected:
        raise ModelError(
            f"The weights in '{path.name}' do not fit their checksum: the file was damaged or changed. "
            "Copy or download it again."
        )
    try:
        tensors = load(raw)
    except Exception as error:  # safetensors raises its own Rust-born type for a bad file
        raise ModelError(f"'{path.name}' is damaged: {error}. Copy or download it again.") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_model(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> Path:
    """Write weights with their card, atomically: kernels as float16, vectors and numbers as they are.

    Parameters
    ----------
    path
        The file; its folder is made.
    weights
        A state dict; integer tensors are kept as they are.
    card
        Goes into the header.

    Raises
    ------
    DataError
        If the file cannot be written.
    ModelError
        If a weight is not finite.
    """
    import torch
    from safetensors.torch import save

    # Kernels lose nothing by half the bits. Biases and statistics stay as they are: they are few, and the variance of a
    # deep layer may be beyond what float16 can hold.
    half = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor).detach().cpu().contiguous()
        for name, tensor in weights.items()
    }
    if broken := [name for name, tensor in half.items() if not bool(torch.isfinite(tensor).all())]:
        raise ModelError(f"The model was not saved: '{broken[0]}' holds values that are not finite. Train it again.")
    # The checksum covers the tensors alone, which lie behind the header and do not change with it.
    plain = save(half)
    digest = hashlib.sha256(plain[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    blob = save(half, metadata={CARD_KEY: card.model_dump_json(), DIGEST_KEY: digest})
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(blob)
    return path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a whole file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"The card of '{path.name}' is not valid: {where}: {first['msg']}. Make the model again."
        ) from error


def _read_header(path: Path) -> dict[str, dict[str, str]]:
    """Read the JSON header of a safetensors file by hand: it must be looked at before anything is allocated."""
    not_a_model = ModelError(f"'{path.name}' is not a model file: a '{SUFFIX}' file with a model card is expected.")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= MAX_HEADER_BYTES:
                raise not_a_model
            header = json.loads(file.read(size))
    except OSError as error:
        raise ModelError(f"The model file '{path}' cannot be read: {error.strerror}. Check the path.") from error
    except ValueError as error:
        raise not_a_model from error
    if not isinstance(header, dict):
        raise not_a_model
    return header
