"""The sample case that napari offers under File > Open Sample."""

from __future__ import annotations

from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.layers import LayerData
from napari_braintumor.readers import read_layers


def open_sample() -> list[LayerData]:
    """Open the synthetic case that ships with the package: four modalities and the mask used to make them."""
    return read_layers(sample_folder())
