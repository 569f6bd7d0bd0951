"""The Train dock without a window, with a small child process in place of the real one where none is needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QMessageBox

from napari_braintumor.engine.anatomy import REGION_NAMES
from napari_braintumor.engine.events import (
    BatchDone,
    CaseLeftOut,
    EpochDone,
    Failed,
    Judged,
    Noted,
    PhaseReached,
    Stopped,
    Trained,
)
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.written import corrected_folder
from napari_braintumor.engine.models.model_file import change_card
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL
from napari_braintumor.engine.training.plan import FineTuning, TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.run_watching import find_runs_folder
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.layers import layers_from_case, mark_reviewed, reviewed_slices
from napari_braintumor.widgets.training import dock as train_dock
from napari_braintumor.widgets.training import starting
from napari_braintumor.widgets.training.dock import TrainDock
from napari_braintumor.widgets.training.run_tab import ADVANCED, EVERYDAY

CHILD = """
import sys, time
from pathlib import Path
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.events import BatchDone, EpochDone, Noted, Stopped, Trained

run = Run.open(Path(sys.argv[1]))

def events():
    yield Noted("1 slice to learn from.")
    for step in range(1, 2000):
        time.sleep(0.02)
        if run.stop_requested:
            yield Stopped("You asked for it.")
            break
        yield BatchDone(step, 2000, 1 / step, 1e-3)
        if step % 10 == 0:
            yield EpochDone(step // 10, 200, 1 / step, 1e-3, {"whole tumor": 0.5}, 0.5, True, 1.0)
    run.model_path.write_bytes(b"weights")
    yield Trained(run.model_path, 0.5)

with run.claim():
    for event in run.record(events()):
        pass
"""


@pytest.fixture
def viewer(make_volume: Any) -> ViewerModel:
    """A case and its labels, open."""
    volume, reference = make_volume(3)
    viewer = ViewerModel()
    for data, options, kind in layers_from_case(volume, reference):
        getattr(viewer, f"add_{'image' if kind == 'image' else 'labels'}")(data, **options)
    notification_manager.records.clear()
    return viewer


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel) -> TrainDock:
    dock = TrainDock(viewer)
    qtbot.addWidget(dock)
    return dock


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """A process that only tells events; those that were started are killed in the end."""
    started: list[subprocess.Popen] = []

    def start(run: Run) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", CHILD, str(run.folder)]))
        return started[-1]

    monkeypatch.setattr(starting, "start_training", start)
    yield started
    for process in started:
        process.kill()
        process.wait()


def wait(qtbot: Any, condition: Any) -> None:
    qtbot.waitUntil(condition, timeout=30_000)


def start(qtbot: Any, dock: TrainDock) -> Run:
    dock.train_button.click()
    wait(qtbot, lambda: "step" in dock.watch_page.view.headline.text() or dock.message.text().endswith("."))
    assert dock.watch_page.run is not None, dock.message.text()
    return dock.watch_page.run


def record(run: Run, *events: Any) -> Run:
    list(run.record(iter(events)))
    return run


def make_run(folder: Path, name: str = "earlier") -> Run:
    return Run.start(TrainPlan(name=name, cases=(folder,), output=find_runs_folder()))


def watched(qtbot: Any, dock: TrainDock, run: Run) -> None:
    dock.watch_run(run)
    wait(qtbot, lambda: dock.watch_page.job is None)


def change_side(dock: TrainDock, row: int) -> None:
    page = dock.data.folder_page
    page.view.doubleClicked.emit(page.cases.index(row, 0))


def test_every_row_starts_at_the_plan_s_default(dock: TrainDock) -> None:
    plan = TrainPlan(name="a", cases=("b",))
    for form, rows in ((dock.run_page.everyday, EVERYDAY), (dock.run_page.advanced, ADVANCED)):
        assert form.values() == {name: getattr(plan, name) for name in rows}
        assert all(editor.tooltip for editor in form.editors.values())


def test_fine_tuning_starts_at_the_values_that_suit_it(dock: TrainDock) -> None:
    dock.model.mode_box.setCurrentIndex(1)
    card = ModelStore().find(DEFAULT_MODEL).card
    plan = plan_fine_tuning(card, DEFAULT_MODEL, "a", (Path("b"),))
    assert dock.run_page.everyday.values() == pytest.approx({name: getattr(plan, name) for name in EVERYDAY})
    assert dock.train_button.text() == "Fine-tune"
    dock.model.mode_box.setCurrentIndex(0)
    assert dock.run_page.everyday.editors["epochs"].value == 50


def test_the_forms_become_the_plan(dock: TrainDock, tmp_path: Path) -> None:
    dock.data.source_box.setCurrentIndex(1)
    dock.data.folder_page.folder_edit.setText(str(tmp_path))
    dock.model.name_edit.setText("mine")
    dock.model.architecture_box.setCurrentIndex(1)
    dock.model.width_spin.setValue(8)
    dock.model.modality_boxes["T2"].setChecked(False)
    dock.run_page.everyday.editors["epochs"].value = 7
    dock.run_page.advanced.editors["loss"].value = "tversky"
    plan = dock.build_plan()
    assert plan.name == "mine"
    assert plan.cases == (tmp_path,)
    assert plan.architecture == "res_unet"
    assert plan.options == {"width": 8}
    assert plan.modalities == ("T1", "T1ce", "FLAIR")
    assert plan.regions == ("whole tumor", "tumor core", "enhancing tumor")
    dock.model.region_boxes["resection cavity"].setChecked(True)
    assert dock.build_plan().regions == REGION_NAMES
    assert plan.epochs == 7
    assert plan.loss == "tversky"
    assert plan.split_by == "patient"
    assert plan.output == find_runs_folder()


def test_a_fine_tuning_s_plan_keeps_what_the_parent_is(dock: TrainDock, tmp_path: Path) -> None:
    dock.model.mode_box.setCurrentIndex(1)
    dock.model.tuning_form.editors["frozen_stages"].value = 3
    dock.model.replay_edit.setText(str(tmp_path))
    plan = dock.build_plan()
    assert plan.name == f"{DEFAULT_MODEL}-tuned"
    assert plan.fine_tuning == FineTuning(frozen_stages=3, replay=(tmp_path,))
    assert plan.options == ModelStore().find(DEFAULT_MODEL).card.options
    assert plan.cases == (find_runs_folder() / plan.name / "cases",)


def test_a_name_that_is_taken_gets_a_number(dock: TrainDock, tmp_path: Path) -> None:
    make_run(tmp_path, "my-model")
    assert dock.build_plan().name == "my-model-2"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda dock: dock.model.name_edit.setText("no/slash"), "The plan is not possible: name = 'no/slash'"),
        (lambda dock: dock.data.source_box.setCurrentIndex(1), "No folder of cases is chosen"),
        (lambda dock: dock.data.layers_page.labels_slot.offer([], None), "No labels are chosen"),
        (lambda dock: [slot.offer([], None) for slot in dock.data.layers_page.slots.values()], "No image is chosen"),
        (lambda dock: [b.setChecked(False) for b in dock.model.modality_boxes.values()], "modalities"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_nothing_is_written(dock: TrainDock, spoil: Any, message: str) -> None:
    spoil(dock)
    dock.train_button.click()
    assert message in dock.message.text()
    assert not find_runs_folder().exists()


def test_labels_of_another_image_are_refused(dock: TrainDock, viewer: ViewerModel) -> None:
    other = viewer.add_labels(np.ones((3, 4, 5), np.uint8), name="other")
    dock.data.layers_page.labels_slot.offer([other], other)
    dock.train_button.click()
    assert "Labels 'other' (3, 4, 5) do not lie on the scans" in dock.message.text()


def test_empty_labels_are_refused_and_leave_no_folder(qtbot: Any, dock: TrainDock, viewer: ViewerModel) -> None:
    dock.data.layers_page.labels_layer.data = np.zeros_like(dock.data.layers_page.labels_layer.data)
    dock.train_button.click()
    wait(qtbot, lambda: "empty" in dock.message.text())
    assert not (find_runs_folder() / "my-model").exists()
    assert dock.train_button.isEnabled()


def test_the_slice_that_is_shown_is_marked_and_unmarked(dock: TrainDock, viewer: ViewerModel) -> None:
    layer = dock.data.layers_page.labels_layer
    viewer.dims.set_point(0, layer.data_to_world((5, 0, 0))[0])
    dock.data.layers_page.mark_button.click()
    assert reviewed_slices(layer) == (5,)
    assert "Reviewed slices: 5" in dock.data.layers_page.reviewed_line.text()
    dock.data.layers_page.mark_button.click()
    assert reviewed_slices(layer) == ()
    dock.data.layers_page.mark_button.click()
    dock.data.layers_page.forget_button.click()
    assert "all slices count" in dock.data.layers_page.reviewed_line.text()


def test_training_writes_the_open_layers_into_the_run_and_follows_it(
    qtbot: Any, dock: TrainDock, child: list, viewer: ViewerModel
) -> None:
    mark_reviewed(dock.data.layers_page.labels_layer, 4)
    mark_reviewed(dock.data.layers_page.labels_layer, 6)
    run = start(qtbot, dock)
    case = find_cases(run.cases_folder)[0]
    assert case.reviewed == (4, 6)
    assert case.name == "case3"
    assert run.plan.split_by == "slice"
    wait(
        qtbot,
        lambda: (
            len(dock.watch_page.view.dice_plot.lines) == 1 and len(dock.watch_page.view.loss_plot.lines[0].points) > 10
        ),
    )
    assert dock.watch_page.stop_button.isEnabled()
    assert dock.train_button.isHidden()
    before = time.monotonic()
    dock.watch_page.stop_button.click()
    wait(qtbot, lambda: dock.watch_page.job is None)
    assert time.monotonic() - before < 2
    assert "stopped. You asked for it." in dock.watch_page.view.headline.text()
    assert not dock.watch_page.resume_button.isHidden()


def test_a_run_that_was_stopped_resumes(qtbot: Any, dock: TrainDock, child: list) -> None:
    start(qtbot, dock)
    dock.watch_page.stop_button.click()
    wait(qtbot, lambda: dock.watch_page.job is None)
    dock.watch_page.resume_button.click()
    wait(qtbot, lambda: len(child) == 2 and "training, step" in dock.watch_page.view.headline.text())


def test_a_child_that_was_killed_is_reported_and_can_be_resumed(qtbot: Any, dock: TrainDock, child: list) -> None:
    start(qtbot, dock)
    child[0].kill()
    wait(qtbot, lambda: dock.watch_page.job is None)
    text = dock.watch_page.view.headline.text()
    assert "the training process ended unexpectedly (exit code -9)" in text
    assert "Resume goes on from the last checkpoint" in text
    assert not dock.watch_page.resume_button.isHidden()


def test_discarding_asks_and_deletes(qtbot: Any, dock: TrainDock, child: list, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(qtbot, dock)
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    dock.watch_page.discard_button.click()
    assert run.folder.exists()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    dock.watch_page.discard_button.click()
    assert not run.folder.exists()
    child[0].wait(10)
    wait(qtbot, lambda: dock.watch_page.job is None)
    assert not dock.train_button.isHidden()


def test_a_dock_that_is_closed_leaves_the_training_alone(qtbot: Any, viewer: ViewerModel, child: list) -> None:
    dock = TrainDock(viewer)
    run = start(qtbot, dock)
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    steps = len(run.read_events())
    wait(qtbot, lambda: len(run.read_events()) > steps + 5)
    viewer.add_image(np.zeros((2, 2, 2)))  # nobody is called any more
    later = TrainDock(viewer)
    qtbot.addWidget(later)
    later.watch_run(run)
    wait(qtbot, lambda: "training, step" in later.watch_page.view.headline.text())


def test_a_run_from_elsewhere_is_watched(qtbot: Any, dock: TrainDock, tmp_path: Path) -> None:
    run = record(make_run(tmp_path), Noted("data"), BatchDone(1, 10, 0.9, 1e-3))
    (run.folder / "process.json").write_text(json.dumps({"host": "far away", "pid": 1, "created": 0}))
    dock.watch_run(run)
    wait(qtbot, lambda: "step 1 of 10" in dock.watch_page.view.headline.text())
    record(run, EpochDone(1, 2, 0.9, 1e-3, {}, 0.4, True, 1.0), Trained(Path("model.safetensors"), 0.4))
    (run.folder / "process.json").unlink()
    wait(qtbot, lambda: "complete, score 0.400" in dock.watch_page.view.headline.text())


def test_a_run_that_failed_says_why(qtbot: Any, dock: TrainDock, tmp_path: Path) -> None:
    watched(qtbot, dock, record(make_run(tmp_path), Failed("The disk is full.")))
    assert "failed. The disk is full." in dock.watch_page.view.headline.text()
    assert not dock.watch_page.resume_button.isHidden()
    assert dock.watch_page.view.use_button.isHidden()


def test_a_version_that_was_refused_cannot_be_used(qtbot: Any, dock: TrainDock, tmp_path: Path) -> None:
    refused = (Judged(False, "it was not better.", 0.5, 0.4), Trained(None, 0.4))
    watched(qtbot, dock, record(make_run(tmp_path), *refused))
    assert dock.watch_page.view.verdict_line.text().splitlines() == [
        "On the slices kept back: Dice 0.50 before, 0.40 now.",
        "Not accepted: it was not better.",
    ]
    assert dock.watch_page.view.use_button.isHidden()


def test_a_new_version_is_used_and_taken_back(qtbot: Any, dock: TrainDock, tmp_path: Path, toy_model: Path) -> None:
    run = make_run(tmp_path)
    for path in (run.model_path, run.parent_path):
        path.write_bytes(toy_model.read_bytes())
    events = (Judged(True, "it is better.", 0.5, 0.6), Stopped("You asked for it."), Trained(run.model_path, 0.6))
    watched(qtbot, dock, record(run, *events))
    assert dock.watch_page.view.verdict_line.text().endswith("Dice 0.50 before, 0.60 now.\nAccepted: it is better.")
    dock.watch_page.view.use_button.click()
    assert ModelStore().find("toy").path.exists()
    assert not dock.watch_page.view.undo_button.isHidden()
    dock.watch_page.view.undo_button.click()
    assert "toy" not in [model.name for model in ModelStore().list()]
    assert run.model_path.exists()


def test_a_new_version_is_discarded_at_the_end(
    qtbot: Any, dock: TrainDock, tmp_path: Path, toy_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    run.model_path.write_bytes(toy_model.read_bytes())
    watched(qtbot, dock, record(run, Judged(True, "it is better.", 0.5, 0.6), Trained(run.model_path, 0.6)))
    asked: list[str] = []

    def agree(_: Any, __: str, question: str) -> QMessageBox.StandardButton:
        asked.append(question)
        return QMessageBox.StandardButton.Yes

    monkeypatch.setattr(QMessageBox, "question", agree)
    assert not dock.watch_page.discard_button.isHidden()
    dock.watch_page.discard_button.click()
    assert asked == [f"Discard '{run.folder.name}' and delete all of it?"]
    assert not run.folder.exists()


def test_the_preview_is_shown_as_a_picture_and_as_a_layer(
    qtbot: Any, dock: TrainDock, viewer: ViewerModel, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    shape = viewer.layers[0].data.shape[1:]
    predicted = np.zeros(shape, np.uint8)
    predicted[30:40, 20:30] = 2
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with run.preview_path.open("wb") as file:
        np.savez(file, image=image, reference=predicted, predicted=predicted, z=5, case="case3", epoch=2)
    record(run, Trained(None, 0.1))
    watched(qtbot, dock, run)
    assert "Slice 5 of case3 after epoch 2" in dock.watch_page.view.preview_line.text()
    assert not dock.watch_page.view.preview.pixmap().isNull()
    layer = viewer.layers["Preview [case3]"]
    assert layer.data[5].sum() == 200
    assert layer.data.sum() == 200


def test_cases_of_a_folder_are_listed_with_reasons_and_sides(
    qtbot: Any, dock: TrainDock, case_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cases"
    shutil.copytree(case_folder, folder)
    next((folder / "case2").glob("*seg*")).unlink()
    dock.data.source_box.setCurrentIndex(1)
    dock.data.folder_page.folder_edit.setText(str(folder))
    dock.data.folder_page.look()
    wait(qtbot, lambda: "7 of 8 cases can be used" in dock.data.folder_page.found_line.text())
    rows = dock.data.folder_page.cases.rows
    assert rows[2] == ["case2", "unusable", "It has no mask."]
    assert rows[0][2].startswith("T1, T1ce, T2, FLAIR; whole tumor")
    for _ in range(2):
        change_side(dock, 0)
    for _ in range(3):
        change_side(dock, 1)
    plan = dock.build_plan()
    assert plan.validation == ("case0",)
    assert plan.held_out == ("case1",)
    for row in (3, 4):
        change_side(dock, row)
    for _ in range(2):
        change_side(dock, 0)
    plan = dock.build_plan()
    assert plan.validation == 0.2
    assert plan.training == ("case3", "case4")


def test_a_folder_without_cases_is_reported(qtbot: Any, dock: TrainDock, tmp_path: Path) -> None:
    dock.data.source_box.setCurrentIndex(1)
    dock.data.folder_page.folder_edit.setText(str(tmp_path))
    dock.data.folder_page.look()
    wait(qtbot, lambda: "No case was found" in dock.data.folder_page.found_line.text())


def test_a_corrected_case_is_kept_and_found_again(qtbot: Any, dock: TrainDock) -> None:
    mark_reviewed(dock.data.layers_page.labels_layer, 5)
    dock.data.layers_page.keep_button.click()
    wait(qtbot, lambda: dock.message.text().startswith("Saved in"))
    assert [case.reviewed for case in find_cases(corrected_folder())] == [(5,)]
    dock.data.source_box.setCurrentIndex(2)
    wait(qtbot, lambda: "1 of 1 cases can be used" in dock.data.folder_page.found_line.text())


def test_runs_are_listed_with_how_they_stand(qtbot: Any, dock: TrainDock, tmp_path: Path) -> None:
    record(make_run(tmp_path, "one"), Trained(Path("m"), 0.3))
    record(make_run(tmp_path, "two"), Noted("x"), Failed("y"))
    dock.runs.reload()
    wait(qtbot, lambda: dock.runs.box.count() == 2)
    assert sorted(dock.runs.box.itemText(n) for n in range(2)) == ["one: complete", "two: failed"]
    dock.runs.box.setCurrentIndex(dock.runs.box.findText("one: complete"))
    assert not dock.runs.resume_button.isEnabled()
    dock.runs.watch_button.click()
    wait(qtbot, lambda: "complete" in dock.watch_page.view.headline.text())


def test_the_plan_is_checked_by_a_child(
    qtbot: Any, dock: TrainDock, case_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "check_plan", lambda plan: f"The settings work for {plan.name}.")
    dock.model.check_button.click()
    assert "Open layers are checked when training starts" in dock.model.check_line.text()
    dock.data.source_box.setCurrentIndex(1)
    dock.data.folder_page.folder_edit.setText(str(case_folder))
    dock.model.check_button.click()
    wait(qtbot, lambda: dock.model.check_line.text() == "The settings work for my-model.")


def test_progress_is_the_share_of_steps_or_time_with_one_time_left_and_phases_by_name(
    dock: TrainDock, tmp_path: Path
) -> None:
    view = dock.watch_page.view
    view.clear(make_run(tmp_path))
    view.add([PhaseReached("preparing 69 cases", 23, 69)])
    assert view.headline.text() == "earlier: preparing 69 cases…"
    assert view.bar.value() / view.bar.maximum() == pytest.approx(1 / 3)
    view.add([BatchDone(1, 100_000, 0.5, 1e-3, 0.5, 90.0), BatchDone(2, 100_000, 0.5, 1e-3, 0.51, 88.0)])
    assert view.bar.value() / view.bar.maximum() == pytest.approx(0.51)
    assert view.time_line.text() == "88 s left at most"
    assert "training, step 2 of 100000" in view.headline.text()
    view.add([PhaseReached("judging against the parent")])
    assert view.headline.text() == "earlier: judging against the parent…"
    assert view.bar.value() / view.bar.maximum() == pytest.approx(0.51)
    assert view.time_line.text() == "88 s left at most"
    view.add([BatchDone(30, 100, 0.5, 1e-3)])  # as earlier versions tell
    assert view.bar.value() / view.bar.maximum() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ((Noted("x"), Stopped("You asked for it.")), "stopped. You asked for it."),
        ((Trained(Path("m"), None),), "complete, not validated."),
        (
            (CaseLeftOut("a is left out: it is damaged.", "a", True), CaseLeftOut("b ...", "b"), Trained(None, 0.5)),
            "complete, score 0.500 Left out because their files cannot be used: a.",
        ),
    ],
)
def test_the_end_of_a_run_is_described(qtbot: Any, dock: TrainDock, tmp_path: Path, events: Any, text: str) -> None:
    watched(qtbot, dock, record(make_run(tmp_path), *events))
    assert dock.watch_page.view.headline.text() == f"earlier: {text}"


def test_the_first_stop_of_a_dock_is_gentle_though_another_dock_has_asked_before(
    qtbot: Any, dock: TrainDock, viewer: ViewerModel, child: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(qtbot, dock)
    other = TrainDock(viewer)
    qtbot.addWidget(other)
    other.watch_run(run)
    killed: list[Run] = []
    monkeypatch.setattr(Run, "terminate", lambda self: killed.append(self))
    monkeypatch.setattr(Run, "stop_requested", True)  # by the one, as the other sees it
    other.watch_page.stop_button.click()
    assert not killed
    other.watch_page.stop_button.click()
    assert killed == [run]
    assert child[0].poll() is None or child[0].returncode == 0
    wait(qtbot, lambda: dock.watch_page.job is None and other.watch_page.job is None)


def test_a_run_that_is_trained_already_is_not_started_a_second_time(
    qtbot: Any, dock: TrainDock, viewer: ViewerModel, child: list
) -> None:
    run = start(qtbot, dock)
    other = TrainDock(viewer)
    qtbot.addWidget(other)
    other._resume(run)
    wait(qtbot, lambda: "is being trained already" in other.message.text())
    assert len(child) == 1
    dock.watch_page.stop_button.click()
    wait(qtbot, lambda: dock.watch_page.job is None)


def test_a_run_that_another_dock_began_meanwhile_is_left_alone(
    qtbot: Any, dock: TrainDock, child: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make_run(tmp_path, "my-model")
    monkeypatch.setattr(train_dock, "find_free_name", lambda name, folder: name)
    dock.train_button.click()
    wait(qtbot, lambda: "was begun elsewhere meanwhile" in dock.message.text())
    assert theirs.plan_path.exists()
    assert not child


@pytest.mark.parametrize("reviewed", [(4,), (4, 6)])
def test_a_fine_tuning_of_too_few_reviewed_slices_is_refused_before_it_starts(
    qtbot: Any, dock: TrainDock, child: list, reviewed: tuple[int, ...]
) -> None:
    dock.model.mode_box.setCurrentIndex(1)
    for z in reviewed:
        mark_reviewed(dock.data.layers_page.labels_layer, z)
    dock.train_button.click()
    assert "needs at least 3 reviewed slices" in dock.message.text()
    assert f"There {'is' if len(reviewed) == 1 else 'are'} {len(reviewed)}." in dock.message.text()
    assert not find_runs_folder().exists()
    for z in (7, 8):
        mark_reviewed(dock.data.layers_page.labels_layer, z)
    start(qtbot, dock)
    dock.watch_page.stop_button.click()
    wait(qtbot, lambda: dock.watch_page.job is None)


def test_corrected_cases_of_too_few_slices_are_refused_too(qtbot: Any, dock: TrainDock, child: list) -> None:
    mark_reviewed(dock.data.layers_page.labels_layer, 5)
    dock.data.layers_page.keep_button.click()
    wait(qtbot, lambda: dock.message.text().startswith("Saved in"))
    dock.model.mode_box.setCurrentIndex(1)
    dock.data.source_box.setCurrentIndex(2)
    wait(qtbot, lambda: "1 of 1 cases can be used" in dock.data.folder_page.found_line.text())
    dock.train_button.click()
    assert "needs at least 3 reviewed slices" in dock.message.text()
    assert not child


def test_a_model_whose_regions_cannot_be_trained_here_is_refused_in_a_sentence(dock: TrainDock, tmp_path: Path) -> None:
    bundled = ModelStore().find(DEFAULT_MODEL)
    path = Path(shutil.copy(bundled.path, tmp_path / "theirs.safetensors"))
    regions = [{**region.model_dump(), "name": f"their {region.name}"} for region in bundled.card.regions]
    change_card(path, name="theirs", regions=regions)
    ModelStore().install(path)
    dock.model.reload_models()
    dock.model.model_box.setCurrentIndex(dock.model.model_box.count() - 1)
    dock.model.mode_box.setCurrentIndex(1)
    assert "'theirs' cannot be tuned here: regions = " in dock.message.text()
    dock.train_button.click()
    assert "The plan is not possible: regions = " in dock.message.text()
