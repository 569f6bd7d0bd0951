"""Reading a case: its images as a `Volume`, its mask as a `Reference`."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.assemble import volume_from_modalities
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files._access import NIFTI_SUFFIXES, check_readable, find_suffix, strip_suffix
from napari_braintumor.engine.files.cases import CaseFiles
from napari_braintumor.engine.files.labels import CONVENTIONS, guess_convention, label_values, reference_from_values
from napari_braintumor.engine.files.naming import HOW_TO_NAME
from napari_braintumor.engine.files.nifti import read_nifti, read_nifti_grid
from napari_braintumor.engine.files.tiff import read_tiff, read_tiff_slices
from napari_braintumor.engine.types import Reference, SourceGrid, Volume

_LGG_SLICE_MM = 5.0
_LGG_WIDTH_MM = 256.0

READ_AT_ONCE = 2
"""Files unpacked side by side."""


def read_case(case: CaseFiles) -> Volume:
    """Read the images of a case.

    In the LGG set a channel that equals FLAIR throughout is left out: its authors put FLAIR where a sequence was
    missing. The set states no voxel size; slices of 5 mm and a field of view of 256 mm are assumed.

    Raises
    ------
    DataError
        If a file cannot be read or the images do not share one grid (to 1e-3 mm).
    """
    if case.problem is not None:
        raise DataError(case.problem)
    arrays: dict[str, NDArray[Any]] = {}
    source: SourceGrid | None = None
    different = dict.fromkeys(image.paths for image in case.images)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        read = pool.map(lambda paths: _read_image(paths, case.group), different)
        files = dict(zip(different, read, strict=True))
    for image in case.images:
        data, grid = files[image.paths]
        name = image.paths[0].name
        if image.channel is None and data.ndim == 4:
            raise DataError(f"'{name}' has {len(data)} channels, but its name says {image.modality}. {HOW_TO_NAME}")
        if image.channel is not None and (data.ndim != 4 or image.channel >= len(data)):
            channels = len(data) if data.ndim == 4 else 1
            raise DataError(
                f"'{name}' has {channels} channels, but channel {image.channel + 1} was expected to be "
                f"{image.modality}. {HOW_TO_NAME}"
            )
        if source is None:
            source = grid
        else:
            _check_same_grid(source, grid, 1e-3, "The modalities of a case must share one grid. Resample one first.")
        arrays[image.modality] = data if image.channel is None else data[image.channel]
    if source is None:
        raise DataError(f"Case '{case.name}' has no image. At least one modality is needed.")
    if case.group == "lgg" and "FLAIR" in arrays:
        flair = arrays["FLAIR"]
        arrays = {m: a for m, a in arrays.items() if m == "FLAIR" or not np.array_equal(a, flair)}
    if not case.spacing_known:
        source = replace(source, spacing_known=False)
    return replace(volume_from_modalities(arrays, source, case.name), notes=case.notes)


def read_reference(case: CaseFiles) -> Reference | None:
    """Read the mask of a case as regions, or None if it has none.

    Raises
    ------
    DataError
        If the file cannot be read, lies on another grid than the images (to 0.1 mm), holds values that its
        convention does not define, or the convention cannot be told.
    """
    if not case.reference:
        return None
    data, grid = _read_image(case.reference, case.group)
    name = case.reference[0].name
    if data.ndim != 3:
        raise DataError(f"Mask '{name}' has {len(data)} channels. Expected was one number for each voxel.")
    if case.images:
        image = case.images[0].paths
        of_image = read_nifti_grid(image[0])[0] if _is_nifti(image[0]) else _read_image(image, case.group)[1]
        _check_same_grid(of_image, grid, 0.1, "A mask must lie on the grid of its images. Resample the mask first.")
    convention = case.convention or guess_convention(values := label_values(data, grid))
    if convention is None:
        raise DataError(
            f"Mask '{name}' holds the values {', '.join(map(str, values))}, which do not tell what they mean. "
            f"Put the convention into its name, for instance '{strip_suffix(case.reference[0])}_whole': "
            f"{', '.join(CONVENTIONS)}."
        )
    return reference_from_values(data, convention, grid)


def _is_nifti(path: Path) -> bool:
    return find_suffix(path) in NIFTI_SUFFIXES


def _read_image(paths: tuple[Path, ...], group: str) -> tuple[NDArray[Any], SourceGrid]:
    """Read a file, or slices, with what is known of its data set's voxel size."""
    check_readable(paths[0])
    if _is_nifti(paths[0]):
        data, grid = read_nifti(paths[0])
        # Brain-Tumor-Progression files state 1 mm, which is false.
        return data, replace(grid, spacing_known=False) if group == "btp" else grid
    if len(paths) > 1:
        _check_no_gap(paths)
        data, grid, _ = read_tiff_slices(paths)
    else:
        data, grid, _ = read_tiff(paths[0])
    if group == "lgg" and not grid.spacing_known:
        in_plane = _LGG_WIDTH_MM / grid.shape[2]
        return data, replace(
            grid, affine=grid.affine @ np.diag([_LGG_SLICE_MM / grid.spacing[0], in_plane, in_plane, 1])
        )
    return data, grid


def _check_no_gap(paths: tuple[Path, ...]) -> None:
    """Refuse a stack of single slices from which one is missing."""
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in paths]
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
    if missing:
        raise DataError(
            f"Slices {', '.join(map(str, missing))} are missing beside '{paths[0].name}'. "
            "Expected was every slice of the stack. Copy or download them again."
        )


def _check_same_grid(first: SourceGrid, other: SourceGrid, tolerance_mm: float, remedy: str) -> None:
    """Refuse two images whose voxels, once reordered, do not lie in the same places."""
    one, two = (grid.path.name if grid.path else "image" for grid in (first, other))
    shape_ZYX, other_ZYX = (tuple(grid.shape[axis] for axis in grid.axes) for grid in (first, other))
    if shape_ZYX != other_ZYX:
        raise DataError(f"'{one}' {shape_ZYX} and '{two}' {other_ZYX} differ in shape. {remedy}")
    if first.format != other.format or not (first.spacing_known and other.spacing_known):
        return  # a TIFF does not say where it lies
    apart_mm = float(np.linalg.norm(_corners(first) - _corners(other), axis=1).max())
    if apart_mm > tolerance_mm:
        raise DataError(f"'{one}' and '{two}' lie up to {apart_mm:.3g} mm apart in space. {remedy}")


def _corners(grid: SourceGrid) -> NDArray[np.float64]:
    """Return where the corner voxels of the reordered array lie: ``(8, 3)`` RAS mm."""
    at = np.zeros((8, 3))
    ends = np.array(list(product((False, True), repeat=3)))
    for end, axis, flip in zip(ends.T, grid.axes, grid.flips, strict=True):
        at[:, axis] = np.where(end != flip, grid.shape[axis] - 1, 0)
    return at @ grid.affine[:3, :3].T + grid.affine[:3, 3]
