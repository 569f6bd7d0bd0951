"""Learning rates. Pure functions of where a training stands, so that a killed run goes on with the same rate.

No torch here: the dock draws the curve of a schedule with this module.
"""

from __future__ import annotations

import math

from napari_braintumor.engine.training.plan import TrainPlan

WARM_UP_FROM = 0.05
COSINE_TO = 0.005
ONE_CYCLE_RISE, ONE_CYCLE_FROM, ONE_CYCLE_TO = 0.3, 1 / 25, 1 / 25e4


class Schedule:
    """The learning rate of a plan.

    `cyclic` is the triangular rate of Smith 2017 in its three modes, as torch's `CyclicLR`; `one_cycle` that of Smith
    and Topin 2018, as torch's `OneCycleLR` with its defaults; `cosine` warms up and falls along half a cosine
    (Loshchilov and Hutter 2017, without restarts); `constant` warms up and stays; `plateau` does too and is scaled
    by its user.

    Parameters
    ----------
    plan
        Its schedule and rates.
    """

    def __init__(self, plan: TrainPlan) -> None:
        self.plan = plan

    def rate(self, step: int, share: float, scale: float = 1.0) -> float:
        """Return the learning rate.

        Parameters
        ----------
        step
            Steps done before this one; the cyclic rate goes by it.
        share
            Share of the training that is done, 0 to 1; the other schedules go by it.
        scale
            What a plateau has left of the rate.

        Returns
        -------
        float
            The rate of this step.
        """
        plan = self.plan
        if plan.schedule == "cyclic":
            return self._cyclic(step)
        if plan.schedule == "one_cycle":
            return plan.learning_rate * _one_cycle(share)
        factor = 1.0
        if share < plan.warm_up:
            factor = WARM_UP_FROM + (1 - WARM_UP_FROM) * share / plan.warm_up
        elif plan.schedule == "cosine":
            factor = _cosine(1.0, COSINE_TO, (share - plan.warm_up) / (1 - plan.warm_up))
        return plan.learning_rate * factor * scale

    def _cyclic(self, step: int) -> float:
        plan = self.plan
        lowest = plan.learning_rate / 6 if plan.lowest_rate is None else plan.lowest_rate
        cycle, position = divmod(step / (2 * plan.cycle_steps), 1)
        heights = {"triangular": 1.0, "triangular2": 0.5 ** int(cycle), "exp_range": plan.cycle_gamma**step}
        return lowest + (plan.learning_rate - lowest) * heights[plan.cycle_mode] * (1 - abs(2 * position - 1))


def list_rates(plan: TrainPlan, count: int = 200) -> list[float]:
    """Return the rate at evenly spread moments of a plan, for drawing; a plateau is drawn as if none came."""
    schedule, steps = Schedule(plan), plan.epochs * plan.steps_per_epoch
    return [schedule.rate(round(i / count * steps), i / count) for i in range(count + 1)]


def _one_cycle(share: float) -> float:
    if share < ONE_CYCLE_RISE:
        return _cosine(ONE_CYCLE_FROM, 1.0, share / ONE_CYCLE_RISE)
    return _cosine(1.0, ONE_CYCLE_TO, (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
