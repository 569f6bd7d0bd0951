"""Put the planes of a series into stacks: which belong together, in which order, and where their voxels lie.

Source axes of a DICOM scan are column, row and slice, as NIfTI converters have them; slices run along the normal, which
is the cross product of the directions of rows and columns (PS3.3, C.7.6.2.1.1).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.even_stacks import SAME_PLACE_MM, fit_line, number_slices
from napari_braintumor.engine.files.dicom.headers import Plane, digest_pixels

_ANY_DIRECTION = np.array([0.5257311, 0.4472136, 0.7236068])
"""A direction along which hardly two places of a scan are level."""
_TURNED = 0.01
"""Difference of direction cosines from which two planes are turned relative to each other: about half a degree."""
_MOST_PARTS = 8
_OF_SLABS = ("stack", "acquisition")
"""Traits that differ between slabs of one series that lie beside each other."""


@dataclass(frozen=True)
class Part:
    """Planes of a series that make one stack, and what tells it from the others, such as ``echo 2``."""

    planes: tuple[Plane, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in order, and where they lie.

    Attributes
    ----------
    name
        The series in messages.
    planes
        A plane for each slice; None where it is missing and is interpolated of its neighbors.
    affine
        ``(4, 4)``, index (column, row, slice) to RAS mm.
    spacing_known
        False if a single plane does not state its thickness.
    notes
        What was mended, one sentence each.
    """

    name: str
    planes: tuple[Plane | None, ...]
    affine: NDArray[np.float64]
    spacing_known: bool
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        first = next(plane for plane in self.planes if plane is not None)
        return first.shape[1], first.shape[0], len(self.planes)


def split_planes(planes: Sequence[Plane], name: str) -> list[Part]:
    """Split the planes of a series into those that make one stack each.

    Planes of other sizes or directions are always apart. Where several planes lie in one place, the first trait that
    tells them apart splits the series; copies of one image are dropped.

    Parameters
    ----------
    planes
        All planes of the series, in any order.
    name
        The series in messages.

    Returns
    -------
    list of Part
        At least one.
    """
    parts = []
    directions = _by_direction(planes)
    for title, members in directions:
        kept, notes = _drop_copies(members, name)
        for part in _split_by_traits(kept, name):
            words = [word for word in (title if len(directions) > 1 else "", part.title) if word]
            parts.append(Part(part.planes, ", ".join(words), (*notes, *part.notes), part.problem))
    return parts


def stack_planes(planes: Sequence[Plane], name: str) -> Stack:
    """Order planes along their normal, and find where their voxels lie.

    Returns
    -------
    Stack
        With an affine that also holds for a tilted gantry.

    Raises
    ------
    DataError
        Naming the series, if positions are missing or make no even stack.
    """
    for what, missing in (
        ("where they lie (ImagePositionPatient)", [each for each in planes if each.position is None]),
        ("their directions (ImageOrientationPatient)", [each for each in planes if each.orientation is None]),
        ("the size of their pixels (PixelSpacing)", [each for each in planes if not _is_positive(each.spacing)]),
    ):
        if missing:
            raise DataError(
                f"{name} cannot be placed: {len(missing)} of its {len(planes)} images do not state {what}. "
                "Export it again from the scanner or the archive."
            )
    columns, rows, normal = _directions(planes, name)
    places = np.array([plane.position for plane in planes])
    order = np.argsort(places @ normal, kind="stable")
    planes, places = [planes[i] for i in order], places[order]
    index, notes = number_slices(places @ normal, name)
    step, corner, more = fit_line(index, places, normal, planes[0], name)
    affine = np.eye(4)
    row_mm, column_mm = planes[0].spacing or (1.0, 1.0)
    affine[:3, :4] = np.stack([columns * column_mm, rows * row_mm, step, corner], axis=1)
    affine[:2] *= -1  # LPS to RAS
    filled: list[Plane | None] = [None] * (int(index[-1]) + 1)
    for place, plane in zip(index, planes, strict=True):
        filled[place] = plane
    known = len(planes) > 1 or planes[0].thickness is not None
    return Stack(name, tuple(filled), affine, known, (*notes, *more))


