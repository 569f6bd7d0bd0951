"""Make docs/models.md, its figures and the README's table from the records of `measure_model.py`; no scan is needed.

Usage: python tools/make_models_page.py
"""

import json
from pathlib import Path
from statistics import mean, median

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.measuring.metrics import mean_interval
from napari_braintumor.engine.models.card_text import make_table
from napari_braintumor.engine.models.registry import ARCHITECTURES
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
NOTES = Path(__file__).parent / "models_notes.md"
BUNDLED = {model.name for model in ModelStore().list() if model.bundled}
ROWS = (
    ("lgg", "whole tumor", "LGG whole"),
    ("brats", "whole tumor", "BraTS whole"),
    ("brats", "tumor core", "BraTS core"),
    ("brats", "enhancing tumor", "BraTS enhancing"),
    ("btp", "enhancing tumor", "BTP enhancing"),
)
TABLE_BEGIN, TABLE_END = "<!-- made by tools/make_models_page.py -->\n\n", "\n\n<!-- until here -->"
CASE_SLICES = 155
COLORS = ("#1b6ca8", "#d1495b", "#2e933c", "#8d8d8d", "#8f7fd6")
LINES = {"head": ("#9a9a9a", 1.0), "reference": ("#1b6ca8", 2.0), "predicted": ("#d1495b", 1.5)}


def main() -> None:
    records = read_records()
    docs, readme = ROOT / "docs", ROOT / "README.md"
    (docs / "models.md").write_text(make_page(records), encoding="utf-8")
    readme.write_text(fill_readme(readme.read_text(encoding="utf-8"), records), encoding="utf-8")
    draw_cases(records, docs / "models_by_case.png")
    draw_calibration(records, docs / "models_calibration.png")
    draw_gallery(records[0], docs / "models_gallery.png")


def read_records() -> list[dict]:
    """Return the records with the default model's first and the baseline, which does not ship, last."""
    records = [json.loads(path.read_text()) for path in (ROOT / "tools" / "records").glob("*.json")]
    return sorted(records, key=lambda r: (r["model"] != DEFAULT_MODEL, r["model"] not in BUNDLED, r["model"]))


def fill_readme(text: str, records: list[dict]) -> str:
    """Return the README's text with the table of the models in its place."""
    before, rest = text.split(TABLE_BEGIN)
    return before + TABLE_BEGIN + side_by_side(records) + TABLE_END + rest.split(TABLE_END)[1]


def make_page(records: list[dict]) -> str:
    sections = [
        "# The models, measured",
        "This page is made by `tools/make_models_page.py` from the records in `tools/records`, which "
        "`tools/measure_model.py` writes. All figures are of patients that no training saw (`tools/split.json`): "
        f"{count_patients(records[0])}. Dice is that of thresholded masks over the whole volume of a case, mean over "
        "cases with its 95 % confidence interval (bootstrap over cases); both masks empty counts 1, one empty 0. "
        "**Few patients: the intervals are wide, and differences within them mean nothing.**",
        "## Side by side\n" + side_by_side(records),
        "![Dice by case](models_by_case.png)",
        "## Distance and missed lesions\n"
        "Median 95th percentile of the Hausdorff distance in mm (the larger of the two directed percentiles; 374 where "
        "nothing was found), and lesions of the reference that the prediction does not touch.\n\n" + distances(records),
        "## By the original project's measure\n"
        "The project that this one re-implements measured soft Dice with the background averaged in, over batches of "
        "16 slices with tumor. Both rows are of the same LGG patients, whole tumor. An empty prediction scores about "
        "0.5 in the first and 0 in the second.\n\n" + seed_rows(records),
        "## When modalities are missing\n" + subsets(records),
        "## With the mirrored scan averaged in\nTwice the time; off unless asked for.\n\n" + mirrored(records),
        "## Calibration\n"
        "Of the voxels that a model gives a probability, how many are tumor? Voxels of all cases of a set together, "
        "without those that it gives less than 1 %; the table has the expected calibration error in ten bins.\n\n"
        + calibration(records)
        + "\n\n![Calibration](models_calibration.png)",
        "## Heads without a tumor\nAll of this is false. mL of whole tumor found.\n\n" + no_tumor(records),
        "## Best, median and worst\n"
        "LGG patients by Dice of the first model: head (gray), reference (blue), prediction (red), on the slice with "
        "most tumor. Only outlines are kept here; no scan is.\n\n![Gallery](models_gallery.png)",
        NOTES.read_text(encoding="utf-8").strip(),
    ]
    return "\n\n".join(sections) + "\n"


