"""Read a case: its images as a `Volume`, its mask as a `Reference`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.aligning import align
from napari_braintumor.engine.aligning.scans import Scan, fit_as_stored, lie_alike
from napari_braintumor.engine.anatomy import find_fitting_conventions, guess_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import Aligned, PhaseReached
from napari_braintumor.engine.files.assembling import check_scan, volume_from_modalities
from napari_braintumor.engine.files.calling import capitalize
from napari_braintumor.engine.files.cases import CaseFiles, ImageFile
from napari_braintumor.engine.files.choosing_series.rows import title_of
from napari_braintumor.engine.files.formats import check_readable, find_format, strip_suffix
from napari_braintumor.engine.files.labels import find_label_values, reference_from_values
from napari_braintumor.engine.files.laying import match_to_scan
from napari_braintumor.engine.files.naming import HOW_TO_NAME
from napari_braintumor.engine.grid import SourceGrid, check_same_grid, name_grid
from napari_braintumor.engine.inspecting.head import describe_head
from napari_braintumor.engine.inspecting.witness import find_suspect_modalities
from napari_braintumor.engine.settings import AlignConfig
from napari_braintumor.engine.volumes import Reference, Volume

_LGG_SLICE_MM = 5.0
_LGG_WIDTH_MM = 256.0

_ON_ITS_SCAN = "A mask must lie on the grid of its images. Resample the mask first."

Stored = tuple[NDArray[Any], SourceGrid]
"""The values of a file and their grid."""

READ_AT_ONCE = 2
"""Files that are unpacked in parallel."""


def read_case(case: CaseFiles, config: AlignConfig | None = None) -> Volume:
    """Read the images of a case, and bring them onto one grid if their files have different ones.

    In the LGG data set a channel that is equal to FLAIR is left out: its authors used FLAIR in place of a missing
    sequence. The data set states no voxel size; slices of 5 mm and a field of view of 256 mm are assumed.

    Parameters
    ----------
    case
        Its files.
    config
        How scans on different grids are aligned. Unless it names the reference, a case with a mask is brought onto the
        grid of the scan that the mask was drawn on.

    Returns
    -------
    Volume
        The case, with notes on what was assumed or left out.

    Raises
    ------
    DataError
        If a file cannot be read, or the images differ in grid and do not all say where they lie.
    SettingsError
        If the case does not have the modality chosen as the reference.
    """
    *_, last = align_case(case, config)
    assert isinstance(last, Volume)
    return last


def align_case(case: CaseFiles, config: AlignConfig | None = None) -> Iterator[PhaseReached | Volume]:
    """Read a case as `read_case` does, reporting each phase, so that it can be shown and canceled.

    Yields
    ------
    PhaseReached or Volume
        The volume last.

    Raises
    ------
    BrainTumorError
        As `read_case`.
    """
    scans: Mapping[str, Scan] = {}
    for event in read_scans(case):
        if isinstance(event, PhaseReached):
            yield event
        else:
            scans = event
    config = config or AlignConfig()
    if config.registration != "always" and (volume := join_scans(case, scans)) is not None:
        yield volume
        return
    for modality, scan in scans.items():
        check_scan(modality, scan.data)
    if config.reference == "auto" and (drawn_on := _find_drawn_on(case, scans)):
        config = config.model_copy(update={"reference": drawn_on})
    for step in align(scans, config, leave_out=True):
        if isinstance(step, Aligned):
            yield _assemble(case, scans, step)
        else:
            yield step


def read_scans(case: CaseFiles, wanted: Collection[str] | None = None) -> Iterator[PhaseReached | Mapping[str, Scan]]:
    """Read the images of a case, each on the grid of its file.

    Parameters
    ----------
    case
        Its files.
    wanted
        The modalities to read; all of them if left out.

    Yields
    ------
    PhaseReached or Mapping
        Last the scan of each modality.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    if case.problem is not None:
        raise DataError(case.problem)
    images = [image for image in case.images if wanted is None or image.modality in wanted]
    if not case.images:
        raise DataError(f"Case '{case.name}' has no image. At least one modality is needed.")
    different = list(dict.fromkeys((image.paths, _stack_of(image)) for image in images))
    yield PhaseReached(f"reading {case.name}", 0, len(different))
    read: list[Stored | DataError] = []
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for stored in pool.map(lambda key: _try_to_read(key[0], key[1], case.group), different):
            read.append(stored)
            yield PhaseReached(f"reading {case.name}", len(read), len(different))
    files = dict(zip(different, read, strict=True))
    yield _take_scans({image: files[image.paths, _stack_of(image)] for image in images})


