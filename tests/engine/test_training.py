import numpy as np
import pytest
import torch
from torch import nn

from napari_braintumor.engine import train
from napari_braintumor.engine.config import TrainPlan
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.store import load_weights, read_card
from napari_braintumor.engine.training import Progress, build_optimiser, build_schedule
from napari_braintumor.engine.types import BatchDone, EpochDone, Noted, Trained


def rates(plan: TrainPlan, steps: int) -> list[float]:
    optimiser = build_optimiser(nn.Linear(2, 2), plan)
    progress = Progress(plan)
    schedule = build_schedule(optimiser, plan, progress)
    seen = []
    for _ in range(steps):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        progress.step()
        schedule.step()
    return seen


def test_a_training_learns_to_find_a_tumor(trained) -> None:
    last = [event for event in trained if isinstance(event, EpochDone)][-1]
    assert last.dice["whole tumor"] > 0.6
    losses = [event.loss for event in trained if isinstance(event, BatchDone)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_training_tells_its_data_every_batch_every_epoch_and_its_end(trained, toy_plan) -> None:
    assert isinstance(trained[0], Noted)
    assert sum(isinstance(event, BatchDone) for event in trained) == 120
    assert sum(isinstance(event, EpochDone) for event in trained) == 3
    assert isinstance(trained[-1], Trained)


def test_the_best_weights_are_kept_with_a_card_that_names_the_patients(trained, toy_model) -> None:
    card = read_card(toy_model)
    best = max(event.score for event in trained if isinstance(event, EpochDone))
    assert trained[-1].score == best
    assert np.mean([metric.mean for metric in card.metrics]) == pytest.approx(best)
    assert card.training_patients == tuple(f"case{n}" for n in range(6))
    assert card.held_out_patients == ("case7",)
    assert card.accepts_missing


def test_the_same_plan_gives_the_same_weights(toy_plan, tmp_path) -> None:
    weights = []
    for name in ("first", "second"):
        plan = toy_plan.model_copy(update={"epochs": 1, "steps_per_epoch": 4, "output": tmp_path / name})
        weights.append(load_weights(list(train(plan))[-1].path))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_whoever_stops_listening_keeps_the_best_so_far(toy_plan, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"steps_per_epoch": 2, "output": tmp_path})
    events = train(plan)
    next(event for event in events if isinstance(event, EpochDone))
    events.close()
    assert read_card(tmp_path / "toy" / "model.safetensors").name == "toy"


def test_training_goes_on_from_a_model(toy_plan, toy_model, tmp_path) -> None:
    plan = toy_plan.model_copy(
        update={
            "start_from": str(toy_model),
            "epochs": 1,
            "steps_per_epoch": 1,
            "learning_rate": 1e-9,
            "output": tmp_path,
        }
    )
    epoch = next(event for event in train(plan) if isinstance(event, EpochDone))
    assert epoch.dice["whole tumor"] > 0.6


def test_a_training_that_is_out_of_time_ends(toy_plan, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"minutes": 0.001, "output": tmp_path})
    assert isinstance(list(train(plan))[-1], Trained)


@pytest.mark.parametrize("architecture", ["res_unet", "u2net_small", "fcn8s"])
def test_every_kind_of_network_takes_a_training_step(toy_plan, tmp_path, architecture) -> None:
    options = {"res_unet": {"width": 4}, "u2net_small": {}, "fcn8s": {"width": 8, "trunk_width": 4}}[architecture]
    plan = toy_plan.model_copy(
        update={
            "architecture": architecture,
            "options": options,
            "epochs": 1,
            "steps_per_epoch": 1,
            "batch_size": 2,
            "output": tmp_path,
        }
    )
    assert isinstance(list(train(plan))[-1], Trained)


def test_an_option_the_network_does_not_know_is_refused(toy_plan, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"options": {"depth": 9}, "output": tmp_path})
    with pytest.raises(ModelError, match="cannot be built with these options"):
        list(train(plan))


def test_a_cyclic_rate_rises_and_falls_between_its_bounds(toy_plan) -> None:
    seen = rates(toy_plan.model_copy(update={"schedule": "cyclic", "cycle_steps": 10, "learning_rate": 0.6}), 41)
    assert seen[0] == seen[20] == seen[40] == pytest.approx(0.1)
    assert seen[10] == seen[30] == max(seen) == pytest.approx(0.6)


def test_a_one_cycle_rate_warms_up_and_ends_near_zero(toy_plan) -> None:
    seen = rates(toy_plan.model_copy(update={"schedule": "one_cycle", "learning_rate": 0.6}), 120)
    assert seen[0] < 0.1
    assert max(seen) == pytest.approx(0.6, rel=0.01)
    assert seen.index(max(seen)) < 10
    assert seen[-1] < 0.01
    assert seen[10:] == sorted(seen[10:], reverse=True)


def test_a_constant_rate_stays(toy_plan) -> None:
    assert set(rates(toy_plan.model_copy(update={"schedule": "constant"}), 5)) == {toy_plan.learning_rate}
