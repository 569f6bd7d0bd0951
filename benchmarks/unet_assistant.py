"""The trainer of the plugin napari-unet-assistant beside ours, on made-up volumes of one channel.

It trains 3-D U-Nets on one channel of TIFFs, so there is no case of four modalities to compare it on. It is not among
our dependencies; it is looked for in the folder that ``UNET_ASSISTANT`` names, made by
``pip install --no-deps --target FOLDER napari-unet-assistant``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from measuring import Worker, make_table

SHAPE = (16, 96, 96)
TRAINED, HELD_OUT = 8, 4
SECONDS, QUICK_SECONDS = 120.0, 10.0
THRESHOLD = 0.5
TITLES = {"ours": "ours, U-Net of slices, width 16", "assistant": "napari-unet-assistant, its 3-D U-Net, width 16"}


def measure(quick: bool) -> dict[str, Any] | None:
    """Let both train for the same time; None if the other plugin is not installed.

    Parameters
    ----------
    quick
        A few seconds only.
    """
    if not os.environ.get("UNET_ASSISTANT"):
        return None
    with Worker("unet_assistant:Assistant") as worker:
        assistant = worker(seconds=QUICK_SECONDS if quick else SECONDS).value
    # It ends with an epoch; ours then gets as long.
    with Worker("unet_assistant:Ours") as worker:
        return {"ours": worker(seconds=assistant["seconds"]).value, "assistant": assistant}


def describe(result: Mapping[str, Any] | None) -> str:
    """Return a paragraph and a table.

    Parameters
    ----------
    result
        Of `measure`.
    """
    if result is None:
        return "The trainer of napari-unet-assistant was not measured: it was not installed."
    rows = [
        [
            title,
            f"{result[name]['seconds']:.0f}",
            f"{result[name]['voxels_per_second'] / 1e6:.2f}",
            f"{result[name]['dice']:.3f}",
        ]
        for name, title in TITLES.items()
    ]
    return (
        f"The trainer of napari-unet-assistant, on {TRAINED} made-up volumes of one channel, {SHAPE[0]} x {SHAPE[1]} x "
        f"{SHAPE[2]}, without variation, for the same time; Dice of all voxels of {HELD_OUT} "
        "more volumes. It knows one channel only, so there is nothing to compare on real cases.\n\n"
        + make_table(["trainer", "seconds", "million voxels/s", "Dice of held-out volumes"], rows)
    )


def make_volume(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image with a head and a brighter, ragged ball in it, and the ball.

    Parameters
    ----------
    seed
        Draws where the ball lies, how bright it is, and the noise.
    """
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    head = (z / 1.2) ** 2 + (y / 0.85) ** 2 + (x / 0.75) ** 2 < 1
    center, radius, brightness = random.uniform(-0.35, 0.35, 3), random.uniform(0.15, 0.35), random.uniform(10, 30)
    wave = 0.15 * np.sin(9 * y + random.uniform(0, 6)) * np.cos(9 * x + random.uniform(0, 6))
    ball = head & (np.sqrt((0.6 * (z - center[0])) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2) + wave < radius)
    shading = 1 + 0.2 * np.sin(2 * y + random.uniform(0, 6))
    image = (100 * shading + brightness * ball + random.normal(0, 12, SHAPE)) * head
    return image.clip(0).astype(np.float32), ball


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks."""
    return float(2 * (predicted & truth).sum() / max(predicted.sum() + truth.sum(), 1))


class Assistant:
    """napari-unet-assistant's trainer with its own network, loss, metrics and batch size."""

    def __init__(self) -> None:
        sys.path.append(os.environ["UNET_ASSISTANT"])
        import napari_unet_assistant.training.trainer as trainer  # type: ignore[import-not-found,unused-ignore]
        import torch

        self.trainer = trainer
        volumes = [make_volume(seed) for seed in range(TRAINED)]
        self.dataset = torch.utils.data.TensorDataset(
            torch.stack([self._scaled(image) for image, _ in volumes]),
            torch.stack([torch.from_numpy(ball)[None].float() for _, ball in volumes]),
        )

    def __call__(self, seconds: float) -> dict[str, float]:
        """Train for about a number of seconds; return speed and Dice."""
        import torch

        config = self.trainer.TrainConfig(mode_2d_or_3d="3d", epochs=1, device="cpu")
        for _ in range(2):  # the first is slower
            started = time.perf_counter()
            self.trainer.train_model(self.dataset, config)
        config.epochs = max(1, round(seconds / (time.perf_counter() - started)))
        started = time.perf_counter()
        network, _ = self.trainer.train_model(self.dataset, config)
        took = time.perf_counter() - started
        network.eval()
        with torch.inference_mode():
            found = [
                dice((network(self._scaled(image)[None]).sigmoid() > THRESHOLD)[0, 0].numpy(), ball)
                for image, ball in map(make_volume, range(100, 100 + HELD_OUT))
            ]
        learned = TRAINED - round(TRAINED * config.val_split)
        voxels = config.epochs * learned * int(np.prod(SHAPE))
        return {"seconds": took, "voxels_per_second": voxels / took, "dice": float(np.mean(found))}

    @staticmethod
    def _scaled(image: NDArray[np.float32]) -> Any:
        """Return an image as its dataset gives it: between 0 and 1, with a channel."""
        import torch

        return torch.from_numpy((image - image.min()) / (image.max() - image.min()))[None]


