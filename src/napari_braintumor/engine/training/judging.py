"""Judging: whether an epoch's weights are kept, and whether a tuned version is better than its parent."""

from __future__ import annotations

from collections.abc import Sequence

from napari_braintumor.engine.events import Judged
from napari_braintumor.engine.training.fit import Fit, Judgment
from napari_braintumor.engine.training.fit_state import State
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.engine.training.scoring import average_dice, validate
from napari_braintumor.engine.training.training_cases import Part, TrainingData

BLENDS = (0.5, 0.25)
"""How much of a tuned version's change is tried where all of it forgets too much (Wortsman et al. 2022, WiSE-FT)."""


def measure_parent(fit: Fit, data: TrainingData) -> tuple[float | None, float | None]:
    """Return the Dice of a tuned model before the first step, on the slices held out and on the replay set."""
    return _score(fit, data.validation or data.training), _score(fit, data.replay_judged)


def judge_epoch(fit: Fit, data: TrainingData) -> Judgment:
    """Measure the weights as they are now and decide whether they are kept.

    Where a tuned version is better than its parent but forgets too much, weights between the two are tried.

    Returns
    -------
    Judgment
        The weights, their scores, and whether they are the best and are kept.
    """
    plan, state, network = fit.plan, fit.state, fit.measured
    dice = validate(network, data.validation, plan, fit.device) if data.can_choose(plan) else {}
    score = average_dice(dice)
    is_best = score is not None and score > state.best_score
    tuning = plan.fine_tuning
    if tuning is None:
        return Judgment(network, dice, None, is_best, is_kept=is_best or score is None or plan.keep == "last")
    replay = average_dice(validate(network, data.replay_judged, plan, fit.device))
    is_kept = may_be_kept(tuning, state, score, replay)
    if not is_kept and may_be_kept(tuning, state, score, None):
        # Better but forgetful: on the way back to the parent there may be weights that are both better and mindful.
        for share in BLENDS:
            network = fit.blend_with_parent(share)
            dice = validate(network, data.validation, plan, fit.device)
            replay = average_dice(validate(network, data.replay_judged, plan, fit.device))
            if is_kept := may_be_kept(tuning, state, average_dice(dice), replay):
                break
    return Judgment(network, dice, replay, is_best, is_kept)


def may_be_kept(tuning: FineTuning, state: State, score: float | None, replay: float | None) -> bool:
    """Whether weights are better than the parent and than those kept so far, and have forgotten little enough."""
    if score is None or state.before is None:
        return False
    is_known = replay is not None and state.replay_before is not None
    forgot = is_known and (replay or 0.0) < (state.replay_before or 0.0) - tuning.allowed_loss
    return score > max(state.before, state.kept_score or 0.0) and not forgot


def judge_version(tuning: FineTuning, state: State) -> Judged:
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


def _score(fit: Fit, parts: Sequence[Part]) -> float | None:
    return average_dice(validate(fit.network, parts, fit.plan, fit.device))
