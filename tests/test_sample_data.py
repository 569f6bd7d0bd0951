from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Labels

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.layers import match_modalities, volume_from_layers


def test_the_sample_case_opens_from_naparis_menu(plugins):
    viewer = ViewerModel()
    viewer.open_sample("napari-braintumor", "sample-case")
    layers = match_modalities(viewer.layers)
    assert tuple(layers) == MODALITIES
    assert volume_from_layers(layers).modalities == MODALITIES
    (reference,) = (layer for layer in viewer.layers if isinstance(layer, Labels))
    names = {"background", "necrotic / non-enhancing core", "edema", "enhancing tumor"}
    assert set(reference.features["name"]) == names
    assert reference.data.any()
