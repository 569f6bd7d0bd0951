from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.notifications import notification_manager

from napari_braintumor import engine
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.alignment import AlignedScan, Alignment
from napari_braintumor.engine.events import PhaseReached, Segmented, SegmentEvent, Started
from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import alignment_of, layers_from_scans
from napari_braintumor.layers.alignment import is_check
from napari_braintumor.widgets.segmenting import alignment as alignment_form
from napari_braintumor.widgets.segmenting.alignment import FLICKER_MS, describe_scan
from napari_braintumor.widgets.segmenting.dock import SegmentDock


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> SourceGrid:
    """A grid around the world's origin."""
    affine = default_grid(shape, spacing).affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return grid_from_affine(shape, affine, format="nifti")


GRIDS = {"T1": grid((36, 36, 36), (2.5, 2.5, 2.5)), "FLAIR": grid((18, 48, 48), (5, 2, 2))}

FROM = "; resampled from 2.5 x 2.5 x 2.5 mm"

MOVED = np.array([[1, 0, 0, 3], [0, 1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def head(where: SourceGrid, seed: int) -> np.ndarray:
    index = np.indices(where.shape_ZYX).reshape(3, -1)
    ras = where.affine_ZYX[:3, :3] @ index + where.affine_ZYX[:3, 3:]
    inside = np.linalg.norm(ras / np.array([[34.0], [40], [38]]), axis=0) < 1
    noise = np.random.default_rng(seed).uniform(0, 5, inside.shape)
    return (inside * 100 + noise).reshape(where.shape_ZYX).astype(np.float32)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, synthetic_segmentation: Any) -> list[Volume]:
    """The volumes that the engine is given; the answer is a tumor in a corner."""
    volumes: list[Volume] = []

    def segment(volume: Volume, config: SegmentConfig) -> Iterator[SegmentEvent]:
        volumes.append(volume)
        yield Started("CPU", "torch")
        yield Segmented(replace(synthetic_segmentation(volume), alignment=volume.alignment))

    measured = Metric(data="LGG", region="whole tumor", modalities=("FLAIR",), mean=0.84, n=10, held_out=True)
    card = ModelCard(name=DEFAULT_MODEL, architecture="unet", accepts_missing=True, metrics=(measured,))
    monkeypatch.setattr(engine, "segment", segment)
    monkeypatch.setattr(ModelStore, "list", lambda self: [StoredModel(DEFAULT_MODEL, Path("fake"), card)])
    return volumes


@pytest.fixture
def viewer() -> ViewerModel:
    notification_manager.records.clear()
    return ViewerModel()


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel, asked: list[Volume]) -> SegmentDock:
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    scans = {m: Scan(head(where, i), where, m, "frame") for i, (m, where) in enumerate(GRIDS.items())}
    for data in layers_from_scans(scans, "p7"):
        viewer.add_layer(Layer.create(*data))
    choose_way(dock, "Use scanner coordinates")
    return dock


def choose_way(dock: SegmentDock, text: str) -> None:
    box = dock.alignment.way_box
    box.setCurrentText(text)
    box.activated.emit(box.currentIndex())


def run(qtbot: Any, dock: SegmentDock) -> None:
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=20000)


def shown(viewer: ViewerModel) -> list[str]:
    return [layer.name for layer in viewer.layers if is_check(layer)]


# ------------------------------------------------------------------------------------------------ aligning


def test_scans_on_several_grids_are_ready_and_the_dock_says_what_will_be_done(dock):
    assert dock.segment_button.isEnabled()
    assert dock.alignment.line.text() == (
        "The scans lie on 2 different grids. Segment brings them onto the grid of FLAIR."
    )
    assert "18 x 48 x 48, voxels of 5 x 2 x 2 mm of FLAIR" in dock.check_line.text()
    assert dock.alignment.check.isHidden()


def test_a_click_brings_the_scans_onto_one_grid_and_segments_them(qtbot, dock, viewer, asked):
    run(qtbot, dock)
    (volume,) = asked
    assert volume.shape == (18, 48, 48)
    assert volume.modalities == ("T1", "FLAIR")
    result = viewer.layers["Tumor [p7]"]
    flair = viewer.layers["FLAIR [p7]"]
    assert result.data.shape == flair.data.shape
    np.testing.assert_array_equal(result.translate, flair.translate)
    assert alignment_of(result).reference == "FLAIR"
    assert dock.alignment.texts == {"T1": f"by scanner coordinates{FROM}"}
    assert dock.alignment.line.text() == (
        "All scans were brought onto the grid of FLAIR, for the model only: the layers stay as they are. "
        "Choose another way to undo it."
    )
    shapes = {layer.name: layer.data.shape for layer in viewer.layers}
    assert (shapes["T1 [p7]"], shapes["FLAIR [p7]"]) == ((36, 36, 36), (18, 48, 48))


def test_scans_are_aligned_once_for_several_runs(qtbot, dock, asked):
    run(qtbot, dock)
    run(qtbot, dock)
    assert asked[0] is asked[1]


def test_leaving_a_scan_out_uses_what_was_aligned(qtbot, dock, viewer, asked):
    run(qtbot, dock)
    slot = dock.slots["T1"]
    slot.setCurrentIndex(0)
    slot.activated.emit(0)
    assert dock.alignment.isHidden()  # one scan needs no alignment
    run(qtbot, dock)
    assert asked[1].modalities == ("FLAIR",)


def test_another_reference_gives_labels_on_its_grid(qtbot, dock, viewer, asked):
    box = dock.alignment.reference_box
    box.setCurrentText("T1")
    box.activated.emit(box.currentIndex())
    assert "onto the grid of T1" in dock.alignment.line.text()
    run(qtbot, dock)
    assert asked[0].shape == (36, 36, 36)
    assert viewer.layers["Tumor [p7]"].data.shape == (36, 36, 36)


