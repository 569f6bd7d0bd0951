"""ONNX graphs: written from our models, and taken in from elsewhere.

A foreign file is first read field by field by a few lines of Python, so that whatever is not a plain network with its
weights inside is refused before a parser in C++ sees it. No package for ONNX is needed for that; writing needs two.

References
----------
onnx.proto of the ONNX project, for the numbers of the fields; protobuf.dev/programming-guides/encoding for the bytes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.devices import openvino_core
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError, SettingsError
from napari_braintumor.engine.exchange.archive import shown
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.registry import ONNX, find_divisor
from napari_braintumor.engine.models.store import CARD_KEY, StoredModel, load_weights
from napari_braintumor.engine.settings import describe_problem

INPUT, OUTPUT = "images", "logits"
OPSET = 18
MOST_BYTES = 2**30
MOST_NODES = 100_000
MOST_CARD_BYTES = 2**20
MOST_DEPTH = 8
DOMAINS = ("", "ai.onnx")

_FLOAT = 1
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax"}


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
    onnx = _import("onnx")
    if model.card is None:
        raise ModelError(model.problem)
    if model.card.architecture == ONNX:
        proto = onnx.load_model_from_string(load_weights(model.path)["graph"].numpy().tobytes())
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
        What the graph does not tell: modalities, regions and all that; its ``options`` may give the ``divisor``. It
        wins over a card in the file, and is not needed where there is one.

    Returns
    -------
    tuple
        The file's bytes as the tensor ``graph``, and the card, with the architecture ``onnx``.

    Raises
    ------
    DescriptionNeeded
        If neither a card nor a description tells what the channels are.
    ModelError
        If the file is damaged, holds what no network needs, or does not fit the card.
    """
    return read_graph(_read(path), path.name, description)


def read_graph(content: bytes, name: str, description: ModelCard | None = None) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the content of an ONNX file; `name` is how messages call it, all else is as `load` has it."""
    graph = _inspect(content, name)
    card = description or _card_of(graph, name)
    if card is None:
        raise DescriptionNeeded(
            f"'{name}' is a {graph.rank - 2}-D ONNX graph with {graph.channels or 'any'} channels in, but does "
            "not tell which modalities and regions these are. Describe them."
        )
    if graph.rank != card.spatial_dims + 2 or graph.channels not in (None, len(card.modalities)):
        raise ModelError(
            f"'{name}' takes images of {graph.rank - 2} dimensions with {graph.channels or 'any'} channels, but "
            f"the card says {card.spatial_dims} and {len(card.modalities)}. Describe the model that this is."
        )
    if graph.activation:
        if graph.activation != card.activation:
            raise ModelError(
                f"'{name}' ends with {graph.activation}, but the card says {card.activation}. Describe it as it is."
            )
        content = _without_activation(content, graph.output)
    divisor = _find_divisor(content, card, name)
    card = card.model_copy(update={"architecture": ONNX, "options": {"divisor": divisor}})
    return {"graph": torch.frombuffer(bytearray(content), dtype=torch.uint8)}, card


def check(weights: Mapping[str, Tensor], card: ModelCard, name: str) -> None:
    """Hold a stored graph against its card, as `load` does with one that comes in.

    Parameters
    ----------
    weights
        The tensor ``graph``.
    card
        Of the architecture ``onnx``.
    name
        How messages call the file.

    Raises
    ------
    ModelError
        As `load`; or if there is another tensor, or the graph has an activation at its end.
    """
    graph = weights.get("graph")
    if graph is None or len(weights) != 1 or graph.dtype != torch.uint8 or graph.ndim != 1:
        raise ModelError(f"'{name}' should hold an ONNX graph and nothing else, by its card. Make the model again.")
    read, _ = read_graph(graph.numpy().tobytes(), name, card)
    if not torch.equal(read["graph"], graph):
        raise ModelError(f"The graph in '{name}' ends with {card.activation}, which belongs behind it. Make it again.")


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"Writing ONNX needs the package '{name}', which is not installed. "
            "Install it with: pip install 'napari-braintumor[exchange]'"
        ) from error


def _trace(path: Path, card: ModelCard) -> Any:
    _import("onnxscript")
    network = load_network(path)
    divisor = find_divisor(card.architecture, card.options)
    example = torch.zeros(2, len(card.modalities), *(divisor * sides for sides in (2, 3, 4)[: card.spatial_dims]))
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
    except Exception as error:  # the exporter raises many kinds for what it cannot write
        raise ModelError(
            f"The network of '{card.name}' ({card.architecture}) cannot be written as a graph for images of any size: "
            f"{_last_line(error.__cause__ or error)}. Export it as a bioimage.io package or a .safetensors file."
        ) from error
    assert program is not None
    return program.model_proto


def _describe(proto: Any, card: ModelCard) -> None:
    """Put the card in, and leave out the exporter's notes, which tell where files lie on this machine."""
    for holder in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    del proto.metadata_props[:]
    proto.metadata_props.add(key=CARD_KEY, value=card.model_dump_json())
    proto.doc_string = f"{card.title or card.name}. Modalities: {', '.join(card.modalities)}."


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and (size := path.stat().st_size) > MOST_BYTES:
            raise ModelError(f"'{path.name}' has {size:,} bytes; an ONNX file of up to {MOST_BYTES:,} is expected.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error.strerror or error}. Check the path.") from error


