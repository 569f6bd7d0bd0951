"""Save label layers from napari onto the grid of the scan they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Labels, Layer

from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.layers import labels_from_layer


def write_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a label layer, whichever plugin made it; napari's writer entry point.

    Parameters
    ----------
    path
        Ending in ``.nii.gz``, ``.nii``, ``.tif`` or ``.tiff``.
    data
        The layer's array.
    meta
        The layer's properties.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, a label is above 255, or the file cannot be written.
    """
    return [str(save_labels(Layer.create(data, meta, "labels"), Path(path)))]


def save_labels(layer: Labels, path: Path) -> Path:
    """Write a label layer as it is now, with the corrections made to it, onto the grid of its scan.

    Raises
    ------
    DataError
        As `write_layer`.
    """
    labels_ZYX, source = labels_from_layer(layer)
    return write_labels(labels_ZYX, source, path)
