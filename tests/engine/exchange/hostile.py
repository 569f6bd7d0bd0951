"""Files that no honest program writes, each made in an empty folder by a function below.

Those with code in them would make a file ``executed`` beside themselves, or outside of the folder that was given.
"""

import hashlib
import io
import json
import os
import pickle
import runpy
import socket
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from torch import Tensor, nn

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import CARD_KEY, DIGEST_KEY, save_model
from napari_braintumor.engine.models.registry import build_network

CARD = ModelCard(name="hostile", architecture="unet", options={"width": 2})
GRAPH_CARD = CARD.model_copy(update={"architecture": "onnx", "options": {"divisor": 16}})


@dataclass(frozen=True)
class Hostile:
    """A file, how it is made in a folder, and how somebody would describe it."""

    name: str
    make: Callable[[Path], Path]
    description: ModelCard | None = None


CORPUS: list[Hostile] = []


def hostile(description: ModelCard | None = CARD) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CORPUS.append(Hostile(make.__name__.replace("_", " "), make, description))
        return make

    return add


def add(name: str, file: str, content: Callable[[Path], bytes], description: ModelCard | None = CARD) -> None:
    CORPUS.append(Hostile(name, lambda folder: written(folder / file, content(folder)), description))


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_network("unet", in_channels=4, out_channels=3, options={"width": 2}).state_dict()


# ------------------------------------------------------------------------------------------- pickles with code in them


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def calls(folder: Path) -> dict[str, Call]:
    mark = str(folder / "executed")
    code = f"open({mark!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "os.posix_spawn": Call(os.posix_spawn, "/bin/touch", ["touch", mark], {}),
        "os.execv": Call(os.execv, "/bin/touch", ["touch", mark]),
        "exec": Call(exec, code),
        "eval": Call(eval, code),
        "open": Call(open, mark, "w"),
        "__import__": Call(__import__, "antigravity"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "Popen": Call(subprocess.Popen, ["touch", mark]),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
        "runpy": Call(runpy.run_path, mark),
        "torch.load": Call(torch.load, mark, None, None),
        "torch.hub": Call(torch.hub.load, "evil/evil", "evil"),
        "pickle.loads": Call(pickle.loads, b"cos\nsystem\n(S'true'\ntR."),
    }


