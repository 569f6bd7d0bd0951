"""Where a training stands: plain numbers, which a checkpoint holds beside its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    @property
    def score(self) -> float | None:
        """The score of the weights that are kept; where none are, the best that was measured."""
        if self.is_kept:
            return self.kept_score
        return self.best_score if self.best_score >= 0 else None


def read_state(numbers: Mapping[str, Any]) -> State:
    """Return where a training stands by the numbers of its checkpoint, which another version may have written."""
    names = {field.name for field in dataclasses.fields(State)}
    state = State(**{name: value for name, value in numbers.items() if name in names})
    if "is_kept" not in numbers:  # as earlier versions wrote
        state.is_kept = state.kept_score is not None
        state.kept_score = None if (state.kept_score or 0.0) < 0 else state.kept_score
    return state
