"""The fit: a network while it learns, with its optimizer, its running average and where it stands.

All that changes in a training changes here; whoever drives it only reads `Fit.state`.
"""

# N batch, M modality, R region, H height, W width

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_braintumor.engine.devices import choose_autocast, is_out_of_memory
from napari_braintumor.engine.events import BatchDone, EpochDone, Noted
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.segmenting.runtime import fixed_shapes
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.checkpoints import load_checkpoint, save_checkpoint
from napari_braintumor.engine.training.countdown import Countdown
from napari_braintumor.engine.training.fit_state import State, read_state
from napari_braintumor.engine.training.losses import apply_loss, build_loss
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.schedules import Schedule
from napari_braintumor.engine.training.scoring import average_dice


@dataclass(frozen=True, eq=False)
class Judgment:
    """What the weights at the end of an epoch are worth.

    Attributes
    ----------
    network
        The weights that were measured last.
    dice
        Mean Dice of each region on the validation side; empty if it cannot be measured.
    replay
        Mean Dice on the replay set.
    is_best
        Whether the score is the highest so far.
    is_kept
        Whether the weights are to be kept.
    """

    network: nn.Module
    dice: dict[str, float]
    replay: float | None
    is_best: bool
    is_kept: bool


class Fit:
    """A network that learns by a plan.

    Parameters
    ----------
    network
        With the weights it starts from.
    plan
        How it learns.
    device
        Where.
    """

    def __init__(self, network: nn.Module, plan: TrainPlan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        processes.synchronize(self.network)
        self.averaged = _start_average(self.network, plan)
        self.optimizer = build_optimizer(self.network, plan)
        self.schedule = Schedule(plan)
        self.loss = build_loss(plan)
        self.autocast = choose_training_autocast(plan, device)
        self.state = State()
        self.parent = copy.deepcopy(self.network).requires_grad_(False) if plan.fine_tuning is not None else None
        self.is_first = processes.rank() == 0
        self.rate = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        """Count the time from here on; what came before is not learning."""
        self.started = self.saved = time.monotonic()
        self.countdown = Countdown()

    @property
    def steps(self) -> int:
        """Steps in the whole plan."""
        return self.plan.epochs * self.plan.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Time spent, over all sessions."""
        return self.state.seconds + time.monotonic() - self.started

    @property
    def share(self) -> float:
        """From 0 at the start to 1 at the end, by steps or, where the plan gives minutes, by the clock."""
        by_clock = self.seconds / (self.plan.minutes * 60) if self.plan.minutes else 0.0
        return min(1.0, max(self.state.step / self.steps, by_clock))

    @property
    def unsaved_s(self) -> float:
        """Time since the last checkpoint."""
        return time.monotonic() - self.saved

    @property
    def measured(self) -> nn.Module:
        """The weights that are judged and kept: the running average where there is one."""
        return self.averaged.module if self.averaged is not None else self.network

    def blend_with_parent(self, share: float) -> nn.Module:
        """Return a network between the parent, at a share of 0, and the weights that are judged, at 1."""
        assert self.parent is not None
        blended: nn.Module = copy.deepcopy(self.parent)
        with torch.no_grad():
            for own, other in zip(blended.state_dict().values(), self.measured.state_dict().values(), strict=True):
                if own.is_floating_point():
                    own.lerp_(other, share)
        return blended

    def take_step(self, batch: Sequence[Tensor]) -> tuple[float, float]:
        """Learn from one batch.

        Parameters
        ----------
        batch
            Image ``(N, M, H, W)``, regions ``(N, R, H, W)``, known regions ``(N, R)``.

        Returns
        -------
        tuple
            The loss and the learning rate. If the loss or a gradient is not finite, the loss is NaN and no weight was
            changed.
        """
        # Dropout depends on the step alone, so that a resumed run repeats it.
        torch.manual_seed((self.plan.seed << 32) + self.state.step * processes.count() + processes.rank())
        self.set_modes(self.network, self.share)
        rate = self.schedule.rate(self.state.step, self.share, self.state.rate_scale)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total = self.accumulate(self.network, batch)
        processes.average_gradients(self.network)
        limit = self.plan.clipping if self.plan.clipping is not None else float("inf")
        length = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        loss, size = torch.stack([total, length]).tolist()  # the one moment of a step that waits for a GPU
        if not np.isfinite([loss, size]).all():
            return float("nan"), rate
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.state.step += 1
        self.state.loss_sum += loss
        self.state.loss_count += 1
        return loss, rate

    def learn(self, batch: Sequence[Tensor]) -> Generator[Noted | BatchDone, None, str]:
        """Learn from one batch, in smaller pieces where memory runs out; other errors of the network are raised on.

        Parameters
        ----------
        batch
            As `take_step` takes it.

        Yields
        ------
        Noted or BatchDone
            Each time memory ran out, and that the batch is done.

        Returns
        -------
        str
            Why the training cannot go on; empty where it can.
        """
        while True:
            try:
                loss, self.rate = self.take_step(batch)
                break
            except (RuntimeError, MemoryError) as error:
                if not self.shrink_batch(error):
                    raise
                yield Noted(self.describe_pieces())
        if math.isnan(loss):
            return f"The loss became NaN at step {self.state.step + 1}. The weights before it are the last good ones."
        left_s = self.countdown.estimate(self.share, self.seconds)
        yield BatchDone(self.state.step, self.steps, loss, self.rate, self.share, left_s)
        return ""

    def accumulate(self, network: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """Add up the gradients of a batch, in as many pieces as memory asks for, and return its loss."""
        total = torch.zeros((), device=self.device)
        pieces = min(self.state.pieces, len(batch[0]))
        # Patches have one shape, which is worth looking for the fastest kernels; validation has many.
        with fixed_shapes() if self.device.type == "cuda" else nullcontext():
            for piece in zip(*(part.tensor_split(pieces) for part in batch), strict=True):
                image, target, known = (part.to(self.device, non_blocking=True) for part in piece)
                weight = len(image) / len(batch[0])
                autocast = torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()
                with autocast:
                    output = network(image.contiguous(memory_format=torch.channels_last))
                output = output.float() if isinstance(output, Tensor) else [each.float() for each in output]
                loss = apply_loss(self.loss, output, target, known) * weight
                loss.backward()
                total += loss.detach()
        return total

    def set_modes(self, network: nn.Module, share: float) -> None:
        """Put a network into training mode, with what a fine-tuning keeps frozen at this share of it."""
        network.train()
        tuning = self.plan.fine_tuning
        if tuning is None:
            return
        if tuning.freeze_statistics:
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        frozen = count_frozen_stages(tuning.frozen_stages, tuning.unfrozen_by, share)
        stages = find_architecture(self.plan.architecture).encoder[:frozen]
        prefixes = tuple(prefix for stage in stages for prefix in stage)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes))

    def shrink_batch(self, error: BaseException) -> bool:
        """Cut batches into twice as many pieces if memory ran out; False for other errors, or where nothing is left."""
        if not is_out_of_memory(error) or self.state.pieces >= self.plan.batch_size or processes.count() > 1:
            return False
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.state.pieces = min(self.state.pieces * 2, self.plan.batch_size)
        return True

    def describe_pieces(self) -> str:
        """Return in words that memory ran out and how batches go through now."""
        pieces = self.state.pieces
        size = math.ceil(self.plan.batch_size / pieces)
        return (
            f"Memory ran out on {self.device.type}; each batch now goes through in {pieces} pieces of {size} slices, "
            "and their gradients are added up."
        )

    def agree(self, flag: bool) -> bool:
        """Return whether a flag is set in any of the processes that train together, the same in all of them."""
        return processes.any_of(flag, self.device)

    def remember_parent(self, score: float | None, replay: float | None) -> None:
        """Take down what a tuned model scored before the first step."""
        self.state.before, self.state.replay_before = score, replay

    def end_epoch(self, judgment: Judgment, is_over: bool) -> EpochDone:
        """Count what an epoch's score means for the rest of the training.

        Parameters
        ----------
        judgment
            What the weights are worth.
        is_over
            Whether the plan's end was reached.

        Returns
        -------
        EpochDone
            What the epoch reached.
        """
        plan, state = self.plan, self.state
        score = average_dice(judgment.dice)
        if score is not None:
            state.stale_epochs = 0 if judgment.is_best else state.stale_epochs + 1
            state.best_score = max(score, state.best_score)
            self._wait_on_plateau(score)
        if judgment.is_kept:
            self.mark_kept(score, judgment.replay)
        loss = state.loss_sum / max(state.loss_count, 1)
        state.loss_sum, state.loss_count, state.is_over = 0.0, 0, is_over
        return EpochDone(
            epoch=math.ceil(state.step / plan.steps_per_epoch),
            epochs=plan.epochs,
            loss=loss,
            learning_rate=self.rate,
            dice=judgment.dice,
            score=score,
            best=judgment.is_kept if plan.fine_tuning else judgment.is_best,
            seconds=self.seconds,
            replay=judgment.replay,
        )

    def mark_kept(self, score: float | None, replay: float | None) -> None:
        """Take down that weights are kept, and what they scored."""
        self.state.is_kept, self.state.kept_score, self.state.kept_replay = True, score, replay

    def give_up(self) -> str:
        """End the training where no epoch was better for as long as the plan waits; return why, or an empty string."""
        patience = self.plan.patience
        is_stale = patience is not None and self.state.stale_epochs >= patience
        if not self.agree(is_stale) or self.state.is_over:
            return ""
        self.state.is_over = True
        return f"No better score in {patience} epochs."

    def _wait_on_plateau(self, score: float) -> None:
        """Halve the rate of the plateau schedule where the score has not risen for as long as the plan waits."""
        state = self.state
        if self.plan.schedule != "plateau":
            return
        if score > state.plateau_score:
            state.plateau_score, state.waiting_epochs = score, 0
            return
        state.waiting_epochs += 1
        if state.waiting_epochs >= self.plan.plateau_patience:
            state.rate_scale, state.waiting_epochs = state.rate_scale / 2, 0

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = dataclasses.asdict(dataclasses.replace(self.state, seconds=self.seconds))
        save_checkpoint(path, self._modules, self.optimizer, state)
        self.saved = time.monotonic()

    def load(self, path: Path) -> None:
        """Go back to a checkpoint.

        Raises
        ------
        BrainTumorError
            If it cannot be read or is of another architecture.
        """
        self.state = read_state(load_checkpoint(path, self._modules, self.optimizer))
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    # Fused optimizers take moments to lie in memory as their weights do, channels last; files do not.
                    moments[name] = torch.empty_like(weight).copy_(moment)
        self.start_clock()

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network} | ({"averaged": self.averaged} if self.averaged is not None else {})


def choose_training_autocast(plan: TrainPlan, device: torch.device) -> torch.dtype | None:
    """Return the reduced precision to train in, or None for full float32.

    float16 would need its gradients scaled, so older cards train in full precision. CPUs do too unless the plan asks
    for bfloat16: few have instructions for it.

    Returns
    -------
    torch.dtype or None
        ``torch.bfloat16`` or None.
    """
    if plan.precision != "auto":
        return torch.bfloat16 if plan.precision == "bfloat16" else None
    dtype = choose_autocast(device) if device.type == "cuda" else None
    return dtype if dtype is torch.bfloat16 else None


def count_frozen_stages(at_first: int, unfrozen_by: float, share: float) -> int:
    """Return how many early stages are frozen at a share of the training: one after the other learns, deepest first."""
    if share >= unfrozen_by:
        return 0 if unfrozen_by < 1 else at_first
    return int(np.ceil(at_first * (1 - share / unfrozen_by))) if unfrozen_by < 1 else at_first


def build_optimizer(network: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """Return the plan's optimizer over all the network's weights."""
    settings: dict[str, Any] = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **settings)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), **settings)


def _start_average(network: nn.Module, plan: TrainPlan) -> AveragedModel | None:
    if not plan.averaging:
        return None

    def blend(averaged: Any, current: Any, count: Any) -> None:
        # At first the average forgets faster, so that it does not drag the start along.
        decay = min(plan.averaging, (1 + float(count)) / (10 + float(count)))
        if averaged[0].is_floating_point():
            get_ema_multi_avg_fn(decay)(averaged, current, count)
            return
        torch._foreach_copy_(averaged, current)

    return AveragedModel(copy.deepcopy(network), multi_avg_fn=torch.no_grad()(blend), use_buffers=True)
