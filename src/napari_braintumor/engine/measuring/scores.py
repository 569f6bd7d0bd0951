"""All scores of labels against a reference: those of `METRICS`, more of single cases, and lesion by lesion.

To add a score of a region, add a row to `METRICS` if `evaluate` shall have it too, else to `MORE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import SourceGrid, check_same_grid, name_grid
from napari_braintumor.engine.measuring.lesions import find_box, reach_in_voxels
from napari_braintumor.engine.measuring.lesionwise import RULES, LesionScore, score_lesions
from napari_braintumor.engine.measuring.metrics import (
    METRICS,
    SURFACE_TOLERANCE_MM,
    Mask,
    Metric,
    count_missed_lesions,
    region_volume_ml,
    surface_dice,
)
from napari_braintumor.engine.volumes import Reference

MORE: list[Metric] = [
    Metric("surface_dice", f"surface Dice ({SURFACE_TOLERANCE_MM:g} mm)", "", surface_dice, decimals=(4, 3)),
    Metric(
        "difference_ml",
        "difference",
        "mL",
        lambda prediction, reference, grid: region_volume_ml(prediction, grid) - region_volume_ml(reference, grid),
    ),
    Metric(
        "lesions",
        "lesions",
        "",
        lambda _, reference, __: count_missed_lesions(reference, reference)[1],
        needs="reference",
        decimals=(0, 0),
    ),
    Metric(
        "missed_lesions",
        "missed",
        "",
        lambda prediction, reference, _: count_missed_lesions(prediction, reference)[0],
        decimals=(0, 0),
    ),
    Metric(
        "false_lesions",
        "false",
        "",
        lambda prediction, reference, _: count_missed_lesions(reference, prediction)[0],
        decimals=(0, 0),
    ),
]
"""Scores that only `score` gives; a lesion here is a connected part, and missed if nothing of it is found."""


@dataclass(frozen=True)
class LesionFigure:
    """A lesion-wise score as a column: its name, title, unit and decimals as in `Metric`."""

    name: str
    title: str
    unit: str
    year: int
    take: Callable[[LesionScore], float]
    decimals: tuple[int, int]

    @property
    def heading(self) -> str:
        """Title and unit, as a table heading."""
        return f"{self.title} {self.unit}".strip()

    def write(self, value: float) -> str:
        """Format a value for files; a score that the rules of a year lack is left empty."""
        return "" if np.isnan(value) else f"{value:.{self.decimals[0]}f}"

    def show(self, value: float) -> str:
        """Format a value for tables."""
        return "" if np.isnan(value) else f"{value:.{self.decimals[1]}f}"


LESIONWISE: list[LesionFigure] = [
    column
    for year in RULES
    for column in (
        LesionFigure(f"lesion_dice_{year}", f"BraTS {year} Dice", "", year, lambda score: score.dice, (4, 3)),
        LesionFigure(f"lesion_hd95_{year}_mm", f"BraTS {year} HD95", "mm", year, lambda score: score.hd95_mm, (2, 1)),
        LesionFigure(f"lesions_found_{year}", f"BraTS {year} found", "", year, lambda score: score.found, (0, 0)),
        LesionFigure(f"lesions_missed_{year}", f"BraTS {year} missed", "", year, lambda score: score.missed, (0, 0)),
        LesionFigure(f"lesions_false_{year}", f"BraTS {year} false", "", year, lambda score: score.false, (0, 0)),
    )
]
"""The lesion-wise scores of the BraTS challenges, see `lesionwise`."""


def list_scores() -> list[Metric | LesionFigure]:
    """Return all scores, in the order of columns."""
    return [*METRICS, *MORE, *LESIONWISE]


def score_labels(labels: Reference, reference: Reference) -> dict[str, dict[str, float]]:
    """Score labels against a reference, region by region.

    Parameters
    ----------
    labels, reference
        On the same grid.

    Returns
    -------
    dict
        For each region that both define, the value of each of `list_scores` by name; NaN for what a year's rules do not
        score.

    Raises
    ------
    DataError
        If their grids differ, or they have no region in common.
    """
    one, two = name_grid(labels.source, "The labels"), name_grid(reference.source, "the reference")
    check_same_grid(
        labels.source, reference.source, one, two, "Resample the labels to the grid of the reference first."
    )
    shared = [name for name in reference.regions if name in labels.regions]
    if not shared:
        raise DataError(
            f"The labels define {', '.join(labels.regions)}, the reference {', '.join(reference.regions)}: none "
            "of these is the same. State what the numbers mean, or compare labels of the same regions."
        )
    return score_regions(labels.regions, reference.regions, reference.source)


def score_regions(
    prediction: Mapping[str, Mask], reference: Mapping[str, Mask], grid: SourceGrid
) -> dict[str, dict[str, float]]:
    """Score masks against a reference; as `score_labels`, for bool ``(Z, Y, X)`` on one grid."""
    anything = np.logical_or.reduce([*prediction.values(), *reference.values()])
    if anything.any():  # most of an image is empty
        z, y, x = (reach + 1 for reach in reach_in_voxels(grid))
        box = find_box(anything, (z, y, x))
        prediction = {name: mask[box] for name, mask in prediction.items()}
        reference = {name: mask[box] for name, mask in reference.items()}
    lesionwise = {year: score_lesions(prediction, reference, grid, rules) for year, rules in RULES.items()}
    scores = {}
    for region in (name for name in reference if name in prediction):
        one, two = prediction[region], reference[region]
        values = {each.name: float(each.measure(one, two, grid)) for each in (*METRICS, *MORE)}
        for each in LESIONWISE:
            score = lesionwise[each.year].get(region)
            values[each.name] = np.nan if score is None else float(each.take(score))
        scores[region] = values
    return scores
