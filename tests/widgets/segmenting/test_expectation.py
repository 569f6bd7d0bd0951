from __future__ import annotations

from typing import Any

import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtWidgets import QLabel

from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import layers_from_case
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.segmenting.expectation import Expectation, expected_range

ALL = ("T1", "T1ce", "T2", "FLAIR")


@pytest.fixture
def card() -> ModelCard:
    found = ModelStore().find("glioma-unet").card
    assert found is not None
    return found


@pytest.fixture
def expectation(qtbot: Any) -> Expectation:
    widget = Expectation()
    qtbot.addWidget(widget)
    return widget


def gray(expectation: Expectation) -> set[str]:
    return {label.text() for label in expectation.findChildren(QLabel) if not label.isEnabled()} - {""}


@pytest.mark.parametrize("used", [ALL, ("FLAIR",), ("T1ce",), ("T1", "T1ce"), ("T1", "T2")])
def test_each_region_has_the_dice_of_exactly_these_scans_for_each_kind_of_case_or_why_not(used, card, expectation):
    expectation.show_for(card, used)
    expected, missing = card.expected_dice(used), card.find_unmeasurable(used)
    assert list(expectation.texts) == [region.name for region in card.regions]
    for region, text in expectation.texts.items():
        if region in missing:
            assert text == missing[region]
            assert {region, text} <= gray(expectation)
        else:
            assert text == ", ".join(f"{metric.mean:.2f} {metric.kind}" for metric in expected[region])
            assert region not in gray(expectation)
    assert expectation.headline.text() == f"Expected Dice with {', '.join(used)}"


def test_a_glioblastoma_and_a_lower_grade_glioma_have_their_own_figures(card, expectation):
    expectation.show_for(card, ALL)
    assert "glioblastoma" in expectation.texts["whole tumor"]
    assert "lower-grade glioma" in expectation.texts["whole tumor"]
    assert "treated glioblastoma" in expectation.texts["enhancing tumor"]
    assert "without T1ce" not in " ".join(expectation.texts.values())


def test_what_was_not_measured_is_not_taken_from_elsewhere(expectation):
    metric = Metric(data="LGG", region="whole tumor", modalities=("FLAIR",), mean=0.8, n=3, held_out=True)
    card = ModelCard(name="a", architecture="unet", accepts_missing=True, metrics=(metric,))
    expectation.show_for(card, ("T1",))
    assert set(expectation.texts.values()) == {"not measured with these scans"}
    assert expected_range(card, ("T1",)) == ""
    assert expected_range(card, ("FLAIR",)) == "Dice 0.80"


def test_nothing_is_expected_without_scans_or_without_a_model(card, expectation):
    expectation.show_for(card, ALL)
    assert not expectation.isHidden()
    for nothing in ((card, ()), (None, ALL)):
        expectation.show_for(*nothing)
        assert expectation.isHidden()


def open_dock_with(qtbot: Any, volume: Volume) -> SegmentDock:
    viewer = ViewerModel()
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    assert dock.expectation.isHidden()
    dock.choose_model(ModelStore().find("glioma-unet").path)
    for layer in layers_from_case(volume):
        viewer.add_layer(Layer.create(*layer))
    return dock


def test_the_dock_expects_what_is_used_of_scans_with_the_skull(qtbot, volume):
    dock = open_dock_with(qtbot, volume)
    assert "T2 will be left out, because the model has never seen T2 with the skull." in dock.check_line.text()
    assert dock.expectation.headline.text() == "Expected Dice with T1, T1ce, FLAIR"
    dock.advanced.editors["skull"].value = "keep"
    assert "left out" not in dock.check_line.text()
    assert dock.expectation.headline.text() == "Expected Dice with T1, T1ce, T2, FLAIR"


def test_the_dock_expects_what_the_chosen_scans_allow(qtbot, make_volume, card):
    def whole_tumor(*modalities: str) -> list[float]:
        return sorted(metric.mean for metric in card.expected_dice(modalities)["whole tumor"])

    dock = open_dock_with(qtbot, make_volume(0)[0])
    assert "skull-stripped" in dock.check_line.text()
    least, most = whole_tumor(*ALL)
    assert f"Dice {least:.2f} to {most:.2f}" in dock.model_choice.box.currentText()
    slot = dock.slots["T1ce"]
    slot.setCurrentIndex(0)
    slot.activated.emit(0)
    assert dock.expectation.texts["enhancing tumor"] == "not measurable without T1ce"
    (only,) = whole_tumor("T1", "T2", "FLAIR")
    assert f"{only:.2f} glioblastoma" in dock.expectation.texts["whole tumor"]
    assert f"Dice {only:.2f}" in dock.model_choice.box.currentText()
