"""Whether a tuned version is better than its parent, and the card of what was trained."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from torch import nn

from napari_braintumor.engine.anatomy import find_region
from napari_braintumor.engine.events import Judged
from napari_braintumor.engine.models.card import OWN_SLICES, VOLUME_DICE, DataSource, Metric, ModelCard
from napari_braintumor.engine.training.data import TrainingData, count_groups
from napari_braintumor.engine.training.fitting import State
from napari_braintumor.engine.training.plan import FineTuning, TrainPlan

PRIVATE = {
    *("cases", "output", "patients", "training", "held_out", "validation"),
    *("licence", "limitations", "start_from", "vgg16", "fine_tuning"),
}
"""Of a plan, what a card tells elsewhere, or that names files of whoever trained."""


def may_be_kept(tuning: FineTuning, state: State, score: float | None, replay: float | None) -> bool:
    """Whether weights are better than the parent and than those kept so far, and have forgotten little enough."""
    if score is None or state.before is None:
        return False
    known = replay is not None and state.replay_before is not None
    forgot = known and (replay or 0.0) < (state.replay_before or 0.0) - tuning.allowed_loss
    return score > max(state.before, state.kept_score or 0.0) and not forgot


def judge(tuning: FineTuning, state: State) -> Judged:
    """Return the verdict on a tuned version, in words."""
    assert state.before is not None
    if state.kept_score is None:
        reason = (
            f"no version was better than the parent (Dice {state.before:.3f} on the slices held out) without losing "
            f"more than {tuning.allowed_loss:g} on what it knew."
        )
        if state.best_score < 0:
            reason = "it ended before the first measurement."
        return Judged(False, reason, state.before, max(state.best_score, 0.0), state.replay_before, None)
    reason = f"Dice on the slices held out rose from {state.before:.3f} to {state.kept_score:.3f}"
    if state.kept_replay is not None and state.replay_before is not None:
        reason += f", and on the replay set went from {state.replay_before:.3f} to {state.kept_replay:.3f}"
    return Judged(True, f"{reason}.", state.before, state.kept_score, state.replay_before, state.kept_replay)


def describe_model(
    plan: TrainPlan,
    data: TrainingData,
    dice: dict[str, float],
    network: nn.Module,
    parent: ModelCard | None,
    share: float,
) -> ModelCard:
    """Return the card of a trained model.

    Parameters
    ----------
    plan
        How it was trained.
    data
        On what.
    dice
        Mean Dice of each region on the validation side; empty if it was not measured.
    network
        Its parameters are counted.
    parent
        The card of the model it started from: what that one had seen, this one has seen.
    share
        How much of the plan is done; the card says so as long as training has not come to its end.
    """
    defined: dict[str, set[str]] = {}
    for part in data.training:
        defined.setdefault(part.case.group, set()).update(np.array(plan.regions)[part.case.known].tolist())
    sources = tuple(
        DataSource(name=name, patients=count, licence="", defines=tuple(r for r in plan.regions if r in defined[name]))
        for name, count in count_groups(data.training).items()
    )
    who = data.who.extended(parent.patients if parent else {})
    seen = who.find((*data.split.training, *(parent.training_patients if parent else ())))
    judged = who.find((*data.split.validation, *(parent.validation_patients if parent else ())))
    held_out = who.find((*plan.held_out, *(parent.held_out_patients if parent else ())))
    what = OWN_SLICES if data.split.by_slice else "validation"
    return ModelCard(
        name=plan.name,
        title=plan.title,
        parent=parent.name if parent else None,
        architecture=plan.architecture,
        options=plan.options,
        modalities=plan.modalities,
        accepts_missing=plan.modality_dropout > 0,
        regions=tuple(find_region(name, number) for number, name in enumerate(plan.regions)),
        spacing=plan.spacing,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        trained_on=(*(parent.trained_on if parent else ()), *sources),
        training_patients=tuple(sorted(seen)),
        validation_patients=tuple(sorted(judged - seen)),
        held_out_patients=tuple(sorted(held_out - seen - judged)),
        patients=who.stated,
        metrics=tuple(
            Metric(
                data=what, region=name, modalities=plan.modalities, mean=value, n=len(data.validation), held_out=False
            )
            for name, value in dice.items()
        ),
        **(_kept_in_tuning(parent) if parent is not None and plan.fine_tuning is not None else {}),
        licence=plan.licence,
        limitations=plan.limitations,
        stopped_at=share,
        created=datetime.now(UTC).date().isoformat(),
        plans=(*(parent.plans if parent else ()), plan.model_dump(mode="json", exclude=PRIVATE, exclude_defaults=True)),
    )


def _kept_in_tuning(parent: ModelCard) -> dict[str, Any]:
    """Return what a tuned model takes over: what was chosen for its answers, and what its modalities can show."""
    measured = tuple(m for m in (*parent.metrics, *parent.parent_metrics) if m.held_out and m.measure == VOLUME_DICE)
    return {
        "threshold": parent.threshold,
        "min_volume_ml": parent.min_volume_ml,
        "parent_metrics": measured,
    }
