"""Work that was saved goes on where it ended: labels, what the model had drawn, strokes and marks."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_braintumor.engine.correcting.strokes import describe_strokes
from napari_braintumor.layers import (
    KEY,
    NOTHING,
    Scribble,
    corrected_slices,
    default_placement,
    figures_of,
    find_scans,
    is_result,
    mark_reviewed,
    model_labels,
    reviewed_slices,
    update_or_add_labels,
)
from napari_braintumor.readers import read_layers
from napari_braintumor.writers import save_labels
from open_layers import open_result


@pytest.fixture
def worked_on(volume: Any, segmentation: Any) -> tuple[ViewerModel, Labels]:
    """A result with two strokes, a slice that was brushed, another one that was emptied, and a mark."""
    viewer, layer = open_result(volume, segmentation)
    scribble = Scribble(viewer, layer)
    scribble.layer.brush_size = 3
    scribble.layer.paint((3, 10, 8), 3)
    scribble.layer.paint((1, 4, 3), NOTHING)
    layer.data_setitem((np.array([4]), np.array([9]), np.array([7])), np.array([1]))
    layer.data_setitem(np.nonzero(layer.data == 3), 0)
    mark_reviewed(layer, 4)
    return viewer, layer


def save(viewer: ViewerModel, layer: Labels, folder: Path) -> tuple[Path, Path]:
    labels, record = save_labels(layer, folder / "patient7_tumor.nii.gz", viewer.layers)
    return labels, record


def reopen(path: Path) -> Labels:
    (data,) = read_layers(str(path))
    layer = Layer.create(*data)
    assert isinstance(layer, Labels)
    return layer


def test_what_was_saved_is_read_again(worked_on, tmp_path):
    viewer, layer = worked_on
    again = reopen(save(viewer, layer, tmp_path)[0])
    assert is_result(again)
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_array_equal(model_labels(again), model_labels(layer))
    assert figures_of(again).edited == figures_of(layer).edited == (0, 4)
    assert corrected_slices(again) == corrected_slices(layer) == (0, 4)
    assert reviewed_slices(again) == (4,)
    assert again.name == layer.name
    before, after = figures_of(layer), figures_of(again)
    assert after.region_ml == pytest.approx(before.region_ml)
    assert after.model_ml == pytest.approx(before.model_ml, abs=1e-3)


def test_strokes_are_there_again_and_are_drawn(worked_on, tmp_path):
    viewer, layer = worked_on
    again = reopen(save(viewer, layer, tmp_path)[0])
    other = ViewerModel()
    other.add_layer(again)
    scribble = Scribble(other, again)
    first, second = scribble.strokes
    assert (first.region, first.points, second.region) == ("enhancing tumor", ((3, 10, 8),), None)
    assert scribble.layer.data[3, 10, 8] == 3
    assert scribble.layer.data[1, 4, 3] == NOTHING
    scribble.layer.paint((2, 6, 6), 2)
    assert len(scribble.strokes) == 3


def test_saving_again_says_the_same(worked_on, tmp_path):
    viewer, layer = worked_on
    labels, record = save(viewer, layer, tmp_path)
    (tmp_path / "later").mkdir()
    _, later = save(ViewerModel(), reopen(labels), tmp_path / "later")
    first, second = (json.loads(path.read_text()) for path in (record, later))
    assert first["work"]["strokes"]
    assert first["edited_slices_z"] == [0, 4]
    for name in ("work", "edited_slices_z", "reviewed_slices_z", "volumes_ml", "labels", "model", "case"):
        assert second[name] == first[name], name
    assert second["by_hand_ml"] == pytest.approx(first["by_hand_ml"], abs=2e-3)


def test_a_result_whose_file_has_other_axes_is_the_same_again(
    synthetic_volume, synthetic_segmentation, oblique_grid, tmp_path
):
    volume = synthetic_volume(source=oblique_grid)
    viewer, layer = open_result(volume, synthetic_segmentation(volume))
    Scribble(viewer, layer).layer.paint((1, 4, 3), 1)
    layer.data_setitem((np.array([2]), np.array([1]), np.array([2])), np.array([1]))
    again = reopen(save(viewer, layer, tmp_path)[0])
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_array_equal(model_labels(again), model_labels(layer))
    before, after = (describe_strokes(each.metadata[KEY]["strokes"]) for each in (layer, again))
    assert after == before


def test_strokes_outlast_a_new_run_and_go_with_their_layer(worked_on, volume, segmentation):
    viewer, layer = worked_on
    update_or_add_labels(viewer, segmentation, default_placement(volume.source))
    assert len(layer.metadata[KEY]["strokes"]) == 2
    scribble = Scribble(viewer, layer)
    viewer.layers.remove(scribble.layer)
    assert scribble.strokes == ()


def without_work(record: dict[str, Any]) -> None:
    del record["work"]


def with_a_slice_too_large(record: dict[str, Any]) -> None:
    record["work"]["model_slices"]["0"] = b64encode(zlib.compress(bytes(7))).decode()


def with_a_slice_beyond(record: dict[str, Any]) -> None:
    record["work"]["model_slices"]["77"] = ""


def with_strange_strokes(record: dict[str, Any]) -> None:
    record["work"]["strokes"] = [{"region": None}]


def with_strange_labels(record: dict[str, Any]) -> None:
    record["labels"] = {"9": "something else"}


@pytest.mark.parametrize(
    "spoil", [without_work, with_a_slice_too_large, with_a_slice_beyond, with_strange_strokes, with_strange_labels]
)
def test_a_record_that_does_not_say_what_the_model_drew_leaves_plain_labels(worked_on, tmp_path, spoil):
    labels, record = save(*worked_on, tmp_path)
    content = json.loads(record.read_text())
    spoil(content)
    record.write_text(json.dumps(content))
    again = reopen(labels)
    assert not is_result(again)
    np.testing.assert_array_equal(again.data, worked_on[1].data)


def test_a_result_that_nobody_edited_needs_no_such_word(volume, segmentation, tmp_path):
    labels, record = save(*open_result(volume, segmentation), tmp_path)
    content = json.loads(record.read_text())
    without_work(content)
    record.write_text(json.dumps(content))
    again = reopen(labels)
    assert is_result(again)
    assert figures_of(again).edited == ()


def test_the_scans_of_a_reopened_result_are_those_of_its_case_if_all_are_open(volume, segmentation, tmp_path):
    used = {**segmentation.provenance, "modalities_used": list(volume.modalities)}
    viewer, layer = open_result(volume, replace(segmentation, provenance=used))
    again = reopen(save(viewer, layer, tmp_path)[0])
    assert list(find_scans(viewer.layers, again)) == list(volume.modalities)
    viewer.layers.pop(0)
    assert find_scans(viewer.layers, again) == {}


def test_a_slice_that_only_followed_still_does(volume, segmentation, tmp_path):
    viewer, layer = open_result(volume, segmentation)
    scribble = Scribble(viewer, layer)
    scribble.layer.paint((3, 10, 8), 3)
    request = scribble.request()
    followed = request.labels_ZYX.copy()
    followed[2:5, 10, 8] = 3
    scribble.apply(request, followed)
    again = reopen(save(viewer, layer, tmp_path)[0])
    assert figures_of(again).edited == (2, 3, 4)
    assert corrected_slices(again) == corrected_slices(layer) == (3,)
