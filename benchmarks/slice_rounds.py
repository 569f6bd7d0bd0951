"""One network over a batch of slices on each runtime, in turn with the matrix product: what `segment` runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from measuring import THREADS, MatrixProduct, interleave
from napari_braintumor.engine.anatomy import Region
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.model_file import file_sha256, save_model
from napari_braintumor.engine.models.registry import build_network, find_architecture
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.prepare import prepare_for
from napari_braintumor.engine.segmenting.runtime import start_runner
from napari_braintumor.engine.volumes import Volume

SLICES = 8
SIDE = 240
"""Of the slices of a BraTS case, at 1 mm."""

Network = Callable[[torch.Tensor], torch.Tensor]


class SliceRounds:
    """Time a network.

    Parameters
    ----------
    model
        Name of a bundled model; None takes a U-Net of width 32 with batch norm, 4 channels to 4, on whole slices.
    """

    def __init__(self, model: str | None) -> None:
        torch.set_num_threads(THREADS)
        self.model = model

    def __call__(self, rounds: int) -> dict[str, Any]:
        """Run all runtimes in turn.

        Parameters
        ----------
        rounds
            How often each is timed, after a run that does not count.

        Returns
        -------
        dict
            A row of the result.
        """
        with TemporaryDirectory() as folder:
            os.environ["BRAINTUMOR_CACHE"] = folder  # random weights are nothing for the user's own
            if self.model is None:
                path, batch_NMHW = save_reference(Path(folder)), torch.randn(SLICES, 4, SIDE, SIDE)
            else:
                found = ModelStore().find(self.model)
                path, batch_NMHW = found.path, make_batch(found.card)
            eager = load_network(path)
            networks = start_networks(path, batch_NMHW) | {"eager": eager}
            product = MatrixProduct()
            tasks = {name: time_slice(network, batch_NMHW) for name, network in networks.items()}
            tasks["matrix product"] = product.seconds
            interleave(tasks, 1)
            seconds = interleave(tasks, rounds)
        return {
            "shape": list(batch_NMHW.shape[1:]),
            "gflop": round(count_gflop(eager, batch_NMHW[:1]), 3),
            "matrix_gflops": round(product.gflop / median(seconds.pop("matrix product")), 1),
            "runtimes": {
                name: {
                    "seconds": round(median(values), 5),
                    "all_seconds": [round(value, 5) for value in values],
                }
                for name, values in seconds.items()
            },
        }


def start_networks(path: Path, batch_NMHW: torch.Tensor) -> dict[str, Network]:
    """Start a model on each runtime that is installed, as it is started in use.

    Parameters
    ----------
    path
        The model's file.
    batch_NMHW
        What it will be given.
    """
    _, modalities, height, width = batch_NMHW.shape
    runtimes = ["openvino", "torch"] if find_spec("openvino") else ["torch"]
    device, sha256 = torch.device("cpu"), file_sha256(path)
    return {name: start_runner(path, sha256, name, device, (modalities, height, width)) for name in runtimes}


def time_slice(network: Network, batch_NMHW: torch.Tensor) -> Callable[[], float]:
    """Return a task that runs a network over a batch, and returns the seconds a slice.

    Parameters
    ----------
    network
        Gives logits for images.
    batch_NMHW
        The images.
    """

    def task() -> float:
        with torch.inference_mode():
            started = time.perf_counter()
            network(batch_NMHW)
            return (time.perf_counter() - started) / len(batch_NMHW)

    return task


def make_batch(card: ModelCard) -> torch.Tensor:
    """Return slices of noise in a round head, on the working grid that a BraTS case has with a model.

    Parameters
    ----------
    card
        The model's.
    """
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:SIDE, :SIDE]
    head_YX = np.hypot(y - SIDE / 2, x - SIDE / 2) < 0.4 * SIDE
    noise = rng.normal(100, 20, (len(card.modalities), SLICES, SIDE, SIDE)).astype(np.float32)
    volume = Volume(noise * head_YX, card.modalities, default_grid((SLICES, SIDE, SIDE)))
    prepared = prepare_for(card, volume, find_architecture(card.architecture).divisor, crop=False)
    return torch.from_numpy(np.ascontiguousarray(prepared.data.swapaxes(0, 1)))


def save_reference(folder: Path) -> Path:
    """Write a U-Net of width 32 with batch norm and fresh weights as a model.

    Parameters
    ----------
    folder
        Where to.
    """
    torch.manual_seed(0)
    options = {"width": 32, "batch_norm": True}
    card = ModelCard(
        name="reference-unet",
        architecture="unet",
        options=options,
        regions=tuple(Region(name=f"region {n}", label=n, label_name=f"{n}", color="#808080") for n in range(1, 5)),
    )
    network = build_network("unet", in_channels=4, out_channels=4, options=options)
    return save_model(folder / f"{card.name}.safetensors", network.state_dict(), card)


def count_gflop(network: torch.nn.Module, batch_NMHW: torch.Tensor) -> float:
    """Return the GFLOP of a network's convolutions; a multiplication and an addition are two.

    Parameters
    ----------
    network
        On the CPU.
    batch_NMHW
        The images.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(batch_NMHW)
    return float(counter.get_total_flops()) / 1e9
