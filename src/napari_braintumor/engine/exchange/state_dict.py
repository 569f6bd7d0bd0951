"""State dicts of PyTorch and of safetensors, read so that no file can run code or take more memory than it has bytes.

``torch.load(weights_only=True)`` decides what may be opened. What it does not refuse is checked before: absurd sizes,
and values nested so deeply that hashing them would crash the process. PyTorch before 2.10 believed the sizes that a
file declares (CVE-2026-24747), so 2.10 is the oldest version that the package accepts.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.exchange.archive import MAX_BYTES, Archive, shorten
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import MAX_HEADER_BYTES
from napari_braintumor.engine.models.registry import build_network, find_architecture

MAX_PICKLE_BYTES = 32 * 2**20
MAX_DEPTH = 1000
NESTS = ("state_dict", "model_state_dict", "model", "network_weights", "net")
"""The keys under which trainers keep a state dict."""
PREFIXES = ("module.", "_orig_mod.")
"""The prefixes that parallel and compiled networks put before each name."""

MAX_OPTION = 4096
MAX_BLOCKS = 32
BLOCKS = ("depths", "blocks_down", "blocks_up", "num_res_units", "num_layers")
"""Options of MONAI's networks that say how often a part is repeated."""

_NUMPY_NAMES = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
"""How a pickle names the NumPy numbers that nnU-Net keeps next to its weights."""


def read_state_dict(source: Path | bytes) -> dict[str, Tensor]:
    """Read the weights of a ``.pt``, ``.pth`` or ``.safetensors`` file, whoever made it.

    Parameters
    ----------
    source
        The file, or its content.

    Returns
    -------
    dict
        Floating-point tensors as float32, on the CPU, none of them sharing memory; without the wrappers of trainers.

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
        raise ModelError(
            f"'{name}' is a checkpoint from before PyTorch 1.6 or another kind of pickle, and pickles can run code. It "
            "is not opened. If you trust it, open it with torch.load and save the network's state_dict() again."
        )
    elif content[8:9] == b"{":
        weights = _read_safetensors(content, name)
    else:
        raise ModelError(
            f"'{name}' does not hold weights. Expected a state dict of PyTorch (.pt, .pth) or a .safetensors file."
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
        problems.append(f"{len(extra)} tensors are unknown to it, the first is '{shorten(extra[0])}'")
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
    """Refuse weights that are not finite real numbers.

    Parameters
    ----------
    weights
        A state dict.
    name
        The name of the file in messages.

    Raises
    ------
    ModelError
        If a value is NaN, infinite or complex.
    """
    for key, value in weights.items():
        if value.is_complex() or (value.is_floating_point() and not bool(torch.isfinite(value.float()).all())):
            raise ModelError(
                f"The weight '{shorten(key)}' in '{name}' holds values that are not finite or not real. "
                "Take another checkpoint of that training."
            )


def fit_card(weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Make sure that weights are those of the network on a card, as `fit` does.

    Raises
    ------
    ModelError
        As `fit`.
    """
    fit(weights, card.architecture, len(card.inputs), card.out_channels, card.spatial_dims, card.options)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a network that would take all memory or time only to build it.

    Raises
    ------
    ModelError
        If a number or a list is absurdly large, or a value is not one that a network takes.
    """
    for name, value in options.items():
        most = MAX_BLOCKS if name in BLOCKS else MAX_OPTION
        if not _is_modest(value, most):
            raise ModelError(
                f"The network's option '{shorten(str(name))}' is {shorten(repr(value))}, which no network has. "
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
    """Lets MONAI read numbers that it computes with torch while it builds a network without memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        extra = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **extra})