def test_registration_can_be_undone_and_asked_for(qtbot, dock, asked):
    run(qtbot, dock)
    choose_way(dock, "Always register")
    assert dock.alignment.texts == {}
    run(qtbot, dock)
    assert "registration" in dock.alignment.texts["T1"] or "registered" in dock.alignment.texts["T1"]
    choose_way(dock, "Use scanner coordinates")
    run(qtbot, dock)
    assert dock.alignment.texts == {"T1": f"by scanner coordinates{FROM}"}
    assert len(asked) == 3


def test_phases_have_names_and_can_be_cancelled(qtbot, dock, viewer, asked, monkeypatch):
    go_on = threading.Event()

    def slow(*_: Any) -> Iterator[PhaseReached]:
        yield PhaseReached("registering T1 to FLAIR", 20, 100)
        assert go_on.wait(20)
        yield PhaseReached("resampling T1 to the grid of FLAIR")

    monkeypatch.setattr(alignment_form, "align_selection", slow)
    dock.segment_button.click()
    qtbot.waitUntil(lambda: dock.footer.progress_line.text() == "Registering T1 to FLAIR…", timeout=5000)
    assert dock.footer.progress_bar.value() == 20
    dock.footer.cancel_button.click()
    go_on.set()
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=5000)
    assert dock.message.text() == "Canceled. No layer was changed."
    assert asked == []


def test_scans_that_show_different_places_are_refused_in_a_sentence(qtbot, dock, viewer, asked):
    viewer.layers["T1 [p7]"].translate = (900, 0, 0)
    run(qtbot, dock)
    assert dock.message.text().startswith("Not segmented: ")
    assert "do not overlap" in dock.message.text()
    assert asked == []


@pytest.mark.parametrize(
    ("scan", "text"),
    [
        (AlignedScan(GRIDS["T1"], np.eye(4), "scanner coordinates"), f"by scanner coordinates{FROM}"),
        (
            AlignedScan(GRIDS["T1"], np.eye(4), "scanner coordinates", 0.5, 0.5),
            f"by scanner coordinates; registration found no better place (similarity 0.50){FROM}",
        ),
        (
            AlignedScan(GRIDS["T1"], MOVED, "registered", 0.3, 0.45, 0.8),
            f"registered: moved 5.0 mm, turned 0.0° (similarity 0.30 → 0.45){FROM}; shows 80% of the head",
        ),
        (AlignedScan(GRIDS["FLAIR"], np.eye(4), "same grid"), "shares the grid"),
    ],
)  # fmt: skip
def test_what_was_done_to_a_scan_is_said_in_a_few_words(scan, text):
    both = {"FLAIR": AlignedScan(GRIDS["FLAIR"], np.eye(4), "same grid"), "T1": scan}
    assert describe_scan(Alignment("FLAIR", both), "T1") == text


# ------------------------------------------------------------------------------------------------ looking at it


def test_a_checkerboard_is_shown_in_a_layer_that_goes_again(qtbot, dock, viewer):
    run(qtbot, dock)
    before = [layer.name for layer in viewer.layers]
    check = dock.alignment.check
    active = viewer.layers.selection.active
    check.buttons["board"].click()
    assert shown(viewer) == ["Alignment check [p7]"]
    assert viewer.layers.selection.active is active
    assert check.layer.data.shape == (18, 48, 48)
    assert "Fields of FLAIR and T1" in check.line.text()
    check.buttons["board"].click()
    assert [layer.name for layer in viewer.layers] == before
    assert check.line.isHidden()


def test_flicker_shows_the_two_scans_in_turn(qtbot, dock, viewer):
    run(qtbot, dock)
    check = dock.alignment.check
    check.buttons["board"].click()
    check.buttons["flicker"].click()
    assert not check.buttons["board"].isChecked()
    assert len(shown(viewer)) == 1
    first = check.layer.data
    assert check.line.text().startswith("Now FLAIR")
    qtbot.waitUntil(lambda: check.line.text().startswith("Now T1"), timeout=5 * FLICKER_MS)
    assert not np.array_equal(check.layer.data, first)
    check.buttons["flicker"].click()
    assert shown(viewer) == []


def test_a_check_that_was_deleted_by_hand_is_over(qtbot, dock, viewer):
    run(qtbot, dock)
    check = dock.alignment.check
    check.buttons["flicker"].click()
    viewer.layers.remove(check.layer)
    assert not check.buttons["flicker"].isChecked()
    check.buttons["board"].click()
    assert len(shown(viewer)) == 1


@pytest.mark.parametrize("end", ["way", "scans"])
def test_a_check_goes_with_what_it_shows(qtbot, dock, viewer, end):
    run(qtbot, dock)
    dock.alignment.check.buttons["board"].click()
    if end == "way":
        choose_way(dock, "Always register")
    else:
        viewer.layers.remove("T1 [p7]")
    assert shown(viewer) == []


def test_a_check_goes_with_its_dock(qtbot, dock, viewer):
    run(qtbot, dock)
    other = SegmentDock(viewer)
    other.alignment.keep(dock.alignment.prepared)
    choose_way(other, "Use scanner coordinates")
    other.alignment.check.buttons["flicker"].click()
    assert len(shown(viewer)) == 1
    with qtbot.waitSignal(other.destroyed):
        other.deleteLater()
    assert shown(viewer) == []


def test_a_check_is_neither_a_scan_nor_a_result(qtbot, dock, viewer):
    run(qtbot, dock)
    chosen = dict(dock.chosen)
    dock.alignment.check.buttons["board"].click()
    assert dock.chosen == chosen
    assert dock.result_card.layer is viewer.layers["Tumor [p7]"]
