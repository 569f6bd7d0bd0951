from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtWidgets import QApplication, QFileDialog

from dicom import affine_of, write_series
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import (
    KEY,
    Selection,
    figures_of,
    mark_reviewed,
    reviewed_slices,
    select_layers,
    update_or_add_labels,
)
from napari_braintumor.layers import figures as figures_module
from napari_braintumor.widgets.shared.result_card import ResultCard, in_ranges
from napari_braintumor.widgets.shared.save_form import SaveForm
from open_layers import open_case
from saving import save_to, wait_for_saving
from trusting import TRUST, TRUST_IN_WORDS

VOXEL_ML = 4.5e-3


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def card(qtbot: Any, viewer: ViewerModel) -> ResultCard:
    card = ResultCard(viewer)
    qtbot.addWidget(card)
    return card


def add_result(
    viewer: ViewerModel, segmentation: Segmentation, volume: Volume, by: str | None = None, **more: Any
) -> tuple[Selection, Labels]:
    selection = select_layers(open_case(viewer, volume))
    layer = update_or_add_labels(viewer, segmentation, selection.placement, by, made_from=selection.made_from, **more)
    return selection, layer


def test_the_card_says_how_far_the_model_s_answer_can_be_trusted_if_that_is_known(card, viewer, segmentation, volume):
    add_result(viewer, segmentation, volume)
    assert not card.trust_line.isVisibleTo(card)
    provenance = {**segmentation.provenance, "trust": TRUST}
    add_result(viewer, replace(segmentation, name="second", provenance=provenance), volume)
    assert card.trust_line.text() == TRUST_IN_WORDS
    assert card.trust_line.isVisibleTo(card)


def rows(card: ResultCard) -> dict[str, str]:
    """What the card's rows say; regions come after labels, so theirs win."""
    return {key.split(" ", 1)[1]: label.text() for key, label in card._values.items()}


def expected(layer: Labels) -> dict[str, str]:
    """The same, counted from the layer plainly."""
    data = np.asarray(layer.data)
    values = {
        "necrotic / non-enhancing core": data == 1, "edema": data == 2,
        "whole tumor": np.isin(data, (1, 2, 3)), "tumor core": np.isin(data, (1, 3)), "enhancing tumor": data == 3,
    }  # fmt: skip
    values |= {f"label {n}": data == n for n in np.unique(data) if n > 3}
    return {name: f"{mask.sum() * VOXEL_ML:.1f} mL" for name, mask in values.items()}


def test_the_card_says_what_is_counted_from_the_layer_after_every_edit(card, viewer, volume, segmentation):
    _, layer = add_result(viewer, segmentation, volume)
    assert not card.isHidden()
    layer.brush_size = 8
    steps: list[Callable[[], Any]] = [
        lambda: layer.paint((3, 10, 10), 3),
        lambda: layer.paint((4, 10, 10), 4),
        lambda: layer.fill((0, 4, 3), 1),
        lambda: layer.paint((0, 0, 0), 0),
        layer.undo,
        layer.undo,
        layer.redo,
        lambda: layer.data_setitem(np.nonzero(layer.data == 2), 3),
        lambda: layer.paint_polygon([(5, 2, 2), (5, 2, 12), (5, 14, 7)], 2),
        lambda: setattr(layer, "data", np.roll(layer.data, 3, axis=2)),
        lambda: setattr(layer, "data", np.zeros_like(layer.data)),
    ]
    assert rows(card) == expected(layer)
    for step in steps:
        step()
        assert rows(card) == expected(layer)
    assert card.headline.text() == "No tumor found [patient7]."


def test_model_and_hand_are_held_against_each_other(card, viewer, volume, segmentation):
    _, layer = add_result(viewer, segmentation, volume)
    assert card.hand_line.isHidden()
    layer.brush_size = 12
    for z in (3, 4, 5):
        layer.paint((z, 10, 8), 2)
    now = (layer.data > 0).sum() * VOXEL_ML
    model = segmentation.volumes_ml["whole tumor"]
    assert card.hand_line.text() == (
        f"whole tumor: {now:.1f} mL; model {model:.1f}, by hand {now - model:+.1f}\nSlices edited by hand: 3-5."
    )
    for _ in range(3):
        layer.undo()
    assert card.hand_line.isHidden()


