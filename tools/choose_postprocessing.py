"""Measure what cleaning a model's results does, on training and validation patients, never on held-out ones.

Removed are islands of tumor below a volume; a region of which less than a volume was found in a case counts as the one
around it. Each case is segmented once, and every setting is tried on the result.

Usage: python tools/choose_postprocessing.py MODEL DATA_FOLDER
"""

import json
import sys
from pathlib import Path
from statistics import mean

import numpy as np

from napari_braintumor.engine import segment
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases, read_case, read_reference
from napari_braintumor.engine.inference import drop_small_regions, remove_islands
from napari_braintumor.engine.metrics import volume_dice
from napari_braintumor.engine.store import ModelStore
from napari_braintumor.engine.types import Segmented, region_from_labels

LGG_STEP = 5
"""Every fifth LGG patient is enough to choose by."""

ISLANDS_ML = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
LEAST_ENHANCING_ML = (0.1, 0.3, 1.0)


def main(model: Path, data: Path) -> None:
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    cases = []
    for folder in ("lgg", "lgg_half", "brats", "btp"):
        usable = [case for case in find_cases(data / folder) if case.patient not in split["held_out"]]
        cases += usable[:: LGG_STEP if folder == "lgg_half" else 2]
        cases += [case for case in usable if case.patient in split["validation"] and case not in cases]
    card = ModelStore().find(model).card
    whole, core, enhancing = card.regions
    settings = {f"islands under {ml} mL": (ml, False, card) for ml in ISLANDS_ML}
    settings["only the largest island"] = (0.0, True, card)
    for ml in LEAST_ENHANCING_ML:
        least = card.model_copy(update={"regions": (whole, core, enhancing.model_copy(update={"least_ml": ml}))})
        settings[f"enhancing under {ml} mL"] = (0.0, False, least)
    dice: dict[str, dict[str, list[float]]] = {name: {} for name in settings}
    for case in cases:
        volume, reference = read_case(case), read_reference(case)
        config = SegmentConfig(model=str(model), device="cpu", min_volume_ml=0)
        labels = next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))
        regions = np.stack([region_from_labels(labels, region.name) for region in card.regions])
        voxel_ml = float(np.prod(volume.spacing)) / 1000
        for name, (islands_ml, keep_largest, changed) in settings.items():
            cleaned = remove_islands(regions, round(islands_ml / voxel_ml), keep_largest)
            cleaned = drop_small_regions(cleaned, changed, voxel_ml)
            for mask, region in zip(cleaned, card.regions, strict=True):
                if region.name in reference.regions:
                    values = dice[name].setdefault(f"{case.group} {region.name}", [])
                    values.append(volume_dice(mask, reference.regions[region.name]))
    for name, groups in dice.items():
        means = "  ".join(f"{group} {mean(values):.3f}" for group, values in sorted(groups.items()))
        print(f"{name:24s} {means}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
