"""Read a case: its images as a `Volume`, its mask as a `Reference`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import find_fitting_conventions, guess_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.assembling import volume_from_modalities
from napari_braintumor.engine.files.cases import CaseFiles, ImageFile
from napari_braintumor.engine.files.formats import check_readable, find_format, strip_suffix
from napari_braintumor.engine.files.labels import find_label_values, reference_from_values
from napari_braintumor.engine.files.laying import match_to_scan
from napari_braintumor.engine.files.naming import HOW_TO_NAME
from napari_braintumor.engine.grid import SourceGrid, check_same_grid
from napari_braintumor.engine.inspecting.witness import find_suspect_modalities
from napari_braintumor.engine.volumes import Reference, Volume

_LGG_SLICE_MM = 5.0
_LGG_WIDTH_MM = 256.0

_ONE_GRID = "The modalities of a case must share one grid. Resample one first."
_ON_ITS_SCAN = "A mask must lie on the grid of its images. Resample the mask first."

READ_AT_ONCE = 2
"""Files that are unpacked in parallel."""


def read_case(case: CaseFiles) -> Volume:
    """Read the images of a case.

    In the LGG data set a channel that is equal to FLAIR is left out: its authors used FLAIR in place of a missing
    sequence. The data set states no voxel size; slices of 5 mm and a field of view of 256 mm are assumed.

    Returns
    -------
    Volume
        The case, with notes on what was assumed or left out.

    Raises
    ------
    DataError
        If a file cannot be read or the images do not share one grid; see `check_same_grid`.
    """
    if case.problem is not None:
        raise DataError(case.problem)
    arrays: dict[str, NDArray[Any]] = {}
    different = dict.fromkeys(image.paths for image in case.images)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        read = pool.map(lambda paths: _read_image(paths, case.group), different)
        files = dict(zip(different, read, strict=True))
    if not files:
        raise DataError(f"Case '{case.name}' has no image. At least one modality is needed.")
    source = _choose_grid([grid for _, grid in files.values()])
    notes = [*case.notes, *source.notes]
    for _, grid in files.values():
        if grid is not source and (note := check_same_grid(source, grid, _name(source), _name(grid), _ONE_GRID)):
            notes.append(note)
    for image in case.images:
        data, _ = files[image.paths]
        name = image.paths[0].name
        if image.channel is None and data.ndim == 4:
            color = "It is a color picture, not a scan, or has several modalities. " if len(data) in (3, 4) else ""
            raise DataError(
                f"'{name}' has {len(data)} channels, but its name says {image.modality}. {color}{HOW_TO_NAME}"
            )
        if image.channel is not None and (data.ndim != 4 or image.channel >= len(data)):
            channels = len(data) if data.ndim == 4 else 1
            raise DataError(
                f"'{name}' has {channels} channels, but channel {image.channel + 1} was expected to be "
                f"{image.modality}. {HOW_TO_NAME}"
            )
        arrays[image.modality] = data if image.channel is None else data[image.channel]
    if case.group == "lgg" and "FLAIR" in arrays:
        flair = arrays["FLAIR"]
        arrays = {m: a for m, a in arrays.items() if m == "FLAIR" or not np.array_equal(a, flair)}
    if not case.spacing_known:
        source = replace(source, spacing_known=False)
    volume = volume_from_modalities(arrays, source, case.name)
    notes += find_suspect_modalities(dict(zip(volume.modalities, volume.data, strict=True)))
    return replace(volume, notes=tuple(notes))


def read_reference(case: CaseFiles) -> Reference | None:
    """Read the mask of a case as regions, or None if it has none.

    Returns
    -------
    Reference or None
        The regions, on the grid of the images.

    Raises
    ------
    DataError
        If the file cannot be read, is not on the grid of its images (see `check_same_grid` and `match_to_scan`),
        contains values that its convention does not define, or the convention is unclear.
    """
    if case.problem is not None:
        raise DataError(case.problem)
    if not case.reference:
        return None
    data, grid = _read_image(case.reference, case.group)
    name = case.reference[0].name
    if data.ndim != 3:
        raise DataError(f"Mask '{name}' has {len(data)} channels. Expected one number for each voxel.")
    data, grid, note = _on_its_scan(case, data, grid)
    convention = case.convention or guess_convention(values := find_label_values(data, grid))
    if convention is None:
        fitting = find_fitting_conventions(values)
        example = "whole" if len({*values} - {0}) < 2 else "brats2023" if "brats2023" in fitting else fitting[0]
        example = f"{strip_suffix(case.reference[0])}_{example}"
        raise DataError(
            f"Mask '{name}' contains the values {', '.join(map(str, values))}, which fit several label conventions: "
            f"{', '.join(fitting)}. Put the right one into the file name, as in '{example}'."
        )
    reference = reference_from_values(data, convention, grid)
    return replace(reference, notes=(*reference.notes, note)) if note else reference


def _on_its_scan(case: CaseFiles, mask: NDArray[Any], grid: SourceGrid) -> tuple[NDArray[Any], SourceGrid, str | None]:
    """Check that a mask lies on the scan of its case, or match it to the scan if a file does not state its position."""
    if not case.images:
        return mask, grid, None
    image, scan = _scan_of(case)
    if scan.orientation_known == grid.orientation_known:
        return mask, grid, check_same_grid(scan, grid, _name(scan), _name(grid), _ON_ITS_SCAN)
    data, _ = _read_image(image.paths, case.group)
    data = data if image.channel is None else data[image.channel]
    laid, note = match_to_scan(mask, grid, scan, data, _name(scan), _name(grid))
    return laid, scan, note


def _scan_of(case: CaseFiles) -> tuple[ImageFile, SourceGrid]:
    """Return the image of a case whose file says most about its grid, without reading voxels if possible."""
    grids = {
        image: _without_false(form.read_grid(image.paths[0]), case.group)
        for image in case.images
        if (form := find_format(image.paths[0])) is not None and form.read_grid is not None
    }
    if not grids:
        return case.images[0], _read_image(case.images[0].paths, case.group)[1]
    best = _choose_grid(list(grids.values()))
    return next((image, grid) for image, grid in grids.items() if grid is best)


def _choose_grid(grids: Sequence[SourceGrid]) -> SourceGrid:
    """Return the first of the grids that state the most."""
    return max(grids, key=lambda grid: (grid.orientation_known, grid.spacing_known))


def _name(grid: SourceGrid) -> str:
    return f"'{grid.path.name}'" if grid.path else "an image"


def _read_image(paths: tuple[Path, ...], group: str) -> tuple[NDArray[Any], SourceGrid]:
    """Read a file, or slices, with what is known about the voxel size in its data set."""
    form = check_readable(paths[0])
    if len(paths) > 1:
        _check_no_gap(paths)
        if form.read_slices is None:
            raise DataError(f"'{paths[0].name}' is one of {len(paths)} slices. {form.title} files hold whole scans.")
        data, grid = form.read_slices(paths)
    else:
        data, grid = form.read(paths[0])
    if group == "lgg" and not grid.spacing_known:
        in_plane = _LGG_WIDTH_MM / grid.shape[2]
        return data, grid.rescaled((_LGG_SLICE_MM, in_plane, in_plane))
    return data, _without_false(grid, group)


def _without_false(grid: SourceGrid, group: str) -> SourceGrid:
    """Return a grid without values known to be wrong: files of Brain-Tumor-Progression state 1 mm."""
    return replace(grid, spacing_known=False, spacing_note="") if group == "btp" else grid


def _check_no_gap(paths: tuple[Path, ...]) -> None:
    """Raise an error if a slice is missing from a stack of single slices."""
    numbers = [int(re.findall(r"\d+", path.stem)[-1]) for path in paths]
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
    if missing:
        raise DataError(
            f"Slices {', '.join(map(str, missing))} are missing next to '{paths[0].name}'. "
            "Expected every slice of the stack. Copy or download them again."
        )
