"""What the Train dock learns from when it is open layers: one case's scans and labels, never two cases mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.layers import layers_from_case, select_layers, update_or_add_labels
from napari_braintumor.widgets.segmenting import dock as segment_dock
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.training.dock import TrainDock


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def train(qtbot: Any, viewer: ViewerModel) -> TrainDock:
    dock = TrainDock(viewer)
    qtbot.addWidget(dock)
    return dock


def open_case(viewer: ViewerModel, volume: Any) -> dict[str, Layer]:
    layers = [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume)]
    return dict(zip(volume.modalities, layers, strict=True))


def add_result(viewer: ViewerModel, scans: dict[str, Layer], segmentation: Any) -> Labels:
    selection = select_layers(scans)
    path = ModelStore().find("glioma-unet").path
    return update_or_add_labels(
        viewer, segmentation, selection.placement, made_from=selection.made_from, model_path=path
    )


def paint(viewer: ViewerModel, scan: Layer, name: str = "mine") -> Labels:
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units}
    return viewer.add_labels(np.ones(scan.data.shape, np.uint8), name=name, **place)


def chosen(train: TrainDock) -> dict[str, Layer]:
    return {m: slot.layer for m, slot in train.data.layers_page.slots.items() if slot.layer is not None}


def pick(slot: Any, layer: Layer) -> None:
    slot.setCurrentIndex(slot.findText(layer.name))
    slot.activated.emit(slot.currentIndex())


def test_fine_tuning_takes_the_scans_and_the_model_that_drew_the_labels_whatever_is_chosen_now(
    qtbot, viewer, train, volume, synthetic_volume, segmentation, monkeypatch
):
    monkeypatch.setattr(segment_dock, "open_dock", lambda viewer, kind: train)
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    first = open_case(viewer, volume)
    used = {"T1ce": first["T1ce"], "FLAIR": first["FLAIR"]}
    tumor = add_result(viewer, used, segmentation)
    open_case(viewer, synthetic_volume(name="patient8"))
    dock.choose_model(ModelStore().find("glioma-res-unet").path)
    dock._fine_tune(tumor)
    assert chosen(train) == used
    assert train.data.layers_page.labels_layer is tumor
    assert train.model.parent_model.name == "glioma-unet"
    viewer.add_labels(np.zeros((6, 20, 16), np.uint8))  # and it stays so, whatever is opened next
    open_case(viewer, synthetic_volume(name="patient9"))
    assert chosen(train) == used
    assert train.data.layers_page.labels_layer is tumor
    assert train.data.layers_page.open_case().selection.name == "patient7"


def test_fine_tuning_is_refused_where_scans_of_the_labels_are_gone(qtbot, viewer, volume, segmentation):
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    scans = open_case(viewer, volume)
    tumor = add_result(viewer, scans, segmentation)
    viewer.layers.remove(scans["T2"])
    dock._fine_tune(tumor)
    assert "are no longer all open: T2 [patient7]" in dock.message.text()


def test_fine_tuning_of_a_model_that_is_gone_takes_no_other(train, viewer, volume, segmentation):
    scans = open_case(viewer, volume)
    tumor = add_result(viewer, scans, segmentation)
    train.prepare_fine_tuning(scans, tumor, Path("gone.safetensors"))
    assert train.model.parent_model is None
    assert "'gone', which drew these labels, is no longer among your models" in train.message.text()


def test_the_scans_follow_the_labels(train, viewer, volume, synthetic_volume, segmentation):
    first, second = open_case(viewer, volume), open_case(viewer, synthetic_volume(name="patient8"))
    tumor = add_result(viewer, first, segmentation)
    assert chosen(train) == first
    known = {"braintumor": {"case": "patient8", "role": "reference"}}
    other = viewer.add_labels(np.ones((6, 20, 16), np.uint8), name="Reference [patient8]", metadata=known)
    pick(train.data.layers_page.labels_slot, other)
    assert chosen(train) == second
    pick(train.data.layers_page.labels_slot, tumor)
    assert chosen(train) == first


def test_labels_of_one_case_are_not_learned_from_with_the_scans_of_another(
    train, viewer, volume, synthetic_volume, segmentation
):
    first, second = open_case(viewer, volume), open_case(viewer, synthetic_volume(name="patient8"))
    add_result(viewer, first, segmentation)
    pick(train.data.layers_page.slots["FLAIR"], second["FLAIR"])
    with pytest.raises(DataError, match="belong to the scans of case 'patient7', not to those of 'patient8'"):
        train.data.layers_page.open_case()
    train.data.layers_page.keep_button.click()
    assert "belong to the scans of case" in train.message.text()


def test_painted_labels_are_named_after_the_scans_that_they_lie_on(train, viewer, volume):
    paint(viewer, open_case(viewer, volume)["T1"])
    assert train.data.layers_page.open_case().selection.name == "patient7"


def test_of_painted_labels_that_lie_on_two_cases_the_user_says_whose_they_are(train, viewer, volume, synthetic_volume):
    first = open_case(viewer, volume)
    open_case(viewer, synthetic_volume(name="patient8"))
    paint(viewer, first["T1"])
    with pytest.raises(DataError, match="'mine' do not say whose they are, and lie on the scans of 'patient7' and"):
        train.data.layers_page.open_case()
    pick(train.data.layers_page.slots["T1"], first["T1"])
    assert chosen(train) == first
    assert train.data.layers_page.open_case().selection.name == "patient7"
