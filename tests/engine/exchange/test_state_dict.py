import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.exchange.state_dict import check_options, fit, read_state_dict
from napari_braintumor.engine.models.registry import build_network


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_network("buda_unet", in_channels=3, out_channels=1, options={"width": 2}).state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) and type(found[name]) is Tensor for name, tensor in expected.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        dict,
        lambda state: {"state_dict": state, "epoch": 3, "lr": [1e-3, (0.9, 0.999)], "done": True, "note": None},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": {"state_dict": state}, "big": 2**70},
        lambda state: {"network_weights": state, "optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
        lambda state: OrderedDict((f"_orig_mod.module.{name}", value) for name, value in state.items()),
        lambda state: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()},
        lambda state: {k: v.double() if v.is_floating_point() else v for k, v in state.items()},
    ],
)
def test_a_state_dict_is_found_in_what_trainers_write(
    weights: dict[str, Tensor], wrap: Callable[[dict[str, Tensor]], object]
) -> None:
    assert_same(read_state_dict(saved(wrap(weights))), weights)


def test_a_file_is_read_like_its_content_and_safetensors_too(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(weights))
    assert_same(read_state_dict(path), weights)
    path.write_bytes(save(dict(sorted(weights.items()))))
    assert read_state_dict(path).keys() == weights.keys()
    assert torch.equal(read_state_dict(path)["conv.weight"], weights["conv.weight"])


def test_views_and_shared_weights_come_apart() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    read = read_state_dict(saved({"a": base, "b": base, "c": base[1:].t(), "d": base[0, :0]}))
    assert torch.equal(read["c"], base[1:].t())
    assert read["d"].shape == (0,)
    read["a"].zero_()
    assert torch.equal(read["b"], base)
    assert save(read)


def test_half_precision_becomes_float32_and_integers_stay() -> None:
    read = read_state_dict(saved({"h": torch.ones(2).half(), "b": torch.ones(2).bfloat16(), "n": torch.tensor(7)}))
    assert (read["h"].dtype, read["b"].dtype, read["n"].dtype) == (torch.float32, torch.float32, torch.int64)


class Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("exit 1",)


