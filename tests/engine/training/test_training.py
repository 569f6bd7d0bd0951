import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_braintumor.engine import train
from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import (
    BatchDone,
    EpochDone,
    Failed,
    Judged,
    Noted,
    PhaseReached,
    PreviewDone,
    Resumed,
    Stopped,
    Trained,
    Verified,
)
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.written import write_case
from napari_braintumor.engine.models.model_file import load_weights, read_card
from napari_braintumor.engine.training import judging, training_cases
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.fit_state import read_state
from napari_braintumor.engine.training.plan import FineTuning, TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.training.splits import split_slices


def only(events: list, kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def same_weights(one: Path, two: Path) -> bool:
    first, second = load_weights(one), load_weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def short_plan(toy_plan: TrainPlan, tmp_path: Path) -> TrainPlan:
    """A training of seconds, with everything random in it."""
    more = {"output": tmp_path, "epochs": 3, "steps_per_epoch": 4, "augmentation": "full"}
    return toy_plan.model_copy(update={**more, "options": {"width": 4, "dropout": 0.3}})


def test_a_training_learns_to_find_a_tumor(trained) -> None:
    assert only(trained, EpochDone)[-1].dice["whole tumor"] > 0.6
    losses = [event.loss for event in only(trained, BatchDone)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_training_reports_its_data_its_needs_every_batch_every_epoch_and_its_end(trained, toy_plan) -> None:
    assert isinstance(trained[0], Noted)
    needs = only(trained, Verified)[0]
    assert needs.parameters == 122_507
    assert 1 < needs.memory_mb < 1000
    assert needs.minutes < 10
    assert len(only(trained, BatchDone)) == 120
    assert len(only(trained, EpochDone)) == 3
    assert isinstance(trained[-1], Trained)


def test_a_run_leaves_all_its_files(trained, toy_plan) -> None:
    folder = toy_plan.output / toy_plan.name
    assert {path.name for path in folder.iterdir()} == {
        *("plan.json", "split.json", "events.jsonl", "log.txt", "checkpoint.safetensors", "model.safetensors"),
        *("curves.png", "preview.npz"),
    }
    run = Run.open(folder)
    assert run.status == "complete"
    assert len(only(run.read_events(), BatchDone)) == 120


def test_the_preview_shows_a_validation_slice_on_its_own_grid(trained, toy_plan) -> None:
    with np.load(toy_plan.output / toy_plan.name / "preview.npz") as preview:
        assert str(preview["case"]) == "case6"
        assert preview["image"].shape == preview["predicted"].shape == preview["reference"].shape == (72, 64)
        agree = ((preview["predicted"] > 0) & (preview["reference"] > 0)).sum()
        assert 2 * agree / ((preview["predicted"] > 0).sum() + (preview["reference"] > 0).sum()) > 0.6
        assert int(preview["epoch"]) == 3


def test_the_best_weights_are_kept_with_a_card_that_names_the_patients(trained, toy_model) -> None:
    card = read_card(toy_model)
    best = max(event.score for event in only(trained, EpochDone))
    assert trained[-1].score == best
    assert np.mean([metric.mean for metric in card.metrics]) == pytest.approx(best)
    assert card.training_patients == tuple(f"case{n}" for n in range(6))
    assert card.held_out_patients == ("case7",)
    assert card.accepts_missing


def test_the_same_plan_gives_the_same_weights(short_plan, tmp_path) -> None:
    first, second = (
        list(train(short_plan.model_copy(update={"output": tmp_path / name})))[-1].path for name in ("a", "b")
    )
    assert same_weights(first, second)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights_to_the_bit(short_plan, tmp_path) -> None:
    """Kill -9 at three random moments, each time resumed by the command line.

    The first kill may come before the first checkpoint, after four steps; the others come after one.
    """
    plan = short_plan.model_copy(update={"epochs": 6})
    whole = list(train(plan.model_copy(update={"output": tmp_path / "whole"})))[-1].path
    run = Run.start(plan.model_copy(update={"output": tmp_path / "killed"}))
    command = [sys.executable, "-m", "napari_braintumor", "train", str(run.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    random = np.random.default_rng()
    for steps in random.integers((1, 5, 5), 8):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        seen = sum(1 for event in run.read_events() if isinstance(event, BatchDone))
        enough, until = seen + steps, time.monotonic() + 120
        while sum(1 for event in run.read_events() if isinstance(event, BatchDone)) < enough:
            assert time.monotonic() < until
            if child.poll() is not None:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not run.is_running
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    assert only(run.read_events(), Resumed)
    assert same_weights(run.model_path, whole)


def test_a_complete_run_is_not_trained_again(trained, toy_plan) -> None:
    again = list(train(Run.open(toy_plan.output / toy_plan.name)))
    assert not only(again, BatchDone)
    assert again[-1].score == trained[-1].score


def test_whoever_stops_listening_keeps_the_best_so_far(short_plan) -> None:
    events = train(short_plan)
    next(event for event in events if isinstance(event, EpochDone))
    events.close()
    card = read_card(short_plan.output / "toy" / "model.safetensors")
    assert card.name == "toy"
    assert any("stopped early" in doubt for doubt in card.doubts)  # as when the process is killed


def test_a_run_asked_to_stop_ends_after_its_batch_and_resumes_later_to_the_same_weights(short_plan, tmp_path) -> None:
    whole = list(train(short_plan.model_copy(update={"output": tmp_path / "whole"})))[-1].path
    run = Run.start(short_plan)
    reported = []
    for event in train(run):
        reported.append(event)
        if isinstance(event, BatchDone) and event.step == 2:
            run.request_stop()
    assert only(reported, BatchDone)[-1].step == 2
    assert only(reported, Stopped)
    assert reported[-1].path == run.model_path
    assert run.model_path.exists()
    assert run.status == "stopped"
    assert any("stopped early, after 17% of its plan" in doubt for doubt in read_card(run.model_path).doubts)
    assert list(train(run))[-1].path == run.model_path
    assert same_weights(run.model_path, whole)
    assert read_card(run.model_path).doubts == ()


def test_a_loss_that_turns_nan_stops_the_run_at_the_last_good_weights(short_plan, monkeypatch) -> None:
    def accumulate(self, network, batch):
        return torch.tensor(torch.nan) if self.state.step == 5 else real(self, network, batch)

    real = Fit.accumulate
    monkeypatch.setattr(Fit, "accumulate", accumulate)
    events = list(train(short_plan))
    assert only(events, BatchDone)[-1].step == 5
    assert "The loss became NaN at step 6" in only(events, Stopped)[0].reason
    assert all(tensor.isfinite().all() for tensor in load_weights(events[-1].path).values())


def test_when_memory_runs_out_batches_go_through_in_pieces_and_it_is_said(short_plan, monkeypatch) -> None:
    def forward(self, network, batch):
        if len(batch[0]) / self.state.pieces > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: out of memory")
        return real(self, network, batch)

    real = Fit.accumulate
    monkeypatch.setattr(Fit, "accumulate", forward)
    events = list(train(short_plan))
    assert any("in 4 pieces of 2 slices" in note.text for note in only(events, Noted))
    assert isinstance(events[-1], Trained)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole_for_a_loss_that_is_a_mean(toy_plan) -> None:
    plan = toy_plan.model_copy(update={"averaging": 0.0})
    torch.manual_seed(0)
    fit = Fit(torch.nn.Conv2d(4, 3, 1), plan, torch.device("cpu"))
    fit.loss = lambda output, target, known: (output - target).square().mean()
    batch = [torch.randn(6, 4, 8, 8), torch.rand(6, 3, 8, 8), torch.ones(6, 3, dtype=torch.bool)]
    gradients = []
    for pieces in (1, 3):
        fit.network.zero_grad()
        fit.state.pieces = pieces
        fit.accumulate(fit.network, batch)
        gradients.append(fit.network.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.fixture
def stale(monkeypatch) -> None:
    """Validation finds the same Dice each time."""
    monkeypatch.setattr(judging, "validate", lambda *_: {"whole tumor": 0.5})


def test_progress_is_the_larger_share_of_steps_and_time_and_the_time_left_counts_down(trained, short_plan) -> None:
    batches = only(trained, BatchDone)
    assert [batch.share for batch in batches] == [batch.step / batch.steps for batch in batches]
    left = [batch.left_s for batch in batches if batch.left_s is not None]
    assert left == sorted(left, reverse=True)
    assert batches[-1].left_s == 0
    hurried = only(list(train(short_plan.model_copy(update={"minutes": 0.01, "epochs": 10_000}))), BatchDone)
    shares = [batch.share for batch in hurried]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert hurried[-1].step < hurried[-1].steps / 100


def test_what_is_not_a_step_is_named(trained, toy_plan) -> None:
    phases = [event.phase for event in only(trained, PhaseReached)]
    assert list(dict.fromkeys(phases)) == ["preparing 7 cases", "trying one batch", "validating"]
    where = [i for i, event in enumerate(trained) if isinstance(event, EpochDone)]
    assert all(trained[i - 1] == PhaseReached("validating") for i in where)


def stop_when(run: Run, condition) -> list:
    reported = []
    for event in train(run):
        reported.append(event)
        if condition(event):
            run.request_stop()
    return reported


def test_a_stop_while_cases_are_read_is_honored_at_the_next_case(short_plan) -> None:
    run = Run.start(short_plan)
    reported = stop_when(run, lambda event: event == PhaseReached("preparing 7 cases", 2, 7))
    assert reported[-2:] == [PhaseReached("preparing 7 cases", 2, 7), Stopped("You asked for it.")]
    assert run.status == "stopped"
    assert not run.checkpoint_path.exists()


def test_a_stop_before_the_first_batch_keeps_no_model_and_the_run_resumes_later(short_plan) -> None:
    run = Run.start(short_plan)
    reported = stop_when(run, lambda event: event == PhaseReached("trying one batch"))
    assert reported[-2:] == [Stopped("You asked for it."), Trained(None, None)]
    assert not only(reported, BatchDone)
    assert not run.model_path.exists()
    assert run.status == "stopped"
    assert list(train(run))[-1].path == run.model_path
    assert run.status == "complete"


def test_a_stop_before_the_first_validation_keeps_what_was_learned_as_not_validated(short_plan) -> None:
    """And a run whose split.json an earlier version wrote, which held less, goes on."""
    run = Run.start(short_plan)
    reported = stop_when(run, lambda event: isinstance(event, BatchDone))
    assert reported[-1] == Trained(run.model_path, None)
    assert read_card(run.model_path).metrics == ()
    split = json.loads(run.split_path.read_text())
    del split["replay_judged"]
    run.split_path.write_text(json.dumps(split))
    rest = list(train(run))
    assert only(rest, EpochDone)[0].best
    assert rest[-1].score == max(epoch.score for epoch in only(rest, EpochDone))


@pytest.fixture
def few_slices(monkeypatch, case_folder):
    """Lets case 0 be reviewed in these slices only."""

    def review(*reviewed: int) -> None:
        found = [replace(find_cases(case_folder)[0], reviewed=reviewed)]
        monkeypatch.setattr(training_cases, "find_cases", lambda _: found)

    return review


@pytest.mark.parametrize(
    ("reviewed", "why"), [((4, 6), "no slice is left"), ((1, 6, 10), "no slice with tumor is left")]
)
def test_where_nothing_can_choose_the_weights_the_last_are_kept_without_a_score(
    short_plan, few_slices, reviewed, why: str
) -> None:
    """A new network from two slices, or with a validation slice on which finding nothing is right."""
    few_slices(*reviewed)
    more = {"validation": 0.2, "held_out": (), "split_by": "slice", "patience": 1, "schedule": "plateau"}
    seeds = (short_plan.model_copy(update={**more, "seed": seed}) for seed in range(20))
    without_tumor = ([], [1], [10])
    plan = next(each for each in seeds if split_slices(np.array(reviewed), each, "case0")[1].tolist() in without_tumor)
    events = list(train(plan))
    assert any(why in note.text and "The last ones are kept" in note.text for note in only(events, Noted))
    epochs = only(events, EpochDone)
    assert [epoch.score for epoch in epochs] == [None] * 3
    assert not any(epoch.dice or epoch.best for epoch in epochs)
    assert events[-1] == Trained(plan.output / "toy" / "model.safetensors", None)
    card = read_card(events[-1].path)
    assert card.metrics == ()
    assert "never validated" in card.doubts[0]
    first = list(train(plan.model_copy(update={"epochs": 1, "name": "one"})))[-1].path
    assert not same_weights(first, events[-1].path), "not those of epoch 1"


def test_a_checkpoint_of_another_version_loses_a_field_and_not_the_run() -> None:
    assert read_state({"step": 5, "seconds": 1.0, "best_score": 0.5, "kept_score": 0.5}).is_kept
    stopped_early = read_state({"step": 1, "kept_score": -1.0, "best_score": -1.0})
    assert stopped_early.is_kept
    assert stopped_early.kept_score is None
    assert read_state({"step": 7, "is_kept": False, "moon": "full"}).step == 7


def test_training_ends_early_when_nothing_gets_better(short_plan, stale) -> None:
    plan = short_plan.model_copy(update={"epochs": 9, "steps_per_epoch": 1, "patience": 2})
    events = list(train(plan))
    assert len(only(events, EpochDone)) == 3
    assert only(events, Stopped)[0].reason == "No better score in 2 epochs."
    assert read_card(events[-1].path).stopped_at is None  # it is the plan that ends it


def test_a_plateau_halves_the_rate(short_plan, stale) -> None:
    more = {"schedule": "plateau", "plateau_patience": 1, "learning_rate": 1e-9, "warm_up": 0.0, "epochs": 4}
    epochs = only(list(train(short_plan.model_copy(update=more))), EpochDone)
    assert epochs[0].learning_rate == pytest.approx(1e-9)
    assert [epoch.learning_rate * 1e9 for epoch in epochs] == pytest.approx([1, 1, 0.5, 0.25])


def test_training_goes_on_from_a_model(short_plan, toy_model) -> None:
    update = {"start_from": str(toy_model), "epochs": 1, "steps_per_epoch": 1, "learning_rate": 1e-9}
    events = list(train(short_plan.model_copy(update=update)))
    assert only(events, EpochDone)[0].dice["whole tumor"] > 0.6
    assert any("tensors loaded as they were" in note.text for note in only(events, Noted))


def test_a_model_of_another_architecture_cannot_be_started_from(short_plan, toy_model) -> None:
    plan = short_plan.model_copy(
        update={"start_from": str(toy_model), "architecture": "res_unet", "options": {"width": 4}}
    )
    with pytest.raises(ModelError, match="architecture"):
        list(train(plan))
    assert isinstance(Run.open(plan.output / "toy").read_events()[-1], Failed)


def test_cases_that_changed_since_the_run_began_are_noticed(short_plan, case_folder, tmp_path) -> None:
    folder = tmp_path / "cases"
    shutil.copytree(case_folder, folder)
    run = Run.start(short_plan.model_copy(update={"cases": (folder,)}))
    for event in (events := train(run)):
        if isinstance(event, PreviewDone):  # sent after the checkpoint was written
            break
    events.close()
    shutil.rmtree(folder / "case1")
    with pytest.raises(DataError, match="The cases are not those that the run 'toy' began with"):
        list(train(run))


def test_a_training_that_is_out_of_time_ends(short_plan) -> None:
    events = list(train(short_plan.model_copy(update={"minutes": 0.0001, "epochs": 1000})))
    assert isinstance(events[-1], Trained)
    assert len(only(events, EpochDone)) == 1


@pytest.mark.parametrize("architecture", ["res_unet", "u2net_small", "fcn8s"])
def test_every_kind_of_network_takes_a_training_step(short_plan, architecture) -> None:
    options = {"res_unet": {"width": 4}, "u2net_small": {}, "fcn8s": {"width": 8, "trunk_width": 4}}[architecture]
    update = {"architecture": architecture, "options": options, "epochs": 1, "steps_per_epoch": 1, "batch_size": 2}
    assert isinstance(list(train(short_plan.model_copy(update=update)))[-1], Trained)


def test_an_option_the_network_does_not_know_is_refused(short_plan) -> None:
    with pytest.raises(ModelError, match="cannot be built with these options"):
        list(train(short_plan.model_copy(update={"options": {"depth": 9}})))


# ------------------------------------------------------------------------------------------------------ fine-tuning


@pytest.mark.parametrize("reviewed", [(4,), (4, 6)])
def test_a_fine_tuning_of_too_few_slices_is_refused_before_it_starts(tuning_plan, few_slices, reviewed) -> None:
    few_slices(*reviewed)
    with pytest.raises(DataError, match="needs at least 3 reviewed slices"):
        list(train(tuning_plan))
    events = Run.open(tuning_plan.output / "tuned").read_events()
    assert not only(events, Verified)
    assert isinstance(events[-1], Failed)


@pytest.fixture
def tuning_plan(toy_model, case_folder, tmp_path) -> TrainPlan:
    return plan_fine_tuning(
        read_card(toy_model),
        str(toy_model),
        "tuned",
        (case_folder / "case7",),
        output=tmp_path,
        patch=(64, 64),
        threads=1,
        minutes=None,
        epochs=3,
        steps_per_epoch=5,
        device="cpu",
    )


def test_a_tuned_version_that_is_better_is_accepted_and_knows_its_parent(tuning_plan, case_folder) -> None:
    replay = FineTuning(replay=tuple(case_folder / f"case{n}" for n in range(4)), allowed_loss=0.5)
    events = list(train(tuning_plan.model_copy(update={"fine_tuning": replay, "learning_rate": 2e-3})))
    verdict = only(events, Judged)[0]
    assert verdict.accepted
    assert verdict.after > verdict.before
    assert verdict.replay_after is not None
    card = read_card(events[-1].path)
    assert card.parent == "toy"
    assert "case7" in card.training_patients
    assert card.held_out_patients == ()


def test_a_tuned_version_that_is_not_better_is_refused_and_no_model_is_left(tuning_plan) -> None:
    events = list(train(tuning_plan.model_copy(update={"learning_rate": 1e-12})))
    verdict = only(events, Judged)[0]
    assert not verdict.accepted
    assert "no version was better than the parent" in verdict.reason
    assert events[-1].path is None
    assert not (tuning_plan.output / "tuned" / "model.safetensors").exists()
    assert (tuning_plan.output / "tuned" / "parent.safetensors").exists()


def test_a_version_that_forgets_is_refused(tuning_plan, toy_model, case_folder, monkeypatch) -> None:
    """The replay set's Dice is lower with any weights but the parent's."""
    parent, real = load_weights(toy_model), judging.validate

    def validate(network, parts, plan, device):
        dice = real(network, parts, plan, device)
        weights = network.state_dict()
        is_parent = all(torch.equal(weights[name], parent[name]) for name in parent)
        forgot = not is_parent and all(part.case.name != "case7" for part in parts)
        return {name: value - 0.3 if forgot else value for name, value in dice.items()}

    monkeypatch.setattr(judging, "validate", validate)
    replay = FineTuning(replay=tuple(case_folder / f"case{n}" for n in range(4)), allowed_loss=0.01)
    events = list(train(tuning_plan.model_copy(update={"fine_tuning": replay, "learning_rate": 2e-3})))
    assert not only(events, Judged)[0].accepted


def test_batch_norm_statistics_and_early_stages_stay_as_the_parent_left_them(tuning_plan, toy_model) -> None:
    frozen = FineTuning(frozen_stages=2, unfrozen_by=1.0)
    more = {"fine_tuning": frozen, "learning_rate": 1e-2, "averaging": 0.0}
    path = list(train(tuning_plan.model_copy(update=more)))[-1].path
    assert path is not None
    parent, tuned = load_weights(toy_model), load_weights(path)
    same = {name for name in parent if torch.equal(parent[name], tuned[name])}
    assert {name for name in parent if "running" in name} <= same
    assert {name for name in parent if name.startswith(("down.0.", "down.1."))} <= same
    assert not any(name in same for name in parent if name.startswith("up.") and name.endswith("weight"))


def test_without_a_replay_set_the_parent_s_answers_stand_in(tuning_plan, case_folder, tmp_path) -> None:
    case = find_cases(case_folder / "case7")[0]
    volume, reference = read_case(case), read_reference(case)
    written = write_case(tmp_path / "new", volume, reference.labels, "brats2023", reviewed=[4, 6, 8])
    events = list(train(tuning_plan.model_copy(update={"cases": (written,)})))
    assert any("the parent's own answers on 7 slices" in note.text for note in only(events, Noted))
    assert only(events, Judged)