class Ours:
    """Our loop, as `engine.training` drives it."""

    def __init__(self) -> None:
        from napari_braintumor.engine.training.plan import TrainPlan
        from napari_braintumor.engine.training.training_cases import TrainingData, load_data

        held_out = range(100, 100 + HELD_OUT)
        with TemporaryDirectory() as folder:
            for seed in (*range(TRAINED), *held_out):
                image, ball = make_volume(seed)
                case = Path(folder) / "cases" / f"ball{seed}"
                case.mkdir(parents=True)
                for name, array in (("flair", image), ("seg_whole", ball.astype(np.uint8))):
                    file = nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([-1.0, -1.0, 5.0, 1.0]))
                    nib.save(file, case / f"ball{seed}_{name}.nii.gz")
            self.plan = TrainPlan(
                name="ball",
                cases=(Path(folder) / "cases",),
                validation=tuple(f"ball{seed}" for seed in held_out),
                modalities=("FLAIR",),
                regions=("whole tumor",),
                augmentation="none",
                options={"width": 16},
                learning_rate=1e-3,
                schedule="constant",
                averaging=0.98,
                device="cpu",
            )
            *_, data = load_data(self.plan, Path(folder) / "cache")
        assert isinstance(data, TrainingData)
        self.data = data

    def __call__(self, seconds: float) -> dict[str, float]:
        """Train for a number of seconds; return speed and Dice."""
        import torch

        from napari_braintumor.engine.models.registry import build_network
        from napari_braintumor.engine.training.drawing import SliceDataset, make_loader
        from napari_braintumor.engine.training.fit import Fit
        from napari_braintumor.engine.training.memory import keep_freed_memory
        from napari_braintumor.engine.training.scoring import average_dice, validate

        plan = self.plan
        torch.manual_seed(0)
        network = build_network(plan.architecture, in_channels=1, out_channels=1, options=plan.options)
        fit = Fit(network, plan, torch.device("cpu"))
        dataset = SliceDataset(self.data.training, (), plan)
        loader = make_loader(dataset, plan, 0, fit.steps, rank=0, processes=1, workers=0, pin_memory=False)
        batches: Iterator[Any] = iter(loader)
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(keep_freed_memory())
            while time.perf_counter() - started < seconds:
                fit.take_step(next(batches))
        took = time.perf_counter() - started
        voxels = fit.state.step * plan.batch_size * plan.patch[0] * plan.patch[1]
        found = average_dice(validate(fit.measured, self.data.validation, plan, fit.device))
        return {"seconds": took, "voxels_per_second": voxels / took, "dice": found}