def test_consecutive_slices_are_written_as_ranges():
    assert in_ranges((1, 2, 3, 7, 9, 10)) == "1-3, 7, 9-10"


def test_the_record_that_is_copied_and_the_one_that_is_saved_are_those_of_the_labels_now(
    qtbot, card, viewer, volume, segmentation, tmp_path
):
    _, layer = add_result(viewer, segmentation, volume, model_path=Path("m.safetensors"))
    layer.paint((5, 10, 10), 4)
    mark_reviewed(layer, 5)
    layer.data[4, :2, :2] = 1  # without an event
    card.copy_button.click()
    copied = json.loads(QApplication.clipboard().text())
    save_to(qtbot, card, tmp_path / "out.nii.gz")
    saved = json.loads((tmp_path / "out.json").read_text())
    assert {k: v for k, v in saved.items() if k not in ("labels_file", "work")} == copied
    assert set(saved["work"]["model_slices"]) == {"4", "5"}  # what lay under the edits is kept beside the labels alone
    assert saved["labels_file"] == "out.nii.gz"
    assert copied["volumes_ml"]["whole tumor"] == pytest.approx(
        np.isin(layer.data, (1, 2, 3)).sum() * VOXEL_ML, abs=1e-3
    )
    assert copied["model_volumes_ml"]["whole tumor"] == pytest.approx(segmentation.volumes_ml["whole tumor"], abs=1e-3)
    assert copied["edited_slices_z"] == [4, 5]
    assert copied["reviewed_slices_z"] == [5]
    assert copied["labels"]["4"] == "label 4"
    assert copied["model"] == "fake"


def test_a_file_of_the_records_name_that_is_another_programs_stays(qtbot, card, viewer, volume, segmentation, tmp_path):
    add_result(viewer, segmentation, volume)
    (tmp_path / "out.json").write_text('{"RepetitionTime": 2}')
    messages: list[str] = []
    card.reported.connect(messages.append)
    for _ in range(2):
        save_to(qtbot, card, tmp_path / "out.nii.gz")
    assert json.loads((tmp_path / "out.json").read_text()) == {"RepetitionTime": 2}
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["out.json", "out_2.json"]
    assert messages[-1] == f"Saved {tmp_path / 'out.nii.gz'}, {tmp_path / 'out_2.json'}."


def test_the_card_follows_the_selected_result(
    card, viewer, volume, segmentation, synthetic_volume, synthetic_segmentation
):
    _, first = add_result(viewer, segmentation, volume, notes=["A note on patient 7."])
    other = synthetic_volume(name="patient8")
    empty = replace(synthetic_segmentation(other), labels=np.zeros(other.shape, np.uint8))
    _, second = add_result(viewer, empty, other)
    assert card.layer is second
    assert card.headline.text() == "No tumor found [patient8]."
    assert card.notes_line.isHidden()
    viewer.layers.selection.active = first
    assert card.headline.text() == "Tumor [patient7]."
    assert card.notes_line.text() == "A note on patient 7."
    viewer.layers.selection.active = viewer.layers[0]
    assert card.layer is first  # the last one
    first.name = "renamed"
    assert card.headline.text() == "Tumor [patient7]."
    viewer.layers.remove(first)
    assert card.isHidden()
    assert rows(card) == {}
    assert card.notes_line.text() == ""
    viewer.layers.append(first)
    assert card.layer is first
    assert rows(card) == expected(first)


def test_no_figures_of_another_case_stay_when_work_goes_on_with_the_next(
    card, viewer, volume, segmentation, synthetic_volume
):
    one, first = add_result(viewer, segmentation, volume)
    card.work_on(one)
    assert card.layer is first
    two = select_layers(open_case(viewer, synthetic_volume()))  # another patient of the same name and grid
    card.work_on(two)
    assert card.isHidden()
    card.work_on(one)
    assert card.layer is first


