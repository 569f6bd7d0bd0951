from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from dicom import affine_of, write_series
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.dicom.labels import read_labels
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.volumes import Legend, Volume
from napari_braintumor.layers import (
    find_placement,
    label_names,
    layers_from_case,
    legend_of,
    update_or_add_labels,
)
from napari_braintumor.readers import read_layers
from napari_braintumor.writers import save_labels, write_layer


def test_corrected_labels_are_written_on_the_source_grid(
    tmp_path, synthetic_volume, synthetic_segmentation, oblique_grid
):
    viewer, volume = ViewerModel(), synthetic_volume(("T1",), oblique_grid)
    image = viewer.add_layer(Layer.create(*layers_from_case(volume)[0]))
    layer = update_or_add_labels(viewer, synthetic_segmentation(volume), find_placement(image))
    layer.data_setitem(tuple(np.array([[-1], [-1], [-1]])), 1)
    path, _ = save_labels(layer, tmp_path / "out.nii.gz")
    written = nib.load(path)
    assert written.shape == oblique_grid.shape
    np.testing.assert_allclose(written.affine, oblique_grid.affine, atol=1e-5)
    np.testing.assert_array_equal(oblique_grid.from_source(np.asarray(written.dataobj)), layer.data)


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.tif"])
def test_napari_saves_labels_of_other_plugins(tmp_path, name, plugins):
    data = np.zeros((6, 20, 16), np.int32)
    data[0, 0, 0] = 5
    viewer = ViewerModel()
    viewer.add_layer(Labels(data, scale=(-3, 1.5, 1), translate=(10, 20, 30), units="mm"))
    (path,) = viewer.layers.save(str(tmp_path / name), plugin="napari-braintumor")
    if name.endswith(".tif"):
        # The scale along z is negative, so the first plane shown lowest is the last of the array.
        assert tifffile.imread(path)[-1, 0, 0] == 5
    else:
        written = nib.load(path)
        assert written.header.get_zooms() == (3, 1.5, 1)
        (index,) = np.argwhere(np.asarray(written.dataobj) == 5)
        np.testing.assert_allclose(written.affine @ (*index, 1), (-30, -20, 10, 1), atol=1e-4)


def test_labels_above_255_are_refused(tmp_path):
    with pytest.raises(DataError, match="Labels range from 0 to 300"):
        write_layer(str(tmp_path / "x.nii.gz"), np.array([[[0, 300]]]), {"name": "cells"})


@pytest.mark.parametrize(
    ("plugin", "name"),
    [(None, "cells.tif"), ("napari-braintumor", "cells.tif"), ("napari-braintumor", "cells.TIFF")],
    ids=["napari-chooses", "ours-comes-first", "ours-in-capitals"],
)
@pytest.mark.parametrize(
    ("shape", "highest"), [((6, 20, 16), 70000), ((6, 20, 16), -1), ((20, 16), 3), ((2, 6, 20, 16), 3)]
)
def test_ordinary_label_tiffs_are_saved_as_they_are(tmp_path, plugins, plugin, name, shape, highest):
    data = np.zeros(shape, np.int32)
    data[..., 0, 0] = highest
    viewer = ViewerModel()
    viewer.add_labels(data)
    assert viewer.layers.save(str(tmp_path / name), plugin=plugin) == [str(tmp_path / name)]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / name), data)


def test_labels_of_several_resolutions_are_saved_at_the_full_one(tmp_path):
    data = np.full((4, 20, 16), 300, np.int32)
    written = write_layer(str(tmp_path / "cells.tif"), [data, data[:, ::2, ::2]], {"name": "cells", "multiscale": True})
    np.testing.assert_array_equal(tifffile.imread(written[0]), data)


@pytest.fixture
def dicom_case(tmp_path):
    """An oblique series of DICOM files, opened."""
    shape = (6, 20, 16)
    affine = affine_of((0.2, 0.1, 1), shape=shape, spacing=(3.0, 1.2, 0.8))
    write_series(tmp_path / "scan", np.random.default_rng(1).integers(0, 500, shape), affine)
    data, grid = read_series(sorted((tmp_path / "scan").iterdir()))
    return Volume(data[None].astype(np.float32), ("T1",), grid, "case")


