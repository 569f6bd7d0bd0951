"""State dicts of PyTorch and of safetensors, read so that no file can run code or take more memory than it has bytes.

A pickle is walked twice. First by `_Scan`, which makes nothing but numbers, strings and containers, knows the few names
that weights need, and measures every tensor against the bytes that are there; then by ``torch.load`` with
``weights_only=True``, which would believe the sizes that a file declares.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.exchange.archive import MOST_BYTES, Archive, shown
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import build_network, find_architecture
from napari_braintumor.engine.models.store import MAX_HEADER_BYTES

MOST_PICKLE_BYTES = 32 * 2**20
NESTS = ("state_dict", "model_state_dict", "model", "network_weights", "net")
"""The keys under which trainers keep a state dict."""
PREFIXES = ("module.", "_orig_mod.")
"""What parallel and compiled networks put before each name."""

MOST_OPTION = 4096
MOST_BLOCKS = 32
BLOCKS = ("depths", "blocks_down", "blocks_up", "num_res_units", "num_layers")
"""Options of MONAI's networks that say how often a part is repeated."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ITEM_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
_NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMPY_KINDS = {"f8": np.float64, "f4": np.float32, "i8": np.int64, "i4": np.int32, "b1": np.bool_}
"""The numbers of NumPy that nnU-Net keeps beside its weights, by what they are called in a pickle."""
_KIND_STATES = tuple((3, order, None, None, None, -1, -1, 0) for order in "<|")

_OPCODES = (
    pickle.PROTO + pickle.STOP + pickle.GLOBAL + pickle.REDUCE + pickle.BUILD + pickle.BINPERSID + pickle.MARK
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1
    + pickle.BINFLOAT + pickle.BINUNICODE + pickle.SHORT_BINSTRING + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1
    + pickle.TUPLE2 + pickle.TUPLE3 + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_DICT
    + pickle.SETITEM + pickle.SETITEMS + pickle.BINGET + pickle.LONG_BINGET + pickle.BINPUT + pickle.LONG_BINPUT
)  # fmt: skip


def read_state_dict(source: Path | bytes) -> dict[str, Tensor]:
    """Read the weights of a ``.pt``, ``.pth`` or ``.safetensors`` file, whoever made it.

    Parameters
    ----------
    source
        The file, or its content.

    Returns
    -------
    dict
        Floating-point tensors as float32, on the CPU, none of them sharing memory; without the wrappings of trainers.

    Raises
    ------
    ModelError
        If the file cannot be read, is damaged, holds anything but weights, or a weight is not finite.
    """
    name = source.name if isinstance(source, Path) else "the weights"
    content = _read_all(source, name)
    if content.startswith(b"PK\x03\x04"):
        weights = _unwrap(_read_zip(content, name), name)
    elif content.startswith(b"\x80"):
        weights = _unwrap(_read_legacy(content, name), name)
    elif content[8:9] == b"{":
        weights = _read_safetensors(content, name)
    else:
        raise ModelError(
            f"'{name}' is no file of weights. A state dict of PyTorch (.pt, .pth) or a .safetensors file is expected."
        )
    return _checked(weights, name)


