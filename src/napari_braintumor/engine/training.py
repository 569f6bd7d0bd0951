"""Training: a plan in, events out, the best weights kept."""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_braintumor.engine.card import GLIOMA_REGIONS, DataSource, Metric, ModelCard, Region
from napari_braintumor.engine.config import TrainPlan
from napari_braintumor.engine.data import (
    SliceSampler,
    Split,
    TrainingCase,
    count_groups,
    load_training_case,
    split_cases,
)
from napari_braintumor.engine.losses import LOSSES, supervised
from napari_braintumor.engine.metrics import volume_dice
from napari_braintumor.engine.registry import build_network
from napari_braintumor.engine.runtime import choose_device
from napari_braintumor.engine.store import ModelStore, load_weights, save_model
from napari_braintumor.engine.types import BatchDone, EpochDone, Noted, Trained, TrainingEvent

WARM_UP_SHARE = 0.05
FINAL_RATE = 0.005


def train(plan: TrainPlan) -> Iterator[TrainingEvent]:
    """Train a model and keep the weights that did best on the plan's validation patients, or the last ones.

    The weights and their card are in ``plan.output / plan.name / model.safetensors`` from the first epoch on, so that
    whoever stops listening keeps the best so far.

    Parameters
    ----------
    plan
        All that is needed to do it again.

    Yields
    ------
    TrainingEvent
        `Noted` while data is read, `BatchDone`, `EpochDone`, and `Trained` at the end.

    Raises
    ------
    BrainTumorError
        If the data or the settings cannot be used.
    """
    if plan.threads:
        torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    device = choose_device(plan.device)
    folder = plan.output / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(plan.model_dump_json(indent=1), encoding="utf-8")

    split = split_cases(plan)
    training = [load_training_case(case, plan) for case in split.training]
    validation = [load_training_case(case, plan) for case in split.validation]
    yield Noted(
        f"{len(training)} cases of {len(split.training_patients)} patients to train on, "
        f"{len(validation)} cases of {len(split.validation_patients)} patients to choose the best weights by."
    )

    network = build_network(
        plan.architecture, in_channels=len(plan.modalities), out_channels=len(plan.regions), options=plan.options
    )
    if plan.start_from:
        network.load_state_dict(load_weights(ModelStore().find(plan.start_from).path))
        yield Noted(f"Starting from the weights of '{plan.start_from}'.")
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = _start_average(network, plan)
    optimiser = build_optimiser(network, plan)
    progress = Progress(plan)
    scheduler = build_schedule(optimiser, plan, progress)
    sampler = SliceSampler(training, plan)
    loss_of = LOSSES[plan.loss]
    best_score = -1.0
    parameters = sum(p.numel() for p in network.parameters())

    for epoch in range(1, plan.epochs + 1):
        network.train()
        losses: list[float] = []
        for _ in range(plan.steps_per_epoch):
            image, target, known = (part.to(device) for part in sampler.draw_batch())
            rate = optimiser.param_groups[0]["lr"]
            output = network(image.contiguous(memory_format=torch.channels_last))
            loss = supervised(loss_of, output, target, known)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimiser.step()
            progress.step()
            scheduler.step()
            if averaged is not None:
                averaged.update_parameters(network)
            losses.append(float(loss.detach()))
            yield BatchDone(progress.done, progress.steps, losses[-1], rate)
            if progress.is_over:
                break
        measured = averaged.module if averaged is not None else network
        dice = validate(measured, validation, plan, device)
        score = float(np.mean(list(dice.values()))) if dice else 0.0
        is_best = score > best_score
        best_score = max(score, best_score)
        if is_best or plan.keep == "last":
            card = _describe(plan, split, training, dice, len(validation), parameters)
            save_model(folder / "model.safetensors", measured.state_dict(), card)
        yield EpochDone(
            epoch, plan.epochs, float(np.mean(losses)), rate, dice, score, is_best, time.monotonic() - progress.started
        )
        if progress.is_over:
            break
    yield Trained(folder / "model.safetensors", best_score if plan.keep == "best" else score)


class Progress:
    """How far a training is: by steps, or by the clock where the plan gives minutes.

    Parameters
    ----------
    plan
        Its epochs, steps an epoch and minutes are used.
    """

    def __init__(self, plan: TrainPlan) -> None:
        self.steps = plan.epochs * plan.steps_per_epoch
        self.done = 0
        self.seconds = plan.minutes * 60 if plan.minutes else None
        self.started = time.monotonic()

    def step(self) -> None:
        """Count one training step."""
        self.done += 1

    @property
    def share(self) -> float:
        """From 0 at the start to 1 at the end."""
        by_steps = self.done / self.steps
        by_clock = (time.monotonic() - self.started) / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_clock))

    @property
    def is_over(self) -> bool:
        """True when all steps are taken or the time is up."""
        return self.share >= 1.0


