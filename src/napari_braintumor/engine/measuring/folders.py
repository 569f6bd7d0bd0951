"""Scores of many cases: labels paired with references by the names of their files, means over cases, two sets compared.

Scores of many cases travel as a mapping: case, then region, then the name of a score, see `list_scores`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import BrainTumorError, DataError, describe_failure, describe_origin
from napari_braintumor.engine.events import CaseFailed, Noted, PhaseReached
from napari_braintumor.engine.files.drawn import read_drawn
from napari_braintumor.engine.files.formats import find_format, is_listed, strip_suffix
from napari_braintumor.engine.files.naming import may_be_mask
from napari_braintumor.engine.measuring.metrics import Metric, mean_interval
from napari_braintumor.engine.measuring.scores import LesionFigure, list_scores, score_labels
from napari_braintumor.engine.measuring.statistics import LEAST_PAIRS, PairedTest, compare_pairs

Regions = Mapping[str, Mapping[str, float]]
"""The scores of a case by region."""

Scored = Mapping[str, Regions]
"""The scores of many cases."""

_ENDING = re.compile(
    r"(?i)[-_ .]+(?:seg(?:mentation)?|mask|labels?|tumou?r|pred(?:iction)?|gt|reference|truth|\d{0,2}_?brats\w*)$"
)


@dataclass(frozen=True)
class CaseScored:
    """The labels of a case were scored against its reference."""

    case: str
    scores: Regions


@dataclass(frozen=True)
class Summary:
    """A score of a region over cases.

    Attributes
    ----------
    region
        The region.
    score
        Which score.
    count
        The cases that have it.
    mean, low, high
        The mean, and its 95 % interval by a bootstrap over cases.
    """

    region: str
    score: Metric | LesionFigure
    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedScore:
    """A score of a region in two sets of the same cases."""

    region: str
    score: Metric | LesionFigure
    test: PairedTest


def pair_files(labels: Path, reference: Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Pair files of labels with their references.

    Parameters
    ----------
    labels, reference
        Two files, or two folders whose files have the same names but for endings such as ``_seg`` and ``_tumor``.

    Returns
    -------
    tuple
        For each case its name, the labels and the reference; and a note for each file that is only in one folder.

    Raises
    ------
    DataError
        If only one is a folder, or no files belong together.
    """
    for path in (labels, reference):
        if not path.exists():
            raise DataError(f"There is no '{path}'. Give an existing file or folder of labels.")
    if labels.is_dir() != reference.is_dir():
        raise DataError(
            f"One of '{labels.name}' and '{reference.name}' is a folder, the other is not. Give two files, or two "
            "folders with files of the same names."
        )
    if not labels.is_dir():
        return [(strip_suffix(labels), labels, reference)], []
    ours, theirs = _list_labels(labels), _list_labels(reference)
    both = [name for name in ours if name in theirs]
    if not both:
        raise DataError(
            f"No file in '{labels.name}' has the name of one in '{reference.name}', endings such as _seg and _tumor "
            f"left out. Found {', '.join(list(ours)[:3]) or 'no labels'} and "
            f"{', '.join(list(theirs)[:3]) or 'no labels'}. Give the files of a case the same name."
        )
    notes = [
        f"{name} is skipped: it is only in '{(labels if name in ours else reference).name}'."
        for name in sorted({*ours} ^ {*theirs})
    ]
    return [(name, ours[name], theirs[name]) for name in both], notes


def score_files(
    labels: Path, reference: Path, labels_mean: str | None = None, reference_means: str | None = None
) -> Iterator[PhaseReached | Noted | CaseScored | CaseFailed]:
    """Score labels against references, file by file; an error in one case affects only that case.

    Parameters
    ----------
    labels, reference
        As in `pair_files`.
    labels_mean, reference_means
        What their numbers mean, a key of `CONVENTIONS`; if left out, files must say it themselves.

    Yields
    ------
    PhaseReached, Noted, CaseScored or CaseFailed
        For each case, in the order of names.

    Raises
    ------
    DataError
        As `pair_files`.
    """
    pairs, notes = pair_files(labels, reference)
    yield from map(Noted, notes)
    for number, (name, one, two) in enumerate(pairs):
        yield PhaseReached(f"scoring {name}", number, len(pairs))
        try:
            yield CaseScored(name, score_labels(read_drawn(one, labels_mean), read_drawn(two, reference_means)))
        except Exception as error:  # noqa: BLE001  an error in one case must not stop the others
            details = "" if isinstance(error, BrainTumorError) else describe_origin(error)
            yield CaseFailed(name, describe_failure(error), details)


