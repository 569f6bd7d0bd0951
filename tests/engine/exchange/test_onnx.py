import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError, SettingsError
from napari_braintumor.engine.exchange import onnx as exchange
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model
from napari_braintumor.engine.models.registry import ARCHITECTURES, build_network, find_divisor
from napari_braintumor.engine.models.store import StoredModel

TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 2},
    "res_unet": {"width": 4},
    "fcn32s": {"width": 4, "trunk_width": 2},
    "fcn16s": {"width": 4, "trunk_width": 2},
    "fcn8s": {"width": 4, "trunk_width": 2},
}
QUICK = (("unet", 2), ("fcn8s", 2))
EVERY = [
    pytest.param(name, dims, marks=[] if (name, dims) in QUICK else pytest.mark.slow)
    for name, row in ARCHITECTURES.items()
    for dims in row.spatial_dims
]
CARD = ModelCard(name="tiny", architecture="unet", options={"width": 2}, modalities=("T1", "FLAIR"))
DESCRIBED = CARD.model_copy(update={"architecture": "onnx", "options": {"divisor": 4}})


def make_model(folder: Path, card: ModelCard) -> StoredModel:
    torch.manual_seed(0)
    network = build_network(
        card.architecture,
        in_channels=len(card.modalities),
        out_channels=card.out_channels,
        spatial_dims=card.spatial_dims,
        options=card.options,
    )
    path = save_model(folder / f"{card.name}.safetensors", network.state_dict(), card)
    return StoredModel(card.name, path, card)


def run(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_every_architecture_gives_the_same_in_onnx_at_other_sizes(name: str, dims: int, tmp_path: Path) -> None:
    card = CARD.model_copy(update={"architecture": name, "options": TINY.get(name, {}), "spatial_dims": dims})
    model = make_model(tmp_path, card)
    path = exchange.export(model, tmp_path / "tiny.onnx")
    network = load_network(model.path)
    divisor = find_divisor(name, card.options)
    for batch, sides in ((1, (1, 3, 2)), (3, (2, 1, 1))):
        images = torch.randn(batch, 2, *(divisor * side for side in sides[:dims]))
        with torch.inference_mode():
            assert (run(path, images) - network(images)).abs().max() < 1e-4
    weights, again = exchange.load(path)
    assert again == card.model_copy(update={"architecture": "onnx", "options": {"divisor": divisor}})
    assert weights["graph"].numpy().tobytes() == path.read_bytes()


@pytest.mark.slow
def test_an_exported_file_states_what_it_takes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    path = exchange.export(make_model(tmp_path, CARD), tmp_path / "tiny.onnx")
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [each.name for each in proto.graph.input] == ["images"]
    assert [each.name for each in proto.graph.output] == ["logits"]
    assert {each.key: ModelCard.model_validate_json(each.value) for each in proto.metadata_props} == {
        "napari_braintumor_card": CARD
    }
    content = path.read_bytes()
    assert not [here for here in (str(Path.home()), "site-packages", ".py", str(tmp_path)) if here.encode() in content]
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".safetensors"] == ["tiny.onnx"]


@pytest.mark.slow
def test_a_graph_of_the_store_is_exported_as_it_came_in(tmp_path: Path) -> None:
    path = exchange.export(make_model(tmp_path, CARD), tmp_path / "tiny.onnx")
    weights, card = exchange.load(path)
    stored = save_model(tmp_path / "graph.safetensors", weights, card)
    assert load_weights(stored)["graph"].dtype == torch.uint8
    again = exchange.export(StoredModel("graph", stored, read_card(stored)), tmp_path / "again.onnx")
    images = torch.randn(1, 2, 32, 16)
    assert torch.equal(run(again, images), run(path, images))
    assert exchange.load(again)[1] == card