def test_of_two_models_the_card_shows_the_one_that_is_selected(card, viewer, volume, segmentation):
    selection, first = add_result(viewer, segmentation, volume, "one")
    nothing = replace(segmentation, labels=np.zeros(volume.shape, np.uint8))
    second = update_or_add_labels(viewer, nothing, selection.placement, "two", made_from=selection.made_from)
    assert (card.layer, card.headline.text()) == (second, "No tumor found [patient7] by two.")
    viewer.layers.selection.active = first
    assert card.headline.text() == "Tumor [patient7] by one."
    second.paint((0, 0, 0), 1)
    assert rows(card) == expected(first)
    viewer.layers.remove(first)
    assert card.layer is not first


def test_a_reference_is_not_a_result(card, viewer, volume):
    layer = viewer.add_labels(np.ones(volume.shape, int), metadata={KEY: {"case": "patient7", "role": "reference"}})
    assert viewer.layers.selection.active == layer
    assert card.isHidden()


def test_kept_slices_are_reported_and_can_be_replaced_too(card, viewer, volume, segmentation):
    selection, layer = add_result(viewer, segmentation, volume)
    for z in range(5):
        mark_reviewed(layer, z)
    layer.paint((5, 10, 10), 1)
    other = replace(segmentation, labels=np.full(volume.shape, 2, np.uint8))
    update_or_add_labels(viewer, other, selection.placement, made_from=selection.made_from)
    assert card.kept_line.text().startswith("6 reviewed slices kept")
    assert not card.replace_button.isHidden()
    assert rows(card) == expected(layer)
    card.replace_button.click()
    assert card.kept_line.isHidden()
    assert card.replace_button.isHidden()
    np.testing.assert_array_equal(layer.data, other.labels)
    assert rows(card) == expected(layer)
    assert reviewed_slices(layer) == ()
    layer.undo()
    assert rows(card) == expected(layer)


def test_while_a_region_is_shown_the_card_says_why_the_brush_is_locked(card, viewer, volume, segmentation):
    _, layer = add_result(viewer, segmentation, volume)
    layer.mode = "paint"
    assert card.lock_line.isHidden()
    card.show_box.setCurrentText("Show whole tumor")
    assert "brush is locked while whole tumor is shown" in card.lock_line.text()
    assert str(layer.mode) == "pan_zoom"
    layer.mode = "paint"
    assert str(layer.mode) == "pan_zoom"
    layer.undo()
    layer.data_setitem(tuple(np.array([[5], [5], [5]])), 1)
    assert card.show_box.currentText() == "Show labels"
    assert card.lock_line.isHidden()


def test_each_layer_keeps_how_it_is_shown(card, viewer, volume, segmentation):
    selection, first = add_result(viewer, segmentation, volume, "one")
    card.show_box.setCurrentText("Show tumor core")
    second = update_or_add_labels(viewer, segmentation, selection.placement, "two", made_from=selection.made_from)
    assert card.show_box.currentText() == "Show labels"
    viewer.layers.selection.active = first
    assert card.show_box.currentText() == "Show tumor core"
    assert second.colormap.map(2)[3] == 1


def test_regions_that_the_scans_cannot_show_say_so(card, viewer, volume, segmentation):
    without = replace(
        segmentation,
        labels=np.where(segmentation.labels == 3, 1, segmentation.labels).astype(np.uint8),
        not_measurable={"enhancing tumor": "not measurable without T1ce"},
    )
    add_result(viewer, without, volume)
    assert rows(card)["enhancing tumor"] == "not measurable without T1ce"
    assert [card.show_box.itemText(i) for i in range(card.show_box.count())] == [
        "Show labels", "Show whole tumor", "Show tumor core",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["array", "zarr"])