# ------------------------------------------------------------------------------------------- which planes are one stack


def _by_direction(planes: Sequence[Plane]) -> list[tuple[str, list[Plane]]]:
    """Group planes of one size, pixel size and direction, with the name of the direction."""
    groups: list[list[Plane]] = []
    for plane in planes:
        own = next((group for group in groups if _is_alike(group[0], plane)), None)
        if own is None:
            groups.append([plane])
        else:
            own.append(plane)
    titles = [name_plane(group[0].orientation) for group in groups]
    again = Counter(titles)
    seen: Counter[str] = Counter()
    named = []
    for title, group in zip(titles, groups, strict=True):
        seen[title] += 1
        number = f" {seen[title]}" if again[title] > 1 else ""
        named.append((f"{title or 'unplaced'}{number}", group))
    return named


def _is_alike(one: Plane, two: Plane) -> bool:
    if one.shape == two.shape and one.orientation == two.orientation and one.spacing == two.spacing:
        return True
    if one.shape != two.shape or (one.orientation is None) != (two.orientation is None):
        return False
    turned = one.orientation and two.orientation and not np.allclose(one.orientation, two.orientation, 0, _TURNED)
    return not turned and bool(np.allclose(one.spacing or (0, 0), two.spacing or (0, 0), 1e-3))


def name_plane(orientation: Sequence[float] | None) -> str:
    """Return what slices of a direction are called: axial, coronal or sagittal; empty if it is not known."""
    if orientation is None:
        return ""
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]


def _places(planes: Sequence[Plane]) -> list[int]:
    """Return a number for each plane's place; planes without a position all lie in different places."""
    keys = list(range(len(planes)))
    placed = [number for number, plane in enumerate(planes) if plane.position is not None]
    points = np.array([planes[number].position for number in placed]).reshape(-1, 3)
    along = points @ _ANY_DIRECTION  # planes in one place are neighbors on any line
    order = np.argsort(along, kind="stable")
    for before, here in pairwise(order):
        if np.abs(points[here] - points[before]).max() < SAME_PLACE_MM:
            keys[placed[here]] = keys[placed[before]]
    return keys


def _most_in_a_place(planes: Sequence[Plane]) -> int:
    return max(Counter(_places(planes)).values())


def _drop_copies(planes: Sequence[Plane], name: str) -> tuple[list[Plane], list[str]]:
    """Drop further copies of one file."""
    kept: dict[Hashable, Plane] = {}
    for plane in planes:
        kept.setdefault((plane.uid or plane.path, plane.frame), plane)
    dropped = len(planes) - len(kept)
    return list(kept.values()), [f"{dropped} images of {name} are there twice; one of each is used."] if dropped else []


def _split_by_traits(planes: list[Plane], name: str) -> list[Part]:
    most = _most_in_a_place(planes)
    if most == 1:
        return _split_slabs(planes, name)
    parts: list[tuple[list[str], list[Plane]]] = [([], planes)]
    for trait in planes[0].traits:
        parts = [piece for words, members in parts for piece in _split_by(trait, words, members)]
    found = [piece for words, members in parts for piece in _split_equals(members, " ".join(words), name)]
    if len(found) > _MOST_PARTS:
        problem = (
            f"{name} has up to {most} images in each place, as a perfusion, diffusion or functional scan has. Expected "
            "one image in each place."
        )
        return [Part(tuple(planes), problem=problem)]
    return found


def _split_slabs(planes: list[Plane], name: str) -> list[Part]:
    """Split planes that make no even stack by what says that they were taken as several."""
    if not _is_even(planes, name):
        for trait in _OF_SLABS:
            groups: dict[Hashable, list[Plane]] = defaultdict(list)
            for plane in planes:
                groups[plane.traits[trait]].append(plane)
            slabs = list(groups.values())
            if 1 < len(slabs) <= _MOST_PARTS and all(len(slab) > 1 and _is_even(slab, name) for slab in slabs):
                return [Part(tuple(slab), f"{trait} {place}") for place, slab in enumerate(slabs, start=1)]
    return [Part(tuple(planes))]


