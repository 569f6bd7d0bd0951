"""Bring models of other programs into the store, and write models for them; runs in worker threads, without Qt."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.errors import DescriptionNeeded, NameTaken
from napari_braintumor.engine.events import Installed
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import StoredModel


@dataclass(frozen=True)
class Undescribed:
    """A file that can only be installed with a description."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Clashing:
    """A file that can only be installed under another name."""

    path: Path
    description: ModelCard | None
    taken: str
    reason: str


@dataclass(frozen=True)
class Exported:
    """A model was written for another program."""

    path: Path


def install_model(
    path: Path, description: ModelCard | None, name: str | None
) -> Generator[Installed | Undescribed | Clashing, None, None]:
    """Bring a model file of any kind into the store; runs in a worker thread."""
    from napari_braintumor.engine.exchange import import_model

    try:
        model = import_model(path, description, name=name)
    except DescriptionNeeded as error:
        yield Undescribed(path, str(error))
    except NameTaken as error:
        yield Clashing(path, description, error.name, str(error))
    else:
        yield Installed(model.name, model.path)


def write_model(model: StoredModel, kind: str, target: Path) -> Generator[Exported, None, None]:
    """Write a model for another program; runs in a worker thread."""
    from napari_braintumor.engine.exchange import export_model

    yield Exported(export_model(model, kind, target))
