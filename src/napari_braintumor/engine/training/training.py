"""Training: a plan in, events out, the best weights kept; killed at any moment, it goes on from its last checkpoint."""

# M modality, R region, Z slice, H height, W width

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from napari_braintumor.engine.devices import choose_device, describe_device
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import (
    BatchDone,
    EpochDone,
    Noted,
    PhaseReached,
    PreviewDone,
    Resumed,
    Stopped,
    Trained,
    TrainingEvent,
    Verified,
)
from napari_braintumor.engine.models.registry import build_network, check_trainable
from napari_braintumor.engine.models.store import change_card, halve_kernels, save_model
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.countdown import Countdown
from napari_braintumor.engine.training.curves import collect_curves, save_curves
from napari_braintumor.engine.training.data import (
    Part,
    SliceDataset,
    TrainingData,
    choose_workers,
    distilled,
    load_data,
    make_loader,
    stack_batch,
)
from napari_braintumor.engine.training.device_batches import fits, make_device_batches
from napari_braintumor.engine.training.fitting import (
    Fit,
    State,
    count_activation_bytes,
    freed_memory_kept,
    mean_of,
    predict_logits,
    validate,
)
from napari_braintumor.engine.training.judging import describe_model, judge, may_be_kept
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.previews import save_preview
from napari_braintumor.engine.training.runs import ASKED, Run, parent_of
from napari_braintumor.engine.training.transfer import load_trunk, transfer_weights

BLENDS = (0.5, 0.25)
"""How much of a tuned version's change is tried where all of it forgets too much (Wortsman et al. 2022, WiSE-FT)."""

CHECKPOINT_S = 120.0
"""Between epochs, too, a checkpoint is written after so long."""


def train(what: TrainPlan | Run) -> Iterator[TrainingEvent]:
    """Train a model by a plan, or go on with a run.

    Everything lies in the run's folder, ``plan.output / plan.name``; see `napari_braintumor.engine.training.runs`. A
    plan whose run was begun before goes on with it. With epochs as its bound, and the same number of threads, a
    training gives the same weights to the bit on a CPU, however often it was killed; a bound in minutes depends on
    the clock.

    Parameters
    ----------
    what
        A plan, or a run that was begun.

    Yields
    ------
    TrainingEvent
        `Noted` while data is read, `Verified` before the first step, `BatchDone`, `EpochDone`, and `Trained` last.

    Raises
    ------
    BrainTumorError
        If the data or the settings cannot be used.
    """
    plan = what.plan if isinstance(what, Run) else what
    if plan.threads:
        torch.set_num_threads(plan.threads)
    device = processes.own_device(choose_device(plan.device))
    with processes.joined(device):
        if processes.rank() > 0:
            processes.wait()
            yield from _train(what if isinstance(what, Run) else Run.start(plan), device)
            return
        run = what if isinstance(what, Run) else Run.start(plan)
        with run.claimed():
            processes.wait()
            yield from run.record(_train(run, device))