def saved(content: object, legacy: bool = False, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


for _protocol in range(6):
    for _name in ("os.system", "exec"):
        add(
            f"a pickle of protocol {_protocol} that calls {_name}",
            "model.pt",
            lambda folder, name=_name, protocol=_protocol: pickle.dumps({"a": calls(folder)[name]}, protocol),
        )
        add(
            f"a checkpoint of protocol {_protocol} that calls {_name}",
            "model.pth",
            lambda folder, name=_name, protocol=_protocol: saved({"a": calls(folder)[name]}, protocol=protocol),
        )
for _name in calls(Path()):
    add(
        f"a checkpoint that calls {_name}",
        "model.pt",
        lambda folder, name=_name: saved({**weights(), "evil": calls(folder)[name]}),
    )
    add(
        f"an old checkpoint that calls {_name}",
        "model.pth",
        lambda folder, name=_name: saved({**weights(), "evil": calls(folder)[name]}, legacy=True),
    )
add("a pickle that builds a class by its opcodes", "model.pt", lambda _: b"\x80\x02(S'touch executed'\nios\nsystem\n.")
add("a pickle of the extension registry", "model.pt", lambda _: b"\x80\x02\x82\x01.")
add("a checkpoint that holds a whole network", "model.pt", lambda _: saved(nn.Linear(2, 2)))
add("an old checkpoint that holds a whole network", "model.pt", lambda _: saved(nn.Linear(2, 2), legacy=True))
add("a pickle under the name of a model", "model.safetensors", lambda f: pickle.dumps(calls(f)["os.system"]))
add("a pickle under the name of a graph", "model.onnx", lambda f: pickle.dumps(calls(f)["os.system"]), GRAPH_CARD)


@hostile()
def a_program_of_torchscript(folder: Path) -> Path:
    path = written(folder / "model.pt", saved(weights()))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/code/__torch__.py", "def forward(x): return x")
        file.writestr("archive/constants.pkl", b"\x80\x02).")
    return path


# ------------------------------------------------------------------------------------------------ checkpoints that lie


add(
    "a checkpoint with NaN", "model.pt", lambda _: saved({**weights(), "head.bias": torch.tensor([0, 0, float("nan")])})
)
add("a checkpoint with infinity", "model.pt", lambda _: saved({**weights(), "head.bias": torch.full((3,), -torch.inf)}))
add("a checkpoint of strings", "model.pt", lambda _: saved({"head.bias": "weights"}))
add("a checkpoint of a list", "model.pt", lambda _: saved([1, 2, 3]))
add("a checkpoint of nothing", "model.pt", lambda _: saved({}))
add(
    "a checkpoint without a tensor",
    "model.pt",
    lambda _: saved({k: v for k, v in weights().items() if k != "head.bias"}),
)
add("a checkpoint with one tensor more", "model.pt", lambda _: saved({**weights(), "more": torch.ones(1)}))
add("a checkpoint with another shape", "model.pt", lambda _: saved({**weights(), "head.bias": torch.ones(4)}))
add("a checkpoint with a huge key", "model.pt", lambda _: saved({"x" * 10**6: torch.ones(1)}))
add("a truncated checkpoint", "model.pt", lambda _: saved(weights())[:-200])
add("half an old checkpoint", "model.pt", lambda _: (full := saved(weights(), legacy=True))[: len(full) // 2])
add("an old checkpoint without its last byte", "model.pt", lambda _: saved(weights(), legacy=True)[:-1])


@hostile()
def a_checkpoint_whose_keys_are_nested_too_deeply_to_hash(folder: Path) -> Path:
    return written(folder / "model.pt", b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s.")


@hostile()
def a_zipped_checkpoint_whose_keys_are_nested_too_deeply_to_hash(folder: Path) -> Path:
    pickled = b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s."
    content = {"archive/data.pkl": pickled, "archive/version": b"3"}
    return zipped(folder / "model.pt", content, zipfile.ZIP_STORED)


@hostile()
def a_checkpoint_that_reads_beyond_its_storage(folder: Path) -> Path:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(9999)}))) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"1234" if name.endswith("/data/0") else old.read(name))
    return written(folder / "model.pt", file.getvalue())


@hostile()
def an_old_checkpoint_that_asks_for_all_memory(folder: Path) -> Path:
    content = saved({"a": torch.ones(99)}, legacy=True)
    start = content.index(b"X\x03\x00\x00\x00cpu")
    changed = content[:start] + content[start:].replace(b"Kc", b"J\xff\xff\xff\x7f", 1)
    assert changed != content
    return written(folder / "model.pt", changed)


# ----------------------------------------------------------------------------------------------------------- zip files


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


PARTS = {"bioimageio.yaml": b"type: model\n", "configs/metadata.json": b"{}"}

for _name, _member in {
    "leads upwards": "../executed",
    "leads upwards in its middle": "a/../../executed",
    "is absolute": "/tmp/executed",
    "begins with a drive": "C:/executed",
    "has backslashes": "..\\executed",
    "is on another machine": "\\\\host\\share\\executed",
}.items():
    CORPUS.append(
        Hostile(
            f"a zip with a name that {_name}",
            lambda folder, member=_member: zipped(folder / "package.zip", {**PARTS, member: b"evil"}),
            CARD,
        )
    )