def join_scans(case: CaseFiles, scans: Mapping[str, Scan]) -> Volume | None:
    """Put the scans of a case together that lie on one grid; None if they lie on several.

    Parameters
    ----------
    case
        Its files.
    scans
        From `read_scans`.

    Returns
    -------
    Volume or None
        The case.

    Raises
    ------
    DataError
        If the scans differ in grid and do not all say where they lie.
    """
    grids = {modality: scan.grid for modality, scan in scans.items()}
    best = _choose_grid(list(grids.values()))
    reference = next(modality for modality, grid in grids.items() if grid is best)
    fits, notes = fit_as_stored(grids, {modality: scan.name for modality, scan in scans.items()}, reference)
    if not fits:
        return None
    stored = Aligned({modality: scan.data for modality, scan in scans.items()}, best, None, notes)
    return _assemble(case, scans, stored)


def _take_scans(files: Mapping[ImageFile, Stored | DataError]) -> dict[str, Scan]:
    # A scanner's series that cannot be read is left out. Only scanners' series are looked at for a whole head: other
    # files are often cropped on purpose.
    scans: dict[str, Scan] = {}
    left: list[str] = []
    for image, stored in files.items():
        series = image.series if image.series is not None and image.series.format == "dicom" else None
        try:
            if isinstance(stored, DataError):
                raise stored
            scan = _take_scan(image, *stored)
            if series is not None:
                check_scan(image.modality, scan.data)
                found = describe_head(scan.data, scan.grid.spacing)
                scan = replace(scan, notes=(f"{capitalize(scan.name)} {found}.",) if found else ())
            scans[image.modality] = scan
        except DataError as error:
            if series is None or (not scans and image is [*files][-1]):
                raise
            left.append(f"{capitalize(title_of(series))} was left out. {error}")
    for first in [*scans][:1]:
        scans[first] = replace(scans[first], notes=(*left, *scans[first].notes))
    return scans


def _try_to_read(paths: tuple[Path, ...], stack: int | None, group: str) -> Stored | DataError:
    try:
        return _read_image(paths, group, stack)
    except DataError as error:
        return error


def _assemble(case: CaseFiles, scans: Mapping[str, Scan], aligned: Aligned) -> Volume:
    arrays = aligned.images
    if case.group == "lgg" and "FLAIR" in arrays:
        flair = arrays["FLAIR"]
        arrays = {m: a for m, a in arrays.items() if m == "FLAIR" or not np.array_equal(a, flair)}
    source = aligned.grid if case.spacing_known else replace(aligned.grid, spacing_known=False)
    volume = volume_from_modalities(arrays, source, case.name)
    doubts = find_suspect_modalities(dict(zip(volume.modalities, volume.data, strict=True)))
    of_scans = [note for scan in scans.values() for note in scan.notes]
    notes = (*case.notes, *of_scans, *source.notes, *aligned.notes, *doubts)
    return replace(volume, notes=notes, alignment=aligned.alignment)


