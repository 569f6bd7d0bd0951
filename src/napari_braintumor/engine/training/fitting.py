"""A network while it learns: one step at a time, with its optimiser, its running average and where it stands."""

# N batch, M modality, R region, H height, W width; z, y, x slices, rows and columns of a prepared case

from __future__ import annotations

import copy
import ctypes
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_braintumor.engine.devices import choose_autocast, is_out_of_memory
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.segmenting.runtime import fixed_shapes
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.checkpoints import load_checkpoint, save_checkpoint
from napari_braintumor.engine.training.data import Part
from napari_braintumor.engine.training.losses import build_loss, supervised
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.prepared import TrainingCase
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.training.schedules import Schedule

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt, from malloc.h."""


@dataclass
class State:
    """Where a training stands; with the tensors, all that a checkpoint holds.

    Attributes
    ----------
    step
        Steps done.
    seconds
        Time spent so far, over all sessions.
    loss_sum, loss_count
        Of the epoch under way.
    best_score, stale_epochs
        The best score so far, and the epochs since.
    rate_scale, waiting_epochs, plateau_score
        Of the plateau schedule.
    pieces
        Into how many pieces a batch is cut to fit into memory.
    is_kept
        Whether there are weights in the model file.
    kept_score
        Their score; None if there are none, or nothing to choose by.
    kept_replay
        Their Dice on the replay set.
    before, replay_before
        Dice of a tuned model's parent on the slices held out, and on the replay set.
    is_over
        True when the plan's end was reached.
    """

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_score: float = -1.0
    stale_epochs: int = 0
    rate_scale: float = 1.0
    waiting_epochs: int = 0
    plateau_score: float = -1.0
    pieces: int = 1
    is_kept: bool = False
    kept_score: float | None = None
    kept_replay: float | None = None
    before: float | None = None
    replay_before: float | None = None
    is_over: bool = False


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
        processes.synchronise(self.network)
        self.averaged = _start_average(self.network, plan)
        self.optimiser = build_optimiser(self.network, plan)
        self.schedule = Schedule(plan)
        self.loss = build_loss(plan)
        self.autocast = choose_training_autocast(plan, device)
        self.state = State()
        self.parent = copy.deepcopy(self.network).requires_grad_(False) if plan.fine_tuning is not None else None
        self.started = time.monotonic()

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
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = self.accumulate(self.network, batch)
        processes.average_gradients(self.network)
        limit = self.plan.clipping if self.plan.clipping is not None else float("inf")
        length = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        loss, size = torch.stack([total, length]).tolist()  # the one moment of a step that waits for a GPU
        if not np.isfinite([loss, size]).all():
            return float("nan"), rate
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.state.step += 1
        self.state.loss_sum += loss
        self.state.loss_count += 1
        return loss, rate

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
                loss = supervised(self.loss, output, target, known) * weight
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
        frozen = frozen_stages(tuning.frozen_stages, tuning.unfrozen_by, share)
        stages = find_architecture(self.plan.architecture).encoder[:frozen]
        prefixes = tuple(prefix for stage in stages for prefix in stage)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes))

    def shrink_batch(self, error: BaseException) -> bool:
        """Cut batches into twice as many pieces if memory ran out; False for other errors, or where nothing is left."""
        if not is_out_of_memory(error) or self.state.pieces >= self.plan.batch_size or processes.count() > 1:
            return False
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.state.pieces = min(self.state.pieces * 2, self.plan.batch_size)
        return True

    def save(self, run: Run) -> None:
        """Write the checkpoint of a run."""
        state = dataclasses.asdict(dataclasses.replace(self.state, seconds=self.seconds))
        save_checkpoint(run.checkpoint_path, self._modules, self.optimiser, state)

    def load(self, run: Run) -> None:
        """Go back to the checkpoint of a run.

        Raises
        ------
        BrainTumorError
            If it cannot be read or is of another architecture.
        """
        self.state = read_state(load_checkpoint(run.checkpoint_path, self._modules, self.optimiser))
        for weight, moments in self.optimiser.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    # Fused optimisers take moments to lie in memory as their weights do, channels last; files do not.
                    moments[name] = torch.empty_like(weight).copy_(moment)
        self.started = time.monotonic()

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network} | ({"averaged": self.averaged} if self.averaged is not None else {})


def read_state(numbers: Mapping[str, Any]) -> State:
    """Return where a training stands by the numbers of its checkpoint, which another version may have written."""
    known = {field.name for field in dataclasses.fields(State)}
    state = State(**{name: value for name, value in numbers.items() if name in known})
    if "is_kept" not in numbers:  # as earlier versions wrote
        state.is_kept = state.kept_score is not None
        state.kept_score = None if (state.kept_score or 0.0) < 0 else state.kept_score
    return state


def choose_training_autocast(plan: TrainPlan, device: torch.device) -> torch.dtype | None:
    """Return the reduced precision to train in, or None for full float32.

    float16 would need its gradients scaled, so older cards train in full precision. CPUs do too unless the plan asks
    for bfloat16: few have instructions for it.
    """
    if plan.precision != "auto":
        return torch.bfloat16 if plan.precision == "bfloat16" else None
    dtype = choose_autocast(device) if device.type == "cuda" else None
    return dtype if dtype is torch.bfloat16 else None


def frozen_stages(at_first: int, unfrozen_by: float, share: float) -> int:
    """Return how many early stages are frozen at a share of the training: one after the other learns, deepest first."""
    if share >= unfrozen_by:
        return 0 if unfrozen_by < 1 else at_first
    return int(np.ceil(at_first * (1 - share / unfrozen_by))) if unfrozen_by < 1 else at_first


def build_optimiser(network: nn.Module, plan: TrainPlan) -> torch.optim.Optimizer:
    """Return the plan's optimiser over all the network's weights."""
    settings: dict[str, Any] = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True, **settings)
    kind = torch.optim.AdamW if plan.optimiser == "adamw" else torch.optim.Adam
    return kind(network.parameters(), **settings)


def predict_logits(
    network: nn.Module, case: TrainingCase, slices: NDArray[np.intp], batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Run a network in evaluation mode over slices of a prepared case; yields logits ``(n, R, y, x)`` on the CPU."""
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(slices), batch_size):
            part = case.prepared.data[:, slices[start : start + batch_size]].astype(np.float32)
            batch = torch.from_numpy(part).transpose(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            yield network(batch).float().cpu()


def validate(network: nn.Module, parts: Sequence[Part], plan: TrainPlan, device: torch.device) -> dict[str, float]:
    """Return the mean Dice of every region over the cases that define it, on their slices and the working grid.

    Dice is that of all slices of a case together; both masks empty counts 1, one empty counts 0.
    """
    dice: dict[str, list[float]] = {name: [] for name in plan.regions}
    for part in parts:
        case = part.case
        logits = predict_logits(network, case, part.slices, plan.batch_size, device)
        predicted_ZRHW = np.concatenate([(each > 0).numpy() for each in logits])
        predicted_RZHW = predicted_ZRHW.swapaxes(0, 1) & case.prepared.head[part.slices]
        for index, name in enumerate(plan.regions):
            if case.known[index]:
                dice[name].append(volume_dice(predicted_RZHW[index], case.regions[index, part.slices] > 0.5))
    return {name: float(np.mean(values)) for name, values in dice.items() if values}


def mean_of(dice: Mapping[str, float]) -> float | None:
    """Return the one number by which weights are compared: the mean over the regions; None if none was measured."""
    return float(np.mean(list(dice.values()))) if dice else None


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let what one step frees serve the next, where glibc manages memory; at the end the system gets it back.

    By default glibc hands large blocks back at once, and clearing them anew takes a seventh of every step on a CPU.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    assert libc is not None
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 65536)
        libc.mallopt(M_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


def count_activation_bytes(fit: Fit, network: nn.Module, batch: Sequence[Tensor]) -> int:
    """Run a batch forwards and backwards and return the memory that it kept for the way back."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        fit.accumulate(network, batch)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return sum(size for pointer, size in seen.items() if pointer not in weights)


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
