"""Fine-tuning in a clinician's words: corrections and marks are counted, and settings for experts are folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.layers import default_placement, mark_reviewed, reviewed_slices, update_or_add_labels
from napari_braintumor.widgets.training.dock import TrainDock
from open_layers import open_case


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def tumor(viewer: ViewerModel, volume: Any, segmentation: Any) -> Labels:
    open_case(viewer, volume)
    return update_or_add_labels(viewer, segmentation, default_placement(volume.source))


@pytest.fixture
def train(qtbot: Any, viewer: ViewerModel, tumor: Labels) -> TrainDock:
    dock = TrainDock(viewer)
    qtbot.addWidget(dock)
    scans = {"FLAIR": next(layer for layer in viewer.layers if layer.name.startswith("FLAIR"))}
    dock.prepare_fine_tuning(scans, tumor, Path("gone.safetensors"))
    return dock


def correct(layer: Labels, *slices: int) -> None:
    for z in slices:
        layer.data_setitem((np.array([z]), np.array([10]), np.array([10])), 3)


def test_the_steps_come_first_and_the_settings_are_folded_away(train):
    assert not train.steps_page.isHidden()
    assert not train.expert_part.isExpanded()
    assert train.train_button.text() == "Learn"
    assert train.steps_page.correct_line.text().startswith("Nothing is corrected yet. Correct about 4 slices")
    assert not train.steps_page.mark_button.isEnabled()
    train.expert_part.expand(animate=False)
    assert train.tabs.isVisibleTo(train.expert_part)


def test_who_opens_the_dock_alone_sees_the_settings(qtbot, viewer):
    dock = TrainDock(viewer)
    qtbot.addWidget(dock)
    assert dock.steps_page.isHidden()
    assert dock.expert_part.isExpanded()
    assert dock.train_button.text() == "Train"


def test_what_is_corrected_is_counted_and_marked_with_one_click(train, tumor):
    correct(tumor, 2, 3, 4, 5)
    steps = train.steps_page
    assert steps.correct_line.text() == "4 slices corrected."
    assert "4 slices corrected but not marked" in steps.mark_line.text()
    assert steps.learn_line.text() == "At least 3 marked slices are needed."
    steps.mark_button.click()
    assert reviewed_slices(tumor) == (2, 3, 4, 5)
    assert steps.mark_line.text() == "4 slices marked as right."
    assert steps.learn_line.text().startswith("Every third marked slice is kept back to judge by.")
    assert not steps.mark_button.isEnabled()
    assert "2, 3, 4, 5" in train.data.layers_page.reviewed_line.text()


def test_a_correction_that_is_undone_is_not_counted(train, tumor):
    correct(tumor, 2)
    assert train.steps_page.correct_line.text() == "1 slice corrected."
    tumor.undo()
    assert train.steps_page.correct_line.text().startswith("Nothing is corrected yet.")


def test_marks_set_elsewhere_are_counted_when_the_page_is_seen(train, tumor):
    mark_reviewed(tumor, 1)
    train.steps_page.show()
    train.steps_page.refresh()
    assert train.steps_page.mark_line.text().startswith("1 slice marked as right.")


def test_to_learn_from_too_few_slices_is_refused(train, tumor):
    mark_reviewed(tumor, 1)
    train.data.layers_page.refill()
    train.train_button.click()
    assert train.message.text()
    assert train._job is None