def name_of(record: dict) -> str:
    card = record["card"]
    title = card["title"] or ARCHITECTURES[card["architecture"]].title
    return title if record["model"] in BUNDLED else f"{title} (not shipped)"


def rows_of(record: dict, group: str, region: str, subset: str = "all", key: str = "cases") -> list[dict]:
    wanted = (group, region, subset)
    return [row for row in record[key] if (row["group"], row["region"], row["subset"]) == wanted]


def dice_of(record: dict, group: str, region: str, key: str = "cases") -> list[float]:
    return [row["dice"] for row in rows_of(record, group, region, key=key)]


def calibration_of(record: dict, group: str, region: str) -> dict:
    return next(row for row in record["calibration"] if (row["group"], row["region"]) == (group, region))


def count_patients(record: dict) -> str:
    counts = {group: len({row["case"] for row in record["cases"] if row["group"] == group}) for group, _, _ in ROWS}
    return f"{counts['lgg']} LGG, {counts['brats']} BraTS and {counts['btp']} Brain-Tumor-Progression (BTP) patients"


def with_interval(values: list[float]) -> str:
    low, high = mean_interval(values)
    return f"**{mean(values):.3f}** ({low:.2f} to {high:.2f}, n = {len(values)})"


def side_by_side(records: list[dict]) -> str:
    facts = [
        ["parameters", *(f"{record['card']['parameters']:,}" for record in records)],
        ["file", *(f"{record['size_mb']:.1f} MB" for record in records)],
        [
            f"seconds for {CASE_SLICES} slices, two CPU cores",
            *(f"{CASE_SLICES * record['seconds_per_slice']:.1f}" for record in records),
        ],
    ]
    dice = [[title, *(with_interval(dice_of(r, group, region)) for r in records)] for group, region, title in ROWS]
    sample = [
        ["synthetic sample case, whole / core / enhancing"]
        + [" / ".join(f"{value:.2f}" for value in record["sample"].values()) for record in records]
    ]
    return make_table(["", *map(name_of, records)], [*facts, *dice, *sample])


def distances(records: list[dict]) -> str:
    rows = []
    for group, region, title in ROWS:
        row = [title]
        for record in records:
            cases = rows_of(record, group, region)
            missed, lesions = sum(c["missed"] for c in cases), sum(c["lesions"] for c in cases)
            row.append(f"{median(c['hd95_mm'] for c in cases):.1f} mm, {missed} of {lesions} missed")
        rows.append(row)
    return make_table(["", *map(name_of, records)], rows)


def seed_rows(records: list[dict]) -> str:
    seed = [next(s["dice"] for s in record["seed"] if s["group"] == "lgg") for record in records]
    honest = [mean(dice_of(record, "lgg", "whole tumor")) for record in records]
    return make_table(
        ["", *map(name_of, records)],
        [["seed-style", *(f"{value:.3f}" for value in seed)], ["honest", *(f"{value:.3f}" for value in honest)]],
    )


def subsets(records: list[dict]) -> str:
    """Tables subset by subset, each over the same patients: those that have all the modalities of their set."""
    parts = []
    for title, group, modalities, rows_told in (
        ("BraTS patients with four modalities", "brats", MODALITIES, ROWS[1:4]),
        ("LGG patients with three modalities", "lgg", ("T1", "T1ce", "FLAIR"), ROWS[:1]),
    ):
        everything = "+".join(modalities)
        patients = {row["case"] for row in records[0]["cases"] if row["group"] == group and row["used"] == everything}
        named = [row["subset"] for row in records[0]["cases"] if row["case"] in patients]
        rows = []
        for subset in (name for name in dict.fromkeys(named) if name != everything):
            row = [", ".join(modalities) if subset == "all" else subset.replace("+", ", ")]
            for record in records:
                cases = [rows_of(record, group, region, subset) for _, region, _ in rows_told]
                means = [mean(r["dice"] for r in of_region if r["case"] in patients) for of_region in cases]
                row.append(" / ".join(f"{value:.2f}" for value in means))
            rows.append(row)
        regions = " / ".join(region for _, region, _ in rows_told)
        table = make_table(["modalities", *map(name_of, records)], rows)
        parts.append(f"{title} (n = {len(patients)}), {regions}:\n\n{table}")
    return "\n\n".join(parts)