def summarize(scored: Scored) -> list[Summary]:
    """Return the mean of each score of each region over the cases that have it, with its interval."""
    found = []
    for region in dict.fromkeys(name for regions in scored.values() for name in regions):
        rows = [regions[region] for regions in scored.values() if region in regions]
        for each in list_scores():
            values = [row[each.name] for row in rows if not np.isnan(row.get(each.name, np.nan))]
            if values:
                found.append(Summary(region, each, len(values), float(np.mean(values)), *mean_interval(values)))
    return found


def compare_scored(one: Scored, other: Scored) -> list[PairedScore]:
    """Compare two sets of scores, each score of each region on the cases that both have: the first minus the second.

    Volumes of masks by themselves are left out: they do not say how well anything agrees.

    Returns
    -------
    list of PairedScore
        Those with at least two cases.
    """
    found = []
    for region in dict.fromkeys(name for regions in one.values() for name in regions):
        both = [case for case in one if region in one[case] and region in other.get(case, {})]
        for each in list_scores():
            if isinstance(each, Metric) and each.needs != "both":
                continue
            pairs = [(one[case][region].get(each.name), other[case][region].get(each.name)) for case in both]
            known = [(a, b) for a, b in pairs if a is not None and b is not None and not np.isnan([a, b]).any()]
            if len(known) >= LEAST_PAIRS:
                # As in files: what was read from a table must not differ from itself by rounding.
                ours, theirs = ([float(each.write(pair[side])) for pair in known] for side in (0, 1))
                test = compare_pairs(ours, theirs)
                found.append(PairedScore(region, each, test))
    return found


def list_columns() -> tuple[str, ...]:
    """Return the columns of a table of scores."""
    return "case", "region", *(each.name for each in list_scores())


def list_rows(case: str, regions: Regions) -> list[tuple[str, ...]]:
    """Return the rows of a case in a table of scores, one for each region."""
    return [
        (case, region, *(each.write(values.get(each.name, np.nan)) for each in list_scores()))
        for region, values in regions.items()
    ]


def read_scores(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Read a table that ``score`` or ``evaluate`` has written.

    Parameters
    ----------
    path
        A CSV file with the columns case and region.

    Returns
    -------
    dict
        The numbers of each case by region and column; cells that are no numbers are left out.

    Raises
    ------
    DataError
        If it is not such a table.
    """
    scored: dict[str, dict[str, dict[str, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                numbers = {name: number for name, text in row.items() if (number := _read_number(text)) is not None}
                scored.setdefault(row["case"], {})[row["region"]] = numbers
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(
            f"'{path.name}' cannot be read as a table of scores. Expected a file that 'evaluate --output' or 'score "
            "--output' wrote, with the columns case and region."
        ) from error
    return scored


def write_scores(path: Path, scored: Scored) -> None:
    """Write a table of scores as CSV, a row for each region of a case; an existing file is replaced.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(list_columns())
        for case, regions in scored.items():
            rows.writerows(list_rows(case, regions))


def _read_number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _list_labels(folder: Path) -> dict[str, Path]:
    """Return the label files below a folder by case: those named as masks, or all if none is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_listed(path) and find_format(path)]
    masks = [path for path in files if may_be_mask(strip_suffix(path)) or strip_suffix(path).endswith("_tumor")]
    return {_name_case(path): path for path in masks or files}


def _name_case(path: Path) -> str:
    name, before = strip_suffix(path), ""
    while name != before:
        name, before = _ENDING.sub("", name), name
    return name
