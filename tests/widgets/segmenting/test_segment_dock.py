from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication, QCheckBox, QComboBox, QLabel, QPushButton

from napari_braintumor import engine
from napari_braintumor.engine.errors import DataError, ModelError
from napari_braintumor.engine.events import Noted, Segmented, SegmentEvent, SlicesDone, Started
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Segmentation, Volume
from napari_braintumor.layers import layers_from_case, mark_reviewed
from napari_braintumor.readers import read_layers
from napari_braintumor.widgets.segmenting.dock import ADVANCED, SegmentDock
from saving import save_to

CARD = ModelCard(
    name=DEFAULT_MODEL, title="Glioma U-Net", architecture="unet", accepts_missing=True, license="CC BY-NC-SA 4.0",
    metrics=(Metric(data="LGG", region="whole tumor", modalities=("FLAIR",), mean=0.84, n=10, held_out=True),),
)  # fmt: skip


class FakeEngine:
    """Stands in for `engine.segment`: gives what the test wants, slice by slice, when the test lets it."""

    def __init__(self, make_result: Callable[[Volume], Segmentation]) -> None:
        self.make_result = make_result
        self.calls: list[tuple[Volume, SegmentConfig]] = []
        self.threads: list[threading.Thread] = []
        self.error: Exception | None = None
        self.notes: tuple[str, ...] = ()
        self.slices = 3
        self.made = 0
        self.wait = False
        self.go_on = threading.Event()

    def __call__(self, volume: Volume, config: SegmentConfig) -> Iterator[SegmentEvent]:
        self.calls.append((volume, config))
        self.threads.append(threading.current_thread())
        for note in self.notes:
            yield Noted(note)
        yield Started("CPU, 2 cores", "torch")
        for done in range(1, self.slices + 1):
            yield SlicesDone(done, self.slices, {0: self.make_result(volume).labels[0]})
            if self.wait and done == 1:
                assert self.go_on.wait(20)
        if self.error:
            raise self.error
        self.made += 1
        yield Segmented(self.make_result(volume))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, synthetic_segmentation: Any) -> Iterator[FakeEngine]:
    fake = FakeEngine(synthetic_segmentation)
    monkeypatch.setattr(engine, "segment", fake)
    yield fake
    fake.go_on.set()


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[StoredModel]:
    models = [StoredModel(DEFAULT_MODEL, Path("glioma-unet.safetensors"), CARD)]
    monkeypatch.setattr(ModelStore, "list", lambda self: list(models))
    return models


@pytest.fixture
def viewer() -> ViewerModel:
    notification_manager.records.clear()
    return ViewerModel()


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel, models: list[StoredModel], fake: FakeEngine) -> SegmentDock:
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    return dock


def open_case(viewer: ViewerModel, volume: Volume) -> list[Layer]:
    return [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume)]


def pick(dock: SegmentDock, modality: str, name: str) -> None:
    """Choose as the mouse does."""
    slot = dock.slots[modality]
    slot.setCurrentIndex(slot.findText(name))
    slot.activated.emit(slot.currentIndex())


def finish(qtbot: Any, dock: SegmentDock) -> None:
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=10000)


def run(qtbot: Any, dock: SegmentDock) -> None:
    dock.segment_button.click()
    finish(qtbot, dock)


@pytest.mark.parametrize("ends", ["done", "canceled", "failed"])
def test_labels_appear_while_slices_are_done_and_make_way_for_the_result(qtbot, dock, viewer, volume, fake, ends):
    open_case(viewer, volume)
    fake.wait = True
    fake.error = DataError("It broke. Try again.") if ends == "failed" else None
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.so_far.layer is not None, timeout=10000)
    assert dock.so_far.layer.name == "So far [patient7]"
    assert dock.so_far.layer.data[0].any()
    if ends == "canceled":
        dock.footer.cancel()
    fake.go_on.set()
    finish(qtbot, dock)
    names = [layer.name for layer in viewer.layers]
    assert "So far [patient7]" not in names
    assert ("Tumor [patient7]" in names) == (ends == "done")


# --------------------------------------------------------------------------------------------------------- filling