@pytest.mark.parametrize("name", ["out.dcm", "out.nii.gz"])
def test_corrected_labels_of_a_dicom_scan_are_written_as_the_name_says(
    name, dicom_case, tmp_path, synthetic_segmentation
):
    viewer = ViewerModel()
    image = viewer.add_layer(Layer.create(*layers_from_case(dicom_case)[0]))
    layer = update_or_add_labels(viewer, synthetic_segmentation(dicom_case), find_placement(image))
    layer.data_setitem(tuple(np.array([[-1], [-1], [-1]])), 3)
    path, record = save_labels(layer, tmp_path / name)
    assert path.name == name
    assert '"edited_slices_z": [' in record.read_text()
    if name.endswith(".dcm"):
        again = read_labels(path)
        np.testing.assert_array_equal(again.labels, layer.data)
        kinds = {segment.SegmentAlgorithmType for segment in pydicom.dcmread(path).SegmentSequence}
        assert kinds == {"SEMIAUTOMATIC"}


def test_a_segmentation_opens_as_a_layer_with_its_names_and_colors_and_saves_again(
    dicom_case, tmp_path, synthetic_segmentation
):
    viewer = ViewerModel()
    image = viewer.add_layer(Layer.create(*layers_from_case(dicom_case)[0]))
    layer = update_or_add_labels(viewer, synthetic_segmentation(dicom_case), find_placement(image))
    path, report, contours, _ = save_labels(layer, tmp_path / "scan" / "out.dcm", also=("report", "rtstruct"))
    for file in (path, contours):
        (opened,) = [Layer.create(*each) for each in read_layers(file)]
        assert isinstance(opened, Labels)
        np.testing.assert_array_equal(opened.data, layer.data)
        np.testing.assert_allclose(find_placement(opened).matrix, find_placement(layer).matrix, atol=1e-3)
        assert list(opened.features["name"]) == list(layer.features["name"])
        np.testing.assert_allclose(opened.get_color(3), layer.get_color(3), atol=0.01)
        assert "SECRET" not in repr(opened.metadata)
        opened.data_setitem(tuple(np.array([[0], [0], [0]])), 2)
        (again,) = save_labels(opened, tmp_path / "scan" / "again.dcm", viewer.layers)
        np.testing.assert_array_equal(read_labels(again).labels, opened.data)
    with pytest.raises(DataError, match="report"):
        read_layers(report)


def test_a_segmentation_of_others_keeps_its_names_and_is_no_mask_of_ours(dicom_case, tmp_path):
    labels = np.zeros(dicom_case.shape, np.uint8)
    labels[2, 3:9, 3:9], labels[3, 2:4, 2:4] = 1, 2
    legend = Legend({1: "hippocampus", 2: "amygdala"}, {1: "#102030"})
    write_labels(labels, dicom_case.source, tmp_path / "out.dcm", legend)
    (opened,) = [Layer.create(*each) for each in read_layers(tmp_path / "out.dcm")]
    assert list(opened.features["name"]) == ["background", "hippocampus", "amygdala"]
    assert label_names(opened) == {}
    np.testing.assert_allclose(opened.get_color(1)[:3], np.array([0x10, 0x20, 0x30]) / 255, atol=0.01)
    again = legend_of(opened)
    assert again.names == legend.names
    assert not again.regions


def test_labels_of_other_scans_cannot_be_written_as_dicom(tmp_path, synthetic_volume, synthetic_segmentation):
    viewer, volume = ViewerModel(), synthetic_volume(("T1",))
    image = viewer.add_layer(Layer.create(*layers_from_case(volume)[0]))
    layer = update_or_add_labels(viewer, synthetic_segmentation(volume), find_placement(image))
    with pytest.raises(DataError, match="The labels do not belong to a DICOM image"):
        save_labels(layer, tmp_path / "out.dcm")
    with pytest.raises(SettingsError, match="A report refers to a DICOM segmentation"):
        save_labels(layer, tmp_path / "out.nii.gz", also=("report",))
