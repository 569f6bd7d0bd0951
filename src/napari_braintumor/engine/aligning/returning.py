"""The way back: labels drawn on the reference's grid, on the grid of any scan of the case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.resampling import invert, resample
from napari_braintumor.engine.aligning.scans import lie_alike
from napari_braintumor.engine.alignment import Alignment
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Segmentation


def labels_on(labels_ZYX: NDArray[np.integer[Any]], alignment: Alignment, modality: str) -> NDArray[np.uint8]:
    """Bring labels from the reference's grid onto the grid of one of the scans, by the inverse of what was done to it.

    On a grid that is the reference's own, labels stay as they are. Elsewhere a voxel is labeled if labels cover at
    least half of it, and gets the label that covers most of it.

    Parameters
    ----------
    labels_ZYX
        Whole numbers from 0 to 255, on the reference's grid.
    alignment
        How the scans were aligned.
    modality
        The scan whose grid is wanted.

    Returns
    -------
    ndarray
        uint8 ``(Z, Y, X)``, on ``alignment.scans[modality].grid``.

    Raises
    ------
    SettingsError
        If the case has no such scan.
    """
    if modality not in alignment.scans:
        raise _no_scan_error(modality, alignment.scans)
    scan, reference = alignment.scans[modality], alignment.scans[alignment.reference].grid
    labels = np.asarray(labels_ZYX, np.uint8)
    if np.array_equal(scan.to_reference, np.eye(4)) and lie_alike(reference, scan.grid):
        return labels
    return move_labels(labels, reference, scan.grid, invert(scan.to_reference))


def segmentation_on(segmentation: Segmentation, modality: str) -> Segmentation:
    """Bring a segmentation onto the grid of one of the scans that it was made from; see `labels_on`.

    Volumes stay as they were measured on the reference's grid. Probabilities are left out.

    Parameters
    ----------
    segmentation
        The result.
    modality
        The scan whose grid is wanted.

    Returns
    -------
    Segmentation
        The same result on that grid; itself if all scans share one.

    Raises
    ------
    SettingsError
        If the case has no such scan.
    """
    alignment = segmentation.alignment
    if alignment is None:
        if modality not in (used := segmentation.provenance.get("modalities_used", [modality])):
            raise _no_scan_error(modality, used)
        return segmentation
    labels = labels_on(segmentation.labels, alignment, modality)
    return replace(
        segmentation,
        labels=labels,
        source=alignment.scans[modality].grid,
        provenance={**segmentation.provenance, "on_the_grid_of": modality},
        probabilities=None,
        alignment=None,
    )


def _no_scan_error(modality: str, there: Iterable[str]) -> SettingsError:
    return SettingsError(
        f"There is no {modality} in this case to write labels for. Expected one of {', '.join(there)}."
    )


def move_labels(
    labels_ZYX: NDArray[np.uint8], grid: SourceGrid, onto: SourceGrid, to_onto: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Resample labels onto another grid, each by the share of a voxel that it covers.

    Parameters
    ----------
    labels_ZYX, grid
        The labels and their grid.
    onto
        The new grid.
    to_onto
        ``(4, 4)``, rigid: RAS mm of the labels to RAS mm of the new grid.

    Returns
    -------
    ndarray
        uint8 ``(Z, Y, X)`` on the new grid; 0 where the old grid does not reach.
    """
    any_label = np.zeros(onto.shape_ZYX, np.float32)
    most = np.zeros(onto.shape_ZYX, np.float32)
    moved = np.zeros(onto.shape_ZYX, np.uint8)
    for label in np.flatnonzero(np.bincount(labels_ZYX.ravel(), minlength=1)[1:]) + 1:
        share = resample(labels_ZYX == label, grid, onto, to_onto)
        any_label += share
        larger = share > most
        moved[larger], most[larger] = label, share[larger]
    moved[any_label < 0.5] = 0
    return moved
