"""Bring the scans of a case onto one grid: by their scanner coordinates, or registered where those are in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.registration import Prepared, Registration, prepare_scan, register
from napari_braintumor.engine.aligning.resampling import Interpolation, find_shown, resample
from napari_braintumor.engine.aligning.scans import Scan, choose_reference, fit_as_stored, lie_alike
from napari_braintumor.engine.alignment import AlignedScan, Alignment, How
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import Aligned, AlignEvent, PhaseReached
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.inspecting.foreground import FILLED_SHARE, find_background
from napari_braintumor.engine.settings import AlignConfig

LEAST_GAIN = 0.02
"""A registration is used if the mutual information grows by more than this share: a smaller change is noise."""

TRUSTED_MM = 2.0
"""Scans of one scanner coordinate system are moved only if they are further apart than this."""

LEAST_COVERAGE = 0.05
"""A scan that shows less than this share of the reference's head does not belong to it, or lies elsewhere."""

HEAD_RADIUS_MM = 80.0
"""A turn moves the surface of the head by its angle times this."""

LARGE_PART = 0.9
"""A scan that shows less than this share of the reference's head is noted."""


def align(
    scans: Mapping[str, Scan], config: AlignConfig | None = None, *, leave_out: bool = False
) -> Iterator[AlignEvent]:
    """Bring the scans of a case onto one grid.

    If all share one grid, they stay as they are. Otherwise each is registered (rigidly) to the reference, because heads
    move between scans and scanner coordinates may differ: where mutual information does not grow, the scanner
    coordinates are kept; where they can be trusted (one frame of reference, or the same grid), also if the move is
    small. Then scans that do not lie on the reference's grid are resampled.

    Voxels that a scan does not show are its air outside the head, and inside it the mean of its tissue, which is what
    a network sees of a modality that is missing; so the end of a scan is not an edge.

    Parameters
    ----------
    scans
        For each modality its image.
    config
        How; the defaults if left out.
    leave_out
        Leave out a scan that shows nothing of the reference's head, with a note, instead of raising an error.

    Yields
    ------
    AlignEvent
        `PhaseReached` before each part of the work, and `Aligned` last.

    Raises
    ------
    DataError
        If a file does not say where its scan lies, or a scan shows nothing of the reference's head.
    SettingsError
        If the case does not have the modality that was chosen as the reference.
    """
    config = config or AlignConfig()
    grids = {modality: scan.grid for modality, scan in scans.items()}
    reference = choose_reference(grids, config.reference)
    fits, notes = fit_as_stored(grids, {modality: scan.name for modality, scan in scans.items()}, reference)
    one = scans[reference]
    if fits and config.registration != "always":
        yield Aligned({modality: scan.data for modality, scan in scans.items()}, one.grid, None, notes)
        return
    found = {reference: AlignedScan(one.grid, np.eye(4), "same grid")}
    prepared: Prepared | None = None
    for modality, scan in scans.items():
        if modality == reference:
            continue
        if config.registration == "never":
            how: How = "same grid" if lie_alike(one.grid, scan.grid) else "scanner coordinates"
            found[modality] = AlignedScan(scan.grid, np.eye(4), how)
            continue
        yield PhaseReached(f"registering {modality} to {reference}")
        prepared = prepared or prepare_scan(one)
        for event in register(prepared, prepare_scan(scan)):
            if isinstance(event, Registration):
                found[modality] = _decide(one, scan, event)
            else:
                yield PhaseReached(f"registering {modality} to {reference}", round(100 * event), 100)
    images: dict[str, NDArray[Any]] = {}
    shown: dict[str, NDArray[np.bool_]] = {}
    for modality, scan in scans.items():
        if found[modality].how == "same grid":
            images[modality] = scan.data
            continue
        yield PhaseReached(f"resampling {modality} to the grid of {reference}")
        move = found[modality].to_reference
        images[modality] = _resample_scan(scan, one.grid, move, config.interpolation)
        shown[modality] = find_shown(scan.grid, one.grid, move)
    head = _find_head(one.data)
    for modality, seen in shown.items():
        coverage = float((seen & head).sum() / max(int(head.sum()), 1))
        found[modality] = replace(found[modality], coverage=coverage)
        if coverage < LEAST_COVERAGE:
            name = scans[modality].name
            what = (
                f"{name[0].upper()}{name[1:]} ({modality}) does not show the head that {one.name} ({reference}) shows"
            )
            if not leave_out:
                raise DataError(f"{what}: the two scans do not overlap. Choose another scan for {modality}, or none.")
            notes += (f"{what}, so it was left out: the two scans do not overlap.",)
            del images[modality], found[modality]
    _fill_unseen(images, shown, scans, head)
    alignment = Alignment(reference, {modality: found[modality] for modality in scans if modality in found})
    yield Aligned(images, one.grid, alignment, (*notes, *describe_alignment(alignment)))


