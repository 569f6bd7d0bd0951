from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers import find_placement, layers_from_case, update_or_add_labels
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


def test_ordinary_label_tiffs_are_still_saved_by_napari_itself(tmp_path, plugins):
    data = np.zeros((6, 20, 16), np.int32)
    data[0, 0, 0] = 70000
    viewer = ViewerModel()
    viewer.add_labels(data)
    viewer.layers.save(str(tmp_path / "cells.tif"))
    assert tifffile.imread(tmp_path / "cells.tif").max() == 70000
