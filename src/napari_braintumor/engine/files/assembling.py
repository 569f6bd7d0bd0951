"""Put the images of a case together on one grid, or say why they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Volume


def volume_from_modalities(arrays: Mapping[str, NDArray[Any]], source: SourceGrid, name: str) -> Volume:
    """Stack the images of a case into a volume.

    Parameters
    ----------
    arrays
        The image of each modality, real numbers of any type, axes (Z, Y, X).
    source
        The grid of the images.
    name
        The case's name.

    Returns
    -------
    Volume
        float32 ``(M, Z, Y, X)``, modalities in the order given.

    Raises
    ------
    DataError
        If there is no image, an image is not a stack of slices, the images differ in shape, one contains NaN, infinity
        or only one value, or two are the same image.
    """
    if not arrays:
        raise DataError(f"Case '{name}' has no image. At least one modality is needed. Choose an image for it.")
    for modality, array in arrays.items():
        _check_stack(modality, array)
    first, *others = arrays
    for other in others:
        if arrays[other].shape != arrays[first].shape:
            raise DataError(
                f"Images '{first}' {arrays[first].shape} and '{other}' {arrays[other].shape} differ in shape. "
                f"The modalities of a case must share one grid. Resample '{other}' to '{first}' first."
            )
    data = np.empty((len(arrays), *arrays[first].shape), np.float32)

    def fill(modality: str, channel: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            channel[...] = arrays[modality]
        _check_values(modality, channel)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, arrays, data))  # raises the error of the first bad image
    for (one, image), (two, other) in combinations(zip(arrays, data, strict=True), 2):
        if np.array_equal(image, other):
            raise same_image_error(one, two)
    return Volume(data, tuple(arrays), source, name)


def same_image_error(one: str, two: str) -> DataError:
    """Return the error for two modalities that are the same image, such as a copy in place of a missing scan."""
    return DataError(
        f"{one} and {two} hold the same image. Each modality must be a scan of its own. Leave out the one that is "
        "missing."
    )


def check_scan(modality: str, array: NDArray[Any]) -> None:
    """Raise an error if an image cannot be resampled: it is not a stack of finite real numbers that differ."""
    _check_stack(modality, array)
    with np.errstate(over="ignore", invalid="ignore"):
        _check_values(modality, np.asarray(array, np.float32))


def _check_stack(modality: str, array: NDArray[Any]) -> None:
    """Raise an error if an image is not a (Z, Y, X) stack of real numbers."""
    expected = "Expected a stack of slices with axes (Z, Y, X)."
    if array.dtype.kind not in "biuf":
        raise DataError(f"Image '{modality}' has values of type {array.dtype}. Expected real numbers.")
    if array.ndim >= 3 and array.shape[-1] in (3, 4) and array.dtype == np.uint8:
        raise DataError(
            f"Image '{modality}' {array.shape} is a color picture. {expected} "
            "Split it into its channels, or open the original scan."
        )
    if array.ndim != 3:
        raise DataError(
            f"Image '{modality}' {array.shape} has {array.ndim} dimensions. {expected} "
            + ("Open the whole scan." if array.ndim < 3 else "Split it into one image for each modality.")
        )
    if 0 in array.shape:
        raise DataError(f"Image '{modality}' {array.shape} has no voxels. {expected}")


def _check_values(modality: str, image_ZYX: NDArray[np.float32]) -> None:
    """Raise an error if an image has values that no network can use."""
    least, most = image_ZYX.min(), image_ZYX.max()
    if not np.isfinite(least) or not np.isfinite(most):  # NaN goes through both
        bad_vox = image_ZYX.size - int(np.count_nonzero(np.isfinite(image_ZYX)))
        raise DataError(
            f"Image '{modality}' has {bad_vox} voxels that are NaN or infinite. All values must be finite. "
            "Replace them, for instance by 0 outside the head."
        )
    if least == most:
        raise DataError(
            f"Image '{modality}' has the value {image_ZYX.flat[0]:g} everywhere. Expected a scan. "
            "Check the file, or leave this modality out."
        )