def build_on_meta(
    name: str, in_channels: int, out_channels: int, spatial_dims: int, options: Mapping[str, Any]
) -> nn.Module:
    """Build a network whose weights take no memory, to look at their names and shapes.

    Returns
    -------
    nn.Module
        The network, on torch's meta device.

    Raises
    ------
    ModelError
        If the architecture is unknown, or the options are absurd or not its own.
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
        if source.is_file() and (size := source.stat().st_size) > MAX_BYTES:
            raise ModelError(
                f"'{name}' has {size:,} bytes; at most {MAX_BYTES:,} are read. Keep the weights alone in it."
            )
        with source.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise ModelError(f"'{source}' cannot be read: {error.strerror or error}. Check the path.") from error


def _read_zip(content: bytes, name: str) -> object:
    """Read what ``torch.save`` writes. torch gets a zip of our own making, with the records that `Archive` checked."""
    with Archive(content, name) as archive:
        names = archive.names()
        pickles = [each for each in names if each.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(each.rpartition("/")[2] == "constants.pkl" for each in names):
            raise ModelError(
                f"'{name}' is a TorchScript program or another kind of zip, not a state dict of PyTorch. "
                "Save the network's state_dict() alone."
            )
        folder = pickles[0].removesuffix("data.pkl")
        pickled = archive.read(pickles[0], MAX_PICKLE_BYTES)
        _check_depth(pickled, name)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as ours:
            ours.writestr("archive/data.pkl", pickled)
            ours.writestr("archive/version", "3\n")
            for each in names:
                inside = each.removeprefix(folder)
                if inside == "byteorder" or (inside.startswith("data/") and each.startswith(folder)):
                    ours.writestr(f"archive/{inside}", archive.read(each))
    return _torch_load(packed, name)


def _check_depth(pickled: bytes, name: str) -> None:
    """Refuse a pickle whose values lie in each other more than `MAX_DEPTH` deep; nothing in it is made."""
    depths: list[int | None] = []  # of each value on the unpickler's stack; None is a mark
    memo: dict[Any, int | None] = {}
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ("BINGET", "LONG_BINGET"):
                depths.append(memo[argument])
                continue
            if opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = depths[-1]
                continue
            taken: list[int | None] = []
            single = len(opcode.stack_before)
            if pickletools.markobject in opcode.stack_before:
                single = opcode.stack_before.index(pickletools.markobject)
                while (value := depths.pop()) is not None:
                    taken.append(value)
            taken += [depths.pop() for _ in range(single)]
            depth = 1 + max((value or 0 for value in taken), default=0)
            if depth > MAX_DEPTH:
                raise ModelError(
                    f"'{name}' nests values more than {MAX_DEPTH} deep, which no checkpoint does. It is refused as "
                    "malicious."
                )
            depths += [None if made is pickletools.markobject else depth for made in opcode.stack_after]
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"'{name}' is damaged: its pickle cannot be read. Copy it again.") from error


def _torch_load(packed: io.BytesIO, name: str) -> object:
    packed.seek(0)
    try:
        with torch.serialization.safe_globals([_Ignored, *((_Ignored, each) for each in _NUMPY_NAMES)]):
            return torch.load(packed, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        held = f"names '{shorten(found[1])}'" if found else "holds a pickle of another kind"
        raise ModelError(
            f"'{name}' {held}, which no weights need: it could run code. It is not opened. "
            "Save the network's state_dict() alone, with torch.save."
        ) from error
    except Exception as error:  # tensors that lie about their size raise many types
        raise _size_mismatch(name) from error


def _size_mismatch(name: str) -> ModelError:
    return ModelError(
        f"'{name}' declares tensors that do not fit its bytes: it was cut short or changed. Copy it again."
    )


class _Ignored:
    """Stands for a NumPy number, or its type, so that NumPy makes nothing that a file describes."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _read_safetensors(content: bytes, name: str) -> dict[str, Any]:
    from safetensors.torch import load

    if not 2 <= int.from_bytes(content[:8], "little") <= min(MAX_HEADER_BYTES, len(content) - 8):
        raise ModelError(f"'{name}' has a header that is larger than the file or absurd. Copy or download it again.")
    try:
        tensors: dict[str, Any] = load(content)
    except Exception as error:  # safetensors raises a type of its own, from Rust
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
            f"'{name}' holds a {type(content).__name__} and not a state dict. Save the network's state_dict()."
        )
    return content


def _checked(content: dict[Any, Any], name: str) -> dict[str, Tensor]:
    if not content:
        raise ModelError(f"'{name}' holds no weights. Save the network's state_dict().")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not _is_plain(value):
            raise ModelError(
                f"'{name}' holds '{shorten(str(key))}', a {type(value).__name__} that is not a plain weight. "
                "Save the network's state_dict() alone."
            )
    if not all(map(_is_stored, content.values())) or sum(map(_count_bytes, content.values())) > MAX_BYTES:
        raise _size_mismatch(name)
    check_finite(content, name)
    names = list(content)
    while prefix := next((each for each in PREFIXES if all(key.startswith(each) for key in names)), ""):
        names = [key.removeprefix(prefix) for key in names]
    return {
        key: value.detach().to(torch.float32 if value.is_floating_point() else value.dtype, copy=True).contiguous()
        for key, value in zip(names, content.values(), strict=True)
    }


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_complex())
    )


def _is_stored(tensor: Tensor) -> bool:
    """Return True if each value of a tensor lies in the file; strides of zero would make many of one."""
    return _count_bytes(tensor) <= tensor.untyped_storage().nbytes()


def _count_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