@dataclass(frozen=True)
class _Graph:
    """What is looked at in a graph; rank and channels are its input's."""

    rank: int
    channels: int | None
    output: str
    activation: str
    properties: dict[str, bytes]


_Fields = Iterator[tuple[int, int | memoryview]]


def _inspect(content: bytes, name: str) -> _Graph:
    try:
        return _Inspection(name).model(memoryview(content))
    except (ValueError, IndexError, TypeError, UnicodeDecodeError) as error:
        raise ModelError(f"'{name}' is damaged or no ONNX file. Copy or download it again.") from error


class _Inspection:
    """Walks through a file once and refuses what no network needs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes = 0

    def model(self, content: memoryview) -> _Graph:
        graphs: list[memoryview] = []
        properties: dict[str, bytes] = {}
        for number, value in _fields(content):
            if number == 7:
                graphs.append(_message(value))
            elif number == 14:
                entry = dict(_fields(_message(value)))
                properties[_text(entry[1])] = bytes(_message(entry.get(2, memoryview(b""))))
            elif number == 25:
                raise ModelError(f"'{self.name}' defines functions of its own. Export it with all functions inlined.")
        if len(graphs) != 1:
            raise ValueError("no graph")
        held, nodes = self.graph(graphs[0], 0)
        inputs: list[dict[int, int | memoryview]] = []
        outputs: list[dict[int, int | memoryview]] = []
        for number, value in _fields(graphs[0]):
            if number in (11, 12):
                (inputs if number == 11 else outputs).append(dict(_fields(_message(value))))
        inputs = [each for each in inputs if _text(each[1]) not in held]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"'{self.name}' has {len(inputs)} inputs and {len(outputs)} outputs; a graph with one image in and one "
                "map out is expected. Export it with its final map alone."
            )
        kind, sides = _tensor_type(_message(inputs[0][2]))
        kind_out, sides_out = _tensor_type(_message(outputs[0][2]))
        if len(sides) not in (4, 5) or len(sides_out) not in (0, len(sides)):
            raise ModelError(
                f"'{self.name}' takes {len(sides)} axes and gives {len(sides_out)}; four or five are expected, of "
                "images, channels and two or three sides. It is no network for segmentation."
            )
        if kind != _FLOAT or kind_out != _FLOAT:
            raise ModelError(f"'{self.name}' does not take and give 32-bit numbers. Export it in float32.")
        output = _text(outputs[0][1])
        last = [each for each in nodes if output in each[1]]
        return _Graph(len(sides), sides[1], output, _ACTIVATIONS.get(last[0][0], "") if last else "", properties)

    def graph(self, content: memoryview, depth: int) -> tuple[set[str], list[tuple[str, list[str]]]]:
        """Return the names of the weights, and each node's kind and outputs."""
        if depth > MOST_DEPTH:
            raise ModelError(f"'{self.name}' nests graphs too deeply. It is refused as malicious.")
        held: set[str] = set()
        nodes: list[tuple[str, list[str]]] = []
        for number, value in _fields(content):
            if number == 1:
                nodes.append(self.node(_message(value), depth))
            elif number == 5:
                held.add(self.tensor(_message(value)))
            elif number == 15:
                raise ModelError(
                    f"'{self.name}' has sparse weights, which are not known here. Export it with plain ones."
                )
        return held, nodes

    def node(self, content: memoryview, depth: int) -> tuple[str, list[str]]:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise ModelError(f"'{self.name}' has more than {MOST_NODES:,} nodes, which no network has.")
        kind, domain = "", ""
        outputs: list[str] = []
        for number, value in _fields(content):
            if number == 2:
                outputs.append(_text(value))
            elif number == 4:
                kind = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5:
                for part, inner in _fields(_message(value)):
                    if part in (5, 10):
                        self.tensor(_message(inner))
                    elif part in (6, 11):
                        self.graph(_message(inner), depth + 1)
        if domain not in DOMAINS:
            raise ModelError(
                f"'{self.name}' needs the operation '{shown(kind)}' of '{shown(domain)}', which is none of ONNX's own. "
                "Export it with standard operations alone."
            )
        return kind, outputs

    def tensor(self, content: memoryview) -> str:
        """Return a tensor's name, after making sure that its values lie inside the file."""
        name, items = "", 1
        for number, value in _fields(content):
            if number == 1:
                items *= math.prod(_integers(value))
            elif number == 8:
                name = _text(value)
            elif number == 13 or (number == 14 and value != 0):
                raise ModelError(
                    f"'{self.name}' keeps weights in other files. Export it as one file with all weights inside."
                )
        if not 0 <= items <= 2 * len(content):
            raise ModelError(
                f"'{self.name}' declares a tensor '{shown(name)}' that is larger than the file. Copy it again."
            )
        return name


