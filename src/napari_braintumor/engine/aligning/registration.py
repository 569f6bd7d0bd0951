"""Rigid registration of two scans of one head, across sequences: mutual information, from coarse to fine (SimpleITK).

Mutual information (Mattes et al. 2003) is measured at points chosen by chance with a fixed seed, and on one thread, so
that the result is the same to the bit every time. The search begins at several places, because two scanner coordinate
systems may lie anywhere. Each step takes at most a few seconds; between steps, whoever waits may stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.resampling import invert
from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.aligning.similarity import Witness, call_witness, clip_limits, measure_similarity
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.inspecting.foreground import find_background

SEED = 1
_AROUND_MM = 8.0
_BINS = 32
_WITNESS_MM = 2.0
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DECIMALS = 5


@dataclass(frozen=True)
class Level:
    """One resolution of the search.

    Attributes
    ----------
    voxel_mm
        Voxels are averaged up to about this size.
    share
        The share of the voxels around the head at which the two scans are compared.
    step_mm
        The first step of the search.
    """

    voxel_mm: float
    share: float
    step_mm: float


LEVELS = (Level(3.0, 0.3, 1.5), Level(1.5, 0.1, 0.5))
_COARSE = Level(6.0, 0.8, 4.0)
_PITCHES_DEG = (-20, -10, 0, 10, 20)
_SHIFTS_MM = (-50, -30, -15, 0, 15, 30, 50)
_MOST_STARTS = 2


@dataclass(frozen=True, eq=False)
class Registration:
    """Where a scan lies, compared with what its header says.

    Attributes
    ----------
    to_reference
        ``(4, 4)``, rigid: RAS mm of the scan to RAS mm of the reference.
    before, after
        Mutual information in nats by the headers and after the move.
    """

    to_reference: NDArray[np.float64]
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan made ready for registration.

    Attributes
    ----------
    image
        Its intensities without the extremes; a SimpleITK image in LPS mm.
    around
        The head and its surroundings, as an image of 0 and 1.
    center
        ``(3,)`` LPS mm, the middle of the head.
    coarse_ZYX, affine_ZYX
        Its voxels averaged to about 2 mm, and their affine to RAS mm.
    background
        Its intensity of air.
    witness
        Points in and around the head.
    """

    image: Any
    around: Any
    center: NDArray[np.float64]
    coarse_ZYX: NDArray[np.float32]
    affine_ZYX: NDArray[np.float64]
    background: float
    witness: Witness


def prepare_scan(scan: Scan) -> Prepared:
    """Make a scan ready for registration, to be compared with any number of others."""
    import SimpleITK as sitk

    data = np.asarray(scan.data, np.float32)
    background = find_background(data)
    image = to_sitk(np.clip(data, *clip_limits(data)), scan.grid)
    head = background.find_tissue(data)
    if not head.any():
        head = np.ones(data.shape, bool)
    around = _grow(head, scan.grid)
    coarse = _average(image, _WITNESS_MM)
    coarse_ZYX, affine = sitk.GetArrayFromImage(coarse), _affine_ZYX(coarse)
    seen = sitk.GetArrayFromImage(sitk.Resample(around, coarse, sitk.Transform(3, sitk.sitkIdentity), _nearest())) > 0
    middle = np.array(
        [float(np.average(np.arange(n), weights=_along(head, axis))) for axis, n in enumerate(head.shape)]
    )
    center = _TO_LPS @ scan.grid.affine_ZYX @ np.append(middle, 1)
    witness = call_witness(coarse_ZYX, affine, seen, SEED)
    return Prepared(image, around, center[:3], coarse_ZYX, affine, background.intensity, witness)


def register(reference: Prepared, other: Prepared) -> Iterator[Registration | float]:
    """Find the rigid move that brings a scan onto the reference.

    Yields
    ------
    Registration or float
        After each step the share of the steps that is done, and the result last. It may be worse than the header's
        own position: whoever asks must compare `before` and `after`.
    """
    stay = np.eye(4)
    starts = (stay, *_find_starts(reference, other))
    steps, done = len(starts) + len(LEVELS), 0
    tried = []
    for start in starts:
        tried.append(_search(reference, other, start, _COARSE))
        done += 1
        yield done / steps
    best = max((start for start in tried if start is not None), key=lambda m: _judge(reference, other, m), default=stay)
    for level in LEVELS:
        finer = _search(reference, other, best, level)
        best = best if finer is None else finer
        done += 1
        yield done / steps
    before = _judge(reference, other, stay)
    yield Registration(_to_reference(best), before, _judge(reference, other, best))


