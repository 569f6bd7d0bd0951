"""Labels with their measurements as DICOM objects: a segmentation, and by choice a report and a structure set."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.files.formats import find_suffix, join_words
from napari_braintumor.engine.files.labels import write_labels
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
    """Write labels in the format given by the suffix, and what else is asked for beside a DICOM segmentation.

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

    Returns
    -------
    list of Path
        The files, the labels first.

    Raises
    ------
    DataError
        As `write_labels`.
    SettingsError
        As `check_extras`, or if a package is missing.
    """
    check_extras(also, find_suffix(path))
    if not also:
        return [write_labels(labels_ZYX, source, path, legend)]
    from napari_braintumor.engine.files.dicom.report import write_report
    from napari_braintumor.engine.files.dicom.segmentation import write_segmentation
    from napari_braintumor.engine.files.dicom.structures import require_rt_utils, write_structures

    if STRUCTURES in also:
        require_rt_utils()  # before anything is written
    labels = np.asarray(labels_ZYX).astype(np.uint8)
    made, images, segments = write_segmentation(labels, source, path, legend)
    files = [path]
    if REPORT in also:
        sizes = {each.name: measure_sizes(np.isin(labels, each.labels), source) for each in segments}
        files.append(path.with_name(f"{path.stem}_{REPORT}.dcm"))
        write_report(sizes, made, segments, images, files[-1], legend.provenance)
    if STRUCTURES in also:
        files.append(path.with_name(f"{path.stem}_{STRUCTURES}.dcm"))
        write_structures(labels, source, files[-1], segments, images, by_hand="model" not in legend.provenance)
    return files
