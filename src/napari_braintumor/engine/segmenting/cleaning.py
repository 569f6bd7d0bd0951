"""From region depth to labels: remove small components and implausibly small regions, and measure the rest.

Everything works in place and slab by slab, since arrays may be larger than memory. The region depth of a voxel is the
number of nested regions that contain it, or the place on the card of a region that does not nest and covers it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_braintumor.engine.anatomy import CORE, ENHANCING, WHOLE, count_nested
from napari_braintumor.engine.models.card import ModelCard, SolidCore
from napari_braintumor.engine.preparing.components import SLAB_SLICES, ConnectedComponents
from napari_braintumor.engine.segmenting.resolve import FEW_SLICES, SegmentTask
from napari_braintumor.engine.volumes import AnyVolume

SOLID_GRID_MM = 1.0
"""Depth inside a tumor is measured on a grid about so fine, or the case's own where that is coarser."""


def clean(depth_ZYX: Any, task: SegmentTask) -> tuple[dict[str, float], list[str]]:
    """Turn region depth into labels, in place; return the volume of each region in mL, and what the user should know.

    Parameters
    ----------
    depth_ZYX
        Region depth from the network; labels afterwards. A NumPy or zarr array.
    task
        What to keep and what to draw.

    Returns
    -------
    tuple
        Volumes in mL by region, and notes.
    """
    card, left_out, voxel_ml = task.card, task.not_measurable, task.volume.source.voxel_ml
    min_vox = round(task.min_volume_ml / voxel_ml)
    section_vox = largest_section(task.volume, task.min_volume_ml)
    leave_out(depth_ZYX, card, left_out)
    nested, keep_largest = count_nested(card.regions), task.config.keep_largest
    remove_small_components(depth_ZYX, min_vox, keep_largest, section_vox, task.min_slices, range(1, nested + 1))
    for place in range(nested + 1, len(card.regions) + 1):  # a cavity is not tumor, so it is filtered by itself
        remove_small_components(depth_ZYX, min_vox, False, section_vox, task.min_slices, range(place, place + 1))
    drop_small_regions(depth_ZYX, card, voxel_ml, left_out)
    notes = fill_solid_core(depth_ZYX, task)
    counted = zip(card.regions, count_voxels(depth_ZYX, card), strict=True)
    volumes_ml = {region.name: n * voxel_ml for region, n in counted if region.name not in left_out}
    paint_labels(depth_ZYX, card)
    return volumes_ml, notes


def largest_section(volume: AnyVolume, ml: float) -> int:
    """Return the voxels in the largest slice through a sphere of the given volume, on a case's grid."""
    radius_mm = (3000 * ml / (4 * np.pi)) ** (1 / 3)
    pixel_mm2 = 1000 * volume.source.voxel_ml / volume.spacing[0]
    return max(1, round(float(np.pi * radius_mm**2 / pixel_mm2)))


def remove_small_components(
    depth_ZYX: Any,
    min_vox: int,
    keep_largest: bool,
    section_vox: int | None = None,
    min_slices: int = 1,
    depths: range = range(1, 256),
) -> None:
    """Remove small and thin connected components of tumor, or of another region (26-neighborhood), in place.

    A stack of few slices, or one that ends inside a tumor, shows only part of the tumor. Such a component is kept if it
    is, in one slice, as large as the smallest tumor that is kept would be there.

    Parameters
    ----------
    depth_ZYX
        Region depth. A NumPy or zarr array.
    min_vox
        Components with fewer voxels are removed.
    keep_largest
        Remove all components but the largest.
    section_vox
        From `largest_section`; None uses only the voxel count.
    min_slices
        Components that span fewer slices are removed, unless they touch the first or the last slice.
    depths
        Depths that form components: neighbors with any of these depths are connected, others stay unchanged.
    """

    def is_inside(start: int, stop: int) -> NDArray[np.bool_]:
        slab = np.asarray(depth_ZYX[start:stop])
        inside: NDArray[np.bool_] = (slab >= depths.start) & (slab < depths.stop)
        return inside

    if min_vox <= 1 and not keep_largest:
        return
    found = ConnectedComponents(is_inside, depth_ZYX.shape[0], diagonal=True)
    large, thin = found.sizes >= min_vox, found.spans < min_slices
    kept = large & ~thin
    if not kept.all() and (section_vox is not None or (large & thin).any()):
        areas, at_ends = found.measure_slices()
        kept |= large & at_ends
        if section_vox is not None:
            kept |= (areas >= section_vox) & (at_ends | (depth_ZYX.shape[0] <= FEW_SLICES))
    if keep_largest and kept.any():
        kept &= np.arange(len(kept)) == np.where(kept, found.sizes, 0).argmax()
    if kept.all():
        return
    for start, stop, mask in found.keep(kept):
        depth_ZYX[start:stop] = depth_ZYX[start:stop] * (mask | ~is_inside(start, stop))


