"""What runs a network: OpenVINO on the CPU where it is installed, torch on the CPU, CUDA or MPS otherwise."""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.registry import build_network
from napari_braintumor.engine.store import load_weights, read_card

CPU_BATCH = 1
GPU_BATCH = 16


class Runner(Protocol):
    """A network ready to run.

    Attributes
    ----------
    runtime
        ``"openvino"`` or ``"torch"``.
    device
        Where it runs.
    """

    runtime: str
    device: torch.device

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)``, float32 on the CPU, of images ``(N, M, H, W)``."""


def choose_device(wanted: str) -> torch.device:
    """Return where a network is to run.

    Parameters
    ----------
    wanted
        ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    SettingsError
        If the wanted device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        there = ", ".join(name for name, there in available.items() if there)
        raise SettingsError(f"The device '{wanted}' is not available here. Choose auto or one of: {there}.")
    return torch.device(wanted)


def choose_autocast(device: torch.device) -> torch.dtype | None:
    """Return the reduced precision that is faster on a device, or None for full float32.

    bfloat16 needs CUDA compute capability 8.0 (Ampere); older cards take float16. CPUs get None: on most of them
    reduced precision is many times slower.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float16 if device.type == "mps" else None


def choose_runtime(wanted: str, device: torch.device) -> str:
    """Return ``"openvino"`` or ``"torch"``.

    Raises
    ------
    SettingsError
        If OpenVINO is wanted but not installed, or on a device it is not used for.
    """
    installed = find_spec("openvino") is not None
    if wanted == "auto":
        return "openvino" if installed and device.type == "cpu" else "torch"
    if wanted == "openvino" and not installed:
        raise SettingsError("The runtime OpenVINO is not installed. Run 'pip install openvino', or choose torch.")
    if wanted == "openvino" and device.type != "cpu":
        raise SettingsError(
            f"OpenVINO runs on the CPU here, not on '{device.type}'. Choose the device cpu, or the runtime torch."
        )
    return wanted


def describe_device(device: torch.device) -> str:
    """Return a device in words, with the free memory of a GPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if device.type == "mps":
        return "Apple GPU (MPS)"
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


def load_network(path: Path) -> nn.Module:
    """Build a model's network with its weights, ready for use.

    Raises
    ------
    ModelError
        If the file is damaged or its tensors do not fit its architecture.
    """
    card = read_card(path)
    network = build_network(
        card.architecture,
        in_channels=len(card.modalities),
        out_channels=len(card.regions),
        spatial_dims=card.spatial_dims,
        options=card.options,
    )
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise ModelError(
            f"The tensors in '{path.name}' do not fit the architecture on its card ({card.architecture}): "
            f"{str(error).splitlines()[-1].strip()}. Use the file as it was made."
        ) from error
    return network.eval().requires_grad_(False)


class TorchRunner:
    """Runs a network with torch.

    Parameters
    ----------
    network
        In evaluation mode.
    device
        Where it runs; the network is moved there.
    """

    runtime = "torch"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.dtype = choose_autocast(device)
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)``, float32 on the CPU, of images ``(N, M, H, W)``."""
        with torch.inference_mode():
            batch = batch_NMHW.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            if self.dtype is None:
                logits: Tensor = self.network(batch)
            else:
                with torch.autocast(self.device.type, self.dtype):
                    logits = self.network(batch)
            return logits.float().cpu()


class OpenVinoRunner:
    """Runs a network with OpenVINO on the CPU, in float32.

    Parameters
    ----------
    network
        In evaluation mode. It belongs to this runner: OpenVINO goes on using the memory of its weights.
    shape
        Of the images that will come, ``(1, M, H, W)``.
    """

    runtime = "openvino"
    device = torch.device("cpu")

    def __init__(self, network: nn.Module, shape: tuple[int, int, int, int]) -> None:
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        self.network = network
        # Not openvino.convert_model: that reports its use to a web analytics service, and no scan's program should.
        decoder = TorchScriptPythonDecoder(network, example_input=torch.zeros(shape))
        front_end = FrontEndManager().load_by_framework("pytorch")
        loaded = front_end.load(decoder)
        model = front_end.convert(loaded)
        model.reshape(shape)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = _openvino().compile_model(model, "CPU", settings)

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)`` of images ``(N, M, H, W)``."""
        images = np.ascontiguousarray(batch_NMHW.numpy())
        request = self.compiled.create_infer_request()  # of its own: two docks may use one compiled model at once
        outputs = [request.infer([image[None]])[0].copy() for image in images]
        return torch.from_numpy(np.concatenate(outputs))


@lru_cache(maxsize=1)
def _openvino() -> Any:
    """Return the one core of OpenVINO, which is never let go.

    It gives the thread that makes it a stack for signals (openvinotoolkit/openvino, pull request 11894). Dropped by
    another thread, it would free that stack without taking it away, and the next signal that Python handles would end
    the process.
    """
    from openvino import Core

    return Core()


@lru_cache(maxsize=4)
def start_runner(path: Path, sha256: str, runtime: str, device: torch.device, shape: tuple[int, int, int]) -> Runner:
    """Load a model onto its runtime; a second start with the same model and shape is quick.

    Parameters
    ----------
    path
        The model's file.
    sha256
        Of the file, so that a file that was replaced is loaded anew.
    runtime
        ``"openvino"`` or ``"torch"``.
    device
        From `choose_device`.
    shape
        Modalities, height and width of the images that will come.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    if runtime == "openvino":
        return OpenVinoRunner(load_network(path), (1, *shape))
    return TorchRunner(load_network(path), device)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an exhausted memory from other failures; some back ends raise plain RuntimeErrors."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


class Ladder:
    """Runs batches, and when memory runs out tries smaller batches, then the CPU, and says so.

    Parameters
    ----------
    runner
        What to begin with.
    batch_size
        Slices at a time, at first.
    fall_back
        Makes the CPU's runner, when even one slice does not fit the device.
    """

    def __init__(self, runner: Runner, batch_size: int, fall_back: Callable[[], Runner]) -> None:
        self.runner = runner
        self.batch_size = batch_size
        self.fall_back = fall_back
        self.notes: list[str] = []

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)``, in as many pieces as memory asks for.

        Raises
        ------
        SettingsError
            If one slice does not fit into the computer's own memory.
        """
        outputs: list[Tensor] = []
        start = 0
        while start < len(batch_NMHW):
            try:
                outputs.append(self.runner(batch_NMHW[start : start + self.batch_size]))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._step_down()
            else:
                start += self.batch_size
        return torch.cat(outputs)

    def _step_down(self) -> None:
        if self.runner.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(
                f"Memory ran out on {self.runner.device.type}; going on with {self.batch_size} slices at a time."
            )
        elif self.runner.device.type != "cpu":
            self.notes.append(
                f"Memory ran out on {self.runner.device.type} with a single slice; going on, slower, on the CPU."
            )
            self.runner = self.fall_back()
        else:
            raise SettingsError(
                "Memory ran out on the CPU with a single slice. Close other programs, or crop the scan."
            )