def build_optimiser(network: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """Return the plan's optimiser over all the network's weights."""
    if plan.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(), plan.learning_rate, momentum=0.9, nesterov=True, weight_decay=plan.weight_decay
        )
    kind = torch.optim.AdamW if plan.optimiser == "adamw" else torch.optim.Adam
    return kind(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)


def build_schedule(optimiser: torch.optim.Optimizer, plan: TrainPlan, progress: Progress) -> LRScheduler:
    """Return the plan's learning-rate schedule, to be stepped after each batch.

    `cyclic` is the triangular rate of Smith 2017, from a sixth of the plan's rate to all of it and back; `one_cycle`
    warms up over a twentieth of the training and then falls along a cosine (Smith and Topin 2018, in two phases).
    """
    if plan.schedule == "cyclic":
        return CyclicLR(
            optimiser, plan.learning_rate / 6, plan.learning_rate, step_size_up=plan.cycle_steps, cycle_momentum=False
        )

    def one_cycle(_: int) -> float:
        share = progress.share
        if share < WARM_UP_SHARE:
            return 0.05 + 0.95 * share / WARM_UP_SHARE
        fall = (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + float(np.cos(np.pi * fall)))

    return LambdaLR(optimiser, one_cycle if plan.schedule == "one_cycle" else lambda _: 1.0)


@torch.no_grad()
def validate(
    network: nn.Module, cases: Sequence[TrainingCase], plan: TrainPlan, device: torch.device
) -> dict[str, float]:
    """Return the mean volume Dice of every region over the cases that define it, on the working grid."""
    network.eval()
    dice: dict[str, list[float]] = {name: [] for name in plan.regions}
    for case in cases:
        predicted_ZRHW = []
        for start in range(0, case.image.shape[1], plan.batch_size):
            part = torch.from_numpy(case.image[:, start : start + plan.batch_size].astype(np.float32))
            batch_NMHW = part.transpose(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            predicted_ZRHW.append((network(batch_NMHW) > 0).cpu().numpy())
        predicted_RZHW = np.concatenate(predicted_ZRHW).swapaxes(0, 1) & case.head
        for index, name in enumerate(plan.regions):
            if case.known[index]:
                dice[name].append(volume_dice(predicted_RZHW[index], case.regions[index]))
    return {name: float(np.mean(values)) for name, values in dice.items() if values}


def _start_average(network: nn.Module, plan: TrainPlan) -> AveragedModel | None:
    if not plan.averaging:
        return None
    return AveragedModel(copy.deepcopy(network), multi_avg_fn=get_ema_multi_avg_fn(plan.averaging), use_buffers=True)


def _describe(
    plan: TrainPlan, split: Split, training: Sequence[TrainingCase], dice: dict[str, float], cases: int, parameters: int
) -> ModelCard:
    defined: dict[str, set[str]] = {}
    for case in training:
        defined.setdefault(case.group, set()).update(np.array(plan.regions)[case.known].tolist())
    return ModelCard(
        name=plan.name,
        title=plan.title,
        parent=ModelStore().find(plan.start_from).name if plan.start_from else None,
        architecture=plan.architecture,
        options=plan.options,
        modalities=plan.modalities,
        accepts_missing=plan.modality_dropout > 0,
        regions=tuple(_region(name, number) for number, name in enumerate(plan.regions)),
        spacing=plan.spacing,
        parameters=parameters,
        trained_on=tuple(
            DataSource(
                name=name, patients=count, licence="", defines=tuple(r for r in plan.regions if r in defined[name])
            )
            for name, count in count_groups(training).items()
        ),
        training_patients=split.training_patients,
        validation_patients=split.validation_patients,
        held_out_patients=plan.held_out,
        metrics=tuple(
            Metric(data="validation", region=name, modalities=plan.modalities, mean=value, n=cases, held_out=False)
            for name, value in dice.items()
        ),
        licence=plan.licence,
        limitations=plan.limitations,
        created=datetime.now(UTC).date().isoformat(),
    )


def _region(name: str, number: int) -> Region:
    known = {region.name: region for region in GLIOMA_REGIONS}
    return known.get(name) or Region(name=name, label=10 + number, label_name=name, color="#8f7fd6")
