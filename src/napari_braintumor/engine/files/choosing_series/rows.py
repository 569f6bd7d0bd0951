"""The rows of the table of series: for each series what it shows, whether it is used, and why not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.files.calling import capitalize
from napari_braintumor.engine.files.choosing_series.guessing import Guess, guess_examination
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.files.splitting import split_words
from napari_braintumor.engine.files.vocabulary import FAT_SUPPRESSED, REFORMATTED, fold_word
from napari_braintumor.engine.grid import SourceGrid, format_sides

THIN_MM = 2.0
"""Slices up to this distance count as those of a 3-D scan."""

_OBLIQUE_DEG = 20.0
_LEAST_SHARE = 0.6
_LEAST_OVERLAP = 0.3
_SHOWN = 4

UNNAMED = "unnamed"
"""What the patient is called where no header names one."""

NO_MODALITY = ""
"""In a choice: the series is used for no modality."""


@dataclass(frozen=True)
class SeriesRow:
    """A row of the table of series.

    Attributes
    ----------
    series
        What the headers say.
    guess
        What it shows, as far as headers and names say.
    choice
        What the user said, now or earlier: a modality, or `NO_MODALITY` to leave it out; None if nothing.
    used
        Whether the case uses it.
    why_not
        Why it is not used, in a few words or a sentence; empty if it is.
    """

    series: Series
    guess: Guess
    choice: str | None = None
    used: bool = False
    why_not: str = ""

    @property
    def key(self) -> str:
        """Identifies the row for good, see `Series.key`."""
        return self.series.key

    @property
    def modality(self) -> str | None:
        """One of `MODALITIES`, guessed or chosen; None if it is none of them, or if nothing says which."""
        return self.guess.modality if self.choice is None else self.choice or None

    @property
    def reason(self) -> str:
        """Why it is thought to show that, or what else it is; in a few words."""
        return self.guess.reason if self.choice is None else "chosen by hand"

    @property
    def sure(self) -> bool:
        """Whether nobody need look at the modality again."""
        return self.choice is not None or self.guess.sure or not self.usable

    @property
    def title(self) -> str:
        """Its name in messages: ``series 3 'AX T1'``, or the name of a file."""
        return title_of(self.series)

    @property
    def plane(self) -> str:
        """The plane of its slices: ``axial``, ``coronal``, ``sagittal``, ``oblique``, or empty if unknown."""
        return find_plane(self.series.grid)

    @property
    def voxel_size(self) -> str:
        """Its voxel size in mm, ``Z x Y x X``, or empty if unknown."""
        grid = self.series.grid
        return format_sides(grid.spacing) if grid is not None and grid.spacing_known else ""

    @property
    def usable(self) -> bool:
        """Whether the series may be used as a scan at all."""
        return self.series.problem is None and self.series.kind in ("MR", "")


def title_of(series: Series) -> str:
    """Return the name of a series in messages: ``series 3 'AX T1'``, or the name of a file."""
    if series.format != "dicom":
        return f"'{series.paths[0].name}'"
    number = "" if series.number is None else f" {series.number}"
    return f"series{number} '{series.description}'" if series.description else f"series{number or ' without a number'}"


def find_plane(grid: SourceGrid | None) -> str:
    """Find the plane of a scan's slices.

    Slices lie across the axis with the largest voxel side; where all sides are alike, across the last axis of the
    file, along which scanners number their slices.

    Returns
    -------
    str
        ``axial``, ``coronal``, ``sagittal`` or ``oblique``; empty without a grid.
    """
    if grid is None:
        return ""
    directions, sides = grid.affine[:3, :3], np.linalg.norm(grid.affine[:3, :3], axis=0)
    across = int(np.argmax(sides)) if sides.max() > 1.2 * np.median(sides) else _slice_axis(grid)
    normal = np.abs(directions[:, across] / sides[across])
    if normal.max() < np.cos(np.deg2rad(_OBLIQUE_DEG)):
        return "oblique"
    return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]


def _slice_axis(grid: SourceGrid) -> int:
    """Return the axis of the source along which a scan's slices are numbered."""
    return 0 if grid.format in ("tiff", "array") else 2


def judge_series(series: Sequence[Series], choice: Mapping[str, str] | None = None) -> tuple[SeriesRow, ...]:
    """Make the table of one examination: what each series shows, and which is used for each modality.

    Parameters
    ----------
    series
        Those of one patient on one day, in the order of the table.
    choice
        What the user said: for the key of a row a modality, or `NO_MODALITY` to leave it out.

    Returns
    -------
    tuple of SeriesRow
        One for each series.
    """
    choice = choice or {}
    guesses = guess_examination(series)
    return choose_rows([SeriesRow(*pair, choice.get(pair[0].key)) for pair in zip(series, guesses, strict=True)])