@hostile()
def a_zip_with_a_link(folder: Path) -> Path:
    path = zipped(folder / "package.zip", PARTS)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("models/model.pt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    return path


@hostile()
def a_folder_with_a_link(folder: Path) -> Path:
    for name, content in PARTS.items():
        written(folder / "package" / name, content)
    (folder / "package" / "models").symlink_to("/etc")
    return folder / "package"


@hostile()
def a_zip_with_two_files_of_one_name(folder: Path) -> Path:
    path = zipped(folder / "package.zip", {**PARTS, "configs/metadatb.json": b"{}"})
    return written(path, path.read_bytes().replace(b"metadatb", b"metadata"))


@hostile()
def an_encrypted_zip(folder: Path) -> Path:
    content = bytearray(zipped(folder / "package.zip", PARTS).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return written(folder / "package.zip", bytes(content))


@hostile()
def a_zip_bomb(folder: Path) -> Path:
    return zipped(folder / "package.zip", {**PARTS, "models/model.pt": bytes(100 * 2**20)})


@hostile()
def a_checkpoint_that_is_a_zip_bomb(folder: Path) -> Path:
    return zipped(folder / "model.pt", {"archive/data.pkl": bytes(100 * 2**20), "archive/version": b"3"})


@hostile()
def a_zip_that_declares_four_gigabytes(folder: Path) -> Path:
    content = zipped(folder / "package.zip", {**PARTS, "models/model.pt": bytes(5000)}).read_bytes()
    return written(folder / "package.zip", content.replace(struct.pack("<I", 5000), b"\xfe\xff\xff\xff"))


@hostile()
def a_zip_with_more_files_than_any_model(folder: Path) -> Path:
    return zipped(folder / "package.zip", {**PARTS, **{str(number): b"" for number in range(10_001)}})


@hostile()
def a_zip_in_a_zip(folder: Path) -> Path:
    return zipped(folder / "package.zip", {"package.zip": zipped(folder / "inner.zip", PARTS).read_bytes()})


@hostile()
def a_zip_of_anything(folder: Path) -> Path:
    return zipped(folder / "package.zip", {"holiday.jpg": b"\xff\xd8"})


@hostile()
def a_truncated_zip(folder: Path) -> Path:
    return written(folder / "package.zip", zipped(folder / "package.zip", PARTS).read_bytes()[:-30])


@hostile()
def an_empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


for _suffix in ("safetensors", "pt", "pth", "zip", "onnx"):
    for _name, _content in {"empty": b"", "text": b"Dear model,\n" * 40, "zero": bytes(4096)}.items():
        add(f"a .{_suffix} file of {_name} content", f"model.{_suffix}", lambda _, content=_content: content)
add("a file of an unknown kind", "model.exe", lambda _: b"MZ\x90\x00" + bytes(400))


# ------------------------------------------------------------------------------------------------------ our own models


def raw(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(start: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


add("a header of 50 gigabytes", "model.safetensors", lambda _: raw({}, size=50 * 10**9))
add("a header of more bytes than there are", "model.safetensors", lambda _: raw({}, size=2**64 - 1))
add("a header that is no JSON", "model.safetensors", lambda _: raw(b"{" * 100))
add(
    "a header that is nested too deeply",
    "model.safetensors",
    lambda _: raw(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
)
add("a header that is a list", "model.safetensors", lambda _: raw([1]))
add("a header with a card that is no text", "model.safetensors", lambda _: raw({"__metadata__": {CARD_KEY: 3}}))
add("a tensor beyond the file", "model.safetensors", lambda _: raw({"a": tensor(0, 4 * 10**12, [10**12])}, bytes(8)))
add("a tensor that is smaller than its shape", "model.safetensors", lambda _: raw({"a": tensor(0, 4, [9])}, bytes(4)))
add(
    "tensors in each other",
    "model.safetensors",
    lambda _: raw({"a": tensor(0, 4, [1]), "b": tensor(0, 4, [1])}, bytes(4)),
)
add("tensors of NaN without a card", "model.safetensors", lambda _: save({"a": torch.full((3,), torch.nan)}))
add("a truncated model", "model.safetensors", lambda folder: own(folder)[:-100])
add("a model with one changed bit", "model.safetensors", lambda f: own(f)[:-9] + bytes([own(f)[-9] ^ 1]) + own(f)[-8:])


def own(folder: Path, state: dict[str, Tensor] | None = None, **changes: object) -> bytes:
    """Return a model of ours with a card that is changed without being checked."""
    content = save_model(folder / "made.safetensors", weights() if state is None else state, CARD).read_bytes()
    (folder / "made.safetensors").unlink()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    card = json.loads(header["__metadata__"][CARD_KEY]) | changes
    header["__metadata__"][CARD_KEY] = json.dumps(card)
    return raw(header, content[8 + size :])


for _name, _changes in {
    "an absurd threshold": {"threshold": 7},
    "an absurd window": {"spatial_dims": 3, "window": [10**9] * 3},
    "a negative window": {"spatial_dims": 3, "window": [-16, 16, 16]},
    "absurdly many channels": {"channels": [[10**9], [0], [1]]},
    "an absurd width": {"options": {"width": 10**9}},
    "an option that nobody knows": {"options": {"width": 2, "evil": "os.system"}},
    "options of another kind": {"options": "os.system"},
    "an unknown architecture": {"architecture": "os:system"},
    "an architecture of another module": {"architecture": "../../evil"},
    "another architecture": {"architecture": "u2net_small", "options": {}},
    "the architecture of a graph": {"architecture": "onnx", "options": {}},
    "other modalities": {"modalities": ["T1"]},
    "no modalities": {"modalities": []},
    "absurdly many modalities": {"modalities": [str(number) for number in range(10**4)]},
    "a name that leads upwards": {"name": "../../executed"},
    "an absolute name": {"name": "/tmp/executed"},
    "a spacing of text": {"spacing": ["$import os", 1, 1]},
    "an unknown field": {"__class__": "os.system"},
    "a format of the future": {"format": 99},
    "regions of one label": {"regions": [CARD.regions[0].model_dump()] * 2},
}.items():
    add(f"a card with {_name}", "m.safetensors", lambda f, changes=_changes: own(f, **changes), None)

add(
    "a card over missing tensors",
    "m.safetensors",
    lambda f: own(f, {k: v for k, v in weights().items() if "up" not in k}),
    None,
)
add("a card over tensors too many", "m.safetensors", lambda f: own(f, {**weights(), "evil": torch.ones(2)}), None)
add(
    "a card over tensors of other shapes",
    "m.safetensors",
    lambda f: own(f, {**weights(), "head.bias": torch.ones(9)}),
    None,
)


@hostile(None)
def a_card_over_nan_with_a_checksum_that_fits(folder: Path) -> Path:
    data = save({**weights(), "head.bias": torch.full((3,), torch.nan)})
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    header = {CARD_KEY: CARD.model_dump_json(), DIGEST_KEY: digest}
    return written(folder / "m.safetensors", save({**weights(), "head.bias": torch.full((3,), torch.nan)}, header))


@hostile(None)
def a_card_without_a_checksum(folder: Path) -> Path:
    return written(folder / "m.safetensors", save(weights(), {CARD_KEY: CARD.model_dump_json()}))


# ---------------------------------------------------------------------------------------------------------------- ONNX


def graph(change: Callable[[Any], object] = lambda proto: None, sides: tuple[Any, ...] = ("n", 4, "h", "w")) -> bytes:
    made = helper.make_graph(
        [helper.make_node("Conv", ["in", "kernel"], ["out"], pads=[1, 1, 1, 1])],
        "graph",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(torch.ones(3, 4, 3, 3).numpy(), "kernel")],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    change(proto)
    content: bytes = proto.SerializeToString()
    return content


def outside(proto: Any, where: str = "/etc/passwd") -> None:
    kernel = proto.graph.initializer[0]
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=where)


def resized(proto: Any, *dims: int) -> None:
    proto.graph.initializer[0].dims[:] = dims


for _name, _graph in {
    "weights in another file": lambda: graph(outside),
    "weights in a file above it": lambda: graph(lambda proto: outside(proto, "../../executed")),
    "an image of five axes": lambda: graph(sides=("n", 4, "d", "h", "w")),
    "a vector for an image": lambda: graph(sides=("n", 4)),
    "an operation of a foreign library": lambda: graph(
        lambda proto: setattr(proto.graph.node[0], "domain", "com.evil")
    ),
    "functions of its own": lambda: graph(lambda proto: proto.functions.add(name="f", domain="local")),
    "a tensor of absurd size": lambda: graph(lambda proto: resized(proto, 2**40, 2**40)),
    "a tensor of negative size": lambda: graph(lambda proto: resized(proto, -3, 4, 3, 3)),
    "a tensor shorter than its shape": lambda: graph(lambda proto: resized(proto, 3, 4, 5, 5)),
    "a card that is no JSON": lambda: graph(lambda proto: proto.metadata_props.add(key=CARD_KEY, value="$evil")),
    "more nodes than any network": lambda: graph(
        lambda proto: proto.graph.node.extend([helper.make_node("Relu", ["out"], ["more"])] * 100_001)
    ),
    "sparse weights in a node": lambda: graph(
        lambda proto: proto.graph.node[0].attribute.add(name="value", type=11).sparse_tensor.dims.append(3)
    ),
    "no nodes": lambda: graph(lambda proto: proto.graph.ClearField("node")),
    "its end cut off": lambda: graph()[:-40],
}.items():
    _described = None if "card" in _name else GRAPH_CARD
    add(f"a graph with {_name}", "model.onnx", lambda _, make=_graph: make(), _described)


# ------------------------------------------------------------------------------------------------------- MONAI bundles


NETWORK: dict[str, Any] = {
    "_target_": "SegResNet",
    "spatial_dims": 3,
    "in_channels": 4,
    "out_channels": 3,
    "init_filters": 8,
    "blocks_down": [1, 1],
    "blocks_up": [1],
}
BUNDLE_CARD = CARD.model_copy(
    update={"architecture": "monai_segresnet", "options": {}, "spatial_dims": 3, "window": (32, 32, 32)}
)


def bundle(folder: Path, state: bytes | None = None, metadata: bytes | None = None, **network: object) -> Path:
    named = dict.fromkeys(map(str, range(4)))
    described = {
        "version": "1",
        "network_data_format": {
            "inputs": {"image": {"channel_def": {**dict(zip(named, ("T1ce", "T1", "T2", "FLAIR"), strict=True))}}},
            "outputs": {"pred": {"channel_def": {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}}},
        },
    }
    fresh = build_network("monai_segresnet", in_channels=4, out_channels=3, spatial_dims=3, options={
        "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]
    })  # fmt: skip
    for name, content in {
        "configs/metadata.json": json.dumps(described).encode() if metadata is None else metadata,
        "configs/inference.json": json.dumps({"network_def": {**NETWORK, **network}}).encode(),
        "models/model.pt": saved(fresh.state_dict()) if state is None else state,
    }.items():
        written(folder / "bundle" / name, content)
    return folder / "bundle"


def evil(folder: Path) -> str:
    return f"$__import__('os').system('touch {folder / 'executed'}')"


for _name, _network in {
    "an expression for its class": lambda folder: {"_target_": evil(folder)},
    "an expression for an option": lambda folder: {"init_filters": evil(folder)},
    "an expression in a list": lambda folder: {"blocks_down": [1, evil(folder)]},
    "a reference for an option": lambda _: {"init_filters": "@evil"},
    "a macro for an option": lambda _: {"init_filters": "%/etc/passwd"},
    "os.system for its class": lambda folder: {"_target_": "os.system", "command": f"touch {folder / 'executed'}"},
    "subprocess for its class": lambda folder: {
        "_target_": "subprocess.Popen",
        "args": ["touch", f"{folder}/executed"],
    },
    "a class of its own scripts": lambda _: {"_target_": "scripts.evil.SegResNet"},
    "a class of torch": lambda _: {"_target_": "torch.hub.load", "repo_or_dir": "evil/evil"},
    "an absurd option": lambda _: {"init_filters": 10**9},
    "an absurd number of blocks": lambda _: {"blocks_down": [10**7, 10**7]},
    "absurd dimensions": lambda _: {"spatial_dims": 10**9},
}.items():
    CORPUS.append(
        Hostile(f"a bundle with {_name}", lambda folder, make=_network: bundle(folder, **make(folder)), BUNDLE_CARD)
    )


@hostile(BUNDLE_CARD)
def a_bundle_whose_weights_run_code(folder: Path) -> Path:
    return bundle(folder, saved({"a": calls(folder)["os.system"]}))


@hostile(BUNDLE_CARD)
def a_bundle_with_the_weights_of_another_network(folder: Path) -> Path:
    return bundle(folder, saved(weights()))


@hostile(BUNDLE_CARD)
def a_bundle_without_weights(folder: Path) -> Path:
    path = bundle(folder)
    (path / "models" / "model.pt").unlink()
    return path


@hostile(BUNDLE_CARD)
def a_bundle_with_metadata_that_is_nested_too_deeply(folder: Path) -> Path:
    return bundle(folder, metadata=b"[" * 10**5)


@hostile(None)
def a_bundle_with_absurdly_many_channels(folder: Path) -> Path:
    return bundle(folder, in_channels=10**9)


@hostile(None)
def a_bundle_with_metadata_of_expressions(folder: Path) -> Path:
    return bundle(folder, metadata=json.dumps({"network_data_format": evil(folder)}).encode())


# --------------------------------------------------------------------------------------------------------- bioimage.io


def package(folder: Path, description: str | None = None, **entry: object) -> Path:
    state = saved(weights())
    digest = hashlib.sha256(state).hexdigest()
    source = f"open({str(folder / 'executed')!r}, 'w')\n".encode()
    described = {
        "type": "model",
        "format_version": "0.5.3",
        "name": "hostile",
        "weights": {
            "pytorch_state_dict": {
                "source": "weights.pt",
                "sha256": digest,
                "architecture": {
                    "callable": "UNet",
                    "source": "evil.py",
                    "sha256": hashlib.sha256(source).hexdigest(),
                    "kwargs": {"in_channels": 4, "out_channels": 3, "width": 2},
                },
                **entry,
            }
        },
    }
    members = {
        "bioimageio.yaml": json.dumps(described).encode() if description is None else description.encode(),
        "weights.pt": state,
        "evil.py": source,
    }
    return zipped(folder / "package.zip", members)


def architecture(**entry: object) -> dict[str, object]:
    return {"callable": "UNet", "source": "evil.py", "sha256": "0" * 64, "kwargs": {}, **entry}


for _name, _entry in {
    "a path upwards": {"source": "../../executed"},
    "an absolute path": {"source": "/etc/passwd"},
    "an address on the network": {"source": "http://127.0.0.1:9/weights.pt"},
    "an address of a file": {"source": "file:///etc/passwd"},
    "a source that is no text": {"source": ["weights.pt"]},
    "another checksum": {"sha256": "0" * 64},
}.items():
    CORPUS.append(Hostile(f"a package with {_name}", lambda folder, entry=_entry: package(folder, **entry), CARD))


@hostile()
def a_package_with_source_code_that_would_make_a_file(folder: Path) -> Path:
    return package(folder, architecture=architecture(callable="Evil"))


@hostile()
def a_package_with_an_import_for_its_network(folder: Path) -> Path:
    return package(folder, architecture={"callable": "system", "import_from": "os", "kwargs": {"command": "true"}})


@hostile(CARD.model_copy(update={"options": {"width": 10**9}, "modalities": ("T1",)}))
def a_package_with_absurd_options(folder: Path) -> Path:
    return package(folder, architecture=architecture(kwargs={"width": 10**9}))


@hostile()
def a_package_whose_yaml_calls_a_function(folder: Path) -> Path:
    return package(folder, f"type: !!python/object/apply:os.system ['touch {folder / 'executed'}']\n")


@hostile()
def a_package_whose_yaml_laughs_a_billion_times(folder: Path) -> Path:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return package(folder, "\n".join([*lines, "type: model", "weights: *a11"]))


@hostile()
def a_package_whose_yaml_is_nested_too_deeply(folder: Path) -> Path:
    return package(folder, "weights: " + "[" * 10**4)


@hostile()
def a_package_whose_weights_run_code(folder: Path) -> Path:
    state = saved({"a": calls(folder)["exec"]})
    path = package(folder, sha256=hashlib.sha256(state).hexdigest())
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return zipped(path, {**members, "weights.pt": state})


@hostile()
def a_package_with_a_graph_that_reads_other_files(folder: Path) -> Path:
    content = graph(outside)
    described = {
        "type": "model",
        "weights": {"onnx": {"source": "model.onnx", "sha256": hashlib.sha256(content).hexdigest()}},
    }
    return zipped(folder / "package.zip", {"bioimageio.yaml": json.dumps(described).encode(), "model.onnx": content})
