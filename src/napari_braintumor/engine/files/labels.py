"""Label files: reading their numbers as regions, and writing them on the grid of the scan they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import CONVENTIONS, check_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import check_labels
from napari_braintumor.engine.files.formats import check_writable
from napari_braintumor.engine.grid import SourceGrid, name_grid
from napari_braintumor.engine.volumes import Legend, Reference

_MOST = 65535
_ALMOST = 0.01
_MOST_LABELS = 256
_EQUAL = 0.5


def reference_from_values(array_ZYX: NDArray[Any], convention: str, source: SourceGrid) -> Reference:
    """Read the numbers of a mask as regions.

    Parameters
    ----------
    array_ZYX
        ``(Z, Y, X)``, whole numbers from 0, of any type. Values within 0.01 of them are rounded, with a note.
    convention
        A key of `CONVENTIONS`. For ``whole``, ``core`` and ``enhancing`` all values but 0 are inside, or only those
        above 127 if there are any, because masks saved as pictures have gray edges.
    source
        The grid of the mask.

    Returns
    -------
    Reference
        The regions that the convention defines, with a note if values were rounded.

    Raises
    ------
    DataError
        If there is no such convention, or the mask contains a value that it does not define.
    """
    check_convention(convention)
    values_ZYX, values, rounded = _whole_numbers(array_ZYX, where := _call(source))
    meaning = CONVENTIONS[convention]
    strange = [] if meaning.binary else sorted(set(values) - meaning.values)
    if strange:
        raise DataError(
            f"{where} contains the values {', '.join(map(str, strange))}, which the convention '{convention}' does not "
            f"define (it has {', '.join(map(str, sorted(meaning.values)))}). "
            "Choose the convention that the mask was drawn with."
        )
    highest = max(values)
    regions = {}
    for region, members in meaning.regions.items():
        inside = np.zeros(highest + 1, np.bool_)
        inside[[value for value in members if value <= highest]] = True
        if not members:
            inside[128 if highest > 127 else 1 :] = True
        regions[region] = inside[values_ZYX]
    notes = (f"{where} contains values close to whole numbers, such as 0.9999; they were rounded.",)
    return Reference(regions, convention, source, notes if rounded else ())


def find_label_values(array: NDArray[Any], source: SourceGrid) -> tuple[int, ...]:
    """Return the values that occur in a mask, in ascending order.

    Returns
    -------
    tuple of int
        Each value once, with 0 if it occurs.

    Raises
    ------
    DataError
        If they are not whole numbers from 0.
    """
    return _whole_numbers(array, _call(source))[1]


def _call(source: SourceGrid) -> str:
    name = name_grid(source, "")
    return f"Mask {name}" if name else "The mask"


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Return whether an array holds labels rather than a scan, judged by its values.

    Parameters
    ----------
    array
        An array of any shape.

    Returns
    -------
    bool
        True if it contains only a few different whole numbers from 0, and nonzero neighbors along the last axis are
        mostly equal, as in painted areas; the gray values of a scan differ from voxel to voxel.
    """
    if array.size == 0 or array.dtype.kind not in "buif":
        return False
    try:
        whole, values, _ = _whole_numbers(array, "")
    except DataError:
        return False
    here, there = whole[..., :-1], whole[..., 1:]
    both = (here > 0) & (there > 0)
    return len(values) <= _MOST_LABELS and (not both.any() or bool((here == there)[both].mean() > _EQUAL))


def _whole_numbers(array: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[int, ...], bool]:
    """Return the mask as integers, its values, and whether any were rounded."""
    if array.size == 0:
        raise DataError(f"{where} has no voxels. Expected a label for each voxel of the scan.")
    low, high = array.min(), array.max()
    if not (low >= -_ALMOST and high <= _MOST):  # written so that NaN fails too
        raise DataError(f"{where} contains values from {low:g} to {high:g}. Expected labels from 0 to {_MOST}.")
    whole = array if array.dtype.kind in "bu" else np.rint(array).astype(np.uint16)
    rounded = array.dtype.kind == "f" and not np.array_equal(whole, array)
    if rounded and np.abs(array - whole).max() > _ALMOST:
        raise DataError(
            f"{where} contains fractions. Expected whole numbers, one for each kind of tissue. If it was resampled, do "
            "so again with nearest-neighbor interpolation."
        )
    whole = whole.astype(np.uint8) if high <= 255 else whole
    return whole, tuple(int(v) for v in np.flatnonzero(np.bincount(whole.ravel()))), rounded


def check_values(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Check that labels can be written.

    Returns
    -------
    ndarray
        The same labels as uint8.

    Raises
    ------
    DataError
        If one does not fit.
    """
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise DataError(
            f"Labels range from {labels.min()} to {labels.max()}. Expected values from 0 to 255. Renumber them first."
        )
    return labels.astype(np.uint8, copy=False)


def write_labels(
    labels_ZYX: NDArray[np.integer[Any]], source: SourceGrid, path: Path, legend: Legend | None = None
) -> Path:
    """Write labels in the format given by the file's suffix.

    Parameters
    ----------
    labels_ZYX
        ``(Z, Y, X)``, values from 0 to 255.
    source
        The grid of the scan.
    path
        Has a suffix of one of the `FORMATS`. The file is written completely or not at all.
    legend
        What the labels mean, for formats that say so.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    DataError
        If the suffix is not supported, a label does not fit in 8 bits, the shape differs from the scan's, or the file
        cannot be written.
    """
    path = Path(path)
    labels = check_values(labels_ZYX)
    form = check_writable(path)
    check_labels(labels, source)
    assert form.write_labels is not None
    if legend is not None and form.write_named is not None:
        form.write_named(labels, source, path, legend)
    else:
        form.write_labels(labels, source, path)
    return path