def mirrored(records: list[dict]) -> str:
    rows = []
    for group, region, title in ROWS:
        figures = [(mean(dice_of(r, group, region)), mean(dice_of(r, group, region, key="mirrored"))) for r in records]
        rows.append([title, *(f"{after:.3f} ({after - before:+.3f})" for before, after in figures)])
    return make_table(["", *map(name_of, records)], rows)


def calibration(records: list[dict]) -> str:
    rows = []
    for group, region, title in ROWS:
        errors = [calibration_of(record, group, region)["error"] for record in records]
        rows.append([title, *(f"{error:.3f}" for error in errors)])
    return make_table(["", *map(name_of, records)], rows)


def no_tumor(records: list[dict]) -> str:
    return make_table(
        ["", *map(name_of, records)],
        [
            [case, *(f"{r['no_tumor'][case]['whole tumor']:.2f}" if case in r["no_tumor"] else "–" for r in records)]
            for case in dict.fromkeys(name for record in records for name in record["no_tumor"])
        ],
    )


def draw_cases(records: list[dict], path: Path) -> None:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    step = 0.8 / len(records)
    for number, (record, color) in enumerate(zip(records, COLORS, strict=False)):
        for column, (group, region, _) in enumerate(ROWS):
            dice = sorted(dice_of(record, group, region))
            x = column - 0.4 + step * (number + 0.5) + np.linspace(-0.3, 0.3, len(dice)) * step
            axes.plot(x, dice, "o", color=color, markersize=4, label=name_of(record) if column == 0 else None)
            axes.hlines(mean(dice), x[0] - 0.02, x[-1] + 0.02, color=color, linewidth=2)
    axes.set_xticks(range(len(ROWS)), [title for _, _, title in ROWS])
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Dice of a case; the line is the mean")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(records), frameon=False)
    save(figure, path)


def draw_calibration(records: list[dict], path: Path) -> None:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    panels = figure.subplots(1, len(ROWS), sharey=True)
    for panel, (group, region, title) in zip(panels, ROWS, strict=True):
        panel.plot((0, 1), (0, 1), color="#cccccc")
        for record, color in zip(records, COLORS, strict=False):
            bins = calibration_of(record, group, region)["bins"]
            shown = [(given, found) for voxels, given, found in bins if voxels]
            panel.plot(*zip(*shown, strict=True), "o-", color=color, markersize=3, label=name_of(record))
        panel.set_title(title, fontsize=9)
        panel.set_aspect("equal")
        panel.set_xticks((0, 0.5, 1))
        panel.set_yticks((0, 0.5, 1))
    panels[0].set_ylabel("share that is tumor")
    panels[len(ROWS) // 2].set_xlabel("probability given")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(records), frameon=False)
    save(figure, path)


def draw_gallery(record: dict, path: Path) -> None:
    ranked = sorted(rows_of(record, "lgg", "whole tumor"), key=lambda row: -row["dice"])
    middle = len(ranked) // 2
    chosen = [("best", ranked[:2]), ("median", ranked[middle - 1 : middle + 1]), ("worst", ranked[-2:])]
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    panels = figure.subplots(2, 3)
    for column, (title, rows) in enumerate(chosen):
        for panel, row in zip(panels[:, column], rows, strict=True):
            lines = record["outlines"][row["case"]]
            for name, (color, width) in LINES.items():
                for line in lines[name]:
                    yx = np.array(line).reshape(-1, 2) / 2
                    panel.plot(yx[:, 1], yx[:, 0], color=color, linewidth=width)
            panel.set_xlim(0, lines["shape"][1])
            panel.set_ylim(lines["shape"][0], 0)
            panel.set_aspect("equal")
            panel.set_axis_off()
            panel.set_title(f"{title}: {row['case'].rpartition('_')[0]}, Dice {row['dice']:.2f}", fontsize=9)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    main()
