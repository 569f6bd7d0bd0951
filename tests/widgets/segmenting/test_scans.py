from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_braintumor.layers import layers_from_case
from napari_braintumor.widgets.segmenting.scans import ALL_LAYERS, ScansForm
from napari_braintumor.widgets.shared.parts import EndingCombo, LayerSlot


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def scans(qtbot: Any, viewer: ViewerModel) -> ScansForm:
    form = ScansForm(viewer)
    form.use_modalities(("T1", "T1ce", "T2", "FLAIR"))
    qtbot.addWidget(form)
    qtbot.addWidget(form.case_bar)
    return form


def open_case(viewer: ViewerModel, volume: Any) -> list[Layer]:
    return [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume)]


def choose(scans: ScansForm, name: str) -> None:
    """Choose as the mouse does."""
    box = scans.case_bar.box
    box.setCurrentIndex(box.findText(name))
    box.activated.emit(box.currentIndex())


def listed(scans: ScansForm) -> list[str]:
    return [scans.case_bar.box.itemText(i) for i in range(scans.case_bar.box.count())]


def test_the_case_of_the_scans_that_were_opened_last_is_in_work(scans, viewer, volume, synthetic_volume):
    assert scans.case_bar.isHidden()
    open_case(viewer, volume)
    assert listed(scans) == ["patient7"]
    assert scans.case_bar.only_box.isHidden()
    second = open_case(viewer, synthetic_volume(name="patient8"))
    assert listed(scans) == ["patient7", "patient8", ALL_LAYERS]
    assert scans.case_bar.box.currentText() == "patient8"
    assert list(scans.chosen.values()) == second


def test_only_scans_of_the_case_in_work_are_offered(scans, viewer, volume, synthetic_volume):
    first = open_case(viewer, volume)
    second = open_case(viewer, synthetic_volume(("T1", "FLAIR"), name="patient8"))
    viewer.add_image(np.zeros((6, 20, 16)), name="unnamed")
    for name, case in (("patient7", first), ("patient8", second)):
        choose(scans, name)
        assert list(scans.chosen.values()) == case
        offered = {scans.slots["T1"].itemText(i) for i in range(scans.slots["T1"].count())}
        assert offered == {"none", "unnamed", *(layer.name for layer in case)}


def test_the_case_in_work_stays_while_other_layers_come_and_go(scans, viewer, volume, synthetic_volume):
    first, second = open_case(viewer, volume), open_case(viewer, synthetic_volume(name="patient8"))
    choose(scans, "patient7")
    viewer.layers.move(0, len(viewer.layers))
    viewer.add_labels(np.zeros((6, 20, 16), np.uint8))
    viewer.layers.remove(second[0])
    assert list(scans.chosen.values()) == first
    for layer in first:
        viewer.layers.remove(layer)
    assert list(scans.chosen.values()) == second[1:]
    viewer.layers.clear()
    assert scans.chosen == {}
    assert scans.case_bar.isHidden()


def test_scans_of_cases_whose_names_differ_are_put_together_only_by_hand_and_this_is_noted(scans, viewer):
    anna = viewer.add_image(np.zeros((3, 4, 5)), name="anna_t1")
    bert = viewer.add_image(np.ones((3, 4, 5)), name="bert_flair")
    assert scans.chosen == {"FLAIR": bert}
    choose(scans, ALL_LAYERS)
    slot = scans.slots["T1"]
    slot.setCurrentIndex(slot.findText("anna_t1"))
    slot.activated.emit(slot.currentIndex())
    assert scans.chosen == {"T1": anna, "FLAIR": bert}
    assert "The names say that these are scans of different cases: T1 of 'anna', FLAIR of 'bert'." in scans.remarks


def test_the_other_case_is_hidden_and_comes_back_as_it_was(scans, viewer, volume, synthetic_volume):
    first = open_case(viewer, volume)
    first[0].visible = True  # besides FLAIR
    before = [layer.visible for layer in first]
    second = open_case(viewer, synthetic_volume(name="patient8"))
    shown = [layer.visible for layer in second]
    assert not any(layer.visible for layer in first)
    assert shown == [False, False, False, True]
    choose(scans, "patient7")
    assert [layer.visible for layer in first] == before
    assert not any(layer.visible for layer in second)
    scans.case_bar.only_box.setChecked(False)
    assert [layer.visible for layer in (*first, *second)] == [*before, *shown]


def test_what_the_user_shows_stays_shown_until_the_case_changes(scans, viewer, volume, synthetic_volume):
    first, second = open_case(viewer, volume), open_case(viewer, synthetic_volume(name="patient8"))
    first[-1].visible = True
    viewer.add_labels(np.zeros((6, 20, 16), np.uint8))
    second[0].name = "renamed"
    assert first[-1].visible


def test_a_result_of_another_case_does_not_cover_the_case_in_work(
    scans, viewer, volume, synthetic_volume, segmentation
):
    from napari_braintumor.layers import select_layers, update_or_add_labels

    first = open_case(viewer, volume)
    selection = select_layers(dict(zip(volume.modalities, first, strict=True)))
    open_case(viewer, synthetic_volume(name="patient8"))
    tumor = update_or_add_labels(viewer, segmentation, selection.placement, made_from=selection.made_from)
    assert not tumor.visible
    choose(scans, "patient7")
    assert tumor.visible


@pytest.mark.parametrize("kind", [EndingCombo, LayerSlot])
def test_of_a_long_name_the_end_is_shown_and_all_of_it_in_the_tooltip(kind, qtbot, viewer):
    names = [f"FLAIR [a-hospital-with-a-very-long-name-patient-0017-visit-{n}]" for n in (1, 2)]
    box = kind()
    qtbot.addWidget(box)
    if isinstance(box, LayerSlot):
        layers = [viewer.add_image(np.zeros((3, 4, 5)), name=name) for name in names]
        box.offer(layers, layers[1])
        assert names[1] in box.toolTip()
    else:
        box.list_names(names, 1)
    box.resize(150, 24)
    assert box.shown_text().endswith("visit-2]")
    assert box.shown_text() != names[1]
    assert box.currentText() == names[1]
    box.resize(900, 24)
    assert box.shown_text() == names[1]
