"""The models on disk: those that ship with the package, and the user's own folder.

A model is one ``.safetensors`` file with its card as JSON in the header, so that a model can be listed, checked and
described without loading torch or running any code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_data_path
from pydantic import ValidationError

from napari_braintumor.engine.atomic import flush, replacing
from napari_braintumor.engine.errors import DataError, ModelError, NameTaken
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.settings import describe_problem

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "napari_braintumor_card"
DIGEST_KEY = "weights_sha256"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 1024 * 1024

_chosen_folder: Path | None = None


@dataclass(frozen=True)
class StoredModel:
    """A model file, readable or not.

    Attributes
    ----------
    name
        The card's name, or the file's if there is no card.
    path
        The file.
    card
        None if the file cannot be used.
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


def use_folder(folder: Path | None) -> None:
    """Keep the user's own models in a folder chosen in napari's Preferences; None restores the default."""
    global _chosen_folder
    _chosen_folder = folder


def user_folder() -> Path:
    """Return the folder of the user's own models.

    ``BRAINTUMOR_MODELS`` in the environment comes first, then the folder given to `use_folder`, then the default.

    Returns
    -------
    Path
        The folder, which need not exist.
    """
    chosen = os.environ.get("BRAINTUMOR_MODELS")
    if chosen:
        return Path(chosen)
    return _chosen_folder or user_data_path("napari-braintumor", appauthor=False) / "models"


