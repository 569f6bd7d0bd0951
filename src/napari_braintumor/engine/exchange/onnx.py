"""ONNX graphs: exported from our models, and imported from elsewhere.

The package ``onnx`` parses a file and runs nothing of it. Whatever is not a plain network with its weights inside is
refused before OpenVINO sees it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.devices import openvino_core
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError
from napari_braintumor.engine.exchange.archive import shorten
from napari_braintumor.engine.exchange.onnx_graph import Graph, import_package, inspect, parse, remove_activation
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import CARD_KEY, load_weights
from napari_braintumor.engine.models.registry import ONNX, find_divisor
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.engine.settings import describe_problem

INPUT, OUTPUT = "images", "logits"
OPSET = 18
MAX_BYTES = 2**30
MAX_CARD_BYTES = 2**20


def export(model: StoredModel, target: Path) -> Path:
    """Write a model as one ONNX file, for images of any number and of any size that the network takes.

    Parameters
    ----------
    model
        Of the store.
    target
        The file. Its input is ``images`` ``(N, M, [D,] H, W)``, prepared as the card says, its output ``logits``
        ``(N, R, [D,] H, W)``; the card lies as JSON in the metadata.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SettingsError
        If the packages for it are not installed.
    ModelError
        If the model cannot be used, or its network cannot be written as a graph for any size.
    DataError
        If the file cannot be written.
    """
    onnx = import_package("onnx")
    if model.card is None:
        raise ModelError(model.problem)
    if model.card.architecture == ONNX:
        proto = parse(load_weights(model.path)["graph"].numpy().tobytes(), model.name)
    else:
        proto = _trace(model.path, model.card)
    _describe(proto, model.card)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"The graph of '{model.name}' is not valid ONNX: {error}. Report this.") from error
    with replacing(target) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return target


def load(path: Path, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read an ONNX file, whoever made it.

    A sigmoid or softmax at its end is taken away, as it is applied after the logits came back to the scan's grid.

    Parameters
    ----------
    path
        The file.
    description
        What the graph does not state: modalities, regions and so on; its ``options`` may give the ``divisor``. It
        overrides a card in the file, and is not needed if there is one.

    Returns
    -------
    tuple
        The file's bytes as the tensor ``graph``, and the card, with the architecture ``onnx``.

    Raises
    ------
    DescriptionNeeded
        If neither a card nor a description states what the channels are.
    SettingsError
        If the package ``onnx`` is not installed.
    ModelError
        If the file is damaged, holds what no network needs, or does not fit the card.
    """
    return read_graph(_read(path), path.name, description)