def test_slots_fill_from_the_open_layers(dock, viewer, volume):
    assert not dock.segment_button.isEnabled()
    assert dock.check_line.text().startswith("Not ready: No image is chosen")
    open_case(viewer, volume)
    assert [slot.currentText() for slot in dock.slots.values()] == [f"{m} [patient7]" for m in volume.modalities]
    assert dock.segment_button.isEnabled()
    assert dock.check_line.text() == (
        "Ready: patient7, T1, T1ce, T2, FLAIR, 6 x 20 x 16, voxels of 3 x 1.5 x 1 mm, with skull."
    )


def test_a_scan_that_does_not_overlap_the_others_is_reported(dock, viewer, volume):
    data = volume.data.copy()
    data[:, :, :, :8] = 0
    data[2] = data[2, :, :, ::-1]
    open_case(viewer, replace(volume, data=data))
    assert "The heads in T1 and T2 overlap by only 0%" in dock.check_line.text()
    assert dock.segment_button.isEnabled()


def test_before_the_first_run_the_card_shows_about_how_long_it_takes(dock, viewer, models, volume):
    open_case(viewer, volume)
    assert dock.device_line.text() == "Device: CPU or CUDA, found at the first run"
    models[0] = replace(models[0], card=CARD.model_copy(update={"cpu_seconds_per_slice": 2.0}))
    dock.reload_models()
    assert dock.device_line.text().endswith("on a CPU with two cores about 12 s")


def test_the_runtime_is_loaded_once_when_the_dock_is_first_seen_and_not_before(
    qtbot, viewer, models, monkeypatch
) -> None:
    warmed: list[tuple[str, threading.Thread]] = []

    def warm_up(config: SegmentConfig) -> None:
        warmed.append((config.model, threading.current_thread()))
        raise RuntimeError("Nobody waits for this, so nobody is notified.")

    monkeypatch.setattr(engine, "warm_up", warm_up)
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    qtbot.wait(20)
    assert not warmed
    for _ in range(2):
        dock.show()
        qtbot.waitUntil(lambda: bool(warmed), timeout=5000)
        dock.hide()
    qtbot.wait(50)
    ((model, thread),) = warmed
    assert model == DEFAULT_MODEL
    assert thread is not threading.main_thread()