def test_without_the_packages_it_is_said_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path, CARD)
    for package in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(SettingsError, match=rf"'{package}', .* pip install 'napari-braintumor\[exchange\]'"):
                exchange.export(model, tmp_path / "tiny.onnx")
    foreign = written(tmp_path / "foreign.onnx", make_graph())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingsError, match=r"need the package 'onnx', .* pip install 'napari-braintumor\[exchange\]'"):
        exchange.load(foreign, DESCRIBED)


def test_a_model_without_a_card_cannot_be_exported(tmp_path: Path) -> None:
    model = make_model(tmp_path, CARD)
    with pytest.raises(ModelError, match="it is damaged"):
        exchange.export(StoredModel("x", model.path, None, "it is damaged"), tmp_path / "tiny.onnx")


# Graphs that are made by hand, as others would come.


def make_graph(
    end: str | None = None,
    sides: tuple[Any, ...] = ("n", 2, "h", "w"),
    out: tuple[Any, ...] = ("n", 3, "h", "w"),
    **changes: Any,
) -> onnx.ModelProto:
    dims = len(sides) - 2
    kernel = np.random.default_rng(0).normal(size=(3, 2, *(3,) * dims)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["in", "k"], ["conv" if end else "out"], pads=[1] * 2 * dims)]
    if end:
        nodes.append(helper.make_node(end, ["conv"], ["out"], **({"axis": 1} if end == "Softmax" else {})))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(kernel, "k")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, **changes)


def written(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_foreign_graph_needs_a_description(tmp_path: Path) -> None:
    path = written(tmp_path / "foreign.onnx", make_graph())
    with pytest.raises(DescriptionNeeded, match="2-D ONNX graph with 2 channels in, but does not state which"):
        exchange.load(path)
    weights, card = exchange.load(path, DESCRIBED)
    assert card == DESCRIBED
    assert weights["graph"].numpy().tobytes() == path.read_bytes()
    _, card = exchange.load(path, DESCRIBED.model_copy(update={"options": {}}))
    assert card.options == {"divisor": 32}


@pytest.mark.parametrize(("end", "activation"), [("Sigmoid", "sigmoid"), ("Softmax", "softmax")])
def test_a_final_activation_is_taken_away(tmp_path: Path, end: str, activation: str) -> None:
    path = written(tmp_path / "ends.onnx", make_graph(end))
    card = ModelCard.model_validate(
        {**DESCRIBED.model_dump(), "activation": activation, "channels": ((1,), (2,), (0,))}
    )
    weights, _ = exchange.load(path, card)
    content = weights["graph"].numpy().tobytes()
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    images = np.random.default_rng(1).normal(size=(2, 2, 8, 12)).astype(np.float32)
    given, plain = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"in": images})[0]
        for each in (content, make_graph().SerializeToString())
    )
    assert np.array_equal(given, plain)
    other = "softmax" if activation == "sigmoid" else "sigmoid"
    with pytest.raises(ModelError, match=f"ends with {activation}, but the card says"):
        exchange.load(path, card.model_copy(update={"activation": other}))


def test_a_graph_of_one_size_does_for_that_window_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "fixed.onnx", make_graph(sides=(1, 2, 16, 24, 16), out=(1, 3, 16, 24, 16)))
    card = ModelCard.model_validate({**DESCRIBED.model_dump(), "spatial_dims": 3, "window": (16, 24, 16)})
    assert exchange.load(path, card)[1].window == (16, 24, 16)


def external(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def external_in_a_branch(proto: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=proto.graph.initializer[0])], "b", [], [])
    external(proto)
    inner.node[0].attribute[0].t.CopyFrom(proto.graph.initializer[0])
    proto.CopyFrom(make_graph())
    proto.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))


def nested(proto: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "b", [], [])
    for _ in range(20):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "b", [], [])
    proto.graph.node.extend(inner.node)


def foreign(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.evil"


def functions(proto: onnx.ModelProto) -> None:
    proto.functions.add(name="f", domain="local")


def huge(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [2**40, 2**40, 3, 3]


def negative(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [-3, 2, 3, 3]


def sparse(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add()


def two_outputs(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, ["n", 3, "h", "w"]))


def two_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 3]))


