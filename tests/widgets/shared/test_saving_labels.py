"""Labels are saved in the background: as they were when the button was pressed, and completely or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtWidgets import QWidget

from dicom import affine_of, write_series
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import find_placement, layers_from_case, update_or_add_labels
from napari_braintumor.widgets.shared import saving
from napari_braintumor.widgets.shared.saving import LabelSaver
from napari_braintumor.writers import take_labels, write_taken

SHAPE = (6, 20, 16)
EXTRAS = ("report", "rtstruct")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def layer(viewer: ViewerModel, tmp_path: Path, synthetic_segmentation: Any) -> Labels:
    """A result on a DICOM series."""
    data, grid = read_series(write_series(tmp_path / "scan", np.ones(SHAPE), affine_of(shape=SHAPE)))
    volume = Volume(data[None].astype(np.float32), ("T1",), grid, "case")
    image = viewer.add_layer(Layer.create(*layers_from_case(volume)[0]))
    return update_or_add_labels(viewer, synthetic_segmentation(volume), find_placement(image))


class Said:
    """What a saver reports."""

    def __init__(self, saver: LabelSaver) -> None:
        self.texts: list[str] = []
        saver.reported.connect(self.texts.append)
        saver.failed.connect(lambda failure, before: self.texts.append(f"{before}{failure.text}"))


@pytest.fixture
def saver(qtbot: Any, viewer: ViewerModel, layer: Labels) -> LabelSaver:
    saver = LabelSaver(viewer, lambda: layer)
    qtbot.addWidget(saver)
    return saver


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


class Gate:
    """Keeps the writing from its first phase until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may_go_on = threading.Event()

        def write(taken: Any) -> Iterator[Any]:
            assert self._may_go_on.wait(20)
            yield from write_taken(taken)

        monkeypatch.setattr(saving, "write_taken", write)

    def open(self) -> None:
        self._may_go_on.set()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait(qtbot: Any, saver: LabelSaver) -> None:
    qtbot.waitUntil(lambda: not saver.is_busy, timeout=20_000)


def test_each_part_is_a_phase_in_words_and_the_files_are_named_at_the_end(qtbot, saver, layer, out):
    said = Said(saver)
    phases: list[str] = []
    show = saver.footer.show_phase
    saver.footer.show_phase = lambda event: (phases.append(event.phase), show(event))
    saver.save_to(layer, out / "tumor.dcm", EXTRAS)
    assert saver.save_button.isHidden()
    assert not saver.footer.cancel_button.isHidden()
    wait(qtbot, saver)
    assert not saver.save_button.isHidden()
    taken = take_labels(layer, out / "tumor.dcm", also=EXTRAS)
    every = [event.phase for event in write_taken(taken) if isinstance(event, PhaseReached)]
    assert every[0] == "looking for the images of the series"
    assert every[-1] == "writing the files"
    assert "measuring whole tumor" in every
    assert phases == [phase for phase in every if phase in phases]  # a quick one may not be shown
    assert phases[0] == every[0]
    names = ["tumor.dcm", "tumor_report.dcm", "tumor_rtstruct.dcm", "tumor.json"]
    assert said.texts == [f"Saved {', '.join(str(out / name) for name in names)}."]
    assert files_in(out) == sorted(names)


@pytest.mark.parametrize("name", ["tumor.dcm", "tumor.nii.gz"])
def test_canceling_leaves_no_file_and_those_that_were_there(qtbot, saver, layer, out, monkeypatch, name):
    gate = Gate(monkeypatch)
    said = Said(saver)
    (out / name).write_text("an older file")
    saver.save_to(layer, out / name, EXTRAS if name.endswith(".dcm") else ())
    saver.footer.cancel_button.click()
    gate.open()
    wait(qtbot, saver)
    assert said.texts == ["Canceled. Nothing was saved."]
    assert files_in(out) == [name]
    assert (out / name).read_text() == "an older file"


def test_whoever_cancels_when_the_files_are_there_is_not_misled(qtbot, saver, layer, out, monkeypatch):
    said = Said(saver)

    def write(taken: Any) -> Iterator[Any]:
        for event in write_taken(taken):
            if not isinstance(event, PhaseReached):
                saver.footer.job.cancel()
            yield event

    monkeypatch.setattr(saving, "write_taken", write)
    saver.save_to(layer, out / "tumor.nii.gz")
    wait(qtbot, saver)
    assert files_in(out) == ["tumor.json", "tumor.nii.gz"]
    assert said.texts == [f"Saved {out / 'tumor.nii.gz'}, {out / 'tumor.json'}."]


def test_what_is_painted_while_labels_are_written_is_not_in_the_file(qtbot, saver, layer, out, monkeypatch):
    gate = Gate(monkeypatch)
    before = np.array(layer.data)
    saver.save_to(layer, out / "tumor.nii.gz")
    layer.data_setitem(tuple(np.array([[5], [5], [5]])), 3)
    gate.open()
    wait(qtbot, saver)
    written = np.asarray(nib.load(out / "tumor.nii.gz").dataobj)
    np.testing.assert_array_equal(find_placement(layer).grid.from_source(written), before)


def test_the_layer_may_be_removed_while_its_labels_are_written(qtbot, saver, viewer, layer, out, monkeypatch):
    gate = Gate(monkeypatch)
    saver.save_to(layer, out / "tumor.nii.gz")
    viewer.layers.remove(layer)
    gate.open()
    wait(qtbot, saver)
    assert files_in(out) == ["tumor.json", "tumor.nii.gz"]


def test_a_saver_that_goes_away_stops_and_leaves_no_file(qtbot, viewer, layer, out, monkeypatch):
    gate = Gate(monkeypatch)
    parent = QWidget()
    saver = LabelSaver(viewer, lambda: layer)
    saver.setParent(parent)
    saver.save_to(layer, out / "tumor.nii.gz")
    assert saver.describe_closing() == "Saving was canceled because its dock was closed. No file was written."
    worker = saver.footer.job._worker
    with qtbot.waitSignal(saver.destroyed, timeout=5000):
        parent.deleteLater()
    gate.open()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=5000)
    assert files_in(out) == []


@pytest.mark.parametrize(
    ("name", "also", "expected"),
    [
        ("nowhere/tumor.nii.gz", (), "cannot be written"),
        ("nowhere/tumor.dcm", EXTRAS, "cannot be written"),
        ("tumor.jpg", (), "jpg"),
        ("tumor.nii.gz", ("report",), "A report refers to a DICOM segmentation"),
    ],
)
def test_what_cannot_be_saved_is_one_sentence_and_no_file(qtbot, saver, layer, out, name, also, expected):
    said = Said(saver)
    saver.save_to(layer, out / name, also)
    wait(qtbot, saver)
    (text,) = said.texts
    assert text.startswith("Not saved: ")
    assert expected in text
    assert files_in(out) == []