def _take_scan(image: ImageFile, data: NDArray[Any], grid: SourceGrid) -> Scan:
    """Return one modality of a file that was read."""
    if image.series is not None and image.series.format == "dicom":  # whose files may be named after the patient
        title = title_of(image.series)
        if data.ndim == 4:
            raise DataError(
                f"{capitalize(title)} has {len(data)} stacks of slices. Choose another series, or one stack."
            )
        return Scan(data, grid, title, image.series.frame_of_reference)
    name = image.paths[0].name
    if image.channel is None and data.ndim == 4:
        color = "It is a color picture, not a scan, or has several modalities. " if len(data) in (3, 4) else ""
        raise DataError(f"'{name}' has {len(data)} channels, but its name says {image.modality}. {color}{HOW_TO_NAME}")
    if image.channel is not None and (data.ndim != 4 or image.channel >= len(data)):
        channels = len(data) if data.ndim == 4 else 1
        raise DataError(
            f"'{name}' has {channels} channels, but channel {image.channel + 1} was expected to be "
            f"{image.modality}. {HOW_TO_NAME}"
        )
    channel = data if image.channel is None else data[image.channel]
    return Scan(channel, grid, _name(grid))


def _stack_of(image: ImageFile) -> int | None:
    """Return which stack of a DICOM file is meant; stacks of one file may lie in different places."""
    return image.channel if image.series is not None and image.series.format == "dicom" else None


def _find_drawn_on(case: CaseFiles, scans: Mapping[str, Scan]) -> str | None:
    """Return the modality on whose grid the mask of a case lies; None if there is no mask, or it lies on none."""
    if not case.reference:
        return None
    form = find_format(case.reference[0])
    mask = form.read_grid(case.reference[0]) if form is not None and form.read_grid is not None else None
    if mask is None:
        mask = _read_image(case.reference, case.group)[1]
    mask = _without_false(mask, case.group)
    return next((modality for modality, scan in scans.items() if lie_alike(scan.grid, mask)), None)


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
    image, scan = _scan_of(case, grid)
    if scan.orientation_known == grid.orientation_known:
        return mask, grid, check_same_grid(scan, grid, _name(scan), _name(grid), _ON_ITS_SCAN)
    data, _ = _read_image(image.paths, case.group)
    data = data if image.channel is None else data[image.channel]
    laid, note = match_to_scan(mask, grid, scan, data, _name(scan), _name(grid))
    return laid, scan, note


def _scan_of(case: CaseFiles, mask: SourceGrid) -> tuple[ImageFile, SourceGrid]:
    """Return the image of a case that a mask was drawn on, without reading voxels if possible.

    It is the one whose file says most about its grid; if grids differ, one that has the grid of the mask.

    Returns
    -------
    image, grid
        The image, and the grid that its file states.
    """
    grids = {
        image: _without_false(form.read_grid(image.paths[0]), case.group)
        for image in case.images
        if (form := find_format(image.paths[0])) is not None and form.read_grid is not None
    }
    if not grids:
        return case.images[0], _read_image(case.images[0].paths, case.group)[1]
    best = _choose_grid(list(grids.values()))
    if any(not lie_alike(best, grid) for grid in grids.values()):  # the case is brought onto the grid of its mask
        best = next((grid for grid in grids.values() if lie_alike(grid, mask)), best)
    return next((image, grid) for image, grid in grids.items() if grid is best)


def _choose_grid(grids: Sequence[SourceGrid]) -> SourceGrid:
    """Return the first of the grids that state the most."""
    return max(grids, key=lambda grid: (grid.orientation_known, grid.spacing_known))


def _name(grid: SourceGrid) -> str:
    return name_grid(grid, "an image")


def _read_image(paths: tuple[Path, ...], group: str, stack: int | None = None) -> Stored:
    """Read a file, or slices, with what is known about the voxel size in its data set."""
    form = check_readable(paths[0])
    if stack is not None:
        from napari_braintumor.engine.files.dicom.reading import read_series  # pydicom takes long to import

        return read_series(paths, stack)
    if len(paths) > 1:
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
