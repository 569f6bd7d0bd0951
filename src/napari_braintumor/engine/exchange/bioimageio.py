"""Model packages of the BioImage Model Zoo (bioimage.io), specification 0.5.

The network's source travels with its weights, so that other programs can run it. Here a package's source is never run:
its callable's name only says which known architecture it should be, and the tensors must fit that one.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import asdict
from math import lcm
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange._example import make_example
from napari_braintumor.engine.exchange.archive import Archive, shorten
from napari_braintumor.engine.exchange.onnx import read_graph
from napari_braintumor.engine.exchange.packages import (
    CARD_KEY,
    describe,
    pack,
    read_card,
    read_network_source,
    read_text,
    save_weights,
    to_plain,
    write_page,
)
from napari_braintumor.engine.exchange.recognize import count_parameters
from napari_braintumor.engine.exchange.state_dict import fit, fit_card, read_state_dict
from napari_braintumor.engine.models.axes import order_for_network
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import load_weights
from napari_braintumor.engine.models.registry import ARCHITECTURES, IMPORTED, ONNX, find_architecture, find_divisor
from napari_braintumor.engine.models.store import StoredModel

FORMAT_VERSION = "0.5.3"
USE = """The network takes prepared images. `test_input.npy` is a part of a synthetic case, and `test_output.npy` what
comes out for it:

    bioimageio test PACKAGE.zip

napari-braintumor imports the package, prepares images by itself and paints labels."""
DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")
LICENSES = {
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
    "Apache-2.0": "Apache-2.0",
    "CC0": "CC0-1.0",
    "CC BY 4.0": "CC-BY-4.0",
    "CC BY-SA 4.0": "CC-BY-SA-4.0",
    "CC BY-NC 4.0": "CC-BY-NC-4.0",
    "CC BY-NC-SA 4.0": "CC-BY-NC-SA-4.0",
}
"""How licenses begin on cards, and what SPDX calls them; what begins otherwise travels as a file."""


def export(model: StoredModel, target: Path) -> Path:
    """Write a model as a package that ``bioimageio.core`` can test and run.

    Parameters
    ----------
    model
        A usable model of the store.
    target
        The zip file.

    Returns
    -------
    Path
        The zip file.

    Raises
    ------
    ModelError
        If the model is an ONNX graph, or its file is damaged.
    DataError
        If the package cannot be written.
    """
    assert model.card is not None
    card = model.card
    if card.architecture == ONNX:
        raise ModelError(f"'{card.name}' is an ONNX graph and has no network to pack. Export it as ONNX.")
    example = make_example(card)
    with torch.inference_mode():
        output = load_network(model.path)(torch.from_numpy(example))
    output = output.sigmoid() if card.activation == "sigmoid" else output.softmax(1)
    files = {
        "weights.pt": save_weights(load_weights(model.path)),
        "test_input.npy": _write_npy(example),
        "test_output.npy": _write_npy(output.numpy()),
        "README.md": write_page(card, USE).encode(),
    }
    spdx_name = next((spdx for begins, spdx in LICENSES.items() if card.license.startswith(begins)), None)
    if spdx_name is None:
        files["LICENSE.md"] = f"{card.license or 'The card of this model states no license.'}\n".encode()
    architecture = _describe_architecture(card, files)
    description = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": re.sub(r"[^A-Za-z0-9_+\-() ]", " ", (card.title or card.name).replace("²", "2")).ljust(5, "_")[:64],
        "description": describe(card)[:512],
        "version": card.version if re.fullmatch(r"\d+(\.\d+){0,2}", card.version) else "1",
        "authors": [{"name": "napari-braintumor developers"}],
        "cite": [asdict(find_architecture(card.architecture).citation)],
        "license": spdx_name or _describe_file("LICENSE.md", files),
        "documentation": _describe_file("README.md", files),
        "tags": ["brain", "tumor", "glioma", "mri", "segmentation", f"{card.spatial_dims}d", "pytorch", "napari"],
        "inputs": [_describe_input(card, files)],
        "outputs": [_describe_output(card, files)],
        "weights": {
            "pytorch_state_dict": {
                **_describe_file("weights.pt", files),
                "architecture": architecture,
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {CARD_KEY: {"card": card.model_dump(mode="json")}},
    }
    files[DESCRIPTIONS[0]] = yaml.dump(description, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()
    return pack(files, target)


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read a package.

    Parameters
    ----------
    path
        A zip file or a folder.
    description
        What a package from elsewhere does not state: its modalities, regions and intensities.

    Returns
    -------
    tuple
        The weights (of an ONNX graph its bytes, as the tensor ``graph``) and the card.

    Raises
    ------
    DescriptionNeeded
        If it was made by another program, and no description is given.
    ModelError
        If it is not such a package, is damaged, or holds no known network.
    """
    with Archive(path) as archive:
        found = [name for name in archive.names() if PurePosixPath(name).name in DESCRIPTIONS]
        if not found:
            raise ModelError(
                f"'{path.name}' holds no {DESCRIPTIONS[0]}, so it is not a bioimage.io package. Choose all of it."
            )
        root = min(found, key=lambda name: (name.count("/"), name))
        package = read_text(archive, root)
        reader = _Reader(archive, root.rpartition("/")[0])
        formats = package.get("weights")
        if package.get("type", "model") != "model" or not isinstance(formats, dict):
            raise ModelError(f"'{path.name}' is a bioimage.io package, but not a model. Choose a model.")
        own = _to_dict(_to_dict(package.get("config")).get(CARD_KEY)).get("card")
        state_dict, graph = _to_dict(formats.get("pytorch_state_dict")), _to_dict(formats.get(ONNX))
        if own is not None and state_dict:
            card = read_card(own, path.name)
            weights = read_state_dict(reader.read(state_dict))
            fit_card(weights, card)
            return weights, card
        if state_dict or graph:
            if description is None:
                raise DescriptionNeeded(
                    f"'{path.name}' was made by another program and does not state its modalities and regions. "
                    "Describe them."
                )
            if graph and not _find_candidates(*_read_callable(state_dict)):
                return _load_graph(graph, package, reader, description)
            return _load_foreign(state_dict, reader, description)
    held = ", ".join(sorted(str(name) for name, entry in formats.items() if entry))[:200] or "none"
    raise ModelError(
        f"'{path.name}' holds weights only as {held}. Only pytorch_state_dict and onnx can be read: ask for a "
        "package with one of them."
    )