def describe_alignment(alignment: Alignment) -> tuple[str, ...]:
    """Return what was done to each scan, one sentence each."""
    notes = []
    for modality, scan in alignment.scans.items():
        to = f"the grid of {alignment.reference}"
        if scan.how == "registered":
            shift_mm, angle_deg = alignment.find_move(modality)
            notes.append(
                f"{modality} was registered to {alignment.reference} and brought onto its grid: moved by "
                f"{shift_mm:.1f} mm and turned by {angle_deg:.1f}° (mutual information {scan.before:.3f} to "
                f"{scan.after:.3f})."
            )
        elif scan.how == "scanner coordinates":
            tried = "; registration found no better place" if scan.before is not None else ""
            notes.append(f"{modality} was brought onto {to} by its scanner coordinates{tried}.")
        if scan.coverage < LARGE_PART:
            notes.append(f"{modality} shows only {scan.coverage:.0%} of the head; elsewhere it counts as missing.")
    return tuple(notes)


def _decide(one: Scan, scan: Scan, registered: Registration) -> AlignedScan:
    """Use a registration if it makes two scans more alike, and if they are not known to lie right already."""
    alike = lie_alike(one.grid, scan.grid)
    trusted = alike or (scan.frame_of_reference != "" and scan.frame_of_reference == one.frame_of_reference)
    found = AlignedScan(scan.grid, registered.to_reference, "registered", registered.before, registered.after)
    shift_mm, angle_deg = Alignment("one", {"one": replace(found, grid=one.grid), "other": found}).find_move("other")
    moved_mm = shift_mm + np.radians(angle_deg) * HEAD_RADIUS_MM
    better = registered.after > registered.before * (1 + LEAST_GAIN)
    if better and (moved_mm > TRUSTED_MM or not trusted):
        return found
    return replace(
        found, to_reference=np.eye(4), how="same grid" if alike else "scanner coordinates", after=found.before
    )


def _resample_scan(
    scan: Scan, onto: SourceGrid, to_onto: NDArray[np.float64], interpolation: Interpolation
) -> NDArray[np.float32]:
    """Resample a scan; where one value fills its background, as after skull stripping, it still does."""
    image = resample(scan.data, scan.grid, onto, to_onto, interpolation)
    background = find_background(np.asarray(scan.data, np.float32)).intensity
    blank = scan.data == background
    if blank.mean() > FILLED_SHARE:
        image[resample(~blank, scan.grid, onto, to_onto) < 0.5] = background
    return image


def _find_head(image_ZYX: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the head in a scan, without holes in its slices."""
    from scipy.ndimage import binary_fill_holes

    data = np.asarray(image_ZYX, np.float32)
    return np.stack([binary_fill_holes(plane) for plane in find_background(data).find_tissue(data)])


def _fill_unseen(
    images: Mapping[str, NDArray[Any]],
    shown: Mapping[str, NDArray[np.bool_]],
    scans: Mapping[str, Scan],
    head_ZYX: NDArray[np.bool_],
) -> None:
    """Fill, in place, what resampled scans do not show: the mean of their tissue in the head, and air around it."""
    backgrounds = {modality: find_background(np.asarray(scans[modality].data, np.float32)) for modality in shown}
    seen_heads = [
        backgrounds[modality].find_tissue(images[modality]) & shown[modality]
        for modality in shown
        if modality in images
    ]
    head = np.logical_or.reduce([head_ZYX, *seen_heads])
    for modality, seen in shown.items():
        if modality not in images or seen.all():
            continue
        image, background = images[modality], backgrounds[modality]
        tissue = image[background.find_tissue(image) & seen]
        mean = float(np.clip(tissue, *np.percentile(tissue, (0.5, 99.5))).mean()) if tissue.size else 0.0
        image[~seen] = background.intensity
        image[~seen & head] = mean