def choose_rows(rows: Sequence[SeriesRow]) -> tuple[SeriesRow, ...]:
    """Choose one series for each modality; what the user chose stays, and no two lie in different places.

    The others of a modality say which was better, and in what. Better is, in this order: what the user chose, a sure
    guess, an original scan, no fat suppression, the whole head, thin slices, axial slices, more of the head, the
    latest repeat.

    Returns
    -------
    tuple of SeriesRow
        The rows in their order, at most one of each modality `used`.
    """
    result = {row.key: replace(row, used=False, why_not=_explain_unusable(row)) for row in rows}
    by_modality: dict[str, list[SeriesRow]] = defaultdict(list)
    for row in result.values():
        if row.modality and row.usable:
            by_modality[row.modality].append(row)
    longest = max((_length_mm(row.series) for members in by_modality.values() for row in members), default=0.0)
    taken: list[SeriesRow] = []
    for modality in sorted(by_modality, key=lambda name: (not _has_choice(by_modality[name]), MODALITIES.index(name))):
        ranked = sorted(by_modality[modality], key=lambda row: _rank(row, longest))
        best = None
        for row in ranked:
            if row.choice is None and (apart := _find_apart(row, taken)) is not None:
                result[row.key] = replace(row, why_not=f"it does not lie where {apart.title} lies")
            elif best is None:
                best = row
                taken.append(row)
                result[row.key] = replace(row, used=True, why_not="")
            else:
                result[row.key] = replace(row, why_not=_compare(best, row, longest))
    return tuple(result.values())


def describe_rows(rows: Sequence[SeriesRow]) -> tuple[str, ...]:
    """Say what a user should know of the table, one sentence each: what is unsure, mended, or left out, and why."""
    notes = [note for row in rows if row.used for note in row.series.notes]
    doubtful = [row for row in rows if row.used and not row.sure]
    notes += [f"{capitalize(row.title)} was taken for {row.modality}, but check it: {row.reason}." for row in doubtful]
    by_reason: dict[str, list[SeriesRow]] = defaultdict(list)
    for row in rows:
        if row.used:
            continue
        if row.why_not == row.series.problem:
            notes.append(row.series.problem)
        else:
            by_reason[row.why_not].append(row)
    for reason, members in by_reason.items():
        names = [row.title for row in members[:_SHOWN]]
        more = [f"{len(members) - _SHOWN} more"] if len(members) > _SHOWN else []
        *most, last = [*names, *more]
        were = f"{', '.join(most)} and {last} were" if most else f"{last} was"
        notes.append(f"{capitalize(were)} left out: {reason.removesuffix('.')}.")
    return tuple(notes)


def _explain_unusable(row: SeriesRow) -> str:
    """Return why a series cannot be used whatever the others are; empty if it can."""
    if row.series.kind not in ("MR", ""):
        return row.guess.other
    if row.series.problem is not None:
        return row.series.problem
    if row.choice == NO_MODALITY:
        return "not wanted"
    return "" if row.modality else row.guess.reason


def _has_choice(rows: Sequence[SeriesRow]) -> bool:
    return any(row.choice for row in rows)


# ------------------------------------------------------------------------------------------------------------ ranking

_BETTER = (
    "was chosen instead",
    "is surer",
    "is an original scan and this one was computed from another",
    "is not fat-suppressed",
    "covers the whole head",
    "has thinner slices",
    "is axial",
    "covers more",
    "is a later repeat",
)


def _rank(row: SeriesRow, longest_mm: float) -> tuple[float, ...]:
    """Return what decides between two series of one modality, the lesser the better; see `_BETTER`."""
    series = row.series
    words = {fold_word(word) for word in split_words(series.description)}
    length_mm = _length_mm(series)
    return (
        not row.choice,
        not row.sure,
        "DERIVED" in series.image_type or bool(words & REFORMATTED),
        bool(words & FAT_SUPPRESSED) or "fat suppressed" in series.techniques,
        0 < length_mm < _LEAST_SHARE * longest_mm,
        _slice_mm(series) > THIN_MM,
        row.plane != "axial",
        -round(length_mm, -1),
        -(series.number or 0),
    )


def _compare(best: SeriesRow, row: SeriesRow, longest_mm: float) -> str:
    """Say why one series was preferred to another of the same modality."""
    pairs = zip(_rank(best, longest_mm), _rank(row, longest_mm), _BETTER, strict=True)
    why = next((why for one, other, why in pairs if one != other), "comes first")
    return f"{best.title} {why}"


def _slice_mm(series: Series) -> float:
    return max(series.grid.spacing) if series.grid is not None else np.inf


def _length_mm(series: Series) -> float:
    """Return how much of the body a scan covers, along its shortest side."""
    if series.grid is None:
        return 0.0
    return min(side * count for side, count in zip(series.grid.spacing, series.grid.shape_ZYX, strict=True))


def _find_apart(row: SeriesRow, others: Sequence[SeriesRow]) -> SeriesRow | None:
    """Return a series with which this one should share its place, but does not."""
    return next((other for other in others if not _do_overlap(row.series, other.series)), None)


def _do_overlap(one: Series, other: Series) -> bool:
    """Whether two scans in one coordinate system overlap; True where that is not known."""
    same = one.frame_of_reference and one.frame_of_reference == other.frame_of_reference
    if not same or one.grid is None or other.grid is None:
        return True
    (low, high), (least, most) = _box(one.grid), _box(other.grid)
    shared = np.maximum(np.minimum(high, most) - np.maximum(low, least), 0).prod()
    return bool(shared >= _LEAST_OVERLAP * min((high - low).prod(), (most - least).prod()))


def _box(grid: SourceGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of the box around a grid, RAS mm."""
    ends = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], np.float64)
    corners = (ends * np.array(grid.shape) - 0.5) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return corners.min(axis=0), corners.max(axis=0)