def test_code_in_a_checkpoint_is_named_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    for name in ("system", "popen", "execv"):
        content = saved({"a": torch.ones(2), "b": Attack()}).replace(b"builtins\nappend", f"os\n{name}".encode())
        with pytest.raises(ModelError, match="which no weights need: it could run code"):
            read_state_dict(content)
    assert ran == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights"),
        ([torch.ones(2)], "holds a list and not a state dict"),
        (torch.ones(2), "holds a Tensor and not a state dict"),
        ({"a": torch.ones(2), "b": 3}, "holds 'b', a int that is not a plain weight"),
        ({"a": torch.ones(2), 7: torch.ones(2)}, "holds '7', a Tensor that is not a plain weight"),
        ({"epoch": 3}, "holds 'epoch', a int"),
        ({"a": torch.tensor([1, float("nan")])}, "'a' in 'the weights' holds values that are not finite"),
        ({"a": torch.tensor([float("inf")])}, "not finite"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'a', a Tensor that is not a plain weight"),
        ({(1, 2): torch.ones(2)}, r"'\(1, 2\)', a Tensor that is not"),
        ({"a": torch.ones(3).to_sparse()}, "'a', a Tensor that is not a plain weight"),
        (nn.Linear(2, 2), "names 'torch.nn.modules.linear.Linear'"),
        ({"a": bytearray(5)}, "'a', a bytearray that is not"),
    ],
)
def test_anything_but_a_state_dict_is_refused(content: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_state_dict(saved(content))


def test_a_checkpoint_from_before_pytorch_1_6_is_refused_and_the_way_out_is_named(weights: dict[str, Tensor]) -> None:
    torch.save(weights, old := io.BytesIO(), _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"from before PyTorch 1.6 .* open it with torch.load and save"):
        read_state_dict(old.getvalue())


def nested(depth: int, pickled: str) -> bytes:
    """Return a checkpoint with tuples in each other; hashing them as a key would crash the process."""
    opcodes = {
        "key": b"\x80\x02})" + b"\x85" * depth + b"K\x01s.",
        "remembered": b"\x80\x02})q\x00" + b"h\x00\x85q\x00" * depth + b"h\x00K\x01s.",
        "pair": b"\x80\x02ccollections\nOrderedDict\n](]()" + b"\x85" * depth + b"K\x01eae\x85R.",
    }
    return repacked(saved({}), lambda name, data: opcodes[pickled] if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("pickled", ["key", "remembered", "pair"])
def test_values_nested_so_deeply_that_python_would_crash_are_refused(pickled: str) -> None:
    with pytest.raises(ModelError, match="nests values more than 1000 deep"):
        read_state_dict(nested(10**5, pickled))


def test_a_checkpoint_of_many_weights_is_not_taken_for_a_nested_one() -> None:
    many = {str(number): torch.zeros(1) for number in range(2000)}
    assert len(read_state_dict(saved({"state_dict": many, "log": list(range(10**4))}))) == 2000


def test_numbers_of_numpy_beside_the_weights_are_passed_over() -> None:
    best = {"loss": np.float64(0.5), "epoch": np.int32(3), "done": np.bool_(True)}
    assert list(read_state_dict(saved({"state_dict": {"a": torch.ones(2)}, **best}))) == ["a"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused(protocol: int) -> None:
    for content in ({"a": [1.0]}, Attack()):
        with pytest.raises(ModelError, match=r"'the weights' .*(pickle|does not hold weights|could run code)"):
            read_state_dict(pickle.dumps(content, protocol))


def repacked(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            if (changed := change(name, old.read(name))) is not None:
                new.writestr(name, changed)
    return file.getvalue()


def test_a_storage_that_is_shorter_than_declared_is_refused() -> None:
    content = saved({"a": torch.ones(100)})
    for cut in (lambda data: data[:-4], lambda data: data + b"1234", lambda data: None):
        changed = repacked(content, lambda name, data, cut=cut: cut(data) if name.endswith("/data/0") else data)
        with pytest.raises(ModelError, match=r"declares tensors that do not fit its bytes|holds no file"):
            read_state_dict(changed)


class Lie:
    """Pickled as a tensor of another layout than its storage has."""

    def __init__(self, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.layout = offset, shape, stride

    def __reduce__(self) -> tuple[object, ...]:
        storage = torch.ones(100).storage()
        return torch._utils._rebuild_tensor_v2, (storage, *self.layout, False, OrderedDict())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (101,), (1,)),
        (1, (100,), (1,)),
        (0, (100,), (2,)),
        (0, (10**12,), (0,)),
        (0, (10**9, 10**9, 10**9), (0, 0, 0)),
        (0, (-5,), (1,)),
        (-1, (5,), (1,)),
        (0, (5, 5), (1,)),
        (0, ("5",), (1,)),
    ],
)
def test_a_tensor_that_is_larger_than_its_storage_is_refused(
    offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="declares tensors that do not fit its bytes"):
        read_state_dict(saved({"a": Lie(offset, shape, stride)}))


@pytest.mark.parametrize("items", [99, 101, 2**31 - 1, -1])
def test_a_storage_of_another_size_than_its_bytes_is_refused(items: int) -> None:
    def change(data: bytes) -> bytes:
        lie = b"J" + struct.pack("<i", items)
        return re.sub(rb"K\x64(N?t(?:q.)?Q)", lambda match: lie + match[1], data, flags=re.DOTALL)

    content = saved({"a": torch.ones(100)})
    changed = repacked(content, lambda name, data: change(data) if name.endswith("data.pkl") else data)
    assert struct.pack("<i", items) in changed
    with pytest.raises(ModelError, match="declares tensors that do not fit its bytes"):
        read_state_dict(changed)


def test_a_truncated_file_is_refused(weights: dict[str, Tensor]) -> None:
    content = saved(weights)
    for size in (0, 1, 9, 60, 700, len(content) // 2, len(content) - 1):
        with pytest.raises(ModelError, match=r"\w+ .*\.$"):
            read_state_dict(content[:size])


def test_a_program_of_torchscript_is_refused() -> None:
    content = repacked(saved({"a": torch.ones(1)}), lambda name, data: data)
    with zipfile.ZipFile(file := io.BytesIO(content), "a") as added:
        added.writestr("archive/constants.pkl", b"\x80\x02).")
    with pytest.raises(ModelError, match="a TorchScript program"):
        read_state_dict(file.getvalue())


def test_other_files_are_refused_and_a_missing_one_is_reported_missing(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"{}", b"PK\x05\x06" + bytes(18), bytes(64)):
        with pytest.raises(ModelError, match=r"does not hold weights|damaged"):
            read_state_dict(content)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_state_dict(tmp_path / "none.pt")


@pytest.mark.parametrize("size", [50 * 10**9, 2**63, 1000])
def test_a_safetensors_header_that_lies_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match="header that is larger than the file or absurd"):
        read_state_dict(struct.pack("<Q", size) + b'{"a":1}')


def test_weights_that_fit_are_accepted_and_others_named(weights: dict[str, Tensor]) -> None:
    fit(weights, "buda_unet", 3, 1, options={"width": 2})
    missing = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder1.enc1norm1")}
    with pytest.raises(ModelError, match=r"5 tensors are missing, the first is 'encoder1.enc1norm1.weight'"):
        fit(missing, "buda_unet", 3, 1, options={"width": 2})
    with pytest.raises(ModelError, match="1 tensors are unknown to it, the first is 'extra'"):
        fit({**weights, "extra": torch.ones(1)}, "buda_unet", 3, 1, options={"width": 2})
    with pytest.raises(ModelError, match=r"the first is 'encoder1.enc1conv1.weight' with \(2, 3, 3, 3\)"):
        fit(weights, "buda_unet", 4, 1, options={"width": 2})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 10**9}),
        ("unet", {"width": -(10**9)}),
        ("unet", {"width": float("nan")}),
        ("unet", {"width": "9" * 10**6}),
        ("unet", {"width": object()}),
        ("monai_segresnet", {"blocks_down": [10**6] * 4}),
        ("monai_segresnet", {"blocks_down": [4000, 4000]}),
        ("monai_unet", {"channels": [4] * 1000, "strides": [2] * 999}),
        ("monai_unet", {"channels": [[[[[4]]]]], "strides": [2]}),
    ],
)
def test_absurd_options_are_refused_before_a_network_is_built(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="which no network has"):
        fit({}, name, 4, 3, 3, options)


def test_options_that_a_network_does_not_take_are_refused(weights: dict[str, Tensor]) -> None:
    for name, options in (("unet", {"depth": 3}), ("monai_unet", {"channels": [4, 8], "strides": []}), ("onnx", {})):
        with pytest.raises(ModelError, match=r"cannot be built|no network to build"):
            fit(weights, name, 4, 3, 2, options)
    check_options({"act": ["leakyrelu", {"negative_slope": 0.1}], "strides": [[1, 2, 2]], "dropout": None})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("monai_segresnet", {"init_filters": 8, "blocks_down": [1, 2]}),
        ("monai_unet", {"channels": [4, 8], "strides": [2]}),
        ("monai_basicunet", {"features": [4, 4, 8, 8, 8, 4]}),
        (
            "monai_dynunet",
            {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
        ),
        ("monai_swinunetr", {"feature_size": 12}),
    ],
)
def test_the_networks_of_monai_are_compared_without_memory(name: str, options: dict[str, object]) -> None:
    network = build_network(name, in_channels=4, out_channels=3, spatial_dims=3, options=options)
    fit(network.state_dict(), name, 4, 3, 3, options)