def test_a_region_can_be_shown_in_place_of_labels_without_changing_them(dock, viewer, volume, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    layer = viewer.layers["Tumor [patient7]"]
    before = layer.data.copy()
    dock.result_card.show_box.setCurrentText("Show tumor core")
    colors = {label: tuple(layer.colormap.map(label)) for label in (1, 2, 3)}
    assert colors[1] == colors[3]
    assert colors[2][3] == 0  # edema is no core, so it is transparent
    dock.result_card.show_box.setCurrentText("Show labels")
    assert len({tuple(layer.colormap.map(label)) for label in (1, 2, 3)}) == 3
    np.testing.assert_array_equal(layer.data, before)


def test_layers_that_were_open_before_the_dock_are_found(qtbot, viewer, models, volume):
    open_case(viewer, volume)
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    assert list(dock.chosen) == list(volume.modalities)


def test_slots_follow_layers_that_are_renamed_or_removed(dock, viewer, volume):
    layers = open_case(viewer, volume)
    layers[1].name = "after gadolinium"
    assert dock.slots["T1ce"].currentText() == "after gadolinium"
    viewer.layers.remove(layers[1])
    assert dock.slots["T1ce"].layer is None
    viewer.layers.clear()
    assert dock.chosen == {}
    assert not dock.segment_button.isEnabled()


def test_a_layer_opened_later_is_watched_for_its_name(dock, viewer, volume):
    image = viewer.add_image(volume.data[0], name="t1")
    assert dock.slots["T1"].layer == image
    image.name = "t2"
    assert dock.slots["T1"].layer is None
    assert dock.slots["T2"].layer == image


def test_a_slot_set_to_none_stays_none(dock, viewer, volume):
    open_case(viewer, volume)
    pick(dock, "T2", "none")
    viewer.add_image(np.zeros((4, 4)), name="other")
    assert list(dock.chosen) == ["T1", "T1ce", "FLAIR"]
    dock.scans.autofill_button.click()
    assert list(dock.chosen) == ["T1", "T1ce", "T2", "FLAIR"]


def test_a_layer_chosen_by_hand_leaves_its_own_slot(dock, viewer, volume):
    open_case(viewer, volume)
    pick(dock, "T1", "T2 [patient7]")
    assert dock.slots["T2"].layer is None
    assert dock.segment_button.isEnabled()


def test_one_unnamed_image_is_asked_for_with_a_guess(dock, viewer, volume, qtbot, fake):
    image = viewer.add_image(volume.data[0], name="scan")
    assert not dock.scans.guess_row.isHidden()
    assert dock.scans.guess_label.text() == "Which modality is 'scan'?"
    assert dock.chosen == {"FLAIR": image}
    assert dock.check_line.text().endswith("Taken as FLAIR: change it above if it is not.")
    dock.scans.guess_box.setCurrentText("T1ce")
    dock.scans.guess_box.activated.emit(1)
    assert dock.chosen == {"T1ce": image}
    run(qtbot, dock)
    assert fake.calls[0][0].modalities == ("T1ce",)
    assert "Tumor [scan]" in viewer.layers


def test_unnamed_files_that_are_opened_beside_a_case_are_offered_and_nothing_breaks(
    dock, viewer, volume, tmp_path, qtbot
):
    for name in ("scan", "other"):
        nib.save(nib.Nifti1Image(volume.data[0], volume.source.affine_ZYX), tmp_path / f"{name}.nii.gz")
    (one,) = [viewer.add_layer(Layer.create(*data)) for data in read_layers(tmp_path / "scan.nii.gz")]
    assert dock.chosen == {"FLAIR": one}  # asked for, with a guess
    open_case(viewer, volume)
    assert set(dock.chosen) == set(volume.modalities)
    (two,) = [viewer.add_layer(Layer.create(*data)) for data in read_layers(tmp_path / "other.nii.gz")]
    assert dock.chosen == {"FLAIR": two}  # what was opened last is in work
    assert dock.scans.guess_label.text() == "Which modality is 'other'?"


def test_a_color_picture_is_called_one(dock, viewer):
    viewer.add_image(np.zeros((8, 8, 3), np.uint8), name="p_t1", rgb=True)
    assert "Layer 'p_t1' is a color picture. A gray scan is needed." in dock.check_line.text()


def test_the_assumed_orientation_of_arrays_is_shown(dock, viewer, volume):
    open_case(viewer, volume)
    assert "Taken as shown" not in dock.check_line.text()
    viewer.layers.clear()
    viewer.add_image(volume.data[0], name="p_flair")
    assert "the slider runs from foot to head" in dock.check_line.text()


def test_a_flat_image_is_not_asked_for(dock, viewer):
    viewer.add_image(np.zeros((8, 8)), name="photo")
    assert dock.scans.guess_row.isHidden()
    assert not dock.segment_button.isEnabled()


def test_the_reason_is_reported_where_layers_do_not_fit(dock, viewer, volume):
    for modality, image in zip(volume.modalities, volume.data, strict=True):
        viewer.add_image(image, name=f"patient7_{modality}", translate=(0, 0, 7 * (modality == "T2")))
    assert "lie up to 7 mm apart" in dock.check_line.text()
    assert not dock.segment_button.isEnabled()
    assert dock.segment_button.toolTip() in dock.check_line.text()


def test_an_unknown_voxel_size_is_reported(dock, viewer, synthetic_volume):
    open_case(viewer, synthetic_volume(source=default_grid((6, 20, 16), spacing_known=False)))
    assert "voxel size unknown, so mL are a guess" in dock.check_line.text()


# ---------------------------------------------------------------------------------------------------------- models


def test_the_model_is_described_by_its_card(dock):
    assert dock.model_choice.box.currentText() == "Glioma U-Net · Dice 0.84"
    assert dock.model_choice.card_line.text() == (
        "U-Net · T1, T1ce, T2, FLAIR or any of them · whole tumor, tumor core, enhancing tumor · CC BY-NC-SA 4.0"
    )


def test_each_model_shows_its_dice_and_how_long_it_would_take(dock, viewer, models, volume):
    slow = CARD.model_copy(update={"title": "Slow", "cpu_seconds_per_slice": 20.0, "metrics": ()})
    models.append(StoredModel("slow", Path("slow.safetensors"), slow))
    dock.reload_models()
    assert [dock.model_choice.box.itemText(i) for i in range(2)] == ["Glioma U-Net · Dice 0.84", "Slow · not validated"]
    open_case(viewer, volume)
    assert dock.model_choice.box.itemText(1) == "Slow · not validated · 2 min on a CPU"


def test_the_card_opens_and_follows_the_chosen_model(dock, models):
    other = CARD.model_copy(update={"title": "Other", "limitations": "Misses small tumors."})
    models.append(StoredModel("other", Path("other.safetensors"), other))
    dock.reload_models()
    assert dock.model_choice.card_view.toPlainText() == ""  # it is read only when it is opened
    dock.model_choice.card_view.part.toggleButton().click()
    assert "U-Net, 0 parameters" in dock.model_choice.card_view.toPlainText()
    dock.model_choice.box.setCurrentIndex(1)
    assert "Misses small tumors." in dock.model_choice.card_view.toPlainText()


def test_modalities_that_the_model_does_not_use_are_switched_off(dock, viewer, models, volume):
    open_case(viewer, volume)
    models[0] = replace(models[0], card=CARD.model_copy(update={"modalities": ("FLAIR", "DWI")}))
    dock.reload_models()
    assert [m for m, slot in dock.slots.items() if slot.isEnabled()] == ["FLAIR", "DWI"]
    assert list(dock.chosen) == ["FLAIR"]
    assert dock.slots["T1"].toolTip() == "This model does not use T1"


def test_a_model_that_needs_all_modalities_says_which_one_is_missing(dock, viewer, models, synthetic_volume):
    models[0] = replace(models[0], card=CARD.model_copy(update={"accepts_missing": False}))
    dock.reload_models()
    open_case(viewer, synthetic_volume(("T1", "FLAIR")))
    assert dock.check_line.text().startswith("Not ready: T1ce, T2 is missing. This model needs T1, T1ce, T2, FLAIR.")


def test_without_a_model_nothing_can_be_segmented(dock, viewer, models, volume):
    models.clear()
    dock.reload_models()
    open_case(viewer, volume)
    assert dock.check_line.text() == "Not ready: no model is installed."
    assert not dock.segment_button.isEnabled()


def test_a_damaged_model_is_listed_with_its_problem(dock, viewer, models, volume):
    models[:] = [StoredModel("broken", Path("b.safetensors"), None, problem="'b' is damaged.")]
    dock.reload_models()
    open_case(viewer, volume)
    assert dock.model_choice.box.currentText() == "broken (unusable)"
    assert dock.check_line.text() == "Not ready: 'b' is damaged."


def test_reloading_keeps_the_chosen_model(dock, models):
    models.append(StoredModel("other", Path("other.safetensors"), CARD.model_copy(update={"title": "Other"})))
    dock.reload_models()
    assert dock.config.model == DEFAULT_MODEL
    dock.model_choice.box.setCurrentIndex(1)
    models.insert(0, StoredModel("third", Path("third.safetensors"), CARD))
    dock.reload_models()
    assert dock.config.model == "other"


def test_a_bundled_model_can_be_chosen_beside_the_users_own_of_the_same_name(dock, models):
    models.append(StoredModel(DEFAULT_MODEL, Path("mine") / "glioma-unet.safetensors", CARD))
    dock.reload_models()
    dock.model_choice.box.setCurrentIndex(1)
    assert dock.config.model == str(Path("mine") / "glioma-unet.safetensors")


# -------------------------------------------------------------------------------------------------------- settings


def test_advanced_has_a_row_for_every_setting_and_starts_with_the_defaults(dock):
    assert set(ADVANCED) | {"model"} == set(SegmentConfig.model_fields)
    assert dock.config == SegmentConfig()


def test_advanced_is_closed_at_first(dock):
    collapsible = dock.advanced_part
    assert not collapsible.isExpanded()
    collapsible.toggleButton().click()
    assert collapsible.isExpanded()
    assert collapsible.text() == "▾ Advanced"


def test_advanced_settings_reach_the_engine(dock, viewer, volume, fake, qtbot):
    open_case(viewer, volume)
    editors = dock.advanced.editors
    editors["threshold"].value = 0.35
    editors["min_volume_ml"].value = 0
    editors["batch_size"].value = 4
    for name in ("keep_largest", "test_time_mirroring", "probabilities"):
        editors[name].value = True
    editors["device"].value = "cpu"
    editors["runtime"].value = "torch"
    run(qtbot, dock)
    assert fake.calls[0][1] == SegmentConfig(
        threshold=0.35, min_volume_ml=0, batch_size=4, keep_largest=True, test_time_mirroring=True, probabilities=True,
        device="cpu", runtime="torch",
    )  # fmt: skip


def test_choices_are_those_of_the_config(dock):
    for name in ("device", "runtime"):
        assert dock.advanced.editors[name].choices == get_args(SegmentConfig.model_fields[name].annotation)


# --------------------------------------------------------------------------------------------------------- running


def test_a_run_adds_labels_where_the_scan_is_and_shows_the_volumes(dock, viewer, volume, fake, qtbot):
    image = open_case(viewer, volume)[0]
    run(qtbot, dock)
    layer = viewer.layers["Tumor [patient7]"]
    assert isinstance(layer, Labels)
    np.testing.assert_array_equal(layer.data > 0, image.data == 300)
    np.testing.assert_array_equal(layer.translate, image.translate)
    np.testing.assert_array_equal(fake.calls[0][0].data, volume.data)
    card = dock.result_card
    assert not card.isHidden()
    texts = [label.text() for label in card.legend.findChildren(QLabel) if label.text()]
    assert sum(1 for label in card.legend.findChildren(QLabel) if not label.pixmap().isNull()) == 3
    assert texts == [
        "necrotic / non-enhancing core", "0.0 mL", "edema", "0.1 mL", "enhancing tumor", "0.0 mL",
        "whole tumor", "0.2 mL", "tumor core", "0.1 mL", "enhancing tumor", "0.0 mL",
    ]  # fmt: skip
    assert dock.device_line.text() == "Device: CPU, 2 cores (torch), last run 2 s"


def test_volumes_are_shown_of_labels_that_are_a_zarr_array_too(
    dock, viewer, volume, fake, qtbot, synthetic_segmentation
):
    fake.make_result = lambda v: replace(synthetic_segmentation(v), labels=zarr.array(synthetic_segmentation(v).labels))
    open_case(viewer, volume)
    run(qtbot, dock)
    texts = [label.text() for label in dock.result_card.legend.findChildren(QLabel) if label.text()]
    assert texts[-6:] == ["whole tumor", "0.2 mL", "tumor core", "0.1 mL", "enhancing tumor", "0.0 mL"]


def test_the_engine_runs_in_another_thread(dock, viewer, volume, fake, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    assert fake.threads[0] is not threading.main_thread()


def test_a_second_run_updates_the_layer(dock, viewer, volume, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    before = len(viewer.layers)
    run(qtbot, dock)
    assert len(viewer.layers) == before
    assert dock.result_card.legend.findChild(QLabel) is not None


def test_progress_is_shown_while_running(dock, viewer, volume, fake, qtbot):
    fake.wait = True
    open_case(viewer, volume)
    assert dock.footer.cancel_button.isHidden()
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_line.text() == "1 of 3 slices")
    assert dock.segment_button.isHidden()
    assert not dock.footer.cancel_button.isHidden()
    assert (dock.footer.progress_bar.value(), dock.footer.progress_bar.maximum()) == (1, 3)
    fake.go_on.set()
    qtbot.waitUntil(lambda: dock.footer.progress_line.text() == "3 of 3 slices, 0 s left")
    finish(qtbot, dock)
    assert not dock.segment_button.isHidden()
    assert dock.footer.progress_bar.isHidden()


def test_cancel_changes_no_layer(dock, viewer, volume, fake, qtbot):
    fake.wait = True
    open_case(viewer, volume)
    before = list(viewer.layers)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_bar.value() == 1)
    dock.footer.cancel_button.click()
    assert dock.footer.progress_line.text() == "Canceling…"
    fake.go_on.set()
    finish(qtbot, dock)
    assert list(viewer.layers) == before
    assert dock.message.text() == "Canceled. No layer was changed."
    assert dock.segment_button.isEnabled()


def test_deleting_the_layers_during_a_run_leaves_the_result(dock, viewer, volume, fake, qtbot):
    fake.wait = True
    open_case(viewer, volume)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_bar.value() == 1)
    viewer.layers.clear()
    fake.go_on.set()
    finish(qtbot, dock)
    assert [layer.name for layer in viewer.layers] == ["Tumor [patient7]"]
    assert tuple(viewer.layers[0].scale) == volume.spacing