class _Reader:
    """Reads the files that a description names, and checks their checksums."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self.archive = archive
        self.folder = folder

    def read(self, entry: dict[str, Any]) -> bytes:
        source, expected = entry.get("source"), entry.get("sha256")
        if not isinstance(source, str) or "://" in source:
            raise ModelError(f"The weights of '{self.archive.name}' are not in it. Download the whole package.")
        name = str(PurePosixPath(self.folder) / source)
        content = self.archive.read(name)
        if expected is not None and hashlib.sha256(content).hexdigest() != str(expected).lower():
            raise ModelError(
                f"'{name}' in '{self.archive.name}' does not match its checksum: it was damaged or changed. "
                "Copy or download it again."
            )
        return content


def _load_foreign(
    entry: dict[str, Any], reader: _Reader, description: ModelCard
) -> tuple[dict[str, Tensor], ModelCard]:
    """Find the known network of that name that the tensors fit; the package's source stays unread."""
    name, options = _read_callable(entry)
    origin = reader.archive.name
    candidates = _find_candidates(name, options)
    if not candidates:
        raise ModelError(
            f"'{origin}' needs the network '{shorten(name)}', which this plugin does not have, and source "
            "from packages is never run. Ask for the model as ONNX."
        )
    weights = read_state_dict(reader.read(entry))
    problem: ModelError | None = None
    for architecture, its_options in candidates:
        card = description.model_copy(update={"architecture": architecture, "options": its_options})
        try:
            fit(weights, architecture, len(card.inputs), card.out_channels, card.spatial_dims, its_options)
        except ModelError as error:
            problem = problem or error
        else:
            return weights, card.model_copy(update={"parameters": count_parameters(weights)})
    raise ModelError(
        f"'{origin}' names the network '{shorten(name)}', but its weights do not fit it as described: {problem}"
    )


