"""Measure a trained model on its held-out patients, complete its card, and put it into the package.

The patients are those that the run's plan held out, so training saw none of them. Each set is measured with all its
modalities and with FLAIR and T1ce alone.

Usage: python tools/publish_model.py RUN_FOLDER DATA_FOLDER MIN_VOLUME_ML
"""

import json
import sys
from pathlib import Path
from statistics import mean, median

from napari_braintumor.engine import evaluate, segment
from napari_braintumor.engine.card import DataSource, Metric
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases, read_case
from napari_braintumor.engine.store import bundled_folder, load_weights, read_card, save_model
from napari_braintumor.engine.types import MODALITIES, CaseEvaluated, Noted, Segmented

LICENCE = "CC BY-NC-SA 4.0, research only"
LIMITATIONS = (
    "Trained on few patients with gliomas (and meningioma slices), mostly before treatment. Not for other diseases, "
    "children, or scans after surgery. Axial scans only; modalities must be registered. Small or faint tumors are "
    "missed; bright vessels and artefacts may be taken for tumor. It works at 2 mm in-plane, so thin structures are "
    "smoothed."
)
SUBSETS = (MODALITIES, ("FLAIR",), ("T1ce",))
FOLDERS = ("lgg", "lgg_half", "brats", "btp")


def main(run: Path, data: Path, min_volume_ml: float) -> None:
    path = run / "model.safetensors"
    card = read_card(path)
    cases = find_cases([data / folder for folder in FOLDERS])
    metrics: list[Metric] = []
    for subset in SUBSETS:
        results = []
        for event in evaluate(
            cases, SegmentConfig(model=str(path), device="cpu", min_volume_ml=min_volume_ml), subset, held_out=True
        ):
            if isinstance(event, CaseEvaluated):
                results.append(event)
            elif isinstance(event, Noted):
                print(event.text)
        for group in sorted({result.group for result in results}):
            for region in card.regions:
                dice = [r.dice[region.name] for r in results if r.group == group and region.name in r.dice]
                if dice:
                    metric = Metric(
                        data=group,
                        region=region.name,
                        modalities=subset,
                        mean=round(mean(dice), 4),
                        median=round(median(dice), 4),
                        n=len(dice),
                        held_out=True,
                    )
                    metrics.append(metric)
                    print(f"{group:6s} {region.name:16s} {'+'.join(subset):20s} {metric.mean:.3f} n={metric.n}")
    sources = []
    for row in json.loads((Path(__file__).parent / "data_sources.json").read_text()):
        prefix = row.pop("prefix")
        patients = sum(name.startswith(prefix) for name in card.training_patients)
        if patients:
            sources.append(DataSource(patients=patients, **row))
    complete = card.model_copy(
        update={
            "parent": None,
            "min_volume_ml": min_volume_ml,
            "cpu_seconds_per_slice": round(measure_seconds_per_slice(path, data), 3),
            "metrics": tuple(metrics),
            "trained_on": tuple(sources),
            "licence": LICENCE,
            "limitations": LIMITATIONS,
        }
    )
    published = save_model(bundled_folder() / f"{card.name}.safetensors", load_weights(path), complete)
    print(f"{published} ({published.stat().st_size / 1e6:.2f} MB)")


def measure_seconds_per_slice(path: Path, data: Path) -> float:
    """Time a second run, when everything is loaded and compiled."""
    volume = read_case(find_cases(data / "brats")[0])
    for _ in range(2):
        *_, result = segment(volume, SegmentConfig(model=str(path), device="cpu"))
    assert isinstance(result, Segmented)
    return float(result.segmentation.provenance["seconds"]) / volume.shape[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
