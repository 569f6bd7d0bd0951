"""Save label layers from napari onto the grid of the scan they belong to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import napari
from napari.layers import Labels, Layer
from napari.utils.notifications import show_info

from napari_braintumor.engine.aligning.returning import labels_on
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.measuring.dicom_export import write_with_extras
from napari_braintumor.engine.measuring.record import write_record
from napari_braintumor.layers import alignment_of, figures_of, is_result, labels_from_layer, legend_of


def write_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a label layer, whichever plugin made it; napari's writer entry point.

    Parameters
    ----------
    path
        Ends in a suffix that labels are written with: ``.nii.gz``, ``.tif``, ``.nrrd``, ``.mha``, ``.mgz`` and others.
    data
        The layer's array.
    meta
        The layer's properties.

    Returns
    -------
    list of str
        The written files.

    Raises
    ------
    DataError
        If the layer is not three-dimensional, a label is above 255, the file cannot be written, or it is unclear which
        scan the labels belong to.
    """
    viewer = napari.current_viewer()
    layer = Layer.create(data, meta, "labels")
    return [str(file) for file in save_labels(layer, Path(path), viewer.layers if viewer is not None else ())]


def save_labels(
    layer: Labels,
    path: Path,
    others: Iterable[Layer] = (),
    also: Collection[str] = (),
    on: str | None = None,
) -> list[Path]:
    """Write a label layer as it is now, including corrections, onto the grid of its scan.

    Parameters
    ----------
    layer
        The layer. If a model made it, its record is written next to the file.
    path
        See `write_layer`.
    others
        The other open layers: labels from other sources are written on the grid of the scan they lie on.
    also
        What to write beside a DICOM segmentation, any of `EXTRAS`.
    on
        The modality on whose own grid they are written, for a result from scans that were brought onto one grid.

    Returns
    -------
    list of Path
        The label file, what was written beside it, and for a model's result its record.

    Raises
    ------
    DataError
        See `write_layer`.
    SettingsError
        If what is asked for beside it cannot be written, or the layer was not made from that modality.
    """
    landing = labels_from_layer(layer, others)
    labels, grid = landing.labels_ZYX, landing.grid
    if on is not None:
        alignment = alignment_of(layer)
        if alignment is None or on not in alignment.scans:
            raise SettingsError(f"'{layer.name}' was not made from a {on} with a grid of its own. Choose another grid.")
        labels, grid = labels_on(labels, alignment, on), alignment.scans[on].grid
    written = write_with_extras(labels, grid, path, legend_of(layer), also)
    if landing.note:
        show_info(landing.note)
    if not is_result(layer):
        return written
    figures = figures_of(layer)
    figures.settle()
    where = {} if on is None else {"on_grid_of": on}
    return [*written, write_record({**where, **figures.describe()}, written[0])]