def test_a_large_layer_is_counted_bit_by_bit_and_the_card_says_so(
    qtbot, card, viewer, volume, segmentation, monkeypatch, kind
):
    monkeypatch.setattr(figures_module, "AT_ONCE_VOXELS", 10)
    labels: Any = segmentation.labels
    if kind == "zarr":
        labels = zarr.create_array(zarr.storage.MemoryStore(), data=labels, chunks=(1, 20, 16))
    _, layer = add_result(viewer, replace(segmentation, labels=labels), volume)
    new = np.full(volume.shape, 3, np.uint8)
    layer.data = zarr.array(new, chunks=(1, 20, 16)) if kind == "zarr" else new
    assert "Counting…" in card.headline.text()
    qtbot.waitUntil(lambda: figures_of(layer).complete, timeout=5000)
    qtbot.waitUntil(lambda: "Counting" not in card.headline.text(), timeout=1000)
    assert rows(card) == expected(layer)


def test_a_card_that_is_gone_no_longer_listens(qtbot, viewer, volume, segmentation):
    card = ResultCard(viewer)
    _, layer = add_result(viewer, segmentation, volume)
    card.deleteLater()
    qtbot.wait(10)
    layer.paint((5, 10, 10), 1)
    viewer.layers.selection.active = viewer.layers[0]
    viewer.layers.remove(layer)


def test_a_card_that_is_opened_later_finds_the_result(qtbot, viewer, volume, segmentation):
    _, layer = add_result(viewer, segmentation, volume)
    layer.paint((5, 10, 10), 1)
    viewer.add_layer(Layer.create(np.zeros((2, 2)), {}, "image"))
    card = ResultCard(viewer)
    qtbot.addWidget(card)
    assert card.layer is layer
    assert rows(card) == expected(layer)


@pytest.mark.parametrize("also", [(), ("report",), ("report", "rtstruct")])
def test_a_scan_from_dicom_is_saved_as_the_form_says(
    also, qtbot, card, viewer, synthetic_segmentation, tmp_path, monkeypatch
):
    shape = (6, 20, 16)
    write_series(tmp_path / "scan", np.ones(shape), affine_of(shape=shape))
    data, grid = read_series(sorted((tmp_path / "scan").iterdir()))
    volume = Volume(data[None].astype(np.float32), ("T1",), grid, "case")
    add_result(viewer, synthetic_segmentation(volume), volume)
    (tmp_path / "out").mkdir()
    proposed: list[str] = []

    def choose(_: Any, __: str, name: str, kinds: str) -> tuple[str, str]:
        proposed.append(name)
        return str(tmp_path / "out" / "mine"), kinds

    def fill(form: SaveForm) -> int:
        form.format_box.setCurrentText("DICOM segmentation")
        for extra in also:
            form.extra_boxes[extra].setChecked(True)
        form.save_button.click()
        return form.result()

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    monkeypatch.setattr(SaveForm, "exec", fill)
    card.save_button.click()
    wait_for_saving(qtbot, card)
    assert proposed == [str(tmp_path / "scan" / "case_tumor.dcm")]
    names = ["mine.dcm", "mine.json", *(f"mine_{extra}.dcm" for extra in also)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_measurements_in_dicom_need_a_scan_from_dicom(qtbot, card, viewer, volume, segmentation, tmp_path):
    add_result(viewer, segmentation, volume)
    messages: list[str] = []
    card.failed.connect(lambda failure, before: messages.append(f"{before}{failure.text}"))
    save_to(qtbot, card, tmp_path / "out.dcm", ("report",))
    assert messages[0].startswith("Not saved: The labels do not belong to a DICOM image")
    assert not list(tmp_path.iterdir())


def test_nothing_is_saved_if_the_form_is_closed(card, viewer, volume, segmentation, tmp_path, monkeypatch):
    add_result(viewer, segmentation, volume)
    messages: list[str] = []
    card.reported.connect(messages.append)
    monkeypatch.setattr(SaveForm, "exec", lambda _: 0)
    card.save_button.click()
    assert messages == []
