"""Part d: a training step, our loop beside the plain MONAI way with the same network, batches, variation and loss."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing import current_process
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import unet_assistant
from measuring import THREADS, Run, Worker, data_folder, interleave, judge, make_table, with_range

CASES = ("TCGA_CS_4942_19970222", "TCGA_DU_7299_19910417", "TCGA_HT_7616_19940813", "TCGA_HT_7856_19950831")
PATCHES = (96, 192)
PRESETS = ("light", "full")
BATCH = 8
STEPS, ROUNDS = 8, 5
QUICK_STEPS, QUICK_ROUNDS = 3, 2
CURVE_STEPS, CURVE_SEEDS, WINDOW = 150, 4, 20
QUICK_CURVE_STEPS, QUICK_SEEDS, QUICK_WINDOW = 10, 2, 5
MIN_RATIO = 1.3
WORKERS = (0, 2)
"""Of the plain loop's DataLoader; the faster counts."""


def measure(quick: bool) -> dict[str, Any]:
    """Time both loops in turn, and compare what they learn.

    Parameters
    ----------
    quick
        One patch and preset only, few steps.

    Returns
    -------
    dict
        A row of ``speed`` for each patch and preset, ``curves``, and ``unet_assistant`` (None where it is not there).
    """
    kinds = [(96, "full")] if quick else [(patch, preset) for patch in PATCHES for preset in PRESETS]
    steps, rounds = (QUICK_STEPS, QUICK_ROUNDS) if quick else (STEPS, ROUNDS)
    return {
        "steps": steps,
        "rounds": rounds,
        "batch": BATCH,
        "speed": [measure_speed(patch, preset, steps, rounds) for patch, preset in kinds],
        "curves": measure_curves(*(QUICK_CURVE_STEPS, QUICK_SEEDS, QUICK_WINDOW) if quick else ()),
        "unet_assistant": unet_assistant.measure(quick),
    }


