"""Read labels from DICOM: segmentations (SEG) as masks, structure sets (RTSTRUCT) as contours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from napari_braintumor.engine.anatomy import (
    EXTRA_COLORS,
    LABEL_COLORS,
    LABEL_WORDS,
    LABELS,
    REGION_WORDS,
    find_region,
    name_labels,
)
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.dicom.headers import damaged, read_dataset
from napari_braintumor.engine.files.dicom.quiet import FAULTS, unheard
from napari_braintumor.engine.files.dicom.referring import read_uid
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
_MOST_VOXELS = 2**31
_UNEVEN = 0.1
_SAME_PLACE_MM = 0.01
_MOST = 255


@dataclass(frozen=True, eq=False)
class LabelImage:
    """Labels from a file that says what they mean.

    Attributes
    ----------
    labels
        uint8 ``(Z, Y, X)``.
    grid
        Where they lie.
    names, colors
        The name of each label, and its color as ``#rrggbb``.
    own
        Whether the numbers are those of `anatomy.LABELS`; otherwise they are those of the file.
    notes
        What the user should know, one sentence each.
    """

    labels: NDArray[np.uint8]
    grid: SourceGrid
    names: Mapping[int, str]
    colors: Mapping[int, str]
    own: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A segment or structure of a file: its number there, its name, and its color or an empty text."""

    number: int
    name: str
    color: str


def holds_labels(path: Path) -> bool:
    """Whether a DICOM file is a segmentation or a structure set; False if it cannot be read."""
    return read_uid(path, "SOPClassUID") in (SegmentationStorage, _LABELMAP, RTStructureSetStorage)


def read_labels(path: Path) -> LabelImage:
    """Read a DICOM segmentation or structure set as labels.

    Regions that this program knows, whoever wrote them, get its own numbers; overlapping ones nest. All others keep the
    numbers of the file, and where they overlap the smaller covers the larger.

    Parameters
    ----------
    path
        A segmentation, or a structure set whose images lie in its folder or a folder beside it.

    Returns
    -------
    LabelImage
        On the grid of the file, or of the images of a structure set.

    Raises
    ------
    DataError
        If the file is damaged, is of another kind, has more than 255 labels, its planes make no even stack, or the
        images of a structure set are not found.
    """
    from napari_braintumor.engine.files.dicom.structures import read_structures

    data = read_dataset(path, pixels=True)
    try:
        with unheard():
            kind = str(data.get("SOPClassUID", ""))
            if kind in (SegmentationStorage, _LABELMAP):
                return _read_segmentation(data, path)
            if kind == RTStructureSetStorage:
                return read_structures(data, path)
    except FAULTS as error:
        raise damaged(path) from error
    raise DataError(
        f"{capitalize(call_file(path))} holds no labels. Expected a DICOM segmentation (SEG) or structure set "
        "(RTSTRUCT)."
    )


def paint(
    masks: Sequence[NDArray[np.bool_]], parts: Sequence[Part], grid: SourceGrid, notes: tuple[str, ...] = ()
) -> LabelImage:
    """Paint masks in (Z, Y, X) over each other, larger ones first.

    Returns
    -------
    LabelImage
        With the numbers of `anatomy.LABELS` if all parts are known, otherwise with those of the parts.

    Raises
    ------
    DataError
        If a number does not fit in 8 bits.
    """
    names = [part.name for part in parts]
    numbers, own = _number(names, [part.number for part in parts])
    labels = np.zeros(grid.shape_ZYX, np.uint8)
    for place in sorted(range(len(parts)), key=lambda i: (-int(np.count_nonzero(masks[i])), i)):
        labels[masks[place]] = numbers[place]
    named = dict(zip(numbers, names, strict=True))
    if own:
        regions = [name for name in map(_known_region, names) if name]
        named = name_labels(regions) if len(regions) == len(names) else {n: LABELS[n] for n in sorted(numbers)}
    colors = {
        number: part.color or LABEL_COLORS.get(number, "") if own else part.color
        for number, part in zip(numbers, parts, strict=True)
    }
    filled = {n: color or EXTRA_COLORS[n % len(EXTRA_COLORS)] for n, color in colors.items()}
    return LabelImage(labels, grid, named, filled, own, notes)


def _number(names: Sequence[str], numbers: Sequence[int]) -> tuple[list[int], bool]:
    """Return the label of each part, and whether they are our own."""
    known = [_known_label(name) for name in names]
    ours = [number for number in known if number is not None]
    if len(set(ours)) == len(names):
        return ours, True
    if outside := [number for number in numbers if not 0 < number <= _MOST]:
        raise DataError(
            f"The file numbers its labels up to {max(outside)}. Expected numbers from 1 to {_MOST}. Export fewer of "
            "them."
        )
    return list(numbers), False


def _known_region(name: str) -> str | None:
    word = name.strip().lower()
    return next((region for region, words in REGION_WORDS.items() if word in words), None)


