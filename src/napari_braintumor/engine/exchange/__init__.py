"""Import models of other programs and export models for them; no foreign code is run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import SUFFIX, has_card, load_weights, read_card, save_model
from napari_braintumor.engine.models.store import ModelStore, StoredModel

if TYPE_CHECKING:
    from torch import Tensor

KINDS: Mapping[str, str] = {
    "safetensors": "Model file of this plugin",
    "bioimageio": "bioimage.io package",
    "onnx": "ONNX",
    "monai": "MONAI bundle",
}
"""The formats that a model can be written in."""

SUFFIXES: Mapping[str, str] = {"safetensors": SUFFIX, "bioimageio": ".zip", "onnx": ".onnx", "monai": ".zip"}
"""The suffix of a file of each kind."""

CHECKPOINTS = (".pt", ".pth", ".ckpt")


def export_model(model: StoredModel, kind: str, target: Path) -> Path:
    """Write a model for others.

    Parameters
    ----------
    model
        Of the store.
    kind
        A key of `KINDS`.
    target
        The file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ModelError
        If the model is damaged, or cannot be written in this format.
    SettingsError
        If a package for it is not installed.
    DataError
        If the file cannot be written.
    """
    if kind not in KINDS:
        raise ModelError(f"Models cannot be written as '{kind}'. Choose one of: {', '.join(KINDS)}.")
    if model.card is None:
        raise ModelError(model.problem)
    if kind == "onnx":
        from napari_braintumor.engine.exchange import onnx

        return onnx.export(model, target)
    if kind == "monai":
        from napari_braintumor.engine.exchange.monai import writing

        return writing.export(model, target)
    if kind == "bioimageio":
        from napari_braintumor.engine.exchange import bioimageio

        return bioimageio.export(model, target)
    with replacing(target) as temporary:
        shutil.copyfile(model.path, temporary)
    return target


def import_model(
    path: Path, description: ModelCard | None = None, store: ModelStore | None = None, name: str | None = None
) -> StoredModel:
    """Take a model file into the store. Nothing in the file is ever run.

    Parameters
    ----------
    path
        A file of this plugin, a bioimage.io package, a MONAI bundle or a trained nnU-Net (a zip file or a folder), an
        ONNX graph, or weights as torch saves them.
    description
        What the channels are, for files that do not state it.
    store
        Where it goes; the user's own if left out.
    name
        Its name there; default: the name in the file.

    Returns
    -------
    StoredModel
        The model in the store.

    Raises
    ------
    DescriptionNeeded
        If the file does not state its modalities and regions, and no description is given.
    NameTaken
        If the store has another model of its name.
    ModelError
        If the file is damaged, of an unknown kind, or not safe to read.
    """
    store = store or ModelStore()
    if path.suffix == SUFFIX and path.is_file() and has_card(path):
        card = read_card(path)
        _check(load_weights(path), card, path.name)
        return store.install(path, name)
    weights, card = _load(path, description)
    _check(weights, card, path.name)
    with TemporaryDirectory() as folder:
        return store.install(save_model(Path(folder) / f"{card.name}{SUFFIX}", weights, card), name)


def _load(path: Path, description: ModelCard | None) -> tuple[dict[str, Tensor], ModelCard]:
    suffix = path.suffix.lower()
    if suffix in (*CHECKPOINTS, SUFFIX):
        from napari_braintumor.engine.exchange import recognize

        return recognize.load(path, description)
    if suffix == ".onnx":
        from napari_braintumor.engine.exchange import onnx

        return onnx.load(path, description)
    if suffix != ".zip" and not path.is_dir():
        raise ModelError(
            f"'{path.name}' is not a model file. Expected a folder, or a name that ends in {SUFFIX}, .zip, "
            f".onnx, {', '.join(CHECKPOINTS)}."
        )
    from napari_braintumor.engine.exchange import bioimageio
    from napari_braintumor.engine.exchange.archive import Archive

    with Archive(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.names()}
    if names & {"rdf.yaml", "bioimageio.yaml"}:
        return bioimageio.load(path, description)
    if "metadata.json" in names:
        from napari_braintumor.engine.exchange.monai import reading

        return reading.load(path, description)
    if "plans.json" in names:
        from napari_braintumor.engine.exchange import nnunet

        return nnunet.load(path, description)
    raise ModelError(
        f"'{path.name}' is not a bioimage.io package (with bioimageio.yaml or rdf.yaml), a MONAI bundle "
        "(metadata.json) or a folder of nnU-Net (plans.json). Choose the package as it was published."
    )


def _check(weights: Mapping[str, Tensor], card: ModelCard, name: str) -> None:
    """Check weights against their card before they are installed."""
    from napari_braintumor.engine.exchange.state_dict import check_finite, fit_card
    from napari_braintumor.engine.models.registry import ONNX

    if card.architecture == ONNX:
        from napari_braintumor.engine.exchange import onnx

        onnx.check(weights, card, name)
        return
    check_finite(weights, name)
    fit_card(weights, card)