def _train(run: Run, device: torch.device) -> Iterator[TrainingEvent]:
    plan = run.plan
    check_trainable(plan.architecture)
    yield Noted(f"Training '{plan.name}' on {describe_device(device)}.")
    for loaded in load_data(plan, run.cache_folder):
        if isinstance(loaded, TrainingData):
            data = loaded
            break
        yield loaded
        if isinstance(loaded, PhaseReached) and processes.any_of(run.stop_requested, device):
            yield Stopped(ASKED)
            return
    _keep_split(run, data)
    yield Noted(_describe_data(data))
    if not _can_choose(plan, data):
        yield Noted(
            f"The best weights cannot be chosen, as {'no slice' if not data.validation else 'no slice with tumor'} is "
            "left to validate on. The last ones are kept, and their score is not known."
        )

    torch.manual_seed(plan.seed)
    network = build_network(
        plan.architecture, in_channels=len(plan.modalities), out_channels=len(plan.regions), options=plan.options
    )
    parent = parent_of(run)
    if parent is not None:
        transferred = transfer_weights(network, plan.architecture, plan.options, plan.modalities, plan.regions, parent)
        yield Noted(f"Starting from '{parent.name}'.")
        for line in transferred.describe():
            yield Noted(line)
    if plan.vgg16 is not None:
        yield Noted(f"{len(load_trunk(network, plan.vgg16))} tensors of the trunk come from '{plan.vgg16.name}'.")

    fit = Fit(network, plan, device)
    old = data.replay
    if plan.fine_tuning is not None and not old:
        yield PhaseReached("asking the parent about slices that nobody reviewed")
        old = tuple(_distil(fit, data.training))
        count = sum(len(part.slices) for part in old)
        yield Noted(
            f"No replay set was given; the parent's own answers on {count} slices that nobody reviewed stand in for it."
            if count
            else "No replay set was given and every slice was reviewed, so nothing holds on to what the parent knew."
        )
    dataset = SliceDataset(data.training, old, plan)
    goes_on = run.checkpoint_path.exists()
    if goes_on:
        fit.load(run)
        if fit.state.is_over:
            yield Noted("This run is complete already.")
            yield from _finish(run, fit)
            return
        yield Resumed(fit.state.step)
    with freed_memory_kept():
        if not goes_on:
            yield PhaseReached("trying one batch")
            yield from _verify(fit, dataset, data)
            if plan.fine_tuning is not None:
                yield PhaseReached("measuring the parent")
                _measure_parent(fit, data)
        fit.started = time.monotonic()
        yield from _learn(run, fit, dataset, data)


def _learn(run: Run, fit: Fit, dataset: SliceDataset, data: TrainingData) -> Iterator[TrainingEvent]:
    plan, state = fit.plan, fit.state
    reason = ""
    countdown = Countdown()
    validating = "validating" if plan.fine_tuning is None else "judging against the parent"
    written = time.monotonic()
    own = {"rank": processes.rank(), "processes": processes.count()}
    on_gpu = fit.device.type == "cuda"
    batches: Iterable[list[Tensor]]
    if fits(dataset, fit.device):
        batches = make_device_batches(dataset, state.step, fit.steps, fit.device, **own)
    else:
        workers = choose_workers(plan, on_gpu)
        batches = make_loader(dataset, plan, state.step, fit.steps, workers=workers, pin_memory=on_gpu, **own)
    for batch in batches:
        if processes.any_of(run.stop_requested, fit.device):
            reason = ASKED
            break
        while True:
            try:
                loss, rate = fit.take_step(batch)
                break
            except (RuntimeError, MemoryError) as error:
                if not fit.shrink_batch(error):
                    raise
                yield Noted(_describe_shrinking(fit))
        if math.isnan(loss):
            reason = f"The loss became NaN at step {state.step + 1}. The weights before it are the last good ones."
            break
        yield BatchDone(state.step, fit.steps, loss, rate, fit.share, countdown.tell(fit.share, fit.seconds))
        is_over = processes.any_of(fit.share >= 1, fit.device)
        if state.step % plan.steps_per_epoch == 0 or is_over:
            if data.validation:
                yield PhaseReached(validating)
            epoch = _end_epoch(run, fit, data, rate)
            yield epoch
            state.is_over = is_over
            exhausted = plan.patience is not None and state.stale_epochs >= plan.patience
            if processes.any_of(exhausted, fit.device) and not is_over:
                reason = f"No better score in {plan.patience} epochs."
                state.is_over = True
            if processes.rank() == 0:
                fit.save(run)
                written = time.monotonic()
                save_curves(collect_curves(run.read_events()), run.curves_path)
                if plan.preview_every and data.validation and epoch.epoch % plan.preview_every == 0:
                    save_preview(run.preview_path, fit.measured, data.validation, plan, fit.device, epoch.epoch)
                    yield PreviewDone(epoch.epoch)
            if state.is_over:
                break
        elif time.monotonic() - written > CHECKPOINT_S and processes.rank() == 0:
            fit.save(run)
            written = time.monotonic()
    if reason:
        if processes.rank() == 0:
            fit.save(run)
            if not state.is_kept and state.step > 0 and plan.fine_tuning is None:
                # Stopped before the first validation: what was learned so far is better than nothing.
                _keep(run, fit, data, fit.measured, {})
                state.is_kept = True
                fit.save(run)
        yield Stopped(reason)
    yield from _finish(run, fit)


