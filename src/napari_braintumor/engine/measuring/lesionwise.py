"""Lesion-wise scores as in the BraTS challenges of 2023 and 2024: each lesion counts the same, however large it is.

The lesions of the reference are dilated; parts that then touch are one lesion. A predicted part belongs to every lesion
whose dilation it enters. Dice and HD95 of a lesion compare it with all of its predicted parts. A lesion without any and
a predicted part without a lesion count as Dice 0 and 374 mm. Lesions that are smaller than a limit do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import CAVITY, CORE, ENHANCING, WHOLE
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.lesions import dilate, find_box, number_lesions, reach_in_voxels
from napari_braintumor.engine.measuring.metrics import HD95_OF_A_MISS_MM, Mask

_CORNERS = np.ones((3, 3, 3), np.bool_)


@dataclass(frozen=True)
class LesionRules:
    """What differs from year to year.

    Attributes
    ----------
    year
        The challenge.
    least_mm3
        For each region that it scores, lesions of the reference up to this size do not count.
    joins
        Whether enhancing parts at one and the same necrotic part or cavity are one lesion, and so on around.
    """

    year: int
    least_mm3: Mapping[str, float]
    joins: bool


RULES: Mapping[int, LesionRules] = {
    2023: LesionRules(2023, {WHOLE: 50, CORE: 50, ENHANCING: 50}, joins=False),
    2024: LesionRules(2024, {WHOLE: 20, CORE: 20, ENHANCING: 10, CAVITY: 10}, joins=True),
}
"""The rules for glioma, by year."""


@dataclass(frozen=True)
class LesionScore:
    """The lesion-wise scores of a region.

    Attributes
    ----------
    dice, hd95_mm
        Means over the lesions of the reference that count and the false ones.
    found, missed
        Lesions of the reference that count, with and without a predicted part.
    false
        Predicted parts that enter no lesion's dilation.
    """

    dice: float
    hd95_mm: float
    found: int
    missed: int
    false: int


def score_lesions(
    prediction: Mapping[str, Mask], reference: Mapping[str, Mask], grid: SourceGrid, rules: LesionRules
) -> dict[str, LesionScore]:
    """Score each region lesion by lesion.

    Parameters
    ----------
    prediction, reference
        bool ``(Z, Y, X)`` for each region.
    grid
        The grid of the masks. The challenges have 1 mm; elsewhere dilations reach as far in mm as whole voxels allow.
    rules
        One of `RULES`.

    Returns
    -------
    dict
        The score of each region that the rules know and both define.

    References
    ----------
    Saluja et al. 2023 and 2024, lesion-wise performance metrics of BraTS.
    """
    scores = {}
    for region in (name for name in rules.least_mm3 if name in prediction and name in reference):
        lesions, count = number_lesions(reference[region], grid)
        if rules.joins and region in (ENHANCING, CAVITY):
            lesions, count = _join(region, lesions, count, reference, grid)
        scores[region] = _score(prediction[region], lesions, count, grid, rules.least_mm3[region])
    return scores


def _score(prediction: Mask, lesions: NDArray[np.int32], count: int, grid: SourceGrid, least_mm3: float) -> LesionScore:
    from scipy import ndimage

    parts, part_count = ndimage.label(prediction, _CORNERS)
    sizes = np.bincount(parts.ravel(), minlength=part_count + 1)
    boxes, part_boxes = ndimage.find_objects(lesions, count), ndimage.find_objects(parts, part_count)
    voxel_mm3 = grid.voxel_ml * 1000
    met: set[int] = set()
    dices, distances = [], []
    found = missed = 0
    for number, box in enumerate(boxes, start=1):
        around = tuple(
            slice(max(side.start - more, 0), side.stop + more)
            for side, more in zip(box, reach_in_voxels(grid), strict=True)
        )
        lesion = lesions[around] == number
        touched = [int(part) for part in np.unique(parts[around][dilate(lesion, grid)]) if part]
        met.update(touched)
        if np.count_nonzero(lesion) * voxel_mm3 <= least_mm3:
            continue
        if not touched:
            missed += 1
            dices.append(0.0)
            distances.append(HD95_OF_A_MISS_MM)
            continue
        found += 1
        here = _enclose([box, *(part_boxes[part - 1] for part in touched)])
        drawn, predicted = lesions[here] == number, np.isin(parts[here], touched)
        dices.append(2 * np.count_nonzero(drawn & predicted) / (np.count_nonzero(drawn) + int(sizes[touched].sum())))
        distances.append(robust_distance_mm(predicted, drawn, grid))
    false = part_count - len(met)
    counted = len(dices) + false
    return LesionScore(
        sum(dices) / counted if counted else 1.0,
        (sum(distances) + false * HD95_OF_A_MISS_MM) / counted if counted else 0.0,
        found,
        missed,
        false,
    )


def _enclose(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )


# ------------------------------------------------------------------------------------------------- joining lesions


def _join(
    region: str, lesions: NDArray[np.int32], count: int, reference: Mapping[str, Mask], grid: SourceGrid
) -> tuple[NDArray[np.int32], int]:
    """Join lesions that touch the same part of another tissue: of the necrosis first, then of the other."""
    nothing = np.zeros(lesions.shape, np.bool_)
    enhancing = reference.get(ENHANCING, nothing)
    tissues = {
        "necrosis": reference.get(CORE, nothing) & ~enhancing,
        ENHANCING: enhancing,
        CAVITY: reference.get(CAVITY, nothing),
    }
    order = ("necrosis", CAVITY) if region == ENHANCING else (ENHANCING, "necrosis")
    for tissue in order:
        others, other_count = _number_in_order(tissues[tissue], grid)
        lesions, count = _join_at(lesions, count, others, other_count)
    return lesions, count


def _number_in_order(mask: Mask, grid: SourceGrid) -> tuple[NDArray[np.int32], int]:
    """Return the lesions of a tissue, numbered in the order in which the challenge's code finds them."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros(mask.shape, np.int32), 0
    numbers, count = ndimage.label(dilate(mask, grid), _CORNERS)
    return np.where(mask, numbers, 0).astype(np.int32), int(count)


