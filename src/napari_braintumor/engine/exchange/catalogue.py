"""The catalogue of models to download, and the download of one, which only happens when a user asks for it.

A catalogue is a JSON file of up to 1 MiB. It lies on a web server, in a folder under the name ``catalogue.json``, or
anywhere as a file; ``BRAINTUMOR_CATALOGUE`` in the environment names one that takes the place of the shipped one, which
is empty as long as nobody hosts models for this project. ::

    {
      "format": 1,
      "models": [
        {
          "name": "glioma-3d",                        what the model will be called
          "title": "Glioma, whole scans",             one line for people; may be left out
          "kind": "safetensors",                      or bioimageio, monai, onnx, checkpoint
          "file": "glioma-3d.safetensors",            a plain file name
          "urls": ["https://…/glioma-3d.safetensors"],
          "bytes": 9412608,
          "sha256": "6f…",                            64 hexadecimal digits, lower case
          "license": "CC BY 4.0",
          "note": "Ask the authors before …",         may be left out
          "description": {"name": …}                  a card, for files that have none; may be left out
        }
      ]
    }

Addresses are tried in their order. Where there are none, or a folder has both the catalogue and the file, the file
next to the catalogue is used. Fields that are not listed here, names given twice and sizes beyond 16 GiB are refused.

Behind a firewall, a mirror is an address or a folder that has files by these names.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal
from urllib.parse import quote, urljoin, urlsplit

from platformdirs import user_cache_path
from pydantic import AliasChoices, Field, ValidationError, field_validator

from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import DownloadEvent, Installed, Noted
from napari_braintumor.engine.exchange.fetching import Fetch, check_address, follow, is_address
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.preload import preload_torch
from napari_braintumor.engine.settings import Frozen, describe_problem

FILE_NAME = "catalogue.json"
MAX_CATALOGUE_BYTES = 2**20
MAX_MODELS = 1000
MAX_BYTES = 16 * 2**30

Kind = Literal["safetensors", "bioimageio", "monai", "onnx", "checkpoint"]
"""What a file is, in the words of `exchange.KINDS`; a checkpoint holds weights and nothing else."""

Line = Annotated[str, Field(max_length=300)]


class Entry(Frozen):
    """A model that can be downloaded. See the module for what the fields mean."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    title: Line = ""
    kind: Kind = "safetensors"
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
    urls: Annotated[tuple[str, ...], Field(max_length=10)] = Field(
        (), description="Addresses in the file; once it is read, also the path or address next to the catalogue."
    )
    bytes: Annotated[int, Field(ge=1, le=MAX_BYTES, strict=True)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    license: Annotated[Line, Field(min_length=1, validation_alias=AliasChoices("license", "licence"))]
    note: Annotated[str, Field(max_length=2000)] = ""
    description: ModelCard | None = None

    @field_validator("urls")
    @classmethod
    def _refuse_other_schemes(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.lower().startswith(("https://", "http://")) or not url.isprintable() or len(url) > 2000:
                raise ValueError("expected addresses that begin with https:// or http://")
        return urls

    @field_validator("title", "license", "note")
    @classmethod
    def _refuse_control_characters(cls, text: str) -> str:
        if not text.isprintable():  # a terminal would obey some of them
            raise ValueError("it holds characters that cannot be printed")
        return text


class _Catalogue(Frozen):
    format: Literal[1]
    models: Annotated[tuple[Entry, ...], Field(max_length=MAX_MODELS)]

    @field_validator("models")
    @classmethod
    def _refuse_duplicates(cls, models: tuple[Entry, ...]) -> tuple[Entry, ...]:
        names = [model.name for model in models]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are called '{doubles[0]}'")
        return models


def read_catalogue(source: str | Path | None = None) -> list[Entry]:
    """Return the models of a catalogue. Of an address this fetches the catalogue; otherwise nothing is fetched.

    Parameters
    ----------
    source
        An address (http or https), a file, or a folder with ``catalogue.json``. None: what ``BRAINTUMOR_CATALOGUE``
        names, or else the catalogue that ships with the package.

    Returns
    -------
    list of Entry
        One for each model, in the order of the catalogue.

    Raises
    ------
    ModelError
        If it cannot be fetched, or is not valid.
    """
    chosen = source or _own_catalogue()
    if is_address(chosen):
        address = str(chosen)
        return [
            entry if entry.urls else entry.model_copy(update={"urls": (urljoin(address, quote(entry.file)),)})
            for entry in _parse(_fetch_catalogue(address), address)
        ]
    path = Path(chosen) / FILE_NAME if Path(chosen).is_dir() else Path(chosen)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CATALOGUE_BYTES + 1)
    except OSError as error:
        raise ModelError(f"The catalogue '{path}' cannot be read: {error.strerror}. Check the path.") from error
    if len(content) > MAX_CATALOGUE_BYTES:
        raise ModelError(
            f"'{path}' is larger than {MAX_CATALOGUE_BYTES} bytes, so it is not a catalogue. Check the path."
        )
    entries = []
    for entry in _parse(content, str(path)):
        neighbor = path.parent / entry.file
        here = (str(neighbor.resolve()),) if neighbor.is_file() or not entry.urls else ()
        entries.append(entry.model_copy(update={"urls": (*here, *entry.urls)}))
    return entries


def offers_models() -> bool:
    """Return False if the catalogue is at hand and lists no models. Nothing is fetched."""
    own = _own_catalogue()
    try:
        return is_address(own) or bool(read_catalogue(own))
    except ModelError:
        return True  # the dialog that lists it shows what is wrong


def find_entry(entries: list[Entry], name: str) -> Entry:
    """Return the entry of a name.

    Returns
    -------
    Entry
        The entry of that name.

    Raises
    ------
    ModelError
        If there is none.
    """
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    raise ModelError(f"The catalogue has no model '{name}'. It has: {known}. Name another one, or another catalogue.")


def download(
    entry: Entry, store: ModelStore | None = None, mirror: str | Path | None = None
) -> Generator[DownloadEvent, None, None]:
    """Fetch a model and install it. When this ends early, nothing is kept.

    Parameters
    ----------
    entry
        Of `read_catalogue`.
    store
        Where it goes; the user's own if left out.
    mirror
        An address or a folder that has the entry's file, in place of the entry's addresses.

    Yields
    ------
    DownloadEvent
        `Downloaded` many times, `Noted` when another address is tried, `Installed` last. To cancel, stop iterating:
        then nothing is installed.

    Raises
    ------
    ModelError
        If the file cannot be fetched or is not what the catalogue states, or another model has its name.
    DataError
        If it cannot be written.
    """
    store = store or ModelStore()
    if (there := _find_installed(entry, store)) is not None:
        yield Installed(there.name, there.path)
        return
    if mirror and is_address(mirror):
        check_address(str(mirror))
    sources = (_locate_next_to(mirror, entry),) if mirror else entry.urls
    if not sources:
        raise ModelError(f"The catalogue states no address of '{entry.name}'. Name a folder or an address that has it.")
    folder = downloads_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        complete = TemporaryDirectory(prefix=".new-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"'{folder}' cannot be written to: {error.strerror}. Unfinished downloads are kept there; set "
            "BRAINTUMOR_CACHE in the environment to move it."
        ) from error
    with complete:
        path = Path(complete.name) / entry.file
        *others, last = sources
        for source in others:
            try:
                yield from follow(Fetch(source, path, entry.bytes, entry.sha256))
                break
            except ModelError as error:
                yield Noted(f"Another address is tried. {error}")
        else:
            yield from follow(Fetch(last, path, entry.bytes, entry.sha256))
        preload_torch()
        from napari_braintumor.engine.exchange import import_model

        model = import_model(path, entry.description, store)
    yield Installed(model.name, model.path)


def downloads_folder() -> Path:
    """Return the folder of unfinished downloads; ``BRAINTUMOR_CACHE`` in the environment moves it."""
    chosen = os.environ.get("BRAINTUMOR_CACHE")
    return (Path(chosen) if chosen else user_cache_path("napari-braintumor", appauthor=False)) / "downloads"


def _fetch_catalogue(address: str) -> bytes:
    check_address(address)
    with TemporaryDirectory() as folder:
        target = Path(folder) / (urlsplit(address).path.rpartition("/")[2] or FILE_NAME)
        fetch = Fetch(address, target, MAX_CATALOGUE_BYTES)
        fetch.run()
        if fetch.error is not None:
            raise fetch.error
        return target.read_bytes()


def _find_installed(entry: Entry, store: ModelStore) -> StoredModel | None:
    """Return the model if this very file is installed already; refuse a taken name before anything is fetched."""
    for model in store.list():
        if model.name == entry.name:
            if model.path.stat().st_size == entry.bytes and file_sha256(model.path) == entry.sha256:
                return model
            raise ModelError(
                f"You already have another model '{entry.name}', so nothing was downloaded. Rename or remove it."
            )
    return None


def _parse(content: bytes, name: str) -> tuple[Entry, ...]:
    try:
        return _Catalogue.model_validate_json(content).models
    except ValidationError as error:
        raise ModelError(
            f"'{name}' is not a catalogue: {describe_problem(error)}. Check the address or path."
        ) from error


def _locate_next_to(base: str | Path, entry: Entry) -> str:
    if is_address(base):
        return f"{base}{'' if str(base).endswith('/') else '/'}{quote(entry.file)}"
    return str(Path(base).resolve() / entry.file)


def _own_catalogue() -> str | Path:
    return os.environ.get("BRAINTUMOR_CATALOGUE") or Path(__file__).with_name(FILE_NAME)