def _end_epoch(run: Run, fit: Fit, data: TrainingData, rate: float) -> EpochDone:
    """Measure the weights, keep them if they are to be kept, and count what stops and slows the training."""
    plan, state = fit.plan, fit.state
    network, replay = fit.measured, None
    dice = validate(network, data.validation, plan, fit.device) if _can_choose(plan, data) else {}
    score = mean_of(dice)
    is_best = score is not None and score > state.best_score
    kept = is_best or score is None or plan.keep == "last"
    if plan.fine_tuning is not None:
        replay = mean_of(validate(network, data.replay_judged, plan, fit.device)) if data.replay_judged else None
        kept = may_be_kept(plan.fine_tuning, state, score, replay)
        if not kept and may_be_kept(plan.fine_tuning, state, score, None):
            # Better but forgetful: on the way back to the parent there may be weights that are both better and mindful.
            for share in BLENDS:
                network = fit.blend_with_parent(share)
                dice = validate(network, data.validation, plan, fit.device)
                score = mean_of(dice)
                replay = mean_of(validate(network, data.replay_judged, plan, fit.device))
                if kept := may_be_kept(plan.fine_tuning, state, score, replay):
                    break
    if score is not None:
        state.stale_epochs = 0 if is_best else state.stale_epochs + 1
        state.best_score = max(score, state.best_score)
        _wait_on_plateau(fit, score)
    if kept:
        if processes.rank() == 0:
            _keep(run, fit, data, network, dice)
        state.is_kept, state.kept_score, state.kept_replay = True, score, replay
    loss = state.loss_sum / max(state.loss_count, 1)
    state.loss_sum, state.loss_count = 0.0, 0
    epoch = math.ceil(state.step / plan.steps_per_epoch)
    best = kept if plan.fine_tuning else is_best
    return EpochDone(epoch, plan.epochs, loss, rate, dice, score, best, fit.seconds, replay)


def _wait_on_plateau(fit: Fit, score: float) -> None:
    """Halve the rate of the plateau schedule where the score has not risen for as long as the plan waits."""
    state = fit.state
    if fit.plan.schedule != "plateau":
        return
    if score > state.plateau_score:
        state.plateau_score, state.waiting_epochs = score, 0
        return
    state.waiting_epochs += 1
    if state.waiting_epochs >= fit.plan.plateau_patience:
        state.rate_scale, state.waiting_epochs = state.rate_scale / 2, 0


def _can_choose(plan: TrainPlan, data: TrainingData) -> bool:
    """Whether the validation side can tell better weights from worse ones.

    Without tumor a network that finds nothing looks perfect, as every new one does at first; a tuned one is judged by
    such slices, too, as its parent may have found tumor there.
    """
    return bool(data.validation) and (plan.fine_tuning is not None or data.shows_tumor)


def _keep(run: Run, fit: Fit, data: TrainingData, network: nn.Module, dice: dict[str, float]) -> None:
    parent = parent_of(run)
    card = describe_model(fit.plan, data, dice, fit.network, parent.card if parent else None, fit.share)
    save_model(run.model_path, halve_kernels(network.state_dict()), card)


def _finish(run: Run, fit: Fit) -> Iterator[TrainingEvent]:
    state = fit.state
    if fit.plan.fine_tuning is not None:
        yield judge(fit.plan.fine_tuning, state)
    if processes.rank() == 0 and run.model_path.exists():
        # However it ended: weights that were killed with their training keep the share they were written with.
        change_card(run.model_path, stopped_at=None if state.is_over else fit.share)
    yield Trained(run.model_path if state.is_kept else None, state.kept_score if state.is_kept else _best_of(state))


def _best_of(state: State) -> float | None:
    """Return the best score that was measured, be it that of weights that were refused."""
    return state.best_score if state.best_score >= 0 else None