def _join_at(
    lesions: NDArray[np.int32], count: int, others: NDArray[np.int32], other_count: int
) -> tuple[NDArray[np.int32], int]:
    """Give lesions whose first touching part of another tissue is the same one number."""
    from scipy import ndimage

    if count < 2 or not other_count:
        return lesions, count
    around = ndimage.generate_binary_structure(3, 2)
    first = np.full(count + 1, other_count + 1)
    for z, y, x in np.argwhere(around) - 1:
        here, there = _overlap(lesions.shape, (int(z), int(y), int(x)))
        one, other = lesions[here], others[there]
        both = (one > 0) & (other > 0)
        np.minimum.at(first, one[both], other[both])
    keys = [(int(first[number]), 0) if first[number] <= other_count else (0, number) for number in range(1, count + 1)]
    new = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    renumbered = np.array([0, *(new[key] for key in keys)], np.int32)
    return renumbered[lesions], len(new)


def _overlap(shape: tuple[int, ...], shift: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of an array that has neighbors at a shift, and those neighbors."""
    here = tuple(slice(max(-step, 0), size - max(step, 0)) for step, size in zip(shift, shape, strict=True))
    there = tuple(slice(max(step, 0), size - max(-step, 0)) for step, size in zip(shift, shape, strict=True))
    return here, there


# -------------------------------------------------------------------------------------- distance by surface elements


def robust_distance_mm(prediction: Mask, reference: Mask, grid: SourceGrid) -> float:
    """95th percentile of the Hausdorff distance, weighted by area, as the challenges compute it.

    A surface passes where the eight voxels around a corner of the grid differ. Each such corner counts by the area of
    the surface there, as on a grid of equal sides. The result is the larger of the two directed percentiles.

    Parameters
    ----------
    prediction, reference
        bool ``(Z, Y, X)``, neither of them empty.
    grid
        The grid of the masks.

    Returns
    -------
    float
        Millimeters.

    References
    ----------
    Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head and neck anatomy.
    """
    from scipy.spatial import KDTree

    box = find_box(prediction | reference)
    (points, areas), (others, other_areas) = (_find_elements(mask[box], grid) for mask in (prediction, reference))
    return max(
        _percentile(np.asarray(KDTree(to).query(of)[0]), weights)
        for of, weights, to in ((points, areas, others), (others, other_areas, points))
    )


def _percentile(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.lexsort((weights, distances))
    shares = np.cumsum(weights[order]) / weights.sum()
    return float(distances[order][min(int(np.searchsorted(shares, 0.95)), len(order) - 1)])


def _find_elements(mask: Mask, grid: SourceGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the surface of a mask passes, in mm up to a shift, and its area there on a grid of 1 mm."""
    padded = np.pad(mask, 1).astype(np.uint8)
    size = mask.shape
    codes = np.zeros(tuple(side + 1 for side in size), np.uint8)
    for bit, (z, y, x) in enumerate(product((0, 1), repeat=3)):
        codes |= padded[z : z + size[0] + 1, y : y + size[1] + 1, x : x + size[2] + 1] << bit
    places = np.argwhere((codes > 0) & (codes < 255))
    return places.astype(np.float64) @ grid.affine_ZYX[:3, :3].T, _list_areas()[codes[tuple(places.T)]]


@cache
def _list_areas() -> NDArray[np.float64]:
    """Return the area of the surface between the corners of a unit cube that are inside and those outside.

    The surface runs through the middles of the edges between them. Corners that are joined by edges have one surface,
    and others each their own; if more than four are inside, those outside are enclosed.

    Returns
    -------
    array
        float64 ``(256,)``; bit ``4 z + 2 y + x`` of the index is set for a corner inside.
    """
    corners = list(product((0, 1), repeat=3))
    areas = np.zeros(256)
    for code in range(256):
        inside = [corner for bit, corner in enumerate(corners) if code >> bit & 1]
        if len(inside) > 4:
            inside = [corner for corner in corners if corner not in inside]
        while inside:
            group, rest = [inside.pop()], True
            while rest:
                near = [corner for corner in inside if any(_is_edge(corner, member) for member in group)]
                group += near
                inside = [corner for corner in inside if corner not in near]
                rest = bool(near)
            areas[code] += _area_around(group)
    return areas


def _is_edge(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _area_around(group: list[tuple[int, ...]]) -> float:
    """Return the area of the surface around up to four joined corners of a unit cube."""
    joints = sorted(sum(_is_edge(corner, other) for other in group) for corner in group)
    areas = {
        (0,): np.sqrt(3) / 8,  # a triangle
        (1, 1): np.sqrt(1 / 2),  # a rectangle
        (1, 1, 2): 1 / 2 + 3 * np.sqrt(3) / 8,
        (2, 2, 2, 2): 1.0,  # a square
        (1, 1, 1, 3): 3 * np.sqrt(3) / 4,  # a hexagon
        (1, 1, 2, 2): np.sqrt(1 / 2) + np.sqrt(3) / 2,
    }
    return float(areas[tuple(joints)])