def test_closing_the_dock_during_a_run_stops_it(qtbot, viewer, models, volume, fake):
    dock = SegmentDock(viewer)
    fake.wait, fake.slices = True, 1000
    open_case(viewer, volume)
    before = len(viewer.layers)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_bar.value() == 1)
    worker = dock.footer.job._worker
    dock.deleteLater()
    with qtbot.waitSignal(dock.destroyed):
        pass
    fake.go_on.set()
    qtbot.waitUntil(lambda: not worker.is_running)
    assert fake.made == 0
    viewer.add_image(np.zeros((3, 4, 5)), name="later")  # nobody listens any more
    assert len(viewer.layers) == before + 1
    assert not notification_manager.records


def test_notes_of_the_engine_are_shown(dock, viewer, volume, fake, qtbot):
    fake.notes = ("The model does not use T2.", "CUDA was out of memory.")
    open_case(viewer, volume)
    run(qtbot, dock)
    assert dock.result_card.notes_line.text() == "The model does not use T2.\nCUDA was out of memory."
    assert dock.message.text() == ""


def test_an_error_that_the_user_can_mend_is_one_sentence(dock, viewer, volume, fake, qtbot):
    fake.error = ModelError("'x' is damaged. Install it again.")
    open_case(viewer, volume)
    run(qtbot, dock)
    assert dock.message.text() == "Not segmented: 'x' is damaged. Install it again."
    assert dock.message.details_button.isHidden()
    assert dock.result_card.isHidden()
    assert [record.message for record in notification_manager.records] == ["'x' is damaged. Install it again."]