def measure_speed(patch: int, preset: str, steps: int, rounds: int) -> dict[str, Any]:
    """Time both loops in turn.

    Parameters
    ----------
    patch, preset
        Side of the patches, and how much slices are varied.
    steps
        In a block that is timed.
    rounds
        Blocks of each loop, after one that does not count.
    """
    with ExitStack() as stack:
        loops = {"ours": stack.enter_context(Worker("training_step:OurLoop", patch=patch, preset=preset))}
        for workers in WORKERS:
            settings = {"patch": patch, "preset": preset, "workers": workers}
            loops[f"plain, {workers} workers"] = stack.enter_context(Worker("training_step:PlainLoop", **settings))
        tasks = {name: lambda loop=loop: loop(steps=steps) for name, loop in loops.items()}
        interleave(tasks, 1)
        runs = interleave(tasks, rounds)
    rates = {name: [BATCH * steps / run.seconds for run in each] for name, each in runs.items()}
    plain = max((name for name in rates if name != "ours"), key=lambda name: median(rates[name]))
    # Round by round: what else the machine does falls on both.
    ratios = [ours / other for ours, other in zip(rates["ours"], rates[plain], strict=True)]
    return {
        "patch": patch,
        "augmentation": preset,
        "images_per_second": {name: [round(rate, 2) for rate in each] for name, each in rates.items()},
        "preparing_ms": {
            name: round(1000 * median(preparing(run, steps) for run in each), 1) for name, each in runs.items()
        },
        "plain": plain,
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def preparing(run: Run, steps: int) -> float:
    """Return the seconds of a step in which the network waited for its batch.

    Parameters
    ----------
    run
        Of a loop.
    steps
        It did.
    """
    return float(run.value["preparing_seconds"]) / steps


def measure_curves(steps: int = CURVE_STEPS, seeds: int = CURVE_SEEDS, window: int = WINDOW) -> dict[str, Any]:
    """Let both loops learn from the same weights and drawn slices, with several seeds, and compare the losses.

    Parameters
    ----------
    steps
        Of each training.
    seeds
        How many trainings each loop does.
    window
        Steps over which a loss is averaged.
    """
    settings: dict[str, Any] = {"patch": 96, "preset": "full"}
    with (
        Worker("training_step:OurLoop", **settings) as ours,
        Worker("training_step:PlainLoop", workers=0, **settings) as plain,
    ):
        curves = {
            name: [smooth(loop(steps=steps, seed=seed).value["losses"], window) for seed in range(seeds)]
            for name, loop in (("ours", ours), ("plain", plain))
        }
    rounded = {name: [[round(loss, 4) for loss in curve] for curve in each] for name, each in curves.items()}
    return {"steps": steps, "seeds": seeds, "window": window, **settings, **rounded}


def smooth(losses: Sequence[float], window: int) -> list[float]:
    """Return the means of consecutive windows.

    Parameters
    ----------
    losses
        Step by step.
    window
        Steps in a window.
    """
    return [mean(losses[start : start + window]) for start in range(0, len(losses) - window + 1, window)]


def compare(ours: Sequence[float], plain: Sequence[float]) -> tuple[float, float]:
    """Return how far apart the means of two sets of trainings are, and the deviation between trainings of one set.

    Parameters
    ----------
    ours, plain
        A loss of each seed.
    """
    return mean(ours) - mean(plain), ((stdev(ours) ** 2 + stdev(plain) ** 2) / 2) ** 0.5


def describe(result: Mapping[str, Any]) -> str:
    """Return the section of the page.

    Parameters
    ----------
    result
        Of `measure`.
    """
    curves = result["curves"]
    rates = [
        [
            f"{row['patch']} x {row['patch']}",
            row["augmentation"],
            f"{median(row['images_per_second']['ours']):.1f}",
            *(f"{median(row['images_per_second'][f'plain, {workers} workers']):.1f}" for workers in WORKERS),
            with_range(row["ratios"]),
            f"{row['preparing_ms']['ours']:.0f}",
            f"{row['preparing_ms']['plain, 0 workers']:.0f}",
        ]
        for row in result["speed"]
    ]
    parts = {
        f"{index * curves['window'] + 1} to {(index + 1) * curves['window']}": index
        for index in range(curves["steps"] // curves["window"])
    }
    losses = {
        side: {name: [curve[index] for curve in curves[side]] for name, index in parts.items()}
        | {"all": [mean(curve) for curve in curves[side]]}
        for side in ("ours", "plain")
    }
    compared = {name: compare(losses["ours"][name], losses["plain"][name]) for name in losses["ours"]}
    windows = [
        [
            name,
            f"{mean(losses['ours'][name]):.4f}",
            f"{mean(losses['plain'][name]):.4f}",
            f"{difference:+.4f}",
            f"{noise:.4f}",
        ]
        for name, (difference, noise) in compared.items()
    ]
    within = {name: abs(compared[name][0]) < compared[name][1] for name in ([*parts][-1], "all")}
    met = {f"{row['patch']} {row['augmentation']}": median(row["ratios"]) >= MIN_RATIO for row in result["speed"]}
    header = ["patch", "variation", "ours, images/s", *(f"plain, {workers} workers" for workers in WORKERS), "ratio"]
    sections = [
        "## A training step",
        make_table([*header, "ours, ms for a batch", "plain, ms for a batch"], rates),
        f"U-Net of width 16, batches of {result['batch']} slices of LGG patients, float32, {THREADS} threads; medians "
        f"of {result['rounds']} blocks of {result['steps']} steps, the loops in turn, each in a child of its own. Ours "
        "is the loop of `engine.training`, running average of the weights included. The plain loop is MONAI's "
        "CacheDataset of the prepared slices, DataLoader and dictionary transforms, eager NCHW and torch's AdamW, "
        "without a running average; the ratio, with its least and most, is over the faster of its two. The last two "
        "columns are how long a step waits for its batch, with no workers.",
        judge(f"at least {MIN_RATIO} times the images per second of the plain loop", met),
        "Loss, mean over the seeds:",
        make_table(["steps", "ours", "plain", "difference", "between seeds"], windows),
        f"{curves['seeds']} seeds of {curves['steps']} steps, patch {curves['patch']}, {curves['preset']} variation, "
        "from the same weights and the same drawn slices; each loop varies them by draws of its own. Between seeds is "
        "the standard deviation of one loop's trainings.",
        judge("the same loss curve within noise: closer than one loop's trainings are to each other", within),
        unet_assistant.describe(result["unet_assistant"]),
    ]
    return "\n\n".join(sections)


# ------------------------------------------------------------------------------------------------- in the children


class _Loop:
    """What both loops share: the plan, the cases, and losses by the step."""

    def __init__(self, patch: int, preset: str) -> None:
        from napari_braintumor.engine.training.drawing import SliceDataset
        from napari_braintumor.engine.training.plan import TrainPlan
        from napari_braintumor.engine.training.training_cases import TrainingData, load_data

        self.plan = TrainPlan(
            name="step",
            cases=tuple(data_folder() / "lgg" / case for case in CASES),
            validation=(CASES[0][:12],),
            modalities=("T1", "T1ce", "FLAIR"),
            regions=("whole tumor",),
            modality_dropout=0.0,
            patch=(patch, patch),
            augmentation=preset,
            options={"width": 16},
            batch_size=BATCH,
            schedule="constant",
            warm_up=0.0,
            device="cpu",
        )
        with TemporaryDirectory() as folder:
            *_, data = load_data(self.plan, Path(folder))
        assert isinstance(data, TrainingData)
        self.parts = data.training
        self.dataset = SliceDataset(self.parts, (), self.plan)
        self.batches: Iterator[Any] = iter(())
        self.start(0)

    def __call__(self, steps: int, seed: int | None = None) -> dict[str, Any]:
        """Take some steps, from a fresh start if a seed is given."""
        if seed is not None:
            self.start(seed)
        losses, preparing_seconds = [], 0.0
        for _ in range(steps):
            started = time.perf_counter()
            batch = next(self.batches)
            preparing_seconds += time.perf_counter() - started
            losses.append(self.take_step(batch))
        return {"losses": losses, "preparing_seconds": preparing_seconds}

    def start(self, seed: int) -> None:
        """Begin a training."""
        raise NotImplementedError

    def take_step(self, batch: Any) -> float:
        """Learn from a batch and return its loss."""
        raise NotImplementedError

    def build_network(self, seed: int) -> Any:
        """Return the network with the weights of a seed."""
        import torch

        from napari_braintumor.engine.models.registry import build_network

        torch.manual_seed(seed)
        return build_network(
            self.plan.architecture,
            in_channels=len(self.plan.modalities),
            out_channels=len(self.plan.regions),
            options=self.plan.options,
        )


class OurLoop(_Loop):
    """Steps as `engine.training` takes them."""

    def __init__(self, patch: int, preset: str) -> None:
        from napari_braintumor.engine.training.memory import keep_freed_memory

        super().__init__(patch, preset)
        self.stack = ExitStack()
        self.stack.enter_context(keep_freed_memory())

    def start(self, seed: int) -> None:
        """Begin a training."""
        import torch

        from napari_braintumor.engine.training.drawing import SliceDataset, choose_workers, make_loader
        from napari_braintumor.engine.training.fit import Fit

        plan = self.plan.model_copy(update={"seed": seed})
        self.fit = Fit(self.build_network(seed), plan, torch.device("cpu"))
        self.batches = iter(
            make_loader(
                SliceDataset(self.parts, (), plan),
                plan,
                0,
                self.fit.steps,
                rank=0,
                processes=1,
                workers=choose_workers(plan, False),
                pin_memory=False,
            )
        )

    def take_step(self, batch: Any) -> float:
        """Learn from a batch and return its loss."""
        return self.fit.take_step(batch)[0]


class PlainLoop(_Loop):
    """Plain MONAI: everything as in its tutorials."""

    def __init__(self, patch: int, preset: str, workers: int) -> None:
        self.workers = workers
        # A worker of the benchmark is a daemon, and those may have no children: here a DataLoader's, which watch it.
        current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        super().__init__(patch, preset)

    def start(self, seed: int) -> None:
        """Begin a training."""
        import numpy as np
        import torch
        from monai.data import CacheDataset, DataLoader
        from monai.transforms import Compose, EnsureTyped, RandSpatialCropd, SpatialPadd

        from napari_braintumor.engine.training.losses import build_loss

        keys = ("image", "masks")
        if not hasattr(self, "cached"):
            prepare = [EnsureTyped(keys), SpatialPadd(keys, self.plan.patch)]
            vary = [RandSpatialCropd(keys, self.plan.patch, random_size=False), *self.list_variation()]
            self.transform = Compose([*prepare, *vary])
            items = [
                {
                    "image": part.case.prepared.data[:, z].astype(np.float32),
                    "masks": np.stack([*part.case.regions[:, z], part.case.prepared.foreground[z]]).astype(np.float32),
                }
                for part in self.parts
                for z in part.slices
            ]
            self.cached = CacheDataset(items, self.transform, progress=False)
        self.transform.set_random_state(seed)
        drawn = self.draw(seed)
        loader = DataLoader(self.cached, batch_size=self.plan.batch_size, sampler=drawn, num_workers=self.workers)
        self.batches = iter(loader)
        self.network = self.build_network(seed).train()
        plan = self.plan
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.loss = build_loss(plan)
        self.known = torch.ones(plan.batch_size, len(plan.regions), dtype=torch.bool)

    def draw(self, seed: int) -> list[int]:
        """Return which slices our loop draws with a seed, as numbers of the cached items."""
        import numpy as np

        first, firsts = 0, {}
        for part in self.parts:
            firsts[part.case.name] = (first, {int(z): n for n, z in enumerate(part.slices)})
            first += len(part.slices)
        drawn = []
        for number in range(self.plan.batch_size * (CURVE_STEPS + 20)):
            part, z = self.dataset.new.draw(np.random.default_rng([seed, number]))
            start, places = firsts[part.case.name]
            drawn.append(start + places[z])
        return drawn

    def list_variation(self) -> list[Any]:
        """Return the same variation as ours, all of it by MONAI's own steps."""
        import numpy as np
        from monai.transforms import OneOf, Rand2DElasticd, RandAffined

        from napari_braintumor.engine.training.augmentation import (
            DEFORMED_SHARE,
            MOVED_SHARE,
            ROTATION,
            SHIFT_PX,
            ZOOM,
            RandMovement,
            build_augmentation,
        )

        keys, modes = ("image", "masks"), ("bilinear", "nearest")
        place: dict[str, Any] = {
            "rotate_range": ROTATION,
            "scale_range": (ZOOM, ZOOM),
            "translate_range": (SHIFT_PX, SHIFT_PX),
            "mode": modes,
            "padding_mode": "zeros",
        }
        moved: Any = RandAffined(keys, prob=MOVED_SHARE, **place)
        if self.plan.augmentation == "full":
            spacing = tuple(np.maximum(32, np.array(self.plan.patch) // 2).tolist())
            magnitude = (self.plan.elastic_px, self.plan.elastic_px)
            elastic = Rand2DElasticd(keys, spacing=spacing, magnitude_range=magnitude, prob=1.0, **place)
            moved = OneOf([moved, elastic], weights=[1 - DEFORMED_SHARE, DEFORMED_SHARE])
        return [moved if isinstance(step, RandMovement) else step for step in build_augmentation(self.plan)]

    def take_step(self, batch: Any) -> float:
        """Learn from a batch and return its loss."""
        import torch

        from napari_braintumor.engine.training.losses import apply_loss

        image = batch["image"] * (batch["masks"][:, -1:] > 0.5)
        self.optimizer.zero_grad()
        loss = apply_loss(self.loss, self.network(image), batch["masks"][:, :-1], self.known)
        loss.backward()
        assert self.plan.clipping is not None
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clipping)
        self.optimizer.step()
        return loss.item()