def count_voxels(depth_ZYX: Any, card: ModelCard) -> list[int]:
    """Return the voxels of each region of a model; those covered by another region do not count."""
    regions, nested = card.regions, count_nested(card.regions)
    reached = np.zeros(len(regions) + 2, np.int64)  # voxels of at least this depth
    for start, stop in _slabs(depth_ZYX):
        slab = depth_ZYX[start:stop]
        reached += [int(np.count_nonzero(slab >= depth)) for depth in range(len(reached))]
    ends = (nested if region.nested else place for place, region in enumerate(regions, start=1))
    return [int(reached[place] - reached[end + 1]) for place, end in enumerate(ends, start=1)]


def leave_out(depth_ZYX: Any, card: ModelCard, names: Collection[str]) -> None:
    """Assign, in place, the voxels of left-out regions to the nearest region around them that is drawn.

    No voxel is painted as a left-out region. Voxels in no other region become 0; regions further inside stay.
    """
    if not names:
        return
    innermost = [0]
    for place, region in enumerate(card.regions, start=1):
        around = innermost[-1] if region.nested else 0
        innermost.append(around if region.name in names else place)
    _replace_numbers(depth_ZYX, innermost)


def drop_small_regions(depth_ZYX: Any, card: ModelCard, voxel_ml: float, left_out: Collection[str] = ()) -> None:
    """Empty, in place, the regions smaller than the least plausible volume on the card, and all regions inside them."""
    if not any(region.least_ml for region in card.regions):
        return
    depths = list(range(len(card.regions) + 1))
    nested = count_nested(card.regions)
    for place, (region, voxels) in enumerate(zip(card.regions, count_voxels(depth_ZYX, card), strict=True), start=1):
        if region.name in left_out or voxels * voxel_ml >= region.least_ml:
            continue
        if region.nested:
            depths[place : nested + 1] = [min(depth, place - 1) for depth in depths[place : nested + 1]]
        else:
            depths[place] = 0
    if depths != list(range(len(depths))):
        _replace_numbers(depth_ZYX, depths)
        leave_out(depth_ZYX, card, left_out)


