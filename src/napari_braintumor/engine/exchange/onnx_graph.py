"""What an ONNX file holds. The package ``onnx`` parses it and runs nothing; what no network needs is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.exchange.archive import shorten

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

MAX_NODES = 100_000
MAX_DEPTH = 8
DOMAINS = ("", "ai.onnx")
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax"}


@dataclass(frozen=True)
class Graph:
    """What a graph takes and gives.

    Attributes
    ----------
    rank
        Axes of its input: images, channels, and two or three sides.
    channels
        Of its input; None where any number will do.
    activation
        ``sigmoid`` or ``softmax`` where it ends with one, else nothing.
    properties
        The texts stored with it.
    """

    rank: int
    channels: int | None
    activation: str
    properties: Mapping[str, str]


def import_package(name: str) -> Any:
    """Import one of the packages that only the extra ``exchange`` installs.

    Returns
    -------
    module
        The package.

    Raises
    ------
    SettingsError
        If it is not there.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"ONNX files need the package '{name}', which is not installed. "
            "Install it with: pip install 'napari-braintumor[exchange]'"
        ) from error


def parse(content: bytes, name: str) -> ModelProto:
    """Parse an ONNX file; nothing is read from other files.

    Parameters
    ----------
    content
        The file's bytes.
    name
        The name of the file in messages.

    Returns
    -------
    ModelProto
        The model, not checked yet.

    Raises
    ------
    SettingsError
        If the package ``onnx`` is not installed.
    ModelError
        If the bytes are not a model.
    """
    onnx = import_package("onnx")
    try:
        proto: ModelProto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises a type of its own, which differs between its versions
        raise _make_damage_error(name) from error
    if not proto.HasField("graph"):
        raise _make_damage_error(name)
    return proto


def _make_damage_error(name: str) -> ModelError:
    return ModelError(f"'{name}' is damaged or not an ONNX file. Copy or download it again.")


def inspect(proto: ModelProto, name: str) -> Graph:
    """Refuse what no network needs, and return what the graph takes and gives.

    Returns
    -------
    Graph
        What goes in and what comes out.

    Raises
    ------
    ModelError
        If there is more than ONNX's own nodes with their weights inside, or not one image in and one map out.
    """
    if proto.functions:
        raise ModelError(f"'{name}' defines functions of its own. Export it with all functions inlined.")
    for number, node in enumerate(_walk(proto.graph, name), start=1):
        if number > MAX_NODES:
            raise ModelError(f"'{name}' has more than {MAX_NODES:,} nodes, which no network has.")
        _check_node(node, name)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [each for each in proto.graph.input if each.name not in weights]
    outputs = list(proto.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"'{name}' has {len(inputs)} inputs and {len(outputs)} outputs. Expected a graph with one image in and one "
            "map out. Export it with its final map alone."
        )
    sides, sides_out = _read_sides(inputs[0]), _read_sides(outputs[0])
    if len(sides) not in (4, 5) or len(sides_out) not in (0, len(sides)):
        raise ModelError(
            f"'{name}' takes {len(sides)} axes and gives {len(sides_out)}. Expected four or five: images, channels and "
            "two or three sides. It is not a network for segmentation."
        )
    single = import_package("onnx").TensorProto.FLOAT
    if any(each.type.tensor_type.elem_type != single for each in (*inputs, *outputs)):
        raise ModelError(f"'{name}' does not take and give 32-bit numbers. Export it in float32.")
    last = _find_maker(proto)
    return Graph(
        rank=len(sides),
        channels=sides[1],
        activation=_ACTIVATIONS.get(last.op_type, "") if last else "",
        properties={each.key: each.value for each in proto.metadata_props},
    )


def _walk(graph: GraphProto, name: str, depth: int = 0) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of all graphs inside it, after checking the weights of each."""
    if depth > MAX_DEPTH:
        raise ModelError(f"'{name}' nests graphs too deeply. It is refused as malicious.")
    if graph.sparse_initializer:
        raise ModelError(f"'{name}' has sparse weights. Export it with plain ones.")
    for tensor in graph.initializer:
        _check_tensor(tensor, name)
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in _find_graphs(attribute):
                yield from _walk(inner, name, depth + 1)


def _find_graphs(attribute: AttributeProto) -> list[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_node(node: NodeProto, name: str) -> None:
    if node.domain not in DOMAINS:
        raise ModelError(
            f"'{name}' needs the operation '{shorten(node.op_type)}' of '{shorten(node.domain)}', which is not one of "
            "ONNX's own. Export it with standard operations alone."
        )
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise ModelError(f"'{name}' has sparse weights. Export it with plain ones.")
        for tensor in [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]:
            _check_tensor(tensor, name)


def _check_tensor(tensor: TensorProto, name: str) -> None:
    """Make sure that a tensor's values lie inside the file."""
    if tensor.external_data or tensor.data_location:  # DEFAULT, in the file itself, is 0
        raise ModelError(f"'{name}' keeps weights in other files. Export it as one file with all weights inside.")
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > 2 * tensor.ByteSize():  # of 4-bit numbers
        raise ModelError(
            f"'{name}' declares a tensor '{shorten(tensor.name)}' that is larger than the file. Copy it again."
        )


def _read_sides(value: ValueInfoProto) -> list[int | None]:
    """Return a tensor's sides, None where any will do."""
    sides = value.type.tensor_type.shape.dim
    return [side.dim_value if side.HasField("dim_value") else None for side in sides]


def _find_maker(proto: ModelProto) -> NodeProto | None:
    """Return the node that makes the graph's one output."""
    output = proto.graph.output[0].name
    return next((node for node in proto.graph.node if output in node.output), None)


def remove_activation(proto: ModelProto) -> bytes:
    """Turn the node that makes the output into one that changes nothing, and return the file's new content."""
    last = _find_maker(proto)
    assert last is not None
    last.op_type = "Identity"
    del last.attribute[:]
    return bytes(proto.SerializeToString())
