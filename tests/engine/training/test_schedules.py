import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.schedules import Schedule, list_rates

STEPS = 100


def make_plan(**more) -> TrainPlan:
    return TrainPlan(
        **{"name": "a", "cases": ("b",), "learning_rate": 0.6, "epochs": 10, "steps_per_epoch": 10, **more}
    )


def rates(plan: TrainPlan) -> list[float]:
    return [Schedule(plan).rate(step, step / STEPS) for step in range(STEPS)]


def rates_of_torch(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.6)
    schedule = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_a_cyclic_rate_is_torch_s_in_each_of_its_modes(mode: str) -> None:
    plan = make_plan(schedule="cyclic", cycle_steps=7, cycle_mode=mode, cycle_gamma=0.98, lowest_rate=0.05)
    expected = rates_of_torch(
        lambda o: CyclicLR(o, 0.05, 0.6, step_size_up=7, mode=mode, gamma=0.98, cycle_momentum=False), STEPS
    )
    assert rates(plan) == pytest.approx(expected, rel=1e-9)


def test_a_cyclic_rate_starts_at_a_sixth_where_no_lowest_rate_is_given() -> None:
    seen = rates(make_plan(schedule="cyclic", cycle_steps=10))
    assert seen[0] == seen[20] == pytest.approx(0.1)
    assert seen[10] == max(seen) == pytest.approx(0.6)


def test_a_one_cycle_rate_is_torch_s() -> None:
    expected = rates_of_torch(lambda o: OneCycleLR(o, 0.6, total_steps=STEPS + 1, cycle_momentum=False), STEPS)
    seen = rates(make_plan(schedule="one_cycle"))
    assert seen == pytest.approx(expected, abs=0.02)  # torch puts the peak onto a whole step
    assert seen[0] == pytest.approx(expected[0])


def test_a_cosine_rate_warms_up_and_ends_near_zero() -> None:
    seen = rates(make_plan(schedule="cosine", warm_up=0.1))
    assert seen[0] == pytest.approx(0.03)
    assert max(seen) == seen[10] == pytest.approx(0.6)
    assert seen[10:] == sorted(seen[10:], reverse=True)
    assert seen[-1] < 0.006


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    seen = rates(make_plan(schedule="constant", warm_up=0.1))
    assert seen[:10] == sorted(seen[:10])
    assert set(seen[10:]) == {0.6}
    assert set(rates(make_plan(schedule="constant", warm_up=0.0))) == {0.6}


def test_a_plateau_scales_the_rate() -> None:
    assert Schedule(make_plan(schedule="plateau")).rate(50, 0.5, 0.25) == pytest.approx(0.15)


def test_the_drawn_curve_goes_from_the_start_to_the_end() -> None:
    curve = list_rates(make_plan(schedule="cosine"), 50)
    assert len(curve) == 51
    assert curve[-1] == pytest.approx(0.003)
