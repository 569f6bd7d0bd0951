"""Save label layers from napari onto the grid of the scan they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import napari
from napari.layers import Labels, Layer
from napari.utils.notifications import show_info

from napari_braintumor.engine.files.labels import write_labels
from napari_braintumor.engine.measuring.record import write_record
from napari_braintumor.layers import figures_of, is_result, labels_from_layer


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
        The files that were written.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, a label is above 255, the file cannot be written, or it is not clear on
        which scan the labels lie.
    """
    viewer = napari.current_viewer()
    layer = Layer.create(data, meta, "labels")
    return [str(file) for file in save_labels(layer, Path(path), viewer.layers if viewer is not None else ())]


def save_labels(layer: Labels, path: Path, others: Iterable[Layer] = ()) -> list[Path]:
    """Write a label layer as it is now, with the corrections made to it, onto the grid of its scan.

    Parameters
    ----------
    layer
        The layer. Of one that a model made, the record is written beside it.
    path
        As `write_layer`.
    others
        The layers that are open beside it: labels of another origin are written on the grid of the scan they lie on.

    Returns
    -------
    list of Path
        The label file; and of a model's result its record.

    Raises
    ------
    DataError
        As `write_layer`.
    """
    landing = labels_from_layer(layer, others)
    labels = write_labels(landing.labels_ZYX, landing.grid, path)
    if landing.note:
        show_info(landing.note)
    if not is_result(layer):
        return [labels]
    figures = figures_of(layer)
    figures.settle()
    return [labels, write_record(figures.describe(), labels)]
