"""Labels with their measurements as DICOM objects: a segmentation, and by choice a report and a structure set."""

from __future__ import annotations

from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import ExportEvent, LabelsWritten, PhaseReached
from napari_braintumor.engine.files._access import check_labels
from napari_braintumor.engine.files.formats import find_suffix, join_words
from napari_braintumor.engine.files.labels import check_values, write_labels
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.diameters import measure_axial_diameters, measure_longest_diameter
from napari_braintumor.engine.volumes import Legend, Sizes

REPORT, STRUCTURES = "report", "rtstruct"
EXTRAS = (REPORT, STRUCTURES)
"""What can be written beside a DICOM segmentation."""

EXTRA_ENDINGS = tuple(f"_{each}.dcm" for each in EXTRAS)
"""How their names end."""


def measure_sizes(mask_ZYX: NDArray[np.bool_], grid: SourceGrid) -> Sizes:
    """Measure the volume and the diameters of a mask, bool ``(Z, Y, X)``."""
    axial = measure_axial_diameters(mask_ZYX, grid)
    if axial is None:
        return Sizes(0.0)
    return Sizes(
        volume_ml=float(np.count_nonzero(mask_ZYX)) * grid.voxel_ml,
        axial_mm=axial.longest_mm,
        across_mm=axial.across_mm,
        longest_mm=max(measure_longest_diameter(mask_ZYX, grid), axial.longest_mm),
    )


def check_extras(also: Collection[str], ending: str) -> None:
    """Raise an error for what cannot be written beside labels.

    Parameters
    ----------
    also
        What to write.
    ending
        The suffix of the labels, such as ``.dcm``.

    Raises
    ------
    SettingsError
        If it is none of `EXTRAS`, or the labels are no DICOM segmentation.
    """
    if unknown := sorted(set(also) - set(EXTRAS)):
        raise SettingsError(f"There is no '{unknown[0]}' to write beside labels. Choose {join_words(EXTRAS)}.")
    if also and ending != ".dcm":
        raise SettingsError(
            f"A {sorted(also)[0]} refers to a DICOM segmentation, but labels are written as '{ending}'. Write them as "
            "'.dcm', for cases from DICOM."
        )


def write_with_extras(
    labels_ZYX: NDArray[Any], source: SourceGrid, path: Path, legend: Legend, also: Collection[str] = ()
) -> list[Path]:
    """Write labels, and what else is asked for beside a DICOM segmentation; see `export_labels`.

    Returns
    -------
    list of Path
        The files, the labels first.

    Raises
    ------
    DataError, SettingsError
        As `export_labels`.
    """
    *_, written = export_labels(labels_ZYX, source, path, legend, also)
    assert isinstance(written, LabelsWritten)
    return list(written.files)


def export_labels(
    labels_ZYX: NDArray[Any], source: SourceGrid, path: Path, legend: Legend, also: Collection[str] = ()
) -> Generator[ExportEvent, None, None]:
    """Write labels in the format given by the suffix, and what else is asked for beside a DICOM segmentation.

    Nothing is written before all of it was made, so that whoever stops iterating finds no file.

    Parameters
    ----------
    labels_ZYX
        ``(Z, Y, X)``, whole numbers from 0 to 255.
    source
        The grid of the scan.
    path
        The labels; the others get its name with an ending of `EXTRA_ENDINGS`.
    legend
        What the labels mean.
    also
        Any of `EXTRAS`.

    Yields
    ------
    ExportEvent
        `PhaseReached` before each part, and `LabelsWritten` last, with the labels first.

    Raises
    ------
    DataError
        As `write_labels`.
    SettingsError
        As `check_extras`, or if a package is missing.
    """
    check_extras(also, find_suffix(path))
    if find_suffix(path) != ".dcm":
        yield PhaseReached("writing the labels")
        yield LabelsWritten((write_labels(labels_ZYX, source, path, legend),))
        return
    from napari_braintumor.engine.files.dicom.referring import find_images
    from napari_braintumor.engine.files.dicom.report import make_report
    from napari_braintumor.engine.files.dicom.saving import save_objects
    from napari_braintumor.engine.files.dicom.segmentation import make_segmentation
    from napari_braintumor.engine.files.dicom.structures import make_structures, require_rt_utils

    if STRUCTURES in also:
        require_rt_utils()
    parts = 3 + (REPORT in also) + (STRUCTURES in also)
    yield PhaseReached("looking for the images of the series", 0, parts)
    labels = check_values(labels_ZYX)
    check_labels(labels, source)
    images = find_images(source)
    yield PhaseReached("making the segmentation", 1, parts)
    made, segments = make_segmentation(labels, source, images, legend)
    objects = {path: made}
    if REPORT in also:
        sizes = {}
        for segment in segments:
            yield PhaseReached(f"measuring {segment.name}", 2, parts)
            sizes[segment.name] = measure_sizes(np.isin(labels, segment.labels), source)
        report = make_report(sizes, made, segments, images, legend.provenance)
        objects[path.with_name(f"{path.stem}_{REPORT}.dcm")] = report
    if STRUCTURES in also:
        yield PhaseReached("drawing contours", len(objects) + 1, parts)
        drawn = make_structures(labels, source, segments, images, by_hand="model" not in legend.provenance)
        objects[path.with_name(f"{path.stem}_{STRUCTURES}.dcm")] = drawn
    yield PhaseReached("writing the files", parts - 1, parts)
    save_objects(objects)
    yield LabelsWritten(tuple(objects))
