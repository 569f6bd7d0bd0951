"""Labels with their measurements as DICOM objects: a segmentation, and by choice a report and a structure set."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.files.dicom.report import Sizes, write_report
from napari_braintumor.engine.files.dicom.segmentation import write_segmentation
from napari_braintumor.engine.files.dicom.structures import write_structures
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.diameters import measure_axial_diameters, measure_longest_diameter
from napari_braintumor.engine.volumes import Legend

REPORT, STRUCTURES = "report", "rtstruct"
EXTRAS = (REPORT, STRUCTURES)
"""What can be written beside a DICOM segmentation."""


def measure_sizes(mask_ZYX: NDArray[np.bool_], grid: SourceGrid) -> Sizes:
    """Measure the volume and the diameters of a mask, bool ``(Z, Y, X)``."""
    axial = measure_axial_diameters(mask_ZYX, grid)
    if axial is None:
        return Sizes(0.0)
    return Sizes(
        volume_ml=float(np.count_nonzero(mask_ZYX)) * grid.voxel_ml,
        axial_mm=axial.longest_mm,
        across_mm=axial.across_mm,
        longest_mm=measure_longest_diameter(mask_ZYX, grid),
    )


def export_dicom(
    labels_ZYX: NDArray[np.uint8],
    source: SourceGrid,
    path: Path,
    legend: Legend,
    also: Collection[str] = (),
) -> list[Path]:
    """Write labels as a DICOM segmentation, and what else is asked for beside it.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``.
    source
        The grid of a scan that was read from DICOM.
    path
        The segmentation; the others get its name with ``_report`` and ``_rtstruct`` before the suffix.
    legend
        What the labels mean.
    also
        Any of `EXTRAS`.

    Returns
    -------
    list of Path
        The files, the segmentation first.

    Raises
    ------
    DataError
        As `write_segmentation`.
    """
    made, images, segments = write_segmentation(labels_ZYX, source, path, legend)
    files = [path]
    if REPORT in also:
        sizes = {each.name: measure_sizes(np.isin(labels_ZYX, each.labels), source) for each in segments}
        files.append(path.with_name(f"{path.stem}_{REPORT}{path.suffix}"))
        write_report(sizes, made, segments, images, files[-1], legend.provenance)
    if STRUCTURES in also:
        files.append(path.with_name(f"{path.stem}_{STRUCTURES}{path.suffix}"))
        write_structures(labels_ZYX, source, files[-1], segments, images, by_hand="model" not in legend.provenance)
    return files