def test_an_image_that_no_network_can_use_is_reported(dock, viewer, volume, qtbot):
    data = volume.data[0].copy()
    data[0, 0, 0] = np.nan
    viewer.add_image(data, name="t1", contrast_limits=(0, 1))
    run(qtbot, dock)
    assert "1 voxels that are NaN" in dock.message.text()


def test_a_bug_says_where_it_arose(dock, viewer, volume, fake, qtbot, caplog):
    fake.error = ZeroDivisionError("by zero")
    open_case(viewer, volume)
    run(qtbot, dock)
    assert "ZeroDivisionError" in dock.message.text()
    assert "ZeroDivisionError" in caplog.text
    assert not dock.message.details_button.isHidden()
    dock.message.details_button.click()
    copied = QApplication.clipboard().text()
    assert "line" in copied
    assert "by zero" not in copied  # the words of an error may name a patient
    assert "napari-braintumor" in copied


def test_running_out_of_memory_is_described_in_words(dock, viewer, volume, fake, qtbot):
    fake.error = MemoryError()
    open_case(viewer, volume)
    run(qtbot, dock)
    assert "not enough memory" in dock.message.text()


# --------------------------------------------------------------------------------------------------------- results


def test_saving_writes_the_corrected_labels(dock, viewer, volume, qtbot, tmp_path):
    open_case(viewer, volume)
    run(qtbot, dock)
    viewer.layers["Tumor [patient7]"].data_setitem(tuple(np.array([[5], [19], [15]])), 3)
    save_to(qtbot, dock.result_card, tmp_path / "out.nii.gz")
    written = volume.source.from_source(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj))
    assert written[5, 19, 15] == 3
    assert dock.message.text().startswith("Saved ")