def fill_solid_core(depth_ZYX: Any, task: SegmentTask) -> list[str]:
    """Count the solid center of a tumor as core, in place, if hardly any core was found and the card says so.

    Nothing changes if the modalities cannot show the core or enhancing tumor. Enhancing tumor stays unchanged.

    Returns
    -------
    list of str
        One sentence if the core grew.
    """
    card, rule = task.card, task.card.solid_core
    places = {region.name: place for place, region in enumerate(card.regions, start=1)}
    if rule is None or not {WHOLE, CORE, ENHANCING} <= set(places) or {CORE, ENHANCING} & set(task.not_measurable):
        return []
    voxels = count_voxels(depth_ZYX, card)
    whole, core = voxels[places[WHOLE] - 1], voxels[places[CORE] - 1]
    if core >= rule.below_share * whole:
        return []
    every = tuple(max(1, int(SOLID_GRID_MM // side)) for side in task.volume.spacing)
    box = _find_box(depth_ZYX, every[0])
    coarse = np.asarray(depth_ZYX[box][:: every[0], :: every[1], :: every[2]])
    sides = [step * side for step, side in zip(every, task.volume.spacing, strict=True)]
    middle = find_middle((coarse >= places[WHOLE]) & (coarse <= places[ENHANCING]), rule, sides)
    has_grown = False
    for start, stop in _slabs(depth_ZYX):
        rows = range(max(start, box[0].start), min(stop, box[0].stop))
        if not rows:
            continue
        slab = np.asarray(depth_ZYX[rows.start : rows.stop])
        inside = slab[:, box[1], box[2]]
        shown = middle[[(z - box[0].start) // every[0] for z in rows]].repeat(every[1], 1).repeat(every[2], 2)
        grown = shown[:, : inside.shape[1], : inside.shape[2]] & (inside >= places[WHOLE]) & (inside < places[CORE])
        if grown.any():
            has_grown = True
            inside[grown] = places[CORE]
            depth_ZYX[rows.start : rows.stop] = slab
    if not has_grown:
        return []
    return [
        f"The network found hardly any core ({core / whole:.0%} of the tumor). In a tumor that does not enhance, the "
        "solid middle counts as core, so the core was drawn by depth in the whole tumor. Check it."
    ]


def find_middle(mask_ZYX: NDArray[np.bool_], rule: SolidCore, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Return what lies deeper in each connected component of a mask than a rule's rim; `spacing` in mm along Z, Y, X.

    What lies beyond the array is outside of the tumor along Y and X, but not along Z, where a stack may end in it.

    Returns
    -------
    array
        bool ``(Z, Y, X)``, a part of the mask.
    """
    padded = np.pad(mask_ZYX, ((0, 0), (1, 1), (1, 1)))
    depth_mm = ndimage.distance_transform_edt(padded, sampling=spacing)[:, 1:-1, 1:-1]
    components, count = ndimage.label(mask_ZYX, np.ones((3, 3, 3)))
    deepest = np.concatenate([[0.0], ndimage.maximum(depth_mm, components, np.arange(1, count + 1))])
    middle: NDArray[np.bool_] = depth_mm > np.maximum(rule.rim_mm, rule.rim_share * deepest)[components]
    return middle & mask_ZYX


def _find_box(depth_ZYX: Any, margin: int) -> tuple[slice, slice, slice]:
    """Return the bounding box of all that is not 0, with a margin of slices; not all may be 0."""
    hits = [np.zeros(side, bool) for side in depth_ZYX.shape]
    for start, stop in _slabs(depth_ZYX):
        slab = np.asarray(depth_ZYX[start:stop]) > 0
        hits[0][start:stop] = slab.any((1, 2))
        hits[1] |= slab.any((0, 2))
        hits[2] |= slab.any((0, 1))
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in map(np.flatnonzero, hits))
    return slice(max(0, z.start - margin), min(depth_ZYX.shape[0], z.stop + margin)), y, x


def paint_labels(depth_ZYX: Any, card: ModelCard) -> None:
    """Replace, in place, region depth by the label of the region."""
    _replace_numbers(depth_ZYX, [0, *(region.label for region in card.regions)])


def _replace_numbers(array_ZYX: Any, replacements: Sequence[int]) -> None:
    """Replace, in place, each number n by entry n of a list; 0 stays 0."""
    table = np.array(replacements, np.uint8)
    for start, stop in _slabs(array_ZYX):
        slab = array_ZYX[start:stop]
        if slab.any():
            array_ZYX[start:stop] = table[slab]


def _slabs(array: Any) -> Iterator[tuple[int, int]]:
    for start in range(0, array.shape[0], SLAB_SLICES):
        yield start, min(start + SLAB_SLICES, array.shape[0])
