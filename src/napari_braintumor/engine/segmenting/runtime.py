"""What runs a network: OpenVINO on the CPU where it is installed, torch on the CPU, CUDA or MPS otherwise."""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_braintumor.engine.devices import choose_autocast, is_out_of_memory, openvino_core
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.segmenting.conversion import load_converted

GPU_BATCH = 16
OPENVINO_BATCH = 8
"""Slices given to OpenVINO together; it runs as many at a time as suits the cores."""


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
        """Return logits ``(N, R, H, W)``, float32 on the CPU or on CUDA, for images ``(N, M, H, W)`` on the CPU."""


def choose_batch(runtime: str, device: torch.device) -> int:
    """Return how many slices to run at a time. Torch on the CPU gains nothing from more than one."""
    return OPENVINO_BATCH if runtime == "openvino" else 1 if device.type == "cpu" else GPU_BATCH


class TorchRunner:
    """Runs a network with torch.

    On CUDA, images are copied from pinned memory, cuDNN selects its fastest kernels (all batches but the last have the
    same shape), and logits stay on the GPU.

    Parameters
    ----------
    network
        In evaluation mode.
    device
        Where it runs; the network is moved there.
    precision
        As in `choose_autocast`.
    """

    runtime = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "auto") -> None:
        self.device = device
        self.dtype = choose_autocast(device, precision)
        flat = all(weight.ndim != 5 for weight in network.parameters())
        self.memory_format = torch.channels_last if flat else torch.channels_last_3d
        self.network = network.to(device).to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)``, float32, for images ``(N, M, H, W)``."""
        on_cuda = self.device.type == "cuda"
        with torch.inference_mode(), fixed_shapes() if on_cuda else nullcontext():
            batch = batch_NMHW.contiguous(memory_format=self.memory_format)
            batch = (batch.pin_memory() if on_cuda else batch).to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
                logits: Tensor = self.network(batch)
            return logits.float() if on_cuda else logits.float().cpu()


def fixed_shapes() -> AbstractContextManager[None]:
    """Let cuDNN measure which of its kernels is fastest, once per shape."""
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=True, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32
    )
    return flags


class OpenVinoRunner:
    """Runs a network with OpenVINO on the CPU, several slices at a time.

    Parameters
    ----------
    model
        From `load_converted`.
    shape
        Shape of the images to come, ``(1, M, H, W)``, or with a depth before the height.
    precision
        ``"bfloat16"``, or anything else for float32.
    """

    runtime = "openvino"
    device = torch.device("cpu")

    def __init__(self, model: Any, shape: tuple[int, ...], precision: str = "auto") -> None:
        self.model = model  # it may own the weights that the compiled model uses
        model.reshape(shape)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self.compiled = openvino_core().compile_model(model, "CPU", settings)
        self.at_once = int(self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)`` for images ``(N, M, H, W)``."""
        from openvino import AsyncInferQueue

        images = np.ascontiguousarray(batch_NMHW.numpy())
        logits = np.empty((len(images), *self.compiled.output(0).shape[1:]), np.float32)

        def keep(request: Any, number: int) -> None:
            logits[number] = request.get_output_tensor(0).data[0]

        queue = AsyncInferQueue(self.compiled, min(self.at_once, len(images)))  # its own: two docks may run
        queue.set_callback(keep)
        for number, image in enumerate(images):
            queue.start_async({0: image[None]}, number)
        queue.wait_all()
        return torch.from_numpy(logits)


@lru_cache(maxsize=4)
def start_runner(
    path: Path,
    sha256: str,
    runtime: str,
    device: torch.device,
    shape: tuple[int, ...],
    precision: str = "auto",
) -> Runner:
    """Load a model into its runtime; a second start with the same model and shape is fast.

    Parameters
    ----------
    path
        The model's file.
    sha256
        The file's checksum, so that a replaced file is loaded again.
    runtime
        ``"openvino"`` or ``"torch"``.
    device
        From `choose_device`.
    shape
        Modalities and sides of the images to come.
    precision
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.

    Returns
    -------
    Runner
        Ready to run.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    if runtime == "openvino":
        return OpenVinoRunner(load_converted(path, sha256), (1, *shape), precision)
    return TorchRunner(load_network(path), device, precision)


Result = TypeVar("Result")


def run_with_cpu_fallback(function: Callable[[Tensor], Result], tensor: Tensor) -> Result:
    """Apply a function to a tensor on its device, or on the CPU if memory runs out there."""
    try:
        return function(tensor)
    except Exception as error:
        if tensor.device.type == "cpu" or not is_out_of_memory(error):
            raise
    return function(tensor.cpu())


def _unless_out_of_memory(function: Callable[[], Result]) -> Result | None:
    """Return the result of a function, or None if memory runs out; the error, which also holds memory, is dropped."""
    try:
        return function()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


class FallbackRunner:
    """Runs batches. When memory runs out, tries smaller batches, then the CPU, and adds a note.

    Parameters
    ----------
    runner
        The first runner.
    batch_size
        Initial number of slices at a time.
    fall_back
        Creates the runner on the CPU, used if even one slice does not fit on the device.

    Attributes
    ----------
    batch_size
        Current number of slices at a time.
    notes
        What had to change, one sentence each.
    """

    def __init__(self, runner: Runner, batch_size: int, fall_back: Callable[[], Runner]) -> None:
        self.runner = runner
        self.batch_size = batch_size
        self.fall_back = fall_back
        self.notes: list[str] = []

    @property
    def device(self) -> torch.device:
        """The current device."""
        return self.runner.device

    @property
    def runtime(self) -> str:
        """The current runtime: ``"openvino"`` or ``"torch"``."""
        return self.runner.runtime

    def __call__(self, batch_NMHW: Tensor) -> Tensor:
        """Return logits ``(N, R, H, W)``, run in as many batches as memory requires; all are on the last device used.

        Returns
        -------
        Tensor
            Logits in the order of the batch.

        Raises
        ------
        SettingsError
            If one slice does not fit in main memory.
        """

        def run() -> Tensor:  # the whole batch each time: partial results may be on another device
            return torch.cat([self.runner(piece) for piece in batch_NMHW.split(self.batch_size)])

        while (logits := _unless_out_of_memory(run)) is None:
            self._step_down()
        return logits

    def _step_down(self) -> None:
        if self.runner.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(
                f"Memory ran out on {self.runner.device.type}; continuing with {self.batch_size} slices at a time."
            )
        elif self.runner.device.type != "cpu":
            self.notes.append(
                f"Memory ran out on {self.runner.device.type} with a single slice; continuing on the CPU, more slowly."
            )
            self.runner = self.fall_back()
        else:
            raise SettingsError(
                "Memory ran out on the CPU with a single slice. Close other programs, or crop the scan."
            )


def start_with_fallback(
    start: Callable[[], Runner], fall_back: Callable[[], Runner], batch_size: int | None
) -> FallbackRunner:
    """Return a runner that starts on a device, or on the CPU if the network does not fit on the device.

    Parameters
    ----------
    start, fall_back
        Create the runner on the device and the one on the CPU.
    batch_size
        Initial number of slices at a time; None chooses by device.

    Returns
    -------
    FallbackRunner
        The runner, on the device or on the CPU.
    """
    started = _unless_out_of_memory(start)
    runner = started or fall_back()
    chosen = FallbackRunner(runner, batch_size or choose_batch(runner.runtime, runner.device), fall_back)
    if started is None:
        chosen.notes.append("The model does not fit into the free memory; continuing on the CPU, more slowly.")
    return chosen