def _card_of(graph: _Graph, name: str) -> ModelCard | None:
    text = graph.properties.get(CARD_KEY)
    if text is None:
        return None
    if len(text) > MOST_CARD_BYTES:
        raise ModelError(f"The card in '{name}' is absurdly long. Describe the model instead.")
    try:
        card = ModelCard.model_validate_json(text)
        return card.model_copy(update={"options": {"divisor": find_divisor(card.architecture, card.options)}})
    except ValidationError as error:
        raise ModelError(
            f"The card in '{name}' is not valid: {describe_problem(error)}. Describe the model instead."
        ) from error


def _find_divisor(content: bytes, card: ModelCard, name: str) -> int:
    """Return a number whose multiples all sides can be, after trying two sizes, which shows that the graph is whole."""
    told = card.options.get("divisor")
    if told is not None and not (isinstance(told, int) and 1 <= told <= 256):
        raise ModelError(f"The divisor of '{name}' is {shown(repr(told))}; a number from 1 to 256 is expected.")
    try:
        model = openvino_core().read_model(content)
    except RuntimeError as error:
        raise ModelError(f"'{name}' cannot be run here: {_last_line(error)}. Export it with a lower opset.") from error
    problem = ""
    sizes: list[tuple[int, ...]]
    for divisor in (told,) if told else (32, 64):
        if card.window is not None:
            sizes = [card.window]
        else:
            sizes = [tuple(divisor * sides for sides in many[: card.spatial_dims]) for many in ((2, 3, 4), (3, 2, 1))]
        problem = next((found for size in sizes if (found := _problem(model, card, size))), "")
        if not problem:
            return int(divisor)
    raise ModelError(f"'{name}' does not do for these images: {problem}. Export it for images of any size.")


def _problem(model: Any, card: ModelCard, sides: tuple[int, ...]) -> str:
    """Return what is wrong with what the graph gives for images of this size, or nothing."""
    shape = (1, len(card.modalities), *sides)
    expected = (1, card.out_channels, *sides)
    try:
        model.reshape(shape)
        given = model.output(0).get_partial_shape()
        found = tuple(given.to_shape()) if given.is_static else None
    except RuntimeError as error:
        return f"for {shape} it fails with {_last_line(error)}"
    return (
        "" if found == expected else f"for {shape} it gives {found or 'an unknown size'} where {expected} is expected"
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[-1]).rstrip(".") if lines else "an unknown error"


def _without_activation(content: bytes, output: str) -> bytes:
    """Turn the node that makes the output into one that changes nothing.

    On the way there are only numbers, texts and messages; numbers of a fixed length would not survive.
    """
    model = bytearray()
    for number, value in _fields(memoryview(content)):
        if number != 7:
            model += _encoded(number, value)
            continue
        graph = bytearray()
        for part, inner in _fields(_message(value)):
            whole = inner
            if part == 1 and any(each == 2 and _text(name) == output for each, name in _fields(_message(inner))):
                node = bytearray()
                for each, field in _fields(_message(inner)):
                    if each != 5:  # the attributes of a softmax
                        node += _encoded(each, memoryview(b"Identity") if each == 4 else field)
                whole = memoryview(node)
            graph += _encoded(part, whole)
        model += _encoded(number, memoryview(graph))
    return bytes(model)


def _fields(content: memoryview) -> _Fields:
    """Yield each field's number and value: a number, or the bytes of text, of a message or of packed numbers."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(content, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(content, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("an unknown kind of field")
        if number == 0 or position + size > len(content):
            raise ValueError("a field that ends beyond the file")
        yield number, content[position : position + size]
        position += size


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number that does not end")


def _encoded(number: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        return _as_varint(number << 3) + _as_varint(value)
    return _as_varint(number << 3 | 2) + _as_varint(len(value)) + bytes(value)


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes((*parts, value))


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()


def _integers(value: int | memoryview) -> list[int]:
    """Return the numbers of a repeated field, one by one or packed; negative ones come out absurdly large."""
    if isinstance(value, int):
        return [value]
    numbers: list[int] = []
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(number)
    return numbers


def _tensor_type(content: memoryview) -> tuple[int, list[int | None]]:
    """Return a tensor's kind of number and its sides, None where any will do."""
    kind, sides = 0, list[int | None]()
    for number, value in _fields(content):
        if number != 1:
            continue
        for part, inner in _fields(_message(value)):
            if part == 1 and isinstance(inner, int):
                kind = inner
            elif part == 2:
                for each, dimension in _fields(_message(inner)):
                    if each == 1:
                        size = dict(_fields(_message(dimension))).get(1)
                        sides.append(size if isinstance(size, int) else None)
    return kind, sides