def read_graph(content: bytes, name: str, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the content of an ONNX file; `name` is for messages, everything else is as in `load`."""
    proto = parse(content, name)
    graph = inspect(proto, name)
    card = description or _read_card(graph, name)
    if card is None:
        raise DescriptionNeeded(
            f"'{name}' is a {graph.rank - 2}-D ONNX graph with {graph.channels or 'any'} channels in, but does "
            "not state which modalities and regions these are. Describe them."
        )
    if graph.rank != card.spatial_dims + 2 or graph.channels not in (None, len(card.inputs)):
        raise ModelError(
            f"'{name}' takes images of {graph.rank - 2} dimensions with {graph.channels or 'any'} channels, but "
            f"the card says {card.spatial_dims} and {len(card.inputs)}. Describe the model that this is."
        )
    if graph.activation:
        if graph.activation != card.activation:
            raise ModelError(
                f"'{name}' ends with {graph.activation}, but the card says {card.activation}. Describe it as it is."
            )
        content = remove_activation(proto)
    divisor = _find_divisor(content, card, name)
    card = card.model_copy(update={"architecture": ONNX, "options": {"divisor": divisor}})
    return {"graph": torch.frombuffer(bytearray(content), dtype=torch.uint8)}, card


def check(weights: Mapping[str, Tensor], card: ModelCard, name: str) -> None:
    """Check a stored graph against its card, as `load` does for a new one.

    Parameters
    ----------
    weights
        The tensor ``graph``.
    card
        Of the architecture ``onnx``.
    name
        The name of the file in messages.

    Raises
    ------
    ModelError
        As in `load`; or if there is another tensor, or the graph has an activation at its end.
    """
    graph = weights.get("graph")
    if graph is None or len(weights) != 1 or graph.dtype != torch.uint8 or graph.ndim != 1:
        raise ModelError(f"'{name}' should hold an ONNX graph and nothing else, by its card. Make the model again.")
    read, _ = read_graph(graph.numpy().tobytes(), name, card)
    if not torch.equal(read["graph"], graph):
        raise ModelError(
            f"The graph in '{name}' ends with {card.activation}, which must not be part of it. Make it again."
        )


def _trace(path: Path, card: ModelCard) -> Any:
    import_package("onnxscript")
    network = load_network(path)
    divisor = find_divisor(card.architecture, card.options)
    example = torch.zeros(2, len(card.inputs), *(divisor * sides for sides in (2, 3, 4)[: card.spatial_dims]))
    sides = {
        axis: divisor * torch.export.Dim(name, min=1, max=4096 // divisor)
        for axis, name in enumerate(("first", "second", "third")[: card.spatial_dims], start=2)
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about torch's insides
            traced = torch.export.export(
                network, (example,), dynamic_shapes=({0: torch.export.Dim("images_n"), **sides},), strict=False
            )
            program = torch.onnx.export(
                traced, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
            )
    except Exception as error:  # the exporter raises many types for what it cannot write
        raise ModelError(
            f"The network of '{card.name}' ({card.architecture}) cannot be written as a graph for images of any size: "
            f"{_read_last_line(error.__cause__ or error)}. Export it as a bioimage.io package or a .safetensors file."
        ) from error
    assert program is not None
    return program.model_proto


def _describe(proto: Any, card: ModelCard) -> None:
    """Put the card in, and leave out the exporter's notes, which contain paths of this machine."""
    for holder in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    del proto.metadata_props[:]
    proto.metadata_props.add(key=CARD_KEY, value=card.model_dump_json())
    proto.doc_string = f"{card.title or card.name}. Modalities: {', '.join(card.inputs)}."


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
            raise ModelError(f"'{path.name}' has {size:,} bytes; expected an ONNX file of up to {MAX_BYTES:,}.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error.strerror or error}. Check the path.") from error


def _read_card(graph: Graph, name: str) -> ModelCard | None:
    text = graph.properties.get(CARD_KEY)
    if text is None:
        return None
    if len(text) > MAX_CARD_BYTES:
        raise ModelError(f"The card in '{name}' is absurdly long. Describe the model instead.")
    try:
        card = ModelCard.model_validate_json(text)
        return card.model_copy(update={"options": {"divisor": find_divisor(card.architecture, card.options)}})
    except ValidationError as error:
        raise ModelError(
            f"The card in '{name}' is not valid: {describe_problem(error)}. Describe the model instead."
        ) from error


def _find_divisor(content: bytes, card: ModelCard, name: str) -> int:
    """Return a number whose multiples all sides can be, after running two sizes to show that the graph works."""
    stated = card.options.get("divisor")
    if stated is not None and not (isinstance(stated, int) and 1 <= stated <= 256):
        raise ModelError(f"The divisor of '{name}' is {shorten(repr(stated))}; expected a number from 1 to 256.")
    try:
        model = openvino_core().read_model(content)
    except RuntimeError as error:
        raise ModelError(
            f"'{name}' cannot be run here: {_read_last_line(error)}. Export it with a lower opset."
        ) from error
    problem = ""
    sizes: list[tuple[int, ...]]
    for divisor in (stated,) if stated else (32, 64):
        if card.window is not None:
            sizes = [card.window]
        else:
            sizes = [tuple(divisor * sides for sides in many[: card.spatial_dims]) for many in ((2, 3, 4), (3, 2, 1))]
        problem = next((found for size in sizes if (found := _find_problem(model, card, size))), "")
        if not problem:
            return int(divisor)
    raise ModelError(f"'{name}' does not work for these images: {problem}. Export it for images of any size.")


def _find_problem(model: Any, card: ModelCard, sides: tuple[int, ...]) -> str:
    """Return what is wrong with the graph's output for images of this size; empty if nothing is."""
    shape = (1, len(card.inputs), *sides)
    expected = (1, card.out_channels, *sides)
    try:
        model.reshape(shape)
        given = model.output(0).get_partial_shape()
        found = tuple(given.to_shape()) if given.is_static else None
    except RuntimeError as error:
        return f"for {shape} it fails with {_read_last_line(error)}"
    return (
        "" if found == expected else f"for {shape} it gives {found or 'an unknown size'} where {expected} is expected"
    )


def _read_last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[-1]).rstrip(".") if lines else "an unknown error"