def _verify(fit: Fit, dataset: SliceDataset, data: TrainingData) -> Iterator[TrainingEvent]:
    """Try one training and one validation batch, without learning from them, and tell what will be needed."""
    plan = fit.plan
    batch = stack_batch([dataset[number] for number in range(plan.batch_size)])
    while True:
        trial = copy.deepcopy(fit.network)
        fit.set_modes(trial, 0.0)
        try:
            activations = count_activation_bytes(fit, trial, batch)
            started = time.monotonic()
            loss = float(fit.accumulate(trial, batch))
            seconds = time.monotonic() - started
            break
        except (RuntimeError, MemoryError) as error:
            if not fit.shrink_batch(error):
                if fit.state.pieces >= plan.batch_size:
                    raise SettingsError(
                        f"Memory ran out on {fit.device.type} even with a single slice. Choose a smaller patch, a "
                        "narrower network or another device."
                    ) from error
                raise
            yield Noted(_describe_shrinking(fit))
    if not math.isfinite(loss):
        raise SettingsError("The loss of the very first batch is not finite. Choose another loss, or check the images.")
    judged = data.validation or data.training
    started = time.monotonic()
    one = replace(judged[0], slices=judged[0].slices[: plan.batch_size])
    validate(fit.measured, [one], plan, fit.device)
    per_slice = (time.monotonic() - started) / len(one.slices)

    parameters = sum(parameter.numel() for parameter in fit.network.parameters())
    moments = {"adamw": 2, "adam": 2, "sgd": 1}[plan.optimiser]
    copies = 2 + moments + (1 if fit.averaged is not None else 0)
    measured = sum(len(part.slices) for part in (*data.validation, *data.replay_judged))
    minutes = (fit.steps * seconds + plan.epochs * measured * per_slice) / 60
    yield Verified(
        parameters=parameters,
        memory_mb=round((parameters * 4 * copies + activations) / 1e6, 1),
        data_mb=round(data.megabytes, 1),
        seconds_per_step=round(seconds, 4),
        minutes=round(min(minutes, plan.minutes or math.inf), 2),
        device=describe_device(fit.device),
    )


def _measure_parent(fit: Fit, data: TrainingData) -> None:
    state = fit.state
    state.before = mean_of(validate(fit.network, data.validation or data.training, fit.plan, fit.device))
    if data.replay_judged:
        state.replay_before = mean_of(validate(fit.network, data.replay_judged, fit.plan, fit.device))


def _distil(fit: Fit, parts: Sequence[Part]) -> Iterator[Part]:
    """Let the parent answer on all slices of the cases, for those that nobody reviewed."""
    for part in parts:
        everything = np.arange(len(part.case.slices), dtype=np.intp)
        logits: list[Tensor] = list(predict_logits(fit.network, part.case, everything, fit.plan.batch_size, fit.device))
        old = distilled(part, torch.cat(logits).sigmoid().transpose(0, 1).numpy().astype(np.float16))
        if old is not None:
            yield old


def _keep_split(run: Run, data: TrainingData) -> None:
    """Write down who is on which side; a run that goes on must find the same cases again."""
    now = data.describe()
    if run.split_path.exists() and run.checkpoint_path.exists():
        before = json.loads(run.split_path.read_text(encoding="utf-8"))
        if any(before[what] != now[what] for what in before.keys() & now.keys()):  # versions may tell more or less
            raise DataError(
                f"The cases are not those that the run '{run.folder.name}' began with: some were added, removed or "
                "changed. Put them back, or start a new run."
            )
        return
    if processes.rank() == 0:
        run.write_text(run.split_path, json.dumps(now, indent=1))


def _describe_data(data: TrainingData) -> str:
    def count(parts: Sequence[Part]) -> str:
        return f"{sum(len(part.slices) for part in parts)} slices of {len({p.case.patient for p in parts})} patients"

    text = f"{count(data.training)} to learn from, {count(data.validation)} to choose the best weights by"
    if data.replay:
        text += f", {count(data.replay)} to hold on to, {count(data.replay_judged)} to measure what is forgotten"
    return text + (". Both sides hold slices of the same patients." if data.split.by_slice else ".")


def _describe_shrinking(fit: Fit) -> str:
    pieces = fit.state.pieces
    size = math.ceil(fit.plan.batch_size / pieces)
    return (
        f"Memory ran out on {fit.device.type}; each batch now goes through in {pieces} pieces of {size} slices, and "
        "their gradients are added up."
    )