class ModelStore:
    """The models that can be chosen by name.

    Parameters
    ----------
    folder
        The user's model folder; `user_folder` if left out. A user's model hides a bundled one of the same name.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_folder()

    def list(self) -> list[StoredModel]:
        """Return all models, bundled ones first; damaged files are listed with their problem."""
        found: list[StoredModel] = []
        for folder, bundled in ((bundled_folder(), True), (self.folder, False)):
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                if path.name.startswith("."):  # another program is writing it
                    continue
                try:
                    card = read_card(path)
                    found.append(StoredModel(card.name, path, card, bundled=bundled))
                except ModelError as error:
                    if path.exists():  # else it was removed meanwhile
                        found.append(StoredModel(path.stem, path, None, str(error), bundled))
        return found

    def find(self, name_or_path: str | Path) -> StoredModel:
        """Return a model by its name in the store or by the path of its file.

        Returns
        -------
        StoredModel
            The model, with its card.

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
        raise ModelError(f"There is no model '{name_or_path}'. Available: {names}. A path must end in '{SUFFIX}'.")

    def install(self, path: Path, name: str | None = None) -> StoredModel:
        """Copy a model file into the user's folder.

        Parameters
        ----------
        path
            The file.
        name
            The model's new name; default: its card's name.

        Returns
        -------
        StoredModel
            The model as installed; the existing one if it is the same.

        Raises
        ------
        NameTaken
            If there is another model of that name.
        ModelError
            If the file is not a model, or the name cannot be one.
        DataError
            If it cannot be written.
        """
        card = read_card(path)
        if name is not None and name != card.name:
            card = _rename_card(card, name)
            with self._create(name) as temporary:
                _copy_with_card(path, temporary, card)
            return StoredModel(name, self._path_of(name), card)
        target = self._path_of(card.name)
        if target.exists() and file_sha256(target) == file_sha256(path):
            return StoredModel(card.name, target, card)
        with self._create(card.name) as temporary:
            shutil.copyfile(path, temporary)
        return StoredModel(card.name, target, card)

    def duplicate(self, name_or_path: str | Path, new_name: str) -> StoredModel:
        """Copy a model, bundled or not, under another name into the user's folder.

        The weights, their checksum and the parent stay; the title is dropped, so that the two can be distinguished.

        Returns
        -------
        StoredModel
            The copy.

        Raises
        ------
        ModelError
            If there is no such model, the new name is taken, or it is not a valid name.
        DataError
            If it cannot be written.
        """
        model = self._find_usable(name_or_path)
        card = _rename_card(model.card, new_name)
        with self._create(new_name) as temporary:
            _copy_with_card(model.path, temporary, card)
        return StoredModel(new_name, self._path_of(new_name), card)

    def rename(self, name_or_path: str | Path, new_name: str) -> StoredModel:
        """Give a model of the user's folder another name.

        Models that were tuned from it keep its old name as their parent; `find_children` lists them.

        Returns
        -------
        StoredModel
            The model under its new name.

        Raises
        ------
        ModelError
            If there is no such model, it ships with the package, the new name is taken, or it is not a valid name.
        DataError
            If it cannot be written.
        """
        model = self._find_usable(name_or_path)
        if model.bundled:
            raise ModelError(
                f"The model '{model.name}' ships with the package and keeps its name. Duplicate it under another name."
            )
        if new_name == model.name:
            return model
        renamed = self.duplicate(model.path, new_name)
        _unlink(model.path)
        return renamed

    def find_children(self, name: str) -> Sequence[StoredModel]:
        """Return the models that were tuned from one of this name, whether or not the store has it."""
        return [model for model in self.list() if model.card is not None and model.card.parent == name]

    def remove(self, name_or_path: str | Path) -> None:
        """Delete a model of the user's folder, which may be damaged.

        Raises
        ------
        ModelError
            If there is no such model, or it ships with the package.
        DataError
            If it cannot be deleted.
        """
        mine = [model for model in self._find_matching(name_or_path) if not model.bundled]
        if not mine:
            raise ModelError(f"There is no model '{name_or_path}' of yours to remove. Bundled models stay.")
        _unlink(mine[0].path)

    def _path_of(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _find_matching(self, name_or_path: str | Path) -> Sequence[StoredModel]:
        return [m for m in self.list() if m.name == name_or_path or m.path == name_or_path]

    def _find_usable(self, name_or_path: str | Path) -> StoredModel:
        """Return a readable model of the store; the user's own, if two have the name."""
        found = self._find_matching(name_or_path)
        if not found:
            raise ModelError(f"The model '{name_or_path}' is gone. Look at the list again.")
        if found[-1].card is None:
            raise ModelError(found[-1].problem)
        return found[-1]

    @contextmanager
    def _create(self, name: str) -> Iterator[Path]:
        """Yield a path for a new model; the file gets its name when the block ends, unless that is taken by then."""
        taken = NameTaken(name)
        target = self._path_of(name)
        if target.exists() or any(model.name == name for model in self.list()):
            raise taken
        with replacing(target) as temporary:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)  # before its name is seen
            try:
                # Unlike a rename, this fails if another napari was faster, so it needs no lock.
                os.link(temporary, target)
            except FileExistsError:
                raise taken from None
            except OSError:  # a file system without hard links, where the last one wins
                pass


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
            _copy_with_card(path, temporary, ModelCard.model_validate({**card.model_dump(), **changed}))


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


def _rename_card(card: ModelCard | None, name: str) -> ModelCard:
    assert card is not None
    try:
        return ModelCard.model_validate({**card.model_dump(), "name": name, "title": ""})
    except ValidationError as error:
        raise ModelError(
            f"'{name}' cannot be the name of a model. Expected up to 80 letters, digits, dots, dashes and "
            "underscores, with a letter or a digit first."
        ) from error


def _copy_with_card(source: Path, target: Path, card: ModelCard) -> None:
    """Copy a model file with another card in its header; what the checksum covers is copied as it is."""
    header = _read_header(source)
    header["__metadata__"] = {**header["__metadata__"], CARD_KEY: card.model_dump_json()}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with source.open("rb") as old, target.open("wb") as new:
        old.seek(8 + int.from_bytes(old.read(8), "little"))
        new.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(old, new)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be deleted: {error.strerror or error}. Close what uses it, or check its permissions."
        ) from error


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
