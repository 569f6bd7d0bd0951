"""Complete the card of a measured model and put it into the package; changed weights are a new version.

The record is that of `measure_model.py`, made with the very same weights. The plans are written onto the card where the
file does not state them itself.

Usage: python tools/publish_model.py MODEL.safetensors RECORD.json [PLAN.json ...]
"""

import json
import sys
from pathlib import Path
from statistics import mean, median

import numpy as np

from napari_braintumor.engine.anatomy import CORE, ENHANCING, MODALITIES
from napari_braintumor.engine.measuring.metrics import mean_interval
from napari_braintumor.engine.models.card import DataSource, Metric, ModelCard
from napari_braintumor.engine.models.model_file import load_weights, read_card, read_weights_sha256, save_model
from napari_braintumor.engine.models.store import bundled_folder
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.saving import PRIVATE

LICENSE = "CC BY-NC-SA 4.0, research only"
LIMITATIONS = (
    "Trained on few patients with gliomas (and meningioma slices), mostly before treatment. Not for other diseases, "
    "children, or scans after surgery: of enhancing tumor in treated patients it finds less than half. Axial scans "
    "only; modalities must be registered. Small or faint tumors are missed; bright vessels, sinuses and artifacts may "
    "be taken for tumor. FLAIR alone does not show the core, T1ce alone not the edema. It works at 2 mm in-plane, so "
    "thin structures are smoothed."
)

SEEN_WITH_SKULL = ("T1", "T1ce", "FLAIR")
"""LGG and Brain-Tumor-Progression show the skull and have no T2; scans of BraTS are skull-stripped."""

KINDS = {
    "lgg": "LGG (lower-grade gliomas)",
    "brats": "BraTS (mostly glioblastomas)",
    "btp": "Brain-Tumor-Progression (treated glioblastomas)",
}
DIM_CORE_ML = 5.0

SETS = {"lgg": "LGG", "brats": "BraTS", "btp": "Brain-Tumor-Progression"}


def main(path: Path, record_path: Path, plan_paths: list[Path]) -> None:
    card, record = read_card(path), json.loads(record_path.read_text())
    if record["weights_sha256"] != read_weights_sha256(path):
        raise SystemExit(f"'{record_path}' was measured with other weights than those of '{path}'. Measure it anew.")
    published = bundled_folder() / f"{card.name}.safetensors"
    plans = [read_plan(p).model_dump(mode="json", exclude=PRIVATE, exclude_defaults=True) for p in plan_paths]
    complete = card.model_copy(
        update={
            "parent": None,
            "version": choose_version(published, record["weights_sha256"]),
            "min_volume_ml": record["min_volume_ml"],
            "cpu_seconds_per_slice": record["seconds_per_slice"],
            "metrics": tuple(list_metrics(record)),
            "trained_on": tuple(list_sources(card)),
            "license": LICENSE,
            "limitations": f"{LIMITATIONS} {describe_weakest(record)}",
            "seen_with_skull": SEEN_WITH_SKULL,
            "plans": tuple(plans) or card.plans,
        }
    )
    save_model(published, load_weights(path), complete)
    print(f"{published} ({published.stat().st_size / 1e6:.2f} MB)")


def choose_version(published: Path, weights_sha256: str) -> str:
    if not published.exists():
        return "1"
    version = read_card(published).version
    return version if read_weights_sha256(published) == weights_sha256 else str(int(version) + 1)


def describe_weakest(record: dict) -> str:
    """Say how well each region is found in each kind of case, how badly at worst, and what is known to fail."""
    figures = []
    everything = [row for row in record["cases"] if row["subset"] == "all"]
    for group, name in KINDS.items():
        rows = [row for row in everything if row["group"] == group]
        for region in dict.fromkeys(row["region"] for row in rows):
            dice = [row["dice"] for row in rows if row["region"] == region]
            figures.append(f"{name} {region} {mean(dice):.2f} ({min(dice):.2f}, n = {len(dice)})")
    volumes = {(row["case"], row["region"]): row["reference_ml"] for row in everything}
    dim = [
        row["dice"]
        for row in everything
        if row["region"] == CORE and row["reference_ml"] - volumes.get((row["case"], ENHANCING), np.inf) > DIM_CORE_ML
    ]
    known = (
        f" Core of patients with more than {DIM_CORE_ML:g} mL of it that does not enhance: {mean(dim):.2f}, "
        f"n = {len(dim)}."
        if dim
        else ""
    )
    return (
        f"Mean Dice (and the lowest) on patients that training never saw: {'; '.join(figures)}.{known} "
        "Meningiomas were learned from as single slices and are not measured."
    )


def list_metrics(record: dict) -> list[Metric]:
    """Return the record's figures: Dice for every subset of modalities, the others with all of them."""
    metrics: list[Metric] = []

    def add(rows: list[dict], measure: str, field: str, modalities: tuple[str, ...]) -> None:
        for group in sorted({row["group"] for row in rows}):
            for region in dict.fromkeys(row["region"] for row in rows):
                values = [row[field] for row in rows if (row["group"], row["region"]) == (group, region)]
                if values:
                    low, high = mean_interval(values)
                    figures = {"mean": mean(values), "median": median(values), "low": low, "high": high}
                    figures = {name: round(value, 4) for name, value in figures.items()}
                    metrics.append(
                        Metric(
                            data=SETS[group], region=region, modalities=modalities, measure=measure, n=len(values),
                            held_out=True, **figures,
                        )
                    )  # fmt: skip

    for subset in dict.fromkeys(row["subset"] for row in record["cases"]):
        modalities = MODALITIES if subset == "all" else tuple(subset.split("+"))
        add([row for row in record["cases"] if row["subset"] == subset], "volume Dice", "dice", modalities)
    everything = [row for row in record["cases"] if row["subset"] == "all"]
    add(record["mirrored"], "volume Dice, mirrored scan averaged in", "dice", MODALITIES)
    add(everything, "HD95, mm", "hd95_mm", MODALITIES)
    add(everything, "lesions missed, per case", "missed", MODALITIES)
    patients = {group: len({r["case"] for r in everything if r["group"] == group}) for group in ("brats", "btp", "lgg")}
    metrics += [
        Metric(
            data=SETS[row["group"]], region=row["region"], modalities=MODALITIES, mean=row["error"],
            measure="expected calibration error", n=patients[row["group"]], held_out=True,
        )
        for row in record["calibration"]
    ]  # fmt: skip
    for region in dict.fromkeys(name for found in record["no_tumor"].values() for name in found):
        values = [found[region] for found in record["no_tumor"].values()]
        metrics.append(
            Metric(
                data="healthy heads", region=region, modalities=("T1",), measure="falsely found, mL",
                mean=round(mean(values), 3), n=len(values), held_out=True,
            )
        )  # fmt: skip
    return metrics


def list_sources(card: ModelCard) -> list[DataSource]:
    sources = []
    for row in json.loads((Path(__file__).parent / "data_sources.json").read_text()):
        prefix = row.pop("prefix")
        if patients := sum(name.startswith(prefix) for name in card.training_patients):
            sources.append(DataSource(patients=patients, **row))
    return sources


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
