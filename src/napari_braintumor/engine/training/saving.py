"""Saving: what a training leaves in its run's folder. Of several processes only the first one writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from napari_braintumor.engine.anatomy import find_region
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.models.card import OWN_SLICES, VOLUME_DICE, DataSource, Metric, ModelCard
from napari_braintumor.engine.models.model_file import change_card, halve_kernels, save_model
from napari_braintumor.engine.training.curves import collect_curves, save_curves
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.previews import save_preview
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.training.training_cases import TrainingData, count_groups

PRIVATE = {
    *("cases", "output", "patients", "training", "held_out", "validation"),
    *("license", "limitations", "start_from", "vgg16", "fine_tuning"),
}
"""Fields of a plan that a card states elsewhere, or that name files of whoever trained."""


def save_split(run: Run, data: TrainingData, *, is_first: bool) -> None:
    """Write down who is on which side.

    Raises
    ------
    DataError
        If the run has begun with other cases.
    """
    now = data.describe()
    if run.split_path.exists() and run.checkpoint_path.exists():
        before = json.loads(run.split_path.read_text(encoding="utf-8"))
        if any(before[side] != now[side] for side in before.keys() & now.keys()):  # versions differ
            raise DataError(
                f"The cases are not those that the run '{run.folder.name}' began with: some were added, removed or "
                "changed. Put them back, or start a new run."
            )
    elif is_first:
        run.write_text(run.split_path, json.dumps(now, indent=1))


def save_weights(
    run: Run, fit: Fit, data: TrainingData, parent: ModelCard | None, network: nn.Module, dice: Mapping[str, float]
) -> None:
    """Write the model of a run: weights that are kept, with their card.

    Parameters
    ----------
    run
        Takes the file.
    fit
        How far the training is.
    data
        What it learns from.
    parent
        The card of the model it started from.
    network
        The weights.
    dice
        What they scored on the validation side; empty if that was not measured.
    """
    if fit.is_first:
        card = describe_model(fit.plan, data, dice, fit.network, parent, fit.share)
        save_model(run.model_path, halve_kernels(network.state_dict()), card)


def save_epoch(run: Run, fit: Fit, data: TrainingData, epoch: int) -> bool:
    """Write the checkpoint, the curves and, where one is due, a preview; return whether there is a preview."""
    plan = fit.plan
    if not fit.is_first:
        return False
    fit.save(run.checkpoint_path)
    save_curves(collect_curves(run.read_events()), run.curves_path)
    if not plan.preview_every or not data.validation or epoch % plan.preview_every:
        return False
    save_preview(run.preview_path, fit.measured, data.validation, plan, fit.device, epoch)
    return True


def complete_card(run: Run, fit: Fit) -> Path | None:
    """Write onto the model's card whether the training came to its end, and return the model's file if one is kept.

    However it ended: weights that were killed with their training keep the share they were written with.

    Returns
    -------
    Path or None
        The model's file; None if no weights are kept.
    """
    if fit.is_first and run.model_path.exists():
        change_card(run.model_path, stopped_at=None if fit.state.is_over else fit.share)
    return run.model_path if fit.state.is_kept else None


def describe_model(
    plan: TrainPlan,
    data: TrainingData,
    dice: Mapping[str, float],
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

    Returns
    -------
    ModelCard
        The card, validated.
    """
    defined: dict[str, set[str]] = {}
    for part in data.training:
        defined.setdefault(part.case.group, set()).update(np.array(plan.regions)[part.case.known].tolist())
    sources = tuple(
        DataSource(name=name, patients=count, license="", defines=tuple(r for r in plan.regions if r in defined[name]))
        for name, count in count_groups(data.training).items()
    )
    who = data.who.extended(parent.patients if parent else {})
    seen = who.find((*data.split.training, *(parent.training_patients if parent else ())))
    judged = who.find((*data.split.validation, *(parent.validation_patients if parent else ())))
    held_out = who.find((*plan.held_out, *(parent.held_out_patients if parent else ())))
    measured_on = OWN_SLICES if data.split.by_slice else "validation"
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
        context_mm=plan.context_mm,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        trained_on=(*(parent.trained_on if parent else ()), *sources),
        training_patients=tuple(sorted(seen)),
        validation_patients=tuple(sorted(judged - seen)),
        held_out_patients=tuple(sorted(held_out - seen - judged)),
        patients=who.stated,
        metrics=tuple(
            Metric(
                data=measured_on,
                region=name,
                modalities=plan.modalities,
                mean=value,
                n=len(data.validation),
                held_out=False,
            )
            for name, value in dice.items()
        ),
        **(_kept_in_tuning(parent, data) if parent is not None and plan.fine_tuning is not None else {}),
        license=plan.license,
        limitations=plan.limitations,
        stopped_at=share,
        created=datetime.now(UTC).date().isoformat(),
        plans=(*(parent.plans if parent else ()), plan.model_dump(mode="json", exclude=PRIVATE, exclude_defaults=True)),
    )


def _kept_in_tuning(parent: ModelCard, data: TrainingData) -> dict[str, Any]:
    """Return what a tuned model takes over: what was chosen for its answers, and what its modalities can show."""
    seen = parent.seen_with_skull
    if seen is not None:
        new = {name for part in data.training for name in part.case.with_skull}
        seen = tuple(name for name in parent.modalities if name in new or name in seen)
    measured = tuple(m for m in (*parent.metrics, *parent.parent_metrics) if m.held_out and m.measure == VOLUME_DICE)
    return {
        "threshold": parent.threshold,
        "min_volume_ml": parent.min_volume_ml,
        "solid_core": parent.solid_core,
        "seen_with_skull": seen,
        "parent_metrics": measured,
    }
