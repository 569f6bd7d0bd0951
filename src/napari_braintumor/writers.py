"""Save label layers from napari onto the grid of the scan they belong to."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels, Layer
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.returning import labels_on
from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import ExportEvent, LabelsWritten, PhaseReached
from napari_braintumor.engine.files.formats import check_writable, find_suffix
from napari_braintumor.engine.files.tiff import TIFF_SUFFIXES, write_any_labels
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import check_extras, export_labels
from napari_braintumor.engine.measuring.record import write_record
from napari_braintumor.engine.volumes import Legend
from napari_braintumor.layers import (
    alignment_of,
    describe_work,
    figures_of,
    is_result,
    labels_from_layer,
    legend_of,
    level_0,
)


def write_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a label layer, whichever plugin made it; napari's writer entry point.

    Labels that no scan has, such as hundreds of cells, are saved as TIFF too, as they are: whether napari asks this
    writer or its own depends on the order in which it finds plugins.

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
        If the layer is not three-dimensional or a label is above 255, unless as TIFF; the file cannot be written; or it
        is unclear which scan the labels belong to.
    """
    viewer = napari.current_viewer()
    layer = Layer.create(data, meta, "labels")
    if find_suffix(Path(path)) in TIFF_SUFFIXES and not _fits_scan(layer):
        write_any_labels(np.asarray(level_0(layer)), Path(path))
        return [path]
    return [str(file) for file in save_labels(layer, Path(path), viewer.layers if viewer is not None else ())]


def _fits_scan(layer: Labels) -> bool:
    """Whether labels are a model's, or such as a scan may have: three axes, and values of 8 bits."""
    values = level_0(layer)
    return is_result(layer) or (layer.ndim == 3 and bool((values >= 0).all() and (values <= 255).all()))


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
    layer, path, others, also, on
        As for `take_labels`.

    Returns
    -------
    list of Path
        The label file, what was written beside it, and for a model's result its record.

    Raises
    ------
    DataError, SettingsError
        As `take_labels` and `write_taken`.
    """
    taken = take_labels(layer, path, others, also, on)
    *_, written = write_taken(taken)
    assert isinstance(written, LabelsWritten)
    if taken.note:
        show_info(taken.note)
    return list(written.files)


@dataclass(frozen=True, eq=False)
class TakenLabels:
    """The labels of a layer as they were when they were to be saved; what is painted later is not in them.

    Attributes
    ----------
    labels_ZYX, grid
        The labels, and the grid that they were drawn on.
    legend
        What they mean.
    path
        The file.
    also
        What to write beside it.
    on
        The modality on whose own grid they are written; None for the grid that they were drawn on.
    alignment
        How the scans were brought onto one grid.
    record
        For a model's result what is written into its record.
    note
        What the user should know; may be empty.
    """

    labels_ZYX: NDArray[Any]
    grid: SourceGrid
    legend: Legend
    path: Path
    also: tuple[str, ...] = ()
    on: str | None = None
    alignment: Alignment | None = None
    record: Mapping[str, Any] | None = None
    note: str = ""


def take_labels(
    layer: Labels,
    path: Path,
    others: Iterable[Layer] = (),
    also: Collection[str] = (),
    on: str | None = None,
) -> TakenLabels:
    """Take the labels out of a layer, to write them in another thread.

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
    TakenLabels
        A copy.

    Raises
    ------
    DataError
        If labels are not written with that suffix, the layer is not three-dimensional, or it is unclear which scan
        the labels belong to.
    SettingsError
        If what is asked for beside it cannot be written, or the layer was not made from that modality.
    """
    check_writable(path)
    check_extras(also, find_suffix(path))
    landing = labels_from_layer(layer, others)
    alignment = alignment_of(layer) if on is not None else None
    if on is not None and (alignment is None or on not in alignment.scans):
        raise SettingsError(f"'{layer.name}' was not made from a {on} with a grid of its own. Choose another grid.")
    record = None
    if is_result(layer):
        figures = figures_of(layer)
        figures.settle()
        work = describe_work(layer) if on is None else {"on_grid_of": on}  # strokes lie on the grid they were drawn on
        record = {**figures.describe(), **work}
    labels = np.array(landing.labels_ZYX)
    return TakenLabels(labels, landing.grid, legend_of(layer), path, tuple(also), on, alignment, record, landing.note)


def write_taken(taken: TakenLabels) -> Generator[ExportEvent, None, None]:
    """Write labels that were taken out of a layer; runs in a worker thread.

    Yields
    ------
    ExportEvent
        `PhaseReached` before each part, and `LabelsWritten` last; who stops before finds no file.

    Raises
    ------
    DataError
        If a label is above 255, or a file cannot be written.
    SettingsError
        If a package is missing that is needed for what is written beside the labels.
    """
    labels, grid = taken.labels_ZYX, taken.grid
    if taken.on is not None and taken.alignment is not None:
        yield PhaseReached(f"bringing the labels onto the grid of {taken.on}")
        labels, grid = labels_on(labels, taken.alignment, taken.on), taken.alignment.scans[taken.on].grid
    for event in export_labels(labels, grid, taken.path, taken.legend, taken.also):
        if isinstance(event, LabelsWritten):
            files = event.files
            if taken.record is not None:
                files = (*files, write_record(taken.record, files[0]))
            yield LabelsWritten(files)
        else:
            yield event