def _read_callable(entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the callable's name and its arguments, as specification 0.5 writes them or as 0.4 did."""
    architecture = entry.get("architecture")
    if isinstance(architecture, dict):
        name, arguments = architecture.get("callable"), architecture.get("kwargs")
    else:
        name, arguments = re.split(r"[.:]", str(architecture))[-1], entry.get("kwargs")
    return str(name), _to_dict(arguments)


def _find_candidates(name: str, arguments: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the architectures that a callable's name may mean, with its arguments as their options."""
    options = {key: arg for key, arg in arguments.items() if key not in ("in_channels", "out_channels", "spatial_dims")}
    found = [
        (key, options)
        for key, row in {**ARCHITECTURES, **IMPORTED}.items()
        if row.target.rpartition(":")[2] == name
        and all(options.get(key) == fixed for key, fixed in row.defaults.items())
    ]
    if name == "UNet":  # Buda's own class has this name too
        found.append(("buda_unet", {"width": options.get("init_features", 32)}))
    if name in ("U2NET", "U2NETP", "U2Net"):
        found += [("u2net", {}), ("u2net_small", {})]
    return found


def _load_graph(
    entry: dict[str, Any], package: dict[str, Any], reader: _Reader, description: ModelCard
) -> tuple[dict[str, Tensor], ModelCard]:
    if entry.get("external_data"):
        raise ModelError(
            f"The ONNX graph in '{reader.archive.name}' keeps its weights in a second file, which is not read. Save it "
            "as one file."
        )
    steps = [
        size["step"]
        for tensor in _to_list(package.get("inputs"))
        for axis in _to_list(_to_dict(tensor).get("axes"))
        if isinstance((size := _to_dict(_to_dict(axis).get("size"))).get("step"), int)
    ]
    options = {"divisor": lcm(*steps)} if steps else {}
    described = description.model_copy(update={"options": options})
    return read_graph(reader.read(entry), reader.archive.name, described)


def _to_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _to_list(value: object) -> list[Any]:
    return value[:16] if isinstance(value, list) else []


# ------------------------------------------------------------------------------------------------- what is written


class _Dumper(yaml.SafeDumper):
    """Writes equal lists twice, because readers of packages may not know references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _describe_architecture(card: ModelCard, files: dict[str, bytes]) -> dict[str, Any]:
    row = find_architecture(card.architecture)
    module, _, name = row.target.partition(":")
    arguments = {
        "in_channels": len(card.inputs),
        "out_channels": card.out_channels,
        "spatial_dims": card.spatial_dims,
        **to_plain({**row.defaults, **card.options}),
    }
    if "." in module:
        return {"import_from": module, "callable": name, "kwargs": arguments}
    files[f"{module}.py"] = read_network_source(module)
    return {**_describe_file(f"{module}.py", files), "callable": name, "kwargs": arguments}


def _describe_input(card: ModelCard, files: dict[str, bytes]) -> dict[str, Any]:
    divisor = find_divisor(card.architecture, card.options)
    return {
        "id": "images",
        "description": "MRI on one grid, prepared as the documentation says.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(card.inputs)},
            *(
                {"type": "space", "id": axis, "size": {"min": 2 * divisor, "step": divisor}, **scale}
                for axis, scale in _list_axes(card)
            ),
        ],
        "data": {"type": "float32"},
        "test_tensor": _describe_file("test_input.npy", files),
    }


def _describe_output(card: ModelCard, files: dict[str, bytes]) -> dict[str, Any]:
    names = [f"channel {number}" for number in range(card.out_channels)]
    channels = card.channels or [(number,) for number in range(card.out_channels)]
    for region, inside in zip(card.regions, channels, strict=True):
        if len(inside) == 1:
            names[inside[0]] = region.name
    return {
        "id": "regions",
        "description": "Probabilities.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            *(
                {"type": "space", "id": axis, "size": {"tensor_id": "images", "axis_id": axis}, **scale}
                for axis, scale in _list_axes(card)
            ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "postprocessing": [
            {"id": "sigmoid"} if card.activation == "sigmoid" else {"id": "softmax", "kwargs": {"axis": "channel"}}
        ],
        "test_tensor": _describe_file("test_output.npy", files),
    }


def _list_axes(card: ModelCard) -> list[tuple[str, dict[str, Any]]]:
    axes: list[tuple[str, dict[str, Any]]] = [
        (axis, {} if size is None else {"unit": "millimeter", "scale": size})
        for axis, size in zip("zyx", card.spacing, strict=True)
    ]
    if card.spatial_dims == 2:
        return axes[1:]
    return list(order_for_network(axes, card))


def _describe_file(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _write_npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