def _known_label(name: str) -> int | None:
    if (region := _known_region(name)) is not None:
        return find_region(region).label
    word = name.strip().lower()
    return next((label for label, text in LABELS.items() if word == text or word in LABEL_WORDS[label]), None)


# ------------------------------------------------------------------------------------------------------ segmentations


def _read_segmentation(data: FileDataset, path: Path) -> LabelImage:
    parts = [
        Part(
            int(item.SegmentNumber), str(item.get("SegmentLabel", "")) or f"segment {item.SegmentNumber}", _color(item)
        )
        for item in data.SegmentSequence
        if int(item.SegmentNumber)  # 0 is the background of a label map
    ]
    by_number = {part.number: place for place, part in enumerate(parts)}
    frames = list(data.PerFrameFunctionalGroupsSequence)
    shared = data.SharedFunctionalGroupsSequence[0] if data.get("SharedFunctionalGroupsSequence") else Dataset()
    places = np.array([_group(frame, shared, "PlanePositionSequence").ImagePositionPatient for frame in frames], float)
    turned = np.array(
        [_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient for frame in frames], float
    )
    if np.ptp(turned, axis=0).max() > 1e-3:
        raise DataError(
            f"{capitalize(call_file(path))} has planes in several directions. Expected planes that make one stack."
        )
    measures = _group(frames[0], shared, "PixelMeasuresSequence")
    grid, index = _stack(places, turned[0], measures, (int(data.Columns), int(data.Rows)), path)
    pixels = np.asarray(data.pixel_array).reshape(len(frames), int(data.Rows), int(data.Columns))
    columns, rows, slices = grid.shape
    masks = np.zeros((len(parts), slices, rows, columns), np.bool_)
    notes: tuple[str, ...] = ()
    if str(data.SegmentationType) == "LABELMAP":
        for plane, at in zip(pixels, index, strict=True):
            for number in np.unique(plane).tolist():
                if number in by_number:
                    masks[by_number[number], at] |= plane == number
    else:
        least = 1
        if str(data.SegmentationType) == "FRACTIONAL":
            least = int(data.MaximumFractionalValue) // 2 + 1
            notes = (f"{capitalize(call_file(path))} holds shares of voxels; those of more than one half are inside.",)
        for frame, plane, at in zip(frames, pixels, index, strict=True):
            identity = _group(frame, shared, "SegmentIdentificationSequence")
            masks[by_number[int(identity.ReferencedSegmentNumber)], at] |= plane >= least
    in_order = [grid.from_source(np.transpose(mask, (2, 1, 0))) for mask in masks]
    return paint(in_order, parts, grid, notes)


def _stack(
    places: NDArray[np.float64], turned: NDArray[np.float64], measures: Dataset, size: tuple[int, int], path: Path
) -> tuple[SourceGrid, NDArray[np.intp]]:
    """Return the grid of frames, source axes column, row and slice, and the slice of each frame."""
    along, down = turned[:3], turned[3:]
    normal = np.cross(along, down)
    heights = places @ normal
    steps = np.diff(np.sort(heights))
    steps = steps[steps > _SAME_PLACE_MM]
    stated = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0)
    step = float(steps.min()) if len(steps) else stated
    if len(steps) and 0 < stated < step * 1.01 and _off(heights, stated) < _UNEVEN:
        step = stated  # empty planes may have been left out, so that no two are neighbors
    if not _off(heights, step) < _UNEVEN:
        raise DataError(
            f"The planes of {call_file(path)} make no even stack: they are {steps.min():.3g} to {steps.max():.3g} mm "
            "apart. Export the segmentation again."
        )
    index = np.rint((heights - heights.min()) / step).astype(np.intp)
    columns, rows, slices = *size, int(index.max()) + 1
    if columns * rows * slices > _MOST_VOXELS:
        raise DataError(f"The planes of {call_file(path)} lie too far apart to be one scan ({slices} slices).")
    first, last = int(index.argmin()), int(index.argmax())
    stride = (places[last] - places[first]) / index[last] if slices > 1 else normal * step
    row_mm, column_mm = (float(side) for side in measures.PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.stack([along * column_mm, down * row_mm, stride, places[first]], axis=1)
    affine[:2] *= -1  # LPS to RAS
    return grid_from_affine((columns, rows, slices), affine, path=path, format="dicom"), index


def _off(heights: NDArray[np.float64], step: float) -> float:
    """Return how far planes lie off an even stack, as part of its step."""
    index = (heights - heights.min()) / step
    return float(np.abs(index - np.rint(index)).max())


def _group(frame: Dataset, shared: Dataset, keyword: str) -> Any:
    return (frame.get(keyword) or shared[keyword].value)[0]


def _color(item: Dataset) -> str:
    from highdicom.color import CIELabColor

    value = item.get("RecommendedDisplayCIELabValue")
    if not value:
        return ""
    return "#{:02x}{:02x}{:02x}".format(*CIELabColor.from_dicom_value(list(value)).to_rgb(clip=True))
