"""Training: a plan in, events out, the best weights kept; killed at any moment, it goes on from its last checkpoint.

It reads from top to bottom: the cases, the fit, the loop with a judgment at the end of each epoch, the verdict.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch

from napari_braintumor.engine.devices import choose_device, describe_device
from napari_braintumor.engine.events import (
    Noted,
    PhaseReached,
    PreviewDone,
    Resumed,
    Stopped,
    Trained,
    TrainingEvent,
)
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import build_network, check_trainable
from napari_braintumor.engine.models.store import StoredModel
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.device_batches import make_batches
from napari_braintumor.engine.training.distillation import ask_parent
from napari_braintumor.engine.training.drawing import SliceDataset
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.judging import judge_epoch, judge_version, measure_parent
from napari_braintumor.engine.training.memory import keep_freed_memory
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.rehearsal import rehearse
from napari_braintumor.engine.training.runs import ASKED, Run, find_parent
from napari_braintumor.engine.training.saving import complete_card, save_epoch, save_split, save_weights
from napari_braintumor.engine.training.training_cases import TrainingData, load_data
from napari_braintumor.engine.training.transfer import load_trunk, transfer_weights

CHECKPOINT_S = 120.0
"""Between epochs, too, a checkpoint is written after so long."""


def train(plan_or_run: TrainPlan | Run) -> Iterator[TrainingEvent]:
    """Train a model by a plan, or go on with a run.

    Everything lies in the run's folder, ``plan.output / plan.name``; see `napari_braintumor.engine.training.runs`. A
    plan whose run was begun before goes on with it. With epochs as its bound, and the same number of threads, a
    training gives the same weights to the bit on a CPU, however often it was killed; a bound in minutes depends on
    the clock.

    Parameters
    ----------
    plan_or_run
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
    plan = plan_or_run.plan if isinstance(plan_or_run, Run) else plan_or_run
    if plan.threads:
        torch.set_num_threads(plan.threads)
    device = processes.assign_device(choose_device(plan.device))
    with processes.join(device):
        is_first = processes.rank() == 0
        if not is_first:
            processes.wait()  # until the first process has claimed the run
        run = plan_or_run if isinstance(plan_or_run, Run) else Run.start(plan)
        if not is_first:
            yield from _train(run, device, is_first)
            return
        with run.claim():
            processes.wait()
            yield from run.record(_train(run, device, is_first))


def _train(run: Run, device: torch.device, is_first: bool) -> Iterator[TrainingEvent]:
    plan = run.plan
    check_trainable(plan.architecture)
    yield Noted(f"Training '{plan.name}' on {describe_device(device)}.")
    data = yield from _load(run, device, is_first)
    if data is None:
        return
    parent, goes_on = find_parent(run), run.checkpoint_path.exists()
    fit = yield from _build(plan, parent, device)
    dataset = yield from _pool(fit, data)
    if goes_on:
        fit.load(run.checkpoint_path)
        if fit.state.is_over:
            yield Noted("This run is complete already.")
            yield from _finish(run, fit)
            return
        yield Resumed(fit.state.step)
    with keep_freed_memory():
        if not goes_on:
            yield PhaseReached("trying one batch")
            yield from rehearse(fit, dataset, data)
            if plan.fine_tuning is not None:
                yield PhaseReached("measuring the parent")
                fit.remember_parent(*measure_parent(fit, data))
        yield from _learn(run, fit, dataset, data, parent.card if parent else None)
    yield from _finish(run, fit)


def _load(run: Run, device: torch.device, is_first: bool) -> Generator[TrainingEvent, None, TrainingData | None]:
    """Read the cases and split them; None if the run was asked to stop meanwhile."""
    plan = run.plan
    for loaded in load_data(plan, run.cache_folder):
        if isinstance(loaded, TrainingData):
            data = loaded
            break
        yield loaded
        if isinstance(loaded, PhaseReached) and processes.any_of(run.stop_requested, device):
            yield Stopped(ASKED)
            return None
    notes = [data.summary]
    if not data.can_choose(plan):
        notes.append(
            f"The best weights cannot be chosen, as {'no slice' if not data.validation else 'no slice with tumor'} is "
            "left to validate on. The last ones are kept, and their score is not known."
        )
    save_split(run, data, is_first=is_first)
    yield from map(Noted, notes)
    return data


