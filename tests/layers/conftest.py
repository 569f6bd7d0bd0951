from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.volumes import Volume
from napari_braintumor.layers import layers_from_case


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def drawn(volume: Volume) -> tuple[ViewerModel, Labels]:
    """The scans of a case, and labels drawn on them."""
    viewer = ViewerModel()
    for data, options, _ in layers_from_case(volume):
        viewer.add_image(data, **options)
    scan = viewer.layers[0]
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units, "axis_labels": scan.axis_labels}
    return viewer, viewer.add_labels(np.zeros(scan.data.shape, np.uint8), name="mine", **place)