def _is_even(planes: Sequence[Plane], name: str) -> bool:
    try:
        stack_planes(planes, name)
    except DataError:
        return False
    return True


def _split_by(trait: str, words: list[str], planes: list[Plane]) -> list[tuple[list[str], list[Plane]]]:
    """Split planes by a trait if that tells some apart that lie in one place."""
    before = _most_in_a_place(planes)
    groups: dict[Hashable, list[Plane]] = defaultdict(list)
    for plane in planes:
        groups[plane.traits[trait]].append(plane)
    if before == 1 or len(groups) == 1 or max(map(_most_in_a_place, groups.values())) == before:
        return [(words, planes)]
    ordered = sorted(groups.items(), key=lambda item: repr(item[0]) if isinstance(item[0], tuple) else _rank(item[0]))
    return [([*words, _title(trait, value, place)], members) for place, (value, members) in enumerate(ordered, 1)]


def _rank(value: Hashable) -> str:
    return f"{value:020.6f}" if isinstance(value, int | float) else str(value)


def _title(trait: str, value: Hashable, place: int) -> str:
    if trait == "b" and isinstance(value, float):
        return f"b {value:g}"
    if trait == "kind" and isinstance(value, tuple):
        types, component = value
        return str(component or next(iter(types[2:3]), "") or f"kind {place}")
    return f"{trait} {place}"


def _split_equals(planes: list[Plane], title: str, name: str) -> list[Part]:
    """Split planes that no trait tells apart: copies of one image are dropped, several full stacks become series."""
    by_place: dict[int, list[Plane]] = defaultdict(list)
    for place, plane in sorted(zip(_places(planes), planes, strict=True), key=lambda item: item[1].instance):
        by_place[place].append(plane)
    different = {place: _drop_equals(members) for place, members in by_place.items()}
    dropped = len(planes) - sum(map(len, different.values()))
    notes = (f"{dropped} images of {name} are there twice; one of each is used.",) if dropped else ()
    count = {len(members) for members in different.values()}
    most = max(count)
    if count == {most}:
        layers = [tuple(members[i] for members in different.values()) for i in range(most)]
        words = [f"{title} part {i}".strip() if most > 1 else title for i in range(1, most + 1)]
        return [Part(layer, word, notes) for layer, word in zip(layers, words, strict=True)]
    several = sum(len(members) > 1 for members in different.values())
    problem = (
        f"{name} has different images in {several} of its {len(different)} places, and nothing says which belong "
        "together. Remove those that do not belong, or export the series again."
    )
    return [Part(tuple(planes), title, problem=problem)]


def _drop_equals(planes: list[Plane]) -> list[Plane]:
    """Return planes of one place without those whose pixels equal another's."""
    if len(planes) == 1 or len({plane.path for plane in planes}) < len(planes):
        return planes
    return list({digest_pixels(plane.path): plane for plane in reversed(planes)}.values())[::-1]


# ------------------------------------------------------------------------------------------------- where they lie


def _is_positive(sides: Iterable[float] | None) -> bool:
    return sides is not None and all(side > 0 for side in sides)


def _directions(planes: Sequence[Plane], name: str) -> tuple[NDArray[np.float64], ...]:
    """Return unit vectors along a row (with columns), along a column (with rows), and along the slices; LPS."""
    mean = np.array([plane.orientation for plane in planes], np.float64).mean(axis=0)
    along, down = mean[:3], mean[3:]
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if not (np.abs(np.array(lengths) - 1) < 0.02).all() or abs(along @ down) > 0.02:
        raise DataError(
            f"{name} cannot be placed: the directions in its header (ImageOrientationPatient) are not at right angles. "
            "Export it again from the scanner or the archive."
        )
    along, down = along / lengths[0], down / lengths[1]
    normal = np.cross(along, down)
    return along, down, normal / np.linalg.norm(normal)