def test_when_its_layer_goes_the_card_is_empty(dock, viewer, volume, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    assert not dock.result_card.isHidden()
    viewer.layers.remove("Tumor [patient7]")
    assert dock.result_card.isHidden()
    assert dock.result_card.headline.text() == ""
    assert dock.check_line.text().startswith("Ready: patient7")


def test_a_name_that_cannot_be_written_is_reported(dock, viewer, volume, qtbot, tmp_path):
    open_case(viewer, volume)
    run(qtbot, dock)
    save_to(qtbot, dock.result_card, tmp_path / "out.jpg")
    assert dock.message.text().startswith("Not saved: ")


def test_the_record_is_json(dock, viewer, volume, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    dock.result_card.copy_button.click()
    record = json.loads(QApplication.clipboard().text())
    assert record["case"] == "patient7"
    assert record["model"] == "fake"
    assert set(record["volumes_ml"]) == {"whole tumor", "tumor core", "enhancing tumor"}


def test_an_empty_result_is_described_in_words(dock, viewer, volume, fake, qtbot, synthetic_segmentation):
    fake.make_result = lambda v: replace(
        synthetic_segmentation(v), labels=np.zeros(v.shape, np.uint8), volumes_ml={"whole tumor": 0.0}
    )
    open_case(viewer, volume)
    run(qtbot, dock)
    assert dock.result_card.headline.text() == "No tumor found [patient7]."


# ------------------------------------------------------------------------------------------------------ form's form


def test_every_control_has_a_name_and_a_tooltip(dock):
    controls = [w for kind in (QPushButton, QComboBox, QCheckBox) for w in dock.findChildren(kind)]
    unnamed = [w for w in controls if not (w.accessibleName() or w.text())]
    assert not unnamed
    assert not [w.accessibleName() for w in controls if not w.toolTip() and w.accessibleName()]


def test_the_dock_fits_into_300_pixels(dock, viewer, synthetic_volume, qtbot):
    open_case(viewer, synthetic_volume(name="a-very-long-name-of-a-patient-" * 4))
    run(qtbot, dock)
    dock.resize(300, 700)
    assert dock.minimumSizeHint().width() <= 300
    body = dock.findChild(QLabel).parentWidget()
    assert body.minimumSizeHint().width() <= 290


def test_colors_come_from_the_theme(dock):
    assert all("color" not in widget.styleSheet() for widget in dock.findChildren(QLabel))


# ------------------------------------------------------------------------------------------- the card and the case


def rows(dock: SegmentDock) -> dict[str, str]:
    return {key.split(" ", 1)[1]: label.text() for key, label in dock.result_card._values.items()}


def test_the_figures_of_one_case_are_never_shown_under_another(dock, viewer, volume, qtbot, synthetic_volume):
    open_case(viewer, volume)
    run(qtbot, dock)
    first = viewer.layers["Tumor [patient7]"]
    assert dock.result_card.layer is first
    second = open_case(viewer, synthetic_volume(name="patient8"))
    assert dock.check_line.text().startswith("Ready: patient8")
    assert dock.result_card.isHidden()
    assert rows(dock) == {}
    viewer.layers.selection.active = first  # the case in work follows
    assert dock.result_card.headline.text() == "Tumor [patient7]."
    assert dock.check_line.text().startswith("Ready: patient7")
    viewer.layers.selection.active = second[0]
    assert dock.result_card.layer is first
    for layer in [layer for layer in viewer.layers if "patient7" in layer.name and layer != first]:
        viewer.layers.remove(layer)
    assert dock.check_line.text().startswith("Ready: patient8")
    assert dock.result_card.isHidden()


def test_another_case_is_segmented_after_the_one_whose_result_is_selected(dock, viewer, fake, synthetic_volume, qtbot):
    first, second = (open_case(viewer, synthetic_volume(name=name)) for name in ("p7_2024-01-10", "p7_2024-04-09"))
    box = dock.scans.case_bar.box
    for name, scans in (("p7_2024-01-10", first), ("p7_2024-04-09", second)):
        box.setCurrentIndex(box.findText(name))
        box.activated.emit(box.currentIndex())
        assert box.currentText() == name
        assert list(dock.chosen.values()) == scans
        dock.segment_button.click()
        finish(qtbot, dock)
        assert f"[{name}]" in dock.result_card.headline.text()
    assert [volume.name for volume, _ in fake.calls] == ["p7_2024-01-10", "p7_2024-04-09"]


def test_a_result_that_comes_while_another_case_is_worked_on_disturbs_nobody(
    dock, viewer, volume, fake, qtbot, synthetic_volume
):
    open_case(viewer, volume)
    fake.wait = True
    dock.segment_button.click()
    qtbot.waitUntil(lambda: bool(fake.calls), timeout=5000)
    open_case(viewer, synthetic_volume(name="patient8"))
    mine = viewer.add_labels(np.zeros(volume.shape, np.uint8), name="mine")
    fake.go_on.set()
    finish(qtbot, dock)
    assert "Tumor [patient7]" in viewer.layers
    assert viewer.layers.selection.active == mine
    assert dock.check_line.text().startswith("Ready: patient8")
    assert dock.result_card.isHidden()
    assert dock.message.text() == "The tumor of 'patient7' is in layer 'Tumor [patient7]'."


def test_segmenting_again_keeps_what_a_person_did_and_says_so(
    dock, viewer, volume, fake, qtbot, synthetic_segmentation
):
    open_case(viewer, volume)
    run(qtbot, dock)
    layer = viewer.layers["Tumor [patient7]"]
    layer.paint((5, 10, 10), 1)
    mark_reviewed(layer, 3)
    drawn = layer.data.copy()
    fake.make_result = lambda v: replace(synthetic_segmentation(v), labels=np.full(v.shape, 2, np.uint8))
    run(qtbot, dock)
    np.testing.assert_array_equal(layer.data[[3, 5]], drawn[[3, 5]])
    assert (np.delete(layer.data, [3, 5], axis=0) == 2).all()
    assert dock.result_card.kept_line.text().startswith("2 reviewed slices kept")
    dock.result_card.replace_button.click()
    assert (layer.data == 2).all()
    layer.undo()
    layer.undo()
    np.testing.assert_array_equal(layer.data, drawn)


def test_a_dock_that_is_opened_again_shows_the_result_that_is_there(dock, viewer, volume, qtbot):
    open_case(viewer, volume)
    run(qtbot, dock)
    viewer.layers["Tumor [patient7]"].paint((5, 10, 10), 3)
    before = rows(dock)
    dock.deleteLater()
    again = SegmentDock(viewer)
    qtbot.addWidget(again)
    assert rows(again) == before


def test_notes_of_a_run_go_with_its_layer(dock, viewer, volume, fake, qtbot, synthetic_volume):
    fake.notes = ("The model does not use T2.",)
    open_case(viewer, volume)
    run(qtbot, dock)
    fake.notes = ()
    open_case(viewer, synthetic_volume(name="patient8"))
    assert "T2" not in dock.message.text() + dock.result_card.notes_line.text()
    run(qtbot, dock)
    assert dock.result_card.notes_line.text() == ""
    viewer.layers.selection.active = viewer.layers["Tumor [patient7]"]
    assert dock.result_card.notes_line.text() == "The model does not use T2."


# --------------------------------------------------------------------------------------------------------- preview


class FakePreview:
    """Stands in for `engine.prepare_preview`: each slice shows its own number."""

    def __init__(self, volume: Volume) -> None:
        self.shape = volume.shape
        self.asked: list[int] = []

    def labels_of(self, z: int) -> np.ndarray:
        self.asked.append(z)
        return np.full(self.shape[1:], 1 + z % 3, np.uint8)


@pytest.fixture
def previews(monkeypatch: pytest.MonkeyPatch) -> list[FakePreview]:
    made: list[FakePreview] = []

    def prepare(volume: Volume, config: SegmentConfig) -> FakePreview:
        made.append(FakePreview(volume))
        return made[-1]

    monkeypatch.setattr(engine, "prepare_preview", prepare)
    return made


def look_at(qtbot: Any, dock: SegmentDock, viewer: ViewerModel, z: int) -> None:
    viewer.dims.set_point(0, viewer.layers[0].data_to_world((z, 0, 0))[0])
    qtbot.waitUntil(lambda: dock.live.idle, timeout=10000)


def test_each_slice_that_is_looked_at_is_previewed_once_and_only_if_asked_for(qtbot, dock, viewer, volume, previews):
    open_case(viewer, volume)
    look_at(qtbot, dock, viewer, 1)
    assert not previews
    assert not dock.live.box.isChecked()
    dock.live.box.click()
    for z in (1, 3, 1):
        look_at(qtbot, dock, viewer, z)
        assert (dock.live.shown.layer.data[z] == 1 + z % 3).all()
    (preview,) = previews
    assert preview.asked == [1, 3]
    assert dock.live.shown.layer.name == "Preview [patient7]"
    dock.live.box.click()
    assert "Preview [patient7]" not in [layer.name for layer in viewer.layers]


def test_other_settings_make_another_preview_and_a_run_puts_it_away(qtbot, dock, viewer, volume, previews):
    open_case(viewer, volume)
    dock.live.box.click()
    look_at(qtbot, dock, viewer, 1)
    dock.advanced.editors["threshold"].value = 0.3
    look_at(qtbot, dock, viewer, 2)
    assert [preview.asked for preview in previews] == [[1], [2]]
    run(qtbot, dock)
    assert not dock.live.box.isChecked()
    assert "Preview [patient7]" not in [layer.name for layer in viewer.layers]


def test_a_preview_that_fails_says_why_once(qtbot, dock, viewer, volume, monkeypatch):
    def prepare(volume: Volume, config: SegmentConfig) -> None:
        raise ModelError("It cannot. Choose another model.")

    monkeypatch.setattr(engine, "prepare_preview", prepare)
    open_case(viewer, volume)
    dock.live.box.click()
    look_at(qtbot, dock, viewer, 1)
    assert not dock.live.box.isChecked()
    assert "It cannot. Choose another model." in dock.message.text()
