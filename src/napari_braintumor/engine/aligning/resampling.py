"""Resample an image from one grid onto another through a rigid move: without aliasing, and knowing what it cannot show.

SimpleITK interpolates. Images are handed to it as bare voxels and the affine between their indices, so that sheared
grids (gantry tilt) are as good as others.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.grid import SourceGrid

_FWHM = 2.355
"""Full width at half maximum of a Gaussian, in standard deviations."""

Interpolation = Literal["nearest", "linear", "cubic"]


def index_affine(onto: SourceGrid, grid: SourceGrid, to_onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find where the voxels of one grid lie in another.

    Parameters
    ----------
    onto
        The grid of the first index.
    grid
        The grid of the second.
    to_onto
        ``(4, 4)``, rigid: RAS mm of `grid` to RAS mm of `onto`.

    Returns
    -------
    ndarray
        ``(4, 4)``, index (z, y, x) in `onto` to index (z, y, x) in `grid`.
    """
    return invert(to_onto @ grid.affine_ZYX) @ onto.affine_ZYX


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a ``(4, 4)`` affine."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def resample(
    image_ZYX: NDArray[Any],
    grid: SourceGrid,
    onto: SourceGrid,
    to_onto: NDArray[np.float64],
    interpolation: Interpolation = "linear",
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """Resample an image onto another grid.

    Where the new voxels are larger along an axis, the image is first blurred to their size.

    Parameters
    ----------
    image_ZYX, grid
        The image and its grid.
    onto
        The new grid.
    to_onto
        ``(4, 4)``, rigid: RAS mm of the image to RAS mm of the new grid.
    interpolation
        ``cubic`` is a B-spline, kept within the range of the image.
    outside
        The value of voxels that the image does not show.

    Returns
    -------
    ndarray
        float32 ``(Z, Y, X)`` on the new grid.
    """
    matrix = index_affine(onto, grid, to_onto)
    image = np.ascontiguousarray(image_ZYX, np.float32)
    if interpolation != "nearest":
        image = _blur(image, _steps(matrix, grid.spacing))
    resampled = _interpolate(image, onto, matrix, interpolation, outside)
    if interpolation == "cubic":
        np.clip(resampled, min(image.min(), outside), max(image.max(), outside), out=resampled)
    return resampled


def find_shown(grid: SourceGrid, onto: SourceGrid, to_onto: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which voxels of a grid lie in an image on another grid, by their centers: bool ``(Z, Y, X)``."""
    everything = np.ones(grid.shape_ZYX, np.uint8)
    return _interpolate(everything, onto, index_affine(onto, grid, to_onto), "nearest", 0.0) > 0


def _steps(matrix: NDArray[np.float64], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Compare voxel sizes: each axis of the image with the axis of the new grid that runs most along it.

    Returns
    -------
    ndarray
        ``(3,)``, how many voxels of the image one voxel of the new grid spans along each axis of the image.
    """
    steps = np.abs(matrix[:3, :3])
    in_mm = steps * np.array(spacing)[:, None]
    along = (in_mm / np.linalg.norm(in_mm, axis=0)).argmax(axis=1)
    spans: NDArray[np.float64] = steps[np.arange(3), along]
    return spans


def _blur(image_ZYX: NDArray[np.float32], steps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Blur an image as if its voxels were as many times as long along each axis, where that is more than one."""
    from scipy import ndimage

    for axis, step in enumerate(steps):
        if step > 1.01 and image_ZYX.shape[axis] > 1:
            image_ZYX = ndimage.gaussian_filter1d(image_ZYX, np.sqrt(step**2 - 1) / _FWHM, axis, mode="nearest")
    return image_ZYX


def _interpolate(
    image_ZYX: NDArray[Any],
    onto: SourceGrid,
    matrix: NDArray[np.float64],
    interpolation: Interpolation,
    outside: float,
) -> NDArray[Any]:
    import SimpleITK as sitk

    kinds = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline3}
    move = sitk.AffineTransform(3)
    move.SetMatrix(matrix[2::-1, 2::-1].ravel().tolist())
    move.SetTranslation(matrix[2::-1, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(onto.shape_ZYX[::-1])
    resampler.SetTransform(move)
    resampler.SetInterpolator(kinds[interpolation])
    resampler.SetDefaultPixelValue(float(outside))
    resampled: NDArray[Any] = sitk.GetArrayFromImage(resampler.Execute(sitk.GetImageFromArray(image_ZYX)))
    return resampled