def integers(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def classifies(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3]))


def unknown(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Frobnicate"


def shrinks(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[:] = [0, 0, 0, 0]


def no_graph(proto: onnx.ModelProto) -> None:
    proto.ClearField("graph")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, "keeps weights in other files"),
        (external_in_a_branch, "keeps weights in other files"),
        (nested, "nests graphs too deeply"),
        (foreign, "needs the operation 'Conv' of 'com.evil'"),
        (functions, "defines functions of its own"),
        (huge, "'k' that is larger than the file"),
        (negative, "'k' that is larger than the file"),
        (sparse, "sparse weights"),
        (two_outputs, "has 1 inputs and 2 outputs"),
        (two_inputs, "has 2 inputs and 1 outputs"),
        (integers, "32-bit numbers"),
        (classifies, "takes 4 axes and gives 2"),
        (unknown, "cannot be run here"),
        (shrinks, "does not work for these images: for .* it gives"),
        (no_graph, "damaged or not an ONNX file"),
    ],
)
def test_a_graph_that_no_network_needs_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    proto = make_graph()
    change(proto)
    with pytest.raises(ModelError, match=message):
        exchange.load(written(tmp_path / "odd.onnx", proto), DESCRIBED)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"modalities": ("T1",)}, "takes images of 2 dimensions with 2 channels, but the card says 2 and 1"),
        ({"spatial_dims": 3}, "but the card says 3 and 2"),
        ({"regions": GLIOMA_REGIONS[:1]}, "it gives .* is expected"),
        ({"options": {"divisor": 10**9}}, "The divisor of 'plain.onnx' is 1000000000"),
        ({"options": {"divisor": "4"}}, "expected a number from 1 to 256"),
    ],
)
def test_a_description_that_does_not_fit_the_graph_is_refused(
    tmp_path: Path, update: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        exchange.load(written(tmp_path / "plain.onnx", make_graph()), DESCRIBED.model_copy(update=update))


def test_a_stored_graph_is_held_against_its_card(tmp_path: Path) -> None:
    weights, card = exchange.load(written(tmp_path / "plain.onnx", make_graph()), DESCRIBED)
    exchange.check(weights, card, "stored")
    ended = torch.frombuffer(bytearray(make_graph("Sigmoid").SerializeToString()), dtype=torch.uint8)
    for wrong, message in (
        ({}, "should hold an ONNX graph"),
        ({**weights, "more": torch.ones(1)}, "should hold an ONNX graph"),
        ({"graph": weights["graph"].float()}, "should hold an ONNX graph"),
        ({"graph": weights["graph"][:-9]}, "is damaged"),
        ({"graph": ended}, "ends with sigmoid, which must not be part of it"),
    ):
        with pytest.raises(ModelError, match=message):
            exchange.check(wrong, card, "stored")


def test_a_card_in_the_file_is_checked(tmp_path: Path) -> None:
    for text, message in (("{}", "is not valid: name"), ("x" * (2**20 + 1), "absurdly long"), ("[", "is not valid")):
        proto = make_graph()
        proto.metadata_props.add(key="napari_braintumor_card", value=text)
        with pytest.raises(ModelError, match=message):
            exchange.load(written(tmp_path / "card.onnx", proto))


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BYTES", 100)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match="bytes; expected an ONNX file of up to 100"):
        exchange.load(written(tmp_path / "large.onnx", make_graph()), DESCRIBED)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = make_graph().SerializeToString()
    path = tmp_path / "broken.onnx"
    endless = b"\x3a" + b"\xff" * 20
    beyond = b"\x3a" + struct.pack("<B", 100) + b"short"
    for content in (b"", b"hello", bytes(99), whole[:20], whole[:-5], b"PK\x03\x04" + whole, endless, beyond, b"{}"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="damaged or not an ONNX file"):
            exchange.load(path, DESCRIBED)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        exchange.load(tmp_path / "none.onnx")
