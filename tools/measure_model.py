"""Measure a model on the patients that its training never saw, and write all of it down as a record (JSON).

With every subset of modalities; with the mirrored scan averaged in; by the original project's measure; how well
calibrated; what is found where no tumor is; the sample case; the time. For the gallery of `make_models_page.py` the
outlines of head, reference and prediction are kept, and no pixel of a scan.

Usage: python tools/measure_model.py MODEL DATA RECORD.json [--min-volume-ml ML] [--no-tumor FILE ...]
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
from skimage.measure import approximate_polygon, find_contours

from napari_braintumor.engine import evaluate, segment
from napari_braintumor.engine.anatomy import MODALITIES, region_from_labels
from napari_braintumor.engine.events import CalibrationEvaluated, CaseEvaluated, SeedEvaluated, Segmented
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.patients import WhoIsWho, is_held_out
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.inspecting.inspection import find_foreground
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.prepare import fill_foreground
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from napari_braintumor.engine.volumes import Segmentation, Volume

FOLDERS = ("lgg", "lgg_half", "brats", "brats_lgg", "brats_more", "btp")
SUBSETS = [subset for size in range(len(MODALITIES), 0, -1) for subset in combinations(MODALITIES, size)]
QUICK = [MODALITIES, ("FLAIR",), ("T1ce",)]
OUTLINE_TOLERANCE_VOX = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--no-tumor", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--min-volume-ml", type=float, help="remove components below this; the model's own if not given"
    )
    parser.add_argument("--quick", action="store_true", help="all modalities, FLAIR and T1ce alone; no page's figures")
    options = parser.parse_args()
    model = ModelStore().find(options.model)
    config = SegmentConfig(model=str(model.path), device="cpu", min_volume_ml=options.min_volume_ml)
    cases = find_cases([options.data / folder for folder in FOLDERS])
    who = WhoIsWho({case.name: case.patient for case in cases}, model.card.patients)
    cases = [case for case in cases if is_held_out(case.name, model.card, who)]

    record = {
        "model": model.card.name,
        "weights_sha256": read_weights_sha256(model.path),
        "size_mb": round(model.path.stat().st_size / 1e6, 2),
        "min_volume_ml": model.card.min_volume_ml if options.min_volume_ml is None else options.min_volume_ml,
        "card": model.card.model_dump(mode="json", include={"title", "architecture", "options", "parameters"}),
        # Case by case, so that each head's size is compiled for once.
        "cases": [row for case in cases for row in measure_subsets(case, config, QUICK if options.quick else SUBSETS)],
        "no_tumor": {path.name: measure_no_tumor(path, config) for path in options.no_tumor},
        "sample": measure_sample(config),
        "seconds_per_slice": round(measure_seconds_per_slice(options.data, config), 4),
        "mirrored": [],
        "seed": [],
        "calibration": [],
        "outlines": {},
    }
    if not options.quick:
        mirroring = config.model_copy(update={"test_time_mirroring": True})
        record["mirrored"] = [row for case in cases for row in measure_subset(case, mirroring, MODALITIES)]
        record |= measure_pooled(cases, config)
        record["outlines"] = {case.name: draw_outlines(case, config) for case in cases}
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(record, separators=(",", ":")).replace('{"case"', '\n{"case"') + "\n")
    for group in ("lgg", "brats", "btp"):
        for region in ("whole tumor", "tumor core", "enhancing tumor"):
            dice = [
                row["dice"]
                for row in record["cases"]
                if (row["group"], row["region"], row["subset"]) == (group, region, "all")
            ]
            if dice:
                print(f"{model.card.name} {group} {region}: {np.mean(dice):.3f} (n = {len(dice)})")


def measure_subsets(case: CaseFiles, config: SegmentConfig, subsets: list[tuple[str, ...]]) -> list[dict]:
    """Return a row for each region and each subset that the case has; all of them stand for what it has."""
    usable = set(read_case(case).modalities)  # without LGG's copies of FLAIR, which stand where a sequence was missing
    able = [subset for subset in subsets if subset == MODALITIES or set(subset) <= usable]
    return [row for subset in able for row in measure_subset(case, config, subset)]


def measure_subset(case: CaseFiles, config: SegmentConfig, subset: tuple[str, ...]) -> list[dict]:
    """Return a row for each region."""
    result = measure_case(case, EvaluateConfig(segmentation=config, modalities=subset))
    return [
        {
            "case": result.case,
            "group": result.group,
            "subset": "all" if subset == MODALITIES else "+".join(subset),
            "used": "+".join(result.modalities),
            "region": region,
            "dice": round(dice, 4),
            "hd95_mm": round(result.figures["hd95_mm"][region], 2),
            "predicted_ml": round(result.figures["predicted_ml"][region], 2),
            "reference_ml": round(result.figures["reference_ml"][region], 2),
            "missed": result.missed[region],
            "lesions": result.lesions[region],
        }
        for region, dice in result.dice.items()
    ]


def measure_case(case: CaseFiles, config: EvaluateConfig) -> CaseEvaluated:
    (result,) = (event for event in evaluate([case], config) if isinstance(event, CaseEvaluated))
    return result


def measure_pooled(cases: list[CaseFiles], config: SegmentConfig) -> dict:
    seed, calibration = [], []
    for group in sorted({case.group for case in cases}):
        members = [case for case in cases if case.group == group]
        for event in evaluate(members, EvaluateConfig(segmentation=config, pooled=True)):
            if isinstance(event, SeedEvaluated):
                seed.append(
                    {"group": group, "region": event.region, "dice": round(event.dice, 4), "slices": event.slices}
                )
            elif isinstance(event, CalibrationEvaluated):
                bins = [[n, round(p, 4), round(t, 4)] for n, p, t in event.bins]
                calibration.append(
                    {"group": group, "region": event.region, "error": round(event.error, 4), "bins": bins}
                )
    return {"seed": seed, "calibration": calibration}


def measure_no_tumor(path: Path, config: SegmentConfig) -> dict:
    (case,) = find_cases(path)
    result = measure_case(case, EvaluateConfig(segmentation=config, no_tumor=True))
    return {region: round(ml, 2) for region, ml in result.figures["predicted_ml"].items()}


def measure_sample(config: SegmentConfig) -> dict:
    (case,) = find_cases(sample_folder())
    result = measure_case(case, EvaluateConfig(segmentation=config))
    return {region: round(dice, 4) for region, dice in result.dice.items()}


def measure_seconds_per_slice(data: Path, config: SegmentConfig) -> float:
    """Time a second run, when everything is loaded and compiled."""
    volume = read_case(find_cases(data / "brats")[0])
    results = [run(volume, config) for _ in range(3)]
    return float(np.median([result.provenance["seconds"] for result in results[1:]])) / volume.shape[0]


def run(volume: Volume, config: SegmentConfig) -> Segmentation:
    return next(e.segmentation for e in segment(volume, config) if isinstance(e, Segmented))


def draw_outlines(case: CaseFiles, config: SegmentConfig) -> dict:
    """Outline head, reference and prediction of a case on the slice where the reference is largest."""
    volume, reference = read_case(case), read_reference(case)
    region, truth = next(iter(reference.regions.items()))
    predicted = region_from_labels(run(volume, config).labels, region)
    z = int(truth.sum((1, 2)).argmax())
    head = fill_foreground(np.logical_or.reduce([find_foreground(image) for image in volume.data]))
    return {
        "region": region,
        "slice": z + 1,
        "shape": list(volume.shape[1:]),
        "head": outline(head[z]),
        "reference": outline(truth[z]),
        "predicted": outline(predicted[z]),
    }


def outline(mask: np.ndarray) -> list:
    """Return the closed lines around a mask, each as [y, x, y, x, …] in half voxels."""
    lines = find_contours(np.pad(mask, 1).astype(float), 0.5)
    simple = [approximate_polygon(line - 1, OUTLINE_TOLERANCE_VOX) for line in lines]
    return [np.round(2 * line).astype(int).ravel().tolist() for line in simple if len(line) > 3]


if __name__ == "__main__":
    main()