def _build(plan: TrainPlan, parent: StoredModel | None, device: torch.device) -> Generator[Noted, None, Fit]:
    """Build the network and give it the weights it starts from."""
    torch.manual_seed(plan.seed)
    network = build_network(
        plan.architecture, in_channels=len(plan.inputs), out_channels=len(plan.regions), options=plan.options
    )
    if parent is not None:
        transfer = transfer_weights(network, plan.architecture, plan.options, plan.inputs, plan.regions, parent)
        yield Noted(f"Starting from '{parent.name}'.")
        for line in transfer.describe():
            yield Noted(line)
    if plan.vgg16 is not None:
        yield Noted(f"{len(load_trunk(network, plan.vgg16))} tensors of the trunk come from '{plan.vgg16.name}'.")
    return Fit(network, plan, device)


def _pool(fit: Fit, data: TrainingData) -> Generator[Noted | PhaseReached, None, SliceDataset]:
    """Bring together what slices are drawn from: new cases, and old knowledge to hold on to."""
    old = data.replay
    if fit.plan.fine_tuning is not None and not old:
        yield PhaseReached("asking the parent about slices that nobody reviewed")
        old = tuple(ask_parent(fit.network, data.training, fit.plan.batch_size, fit.device))
        count = sum(len(part.slices) for part in old)
        yield Noted(
            f"No replay set was given; the parent's own answers on {count} slices that nobody reviewed stand in for it."
            if count
            else "No replay set was given and every slice was reviewed, so nothing holds on to what the parent knew."
        )
    return SliceDataset(data.training, old, fit.plan)


def _learn(
    run: Run, fit: Fit, dataset: SliceDataset, data: TrainingData, parent: ModelCard | None
) -> Iterator[TrainingEvent]:
    """Take step after step; after each epoch judge the weights, and save what is to be kept."""
    plan, state = fit.plan, fit.state
    validating = "validating" if plan.fine_tuning is None else "judging against the parent"
    reason = ""
    fit.start_clock()
    for batch in make_batches(dataset, state.step, fit.steps, fit.device):
        reason = ASKED if fit.agree(run.stop_requested) else (yield from fit.learn(batch))
        if reason:
            break
        is_over = fit.agree(fit.share >= 1)
        if state.step % plan.steps_per_epoch == 0 or is_over:
            if data.validation:
                yield PhaseReached(validating)
            judgment = judge_epoch(fit, data)
            epoch = fit.end_epoch(judgment, is_over)
            reason = fit.give_up()
            if judgment.is_kept:
                save_weights(run, fit, data, parent, judgment.network, judgment.dice)
            yield epoch
            if save_epoch(run, fit, data, epoch.epoch):
                yield PreviewDone(epoch.epoch)
            if state.is_over:
                break
        elif fit.is_first and fit.unsaved_s > CHECKPOINT_S:
            fit.save(run.checkpoint_path)
    if reason:
        if fit.is_first:
            fit.save(run.checkpoint_path)
            if not state.is_kept and state.step > 0 and plan.fine_tuning is None:
                # Stopped before the first validation: what was learned so far is better than nothing.
                save_weights(run, fit, data, parent, fit.measured, {})
                fit.mark_kept(None, None)
                fit.save(run.checkpoint_path)
        yield Stopped(reason)


def _finish(run: Run, fit: Fit) -> Iterator[TrainingEvent]:
    """Judge a tuned version, and report which model is left."""
    if fit.plan.fine_tuning is not None:
        yield judge_version(fit.plan.fine_tuning, fit.state)
    path = complete_card(run, fit)
    yield Trained(path, fit.state.score)