def fit(
    weights: Mapping[str, Tensor],
    network_name: str,
    in_channels: int,
    out_channels: int,
    spatial_dims: int = 2,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Make sure that weights are those of an architecture: the same names, the same shapes. Takes no memory.

    Parameters
    ----------
    weights
        A state dict.
    network_name
        A key of the registry.
    in_channels, out_channels, spatial_dims, options
        As `build_network` takes them.

    Raises
    ------
    ModelError
        If they are not, with the first tensor that is missing, unknown or of another shape; or if options are absurd.
    """
    title = find_architecture(network_name).title
    network = build_on_meta(network_name, in_channels, out_channels, spatial_dims, options or {})
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    problems: list[str] = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"{len(missing)} tensors are missing, the first is '{missing[0]}'")
    if extra := [name for name in found if name not in expected]:
        problems.append(f"{len(extra)} tensors are unknown to it, the first is '{shown(extra[0])}'")
    if odd := [name for name in expected if name in found and found[name] != expected[name]]:
        first = odd[0]
        problems.append(
            f"{len(odd)} tensors have another shape, the first is '{first}' with {found[first]} "
            f"where {expected[first]} is expected"
        )
    if problems:
        raise ModelError(
            f"These weights are not those of a {spatial_dims}-D {title} with {in_channels} channels in and "
            f"{out_channels} out: {'; '.join(problems)}. Check the architecture, its options, modalities and regions."
        )


def check_finite(weights: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that no training left in order.

    Parameters
    ----------
    weights
        A state dict.
    name
        How the message calls its file.

    Raises
    ------
    ModelError
        If a value is NaN, infinite or complex.
    """
    for key, value in weights.items():
        if value.is_complex() or (value.is_floating_point() and not bool(torch.isfinite(value.float()).all())):
            raise ModelError(
                f"The weight '{shown(key)}' in '{name}' holds values that are not finite or not real. "
                "Take another checkpoint of that training."
            )


def fit_card(weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Make sure that weights are those of the network on a card, as `fit` does.

    Raises
    ------
    ModelError
        As `fit`.
    """
    fit(weights, card.architecture, len(card.modalities), card.out_channels, card.spatial_dims, card.options)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a network that would take all memory or time only to build it.

    Raises
    ------
    ModelError
        If a number or a list is absurdly large, or a value is none that a network takes.
    """
    for name, value in options.items():
        most = MOST_BLOCKS if name in BLOCKS else MOST_OPTION
        if not _is_modest(value, most):
            raise ModelError(
                f"The network's option '{shown(str(name))}' is {shown(repr(value))}, which no network has. "
                f"Numbers up to {most} and short lists of them are expected. Check the model's card."
            )


def _is_modest(value: object, most: int, depth: int = 0) -> bool:
    match value:
        case None | bool():
            return True
        case int() | float():
            return math.isfinite(value) and abs(value) <= most
        case str():
            return len(value) <= 80
        case list() | tuple():
            return depth < 3 and len(value) <= 32 and all(_is_modest(each, most, depth + 1) for each in value)
        case dict():
            return depth < 3 and len(value) <= 32 and all(_is_modest(each, most, depth + 1) for each in value.values())
        case _:
            return False


class _NumbersOnCpu(TorchFunctionMode):
    """Lets MONAI read off numbers that it computes with torch while it builds a network without memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        extra = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **extra})


def build_on_meta(
    name: str, in_channels: int, out_channels: int, spatial_dims: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build a network whose weights take no memory, to look at their names and shapes.

    Raises
    ------
    ModelError
        If the architecture is unknown, or the options are absurd or none of its own.
    """
    check_options(options)
    check_options({"in_channels": in_channels, "out_channels": out_channels})
    try:
        with torch.device("meta"), _NumbersOnCpu():
            return build_network(
                name, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, options=options
            )
    except ModelError:
        raise
    except Exception as error:  # with odd options a network of MONAI may raise anything
        raise ModelError(
            f"{find_architecture(name).title} cannot be built with these options: {error}. Check the model's card."
        ) from error


def _read_all(source: Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        if source.is_file() and (size := source.stat().st_size) > MOST_BYTES:
            raise ModelError(
                f"'{name}' has {size:,} bytes; at most {MOST_BYTES:,} are read. Keep the weights alone in it."
            )
        with source.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise ModelError(f"'{source}' cannot be read: {error.strerror or error}. Check the path.") from error


def _read_zip(content: bytes, name: str) -> object:
    """Read what ``torch.save`` writes. torch gets a zip of our own making, of the records that were measured."""
    with Archive(content, name) as archive:
        names = archive.names()
        pickles = [each for each in names if each.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(each.rpartition("/")[2] == "constants.pkl" for each in names):
            raise ModelError(
                f"'{name}' is no state dict of PyTorch: it is a program of TorchScript or another kind of zip. "
                "Save the network's state_dict() alone."
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder", 16).strip() != b"little":
            raise ModelError(f"'{name}' was written on a big-endian machine. Save it again on another one.")
        described = archive.read(pickles[0], MOST_PICKLE_BYTES)
        scan = _Scan(io.BytesIO(described), name)
        scan.scan()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as ours:
            ours.writestr("archive/data.pkl", described)
            ours.writestr("archive/version", "3\n")
            for key, size in scan.storages.items():
                record = archive.read(f"{folder}data/{key}")
                if len(record) != size:
                    raise _lying(name)
                ours.writestr(f"archive/data/{key}", record)
    return _torch_load(packed.getvalue(), name)


def _read_legacy(content: bytes, name: str) -> object:
    """Read what ``torch.save`` wrote before version 1.6: five pickles, then the bytes of each storage."""
    stream = io.BytesIO(content)
    magic, protocol, system = (_Scan(stream, name).scan() for _ in range(3))
    if magic != _LEGACY_MAGIC or protocol != 1001 or not isinstance(system, dict) or not system.get("little_endian"):
        raise ModelError(
            f"'{name}' is a pickle but no state dict of PyTorch, and other pickles are not opened: they can run code. "
            "Save the network's state_dict() with torch.save."
        )
    scan = _Scan(stream, name)
    scan.scan()
    keys = _Scan(stream, name).scan()
    if not isinstance(keys, list) or keys != sorted(scan.storages):
        raise _lying(name)
    for key in keys:
        items = int.from_bytes(stream.read(8), "little")
        if items * scan.item_bytes[key] != scan.storages[key]:
            raise _lying(name)
        stream.seek(scan.storages[key], io.SEEK_CUR)
    if stream.tell() > len(content):
        raise _lying(name)
    return _torch_load(content, name)


def _torch_load(content: bytes, name: str) -> object:
    numbers: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in _NUMPY_KINDS.values())]
    scalars = [(np._core.multiarray.scalar, name) for name in _NUMPY_SCALARS]  # type: ignore[attr-defined]
    try:
        # `_Scan` made sure that these are called with plain numbers alone.
        with torch.serialization.safe_globals([*numbers, *scalars]):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # its readers raise many kinds for a bad file
        first = str(error).strip().partition("\n")[0]
        raise ModelError(f"'{name}' is damaged or no state dict: {first}. Copy or download it again.") from error


def _read_safetensors(content: bytes, name: str) -> dict[str, Any]:
    from safetensors.torch import load

    if not 2 <= int.from_bytes(content[:8], "little") <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise ModelError(f"'{name}' has a header that is larger than the file or absurd. Copy or download it again.")
    try:
        tensors: dict[str, Any] = load(content)
    except Exception as error:  # safetensors raises its own Rust-born type for a bad file
        raise ModelError(f"'{name}' is damaged: {error}. Copy or download it again.") from error
    return tensors


def _unwrap(content: object, name: str) -> dict[Any, Any]:
    for _ in range(len(NESTS)):
        if not isinstance(content, dict) or any(isinstance(value, Tensor) for value in content.values()):
            break
        inner = [content[key] for key in NESTS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise ModelError(
            f"'{name}' holds a {type(content).__name__} and no state dict. Save the network's state_dict()."
        )
    return content


def _checked(content: dict[Any, Any], name: str) -> dict[str, Tensor]:
    if not content:
        raise ModelError(f"'{name}' holds no weights. Save the network's state_dict().")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ModelError(
                f"'{name}' holds '{shown(str(key))}', which is a {type(value).__name__} and no weight. "
                "Save the network's state_dict() alone."
            )
    check_finite(content, name)
    names = list(content)
    while prefix := next((each for each in PREFIXES if all(key.startswith(each) for key in names)), ""):
        names = [key.removeprefix(prefix) for key in names]
    return {
        key: value.detach().to(torch.float32 if value.is_floating_point() else value.dtype, copy=True).contiguous()
        for key, value in zip(names, content.values(), strict=True)
    }


def _lying(name: str) -> ModelError:
    return ModelError(
        f"'{name}' declares tensors that do not fit its bytes: it was cut short or changed. Copy it again."
    )


@dataclass(frozen=True)
class _Storage:
    items: int
    item_bytes: int


@dataclass(frozen=True)
class _StorageType:
    item_bytes: int


class _Kind:
    """Stands for a kind of number of NumPy."""

    def __init__(self, item_bytes: int) -> None:
        self.item_bytes = item_bytes


class _Dict(dict[Any, Any]):
    """Stands for an OrderedDict, whose attributes are not kept."""


_PythonUnpickler: Any = pickle._Unpickler
"""The one that is written in Python, so that what it does at each step can be chosen."""


class _Scan(_PythonUnpickler):  # type: ignore[misc]
    """Reads a pickle without making anything that it names."""

    dispatch = {code: _PythonUnpickler.dispatch[code] for code in _OPCODES}  # noqa: RUF012

    def __init__(self, stream: io.BytesIO, name: str) -> None:
        super().__init__(stream)
        self.name = name
        self.storages: dict[str, int] = {}
        self.item_bytes: dict[str, int] = {}
        self._tensor_bytes = 0

    def scan(self) -> object:
        """Return what the pickle holds, with None for each tensor.

        Raises
        ------
        ModelError
            If it is damaged, names what no weights need, or declares what is not there.
        """
        try:
            found: object = self.load()
            return found
        except ModelError:
            raise
        except KeyError as error:
            raise ModelError(
                f"'{self.name}' is a pickle of a kind that can run code or is damaged, and is not opened. "
                "Save the network's state_dict() with torch.save."
            ) from error
        except Exception as error:  # a pickle of garbage can raise anything
            raise ModelError(f"'{self.name}' is damaged: its pickle cannot be read. Copy it again.") from error

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function, all of it ours."""
        full = f"{module}.{name}"
        if module == "torch" and name in _ITEM_BYTES:
            return _StorageType(_ITEM_BYTES[name])
        if full == "collections.OrderedDict":
            return self._ordered
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self._measure
        if full == "torch._utils._rebuild_parameter":
            return _first
        if full == "numpy.dtype":
            return self._kind
        if full in _NUMPY_SCALARS:
            return self._number
        if full == "_codecs.encode":
            return self._bytes
        if full == "torch.Size":
            return tuple
        if full == "torch.device" or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return _first
        raise ModelError(
            f"'{self.name}' names '{shown(full)}', which no weights need: it would run code. It is not opened. "
            "Save the network's state_dict() alone."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Note how many bytes a storage is said to have."""
        match pid:
            case ("storage", _StorageType(item_bytes), str(key), _, int(items), *view) if (
                key.isascii() and key.isdigit() and items >= 0 and view in ([], [None])
            ):
                size = items * item_bytes
                if self.storages.setdefault(key, size) != size or size > MOST_BYTES:
                    raise _lying(self.name)
                self.item_bytes[key] = item_bytes
                return _Storage(items, item_bytes)
            case _:
                raise _lying(self.name)

    def _measure(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> None:
        numbers = (offset, *shape, *strides)
        if (
            not isinstance(storage, _Storage)
            or len(shape) != len(strides)
            or any(not isinstance(number, int) or not 0 <= number < 2**40 for number in numbers)
            or any(rest[2:])  # flags of complex tensors
        ):
            raise _lying(self.name)
        items = math.prod(shape)
        reach = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True)) + 1 if items else 0
        self._tensor_bytes += items * storage.item_bytes
        if max(items, reach) > storage.items or self._tensor_bytes > MOST_BYTES:
            raise _lying(self.name)

    def _kind(self, name: Any, align: Any = False, copy: Any = True) -> _Kind:
        if not isinstance(name, str) or name not in _NUMPY_KINDS or (align, copy) != (False, True):
            raise _lying(self.name)
        return _Kind(int(name[1]))

    def _number(self, kind: Any, content: Any) -> None:
        if not isinstance(kind, _Kind) or not isinstance(content, bytes) or len(content) != kind.item_bytes:
            raise _lying(self.name)

    def _bytes(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _lying(self.name)
        return text.encode("latin-1")

    def _ordered(self, pairs: Any = ()) -> _Dict:
        made = _Dict()
        for key, value in pairs:
            self._check_key(key)
            made[key] = value
        return made

    def _check_key(self, key: object) -> None:
        if not isinstance(key, str | int):  # hashing deeply nested tuples can end the process
            raise ModelError(f"'{self.name}' has keys that are no names. Save the network's state_dict() alone.")

    def _load_setitem(self) -> None:
        self._check_key(self.stack[-2])
        _PythonUnpickler.load_setitem(self)

    def _load_setitems(self) -> None:
        for key in self.stack[::2]:
            self._check_key(key)
        _PythonUnpickler.load_setitems(self)

    def _load_build(self) -> None:
        state, changed = self.stack.pop(), self.stack[-1]
        of_dict = isinstance(changed, _Dict) and isinstance(state, dict) and list(state) == ["_metadata"]
        of_kind = isinstance(changed, _Kind) and state in _KIND_STATES
        if not of_dict and not of_kind:
            raise ModelError(f"'{self.name}' changes objects as it is opened, which no weights do. It is not opened.")

    def _load_proto(self) -> None:
        if self.read(1) != b"\x02":
            raise ModelError(
                f"'{self.name}' is a pickle of another protocol than torch.save writes. Save it again with torch.save."
            )

    dispatch.update(
        {
            pickle.SETITEM[0]: _load_setitem,
            pickle.SETITEMS[0]: _load_setitems,
            pickle.BUILD[0]: _load_build,
            pickle.PROTO[0]: _load_proto,
        }
    )


def _first(value: object = None, *_: object) -> object:
    return value
