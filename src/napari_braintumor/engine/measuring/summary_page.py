"""A page of the scores of many cases: points for cases, means with intervals, volumes, and a table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.measuring.folders import Scored, Summary, compare_scored, summarize
from napari_braintumor.engine.measuring.scores import list_scores

DPI = 300
_SIZE_INCHES = (11.7, 8.3)  # A4, upright on its long side
_INK, _PAPER, _FAINT = "#111111", "#ffffff", "#c8c8c8"
_COLORS = ("#1f6fb4", "#d1592b")
_POINTS = ("dice", "hd95_mm", "surface_dice")
_TABLE = ("dice", "surface_dice", "hd95_mm", "difference_ml", "lesion_dice_2023", "lesion_dice_2024")
_SPREAD = 0.12


def save_summary_page(sets: Mapping[str, Scored], path: Path, caption: str = "") -> None:
    """Write a page of the scores of many cases.

    Each case is a point, the mean a line with its 95 % interval. A second set of labels stands beside the first, and
    the table says whether they differ on the cases that both have. Cases are not named.

    Parameters
    ----------
    sets
        One or two sets of scores, by what they are called.
    path
        A PNG, PDF or SVG file; replaced if it exists.
    caption
        A line below; nothing that names a patient.

    Raises
    ------
    DataError
        If there is nothing to draw, or the file cannot be written.
    """
    if not sets or not any(sets.values()):
        raise DataError("There are no scores to draw. Score at least one case first.")
    regions = list(dict.fromkeys(name for scored in sets.values() for rows in scored.values() for name in rows))
    headings = {each.name: each.heading for each in list_scores()}
    figure = Figure(figsize=_SIZE_INCHES, facecolor=_PAPER, layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=[1.25, 1])
    for column, name in enumerate(_POINTS):
        panel = figure.add_subplot(grid[0, column])
        _draw_points(panel, sets, regions, name)
        panel.set_title(headings[name], fontsize=9, color=_INK)
    _draw_volumes(figure.add_subplot(grid[0, 3]), sets, regions[0])
    _draw_table(figure.add_subplot(grid[1, :]), sets, headings)
    counts = ", ".join(f"{name}: {len(scored)} cases" for name, scored in sets.items())
    figure.suptitle(counts, fontsize=11, color=_INK, parse_math=False)
    handles = [
        Line2D([], [], color=color, marker="o", linestyle="", label=name)
        for name, color in zip(sets, _COLORS, strict=False)
    ]
    note = "Line: mean with the 95 % interval of a bootstrap over cases. Research only; not a medical device."
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
        title=f"{caption} {note}".strip(),
        title_fontsize=7,
    )
    FigureCanvasAgg(figure)
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=DPI)


def _draw_points(panel: Axes, sets: Mapping[str, Scored], regions: Sequence[str], name: str) -> None:
    """Draw a score of each region: a point for each case, and the mean with its interval."""
    random = np.random.default_rng(0)
    width = 0.8 / len(sets)
    for number, (scored, color) in enumerate(zip(sets.values(), _COLORS, strict=False)):
        means = {each.region: each for each in summarize(scored) if each.score.name == name}
        for at, region in enumerate(regions):
            values = [rows[region][name] for rows in scored.values() if name in rows.get(region, {})]
            x = at + (number - (len(sets) - 1) / 2) * width
            panel.plot(
                x + random.uniform(-_SPREAD, _SPREAD, len(values)) * width,
                values,
                "o",
                color=color,
                alpha=0.35,
                markersize=3,
                markeredgewidth=0,
            )
            if (mean := means.get(region)) is not None:
                error = [[mean.mean - mean.low], [mean.high - mean.mean]]
                panel.errorbar([x], [mean.mean], yerr=error, fmt="_", color=color, markersize=14, capsize=3)
    panel.set_xticks(range(len(regions)), [region.replace(" ", "\n") for region in regions], fontsize=7)
    panel.set_xlim(-0.5, len(regions) - 0.5)
    panel.tick_params(axis="y", labelsize=7)
    panel.grid(axis="y", color=_FAINT, linewidth=0.5)
    if name in ("dice", "surface_dice"):
        panel.set_ylim(-0.02, 1.02)
    else:
        panel.set_ylim(bottom=0)


def _draw_volumes(panel: Axes, sets: Mapping[str, Scored], region: str) -> None:
    """Draw the volumes of a region against those of the reference."""
    most = 0.0
    for scored, color in zip(sets.values(), _COLORS, strict=False):
        pairs = [(rows[region]["reference_ml"], rows[region]["predicted_ml"]) for rows in scored.values()
                 if "reference_ml" in rows.get(region, {})]  # fmt: skip
        if pairs:
            panel.plot(*np.array(pairs).T, "o", color=color, alpha=0.6, markersize=4, markeredgewidth=0)
            most = max(most, float(np.max(pairs)))
    panel.plot([0, most], [0, most], color=_FAINT, linewidth=1, zorder=0)
    panel.set_xlabel("reference mL", fontsize=7)
    panel.set_ylabel("mL", fontsize=7)
    panel.tick_params(labelsize=7)
    panel.set_title(f"volume, {region}", fontsize=9, color=_INK, parse_math=False)


def _draw_table(panel: Axes, sets: Mapping[str, Scored], headings: Mapping[str, str]) -> None:
    panel.set_axis_off()
    shown = [name for name in _TABLE if any(_has(scored, name) for scored in sets.values())]
    cells: list[list[str]] = []
    for name, scored in sets.items():
        cells += _list_means(name, summarize(scored), shown)
    if len(sets) > 1:
        one, other = sets.values()
        tests = {(each.region, each.score.name): each for each in compare_scored(one, other)}
        for region in dict.fromkeys(region for region, _ in tests):
            row = ["difference", region, str(max(each.test.count for key, each in tests.items() if key[0] == region))]
            for name in shown:
                found = tests.get((region, name))
                row.append(f"{found.score.show(found.test.difference)}, p {found.test.p_value:.2g}" if found else "")
            cells.append(row)
    table = panel.table(
        cellText=cells,
        colLabels=["labels", "region", "n", *(headings[name] for name in shown)],
        loc="upper center",
        cellLoc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    table.auto_set_column_width(list(range(3 + len(shown))))


def _list_means(name: str, summaries: Sequence[Summary], shown: Sequence[str]) -> list[list[str]]:
    rows = []
    for region in dict.fromkeys(each.region for each in summaries):
        own = {each.score.name: each for each in summaries if each.region == region}
        row = [name, region, str(max(each.count for each in own.values()))]
        rows.append([*row, *(_describe(own.get(score)) for score in shown)])
    return rows


def _describe(summary: Summary | None) -> str:
    if summary is None:
        return ""
    show = summary.score.show
    return f"{show(summary.mean)} ({show(summary.low)} to {show(summary.high)})"


def _has(scored: Scored, name: str) -> bool:
    return any(name in values for rows in scored.values() for values in rows.values())
