"""The models on disk: those that ship with the package, and the user's own folder.

A model is one ``.safetensors`` file with its card as JSON in the header, so that a model can be listed, checked and
described without loading torch or running any code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path
from pydantic import ValidationError

from napari_braintumor.engine.atomic import flush, replacing
from napari_braintumor.engine.errors import DataError, ModelError, NameTaken
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import SUFFIX, copy_with_card, file_sha256, read_card

if TYPE_CHECKING:
    pass


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
                copy_with_card(path, temporary, card)
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
            copy_with_card(model.path, temporary, card)
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


def _rename_card(card: ModelCard | None, name: str) -> ModelCard:
    assert card is not None
    try:
        return ModelCard.model_validate({**card.model_dump(), "name": name, "title": ""})
    except ValidationError as error:
        raise ModelError(
            f"'{name}' cannot be the name of a model. Expected up to 80 letters, digits, dots, dashes and "
            "underscores, with a letter or a digit first."
        ) from error


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be deleted: {error.strerror or error}. Close what uses it, or check its permissions."
        ) from error