def to_sitk(image_ZYX: NDArray[Any], grid: SourceGrid) -> Any:
    """Return an image of SimpleITK, in LPS mm, from an array with axes (Z, Y, X).

    Places are rounded far below what matters, because a search ends elsewhere where a header was only rounded, as when
    NIfTI becomes DICOM.

    Returns
    -------
    SimpleITK.Image
        The image.
    """
    import SimpleITK as sitk

    affine = (_TO_LPS @ grid.affine_ZYX[:, [2, 1, 0, 3]]).round(_DECIMALS)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(image_ZYX))
    image.SetSpacing(sides.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / sides).ravel().tolist())
    return image


def _find_starts(reference: Prepared, other: Prepared) -> list[NDArray[np.float64]]:
    """Return where a search had best begin if the headers are wrong: the middles of the heads meet, or nearly so.

    A scan may show more of the neck than another, which shifts the middle of what it shows up or down, and its slices
    may be tilted; so both are tried, and the most promising places are kept.

    Returns
    -------
    list of ndarray
        Moves ``(4, 4)``, LPS mm of the reference to LPS mm of the other.
    """
    few = replace(reference.witness, points=reference.witness.points[::6], bins=reference.witness.bins[::6])
    starts = []
    for pitch, up_mm in product(np.radians(_PITCHES_DEG), _SHIFTS_MM):
        start = np.eye(4)
        start[1:3, 1:3] = (np.cos(pitch), -np.sin(pitch)), (np.sin(pitch), np.cos(pitch))
        start[:3, 3] = other.center + np.array([0, 0, up_mm]) - start[:3, :3] @ reference.center
        starts.append(start)
    return sorted(starts, key=lambda start: _judge(reference, other, start, few), reverse=True)[:_MOST_STARTS]


def _search(
    reference: Prepared, other: Prepared, start: NDArray[np.float64], level: Level
) -> NDArray[np.float64] | None:
    """Search at one resolution.

    Returns
    -------
    ndarray or None
        ``(4, 4)``, LPS mm of the reference to LPS mm of the other, as SimpleITK has moves; None if the two heads do not
        meet at the start.
    """
    import SimpleITK as sitk

    fixed, moving = _average(reference.image, level.voxel_mm), _average(other.image, level.voxel_mm)
    around = sitk.Resample(reference.around, fixed, sitk.Transform(3, sitk.sitkIdentity), _nearest())
    move = sitk.Euler3DTransform()
    move.SetCenter(reference.center.tolist())
    move.SetMatrix(_orthogonal(start[:3, :3]).ravel().tolist(), 1e-6)
    at_center = start[:3, :3] @ reference.center + start[:3, 3]
    move.SetTranslation((at_center - reference.center).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(level.share, SEED)
    method.SetMetricFixedMask(around)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=level.step_mm, minStep=0.01, numberOfIterations=60, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(move, inPlace=True)
    try:
        with use_one_thread():
            method.Execute(fixed, moving)
    except RuntimeError:  # SimpleITK's error where no point of one head lies in the other image
        return None
    found = np.eye(4)
    found[:3, :3] = np.array(move.GetMatrix()).reshape(3, 3)
    found[:3, 3] = np.array(move.GetTranslation()) + reference.center - found[:3, :3] @ reference.center
    return found if np.isfinite(found).all() else None


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let SimpleITK sum up in one order; its parts take their number of threads from this global setting alone."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _judge(reference: Prepared, other: Prepared, move: NDArray[np.float64], witness: Witness | None = None) -> float:
    to_reference = _to_reference(move)
    witness = witness or reference.witness
    return measure_similarity(witness, other.coarse_ZYX, other.affine_ZYX, to_reference, other.background)


def _to_reference(move: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a move as we have it: RAS mm of the other to RAS mm of the reference."""
    return invert(_TO_LPS @ move @ _TO_LPS)


def _orthogonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation next to a matrix that is one but for rounding."""
    left, _, right = np.linalg.svd(matrix)
    rotation: NDArray[np.float64] = left @ right
    return rotation


def _average(image: Any, voxel_mm: float) -> Any:
    """Average voxels up to a size in mm along each axis."""
    import SimpleITK as sitk

    factors = [
        min(size, max(1, round(voxel_mm / side)))
        for side, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(image, factors)


def _affine_ZYX(image: Any) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return (_TO_LPS @ affine)[:, [2, 1, 0, 3]]


def _grow(head_ZYX: NDArray[np.bool_], grid: SourceGrid) -> Any:
    """Return the head and what is near it, slice by slice, as an image of 0 and 1."""
    from scipy import ndimage

    near = head_ZYX
    for axis, side in ((1, grid.spacing[1]), (2, grid.spacing[2])):
        near = ndimage.maximum_filter1d(near.astype(np.uint8), 2 * round(_AROUND_MM / side) + 1, axis)
    return to_sitk(near.astype(np.uint8), grid)


def _along(head_ZYX: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = head_ZYX.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64)
    return counts


def _nearest() -> Any:
    import SimpleITK as sitk

    return sitk.sitkNearestNeighbor
