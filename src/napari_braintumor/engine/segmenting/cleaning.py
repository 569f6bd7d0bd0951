"""From region depth to labels: small components and regions too small to believe are removed, the rest is counted.

Everything works in place and slab by slab, since arrays may be larger than memory. The region depth of a voxel is the
number of nested regions that it lies in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.preparing.components import SLAB_SLICES, ConnectedComponents
from napari_braintumor.engine.segmenting.resolve import FEW_SLICES, SegmentTask
from napari_braintumor.engine.volumes import AnyVolume


def clean(depth_ZYX: Any, task: SegmentTask) -> dict[str, float]:
    """Turn region depth into labels, in place, and return the volume of each region in mL.

    Parameters
    ----------
    depth_ZYX
        Region depth as the network says; labels afterwards. An array of NumPy or zarr.
    task
        What is kept and what is drawn.
    """
    card, left_out, voxel_ml = task.card, task.not_measurable, task.volume.source.voxel_ml
    min_vox = round(task.min_volume_ml / voxel_ml)
    section_vox = largest_section(task.volume, task.min_volume_ml)
    leave_out(depth_ZYX, card, left_out)
    remove_small_components(depth_ZYX, min_vox, task.config.keep_largest, section_vox, task.min_slices)
    drop_small_regions(depth_ZYX, card, voxel_ml, left_out)
    counted = zip(card.regions, count_voxels(depth_ZYX, card), strict=True)
    volumes_ml = {region.name: n * voxel_ml for region, n in counted if region.name not in left_out}
    paint_labels(depth_ZYX, card)
    return volumes_ml


def largest_section(volume: AnyVolume, ml: float) -> int:
    """Return how many voxels the largest slice through a sphere of some volume has on a case's grid."""
    radius_mm = (3000 * ml / (4 * np.pi)) ** (1 / 3)
    pixel_mm2 = 1000 * volume.source.voxel_ml / volume.spacing[0]
    return max(1, round(float(np.pi * radius_mm**2 / pixel_mm2)))


def remove_small_components(
    depth_ZYX: Any, min_vox: int, keep_largest: bool, section_vox: int | None = None, min_slices: int = 1
) -> None:
    """Remove small and thin connected components of tumor (26-neighborhood), in place.

    Of a tumor that reaches the first or the last slice, or lies in a stack of few slices, the stack shows a part only.
    It stays where that part is, in one of the slices, as large as the smallest tumor that is kept would be there.

    Parameters
    ----------
    depth_ZYX
        Region depth; what lies in any region is connected. An array of NumPy or zarr.
    min_vox
        Components of fewer voxels are removed.
    keep_largest
        Remove all but the largest.
    section_vox
        From `largest_section`; None goes by the voxels alone.
    min_slices
        Components that reach over fewer slices are removed, unless they touch the first or the last slice.
    """
    if min_vox <= 1 and not keep_largest:
        return
    found = ConnectedComponents(lambda start, stop: depth_ZYX[start:stop] > 0, depth_ZYX.shape[0], diagonal=True)
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
        depth_ZYX[start:stop] = depth_ZYX[start:stop] * mask


def count_voxels(depth_ZYX: Any, card: ModelCard) -> list[int]:
    """Return how many voxels each of a model's nested regions has."""
    voxels = [0] * len(card.regions)
    for start, stop in _slabs(depth_ZYX):
        slab = depth_ZYX[start:stop]
        for index in range(len(voxels)):
            voxels[index] += int(np.count_nonzero(slab > index))
    return voxels


def leave_out(depth_ZYX: Any, card: ModelCard, names: Collection[str]) -> None:
    """Count, in place, what lies in regions that are left out as the region around them that is not.

    So no voxel is painted as one of them; what lies in none of the others becomes 0, and what lies further in stays.
    """
    if not names:
        return
    innermost = [0]
    for number, region in enumerate(card.regions, start=1):
        innermost.append(innermost[-1] if region.name in names else number)
    _replace_numbers(depth_ZYX, innermost)


def drop_small_regions(depth_ZYX: Any, card: ModelCard, voxel_ml: float, left_out: Collection[str] = ()) -> None:
    """Empty, in place, the regions of which less was found than a card says is worth believing, and all within them."""
    if not any(region.least_ml for region in card.regions):
        return
    for index, (region, voxels) in enumerate(zip(card.regions, count_voxels(depth_ZYX, card), strict=True)):
        if region.name not in left_out and voxels * voxel_ml < region.least_ml:
            for start, stop in _slabs(depth_ZYX):
                depth_ZYX[start:stop] = np.minimum(depth_ZYX[start:stop], index)
            leave_out(depth_ZYX, card, left_out)
            return


def paint_labels(depth_ZYX: Any, card: ModelCard) -> None:
    """Replace, in place, region depth by the label of the innermost region that a voxel lies in."""
    _replace_numbers(depth_ZYX, [0, *(region.label for region in card.regions)])


def _replace_numbers(array_ZYX: Any, by: Sequence[int]) -> None:
    """Replace, in place, each number by that which stands in its place; 0 stays 0."""
    table = np.array(by, np.uint8)
    for start, stop in _slabs(array_ZYX):
        slab = array_ZYX[start:stop]
        if slab.any():
            array_ZYX[start:stop] = table[slab]


def _slabs(array: Any) -> Iterator[tuple[int, int]]:
    for start in range(0, array.shape[0], SLAB_SLICES):
        yield start, min(start + SLAB_SLICES, array.shape[0])
