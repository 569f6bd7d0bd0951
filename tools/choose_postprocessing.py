"""Measure how other thresholds and other cleaning change a model's results, on patients that are not held out.

Connected components of tumor below a volume are removed; a region of which less was found in a case counts as the one
around it. Training and validation patients are counted apart: the model finds too much in those it was trained on.

Usage: python tools/choose_postprocessing.py MODEL DATA_FOLDER
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine import segment
from napari_braintumor.engine.anatomy import region_from_labels
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.card import ModelCard, SolidCore
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.cleaning import drop_small_regions, fill_solid_core, remove_small_components
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Volume

LGG_STEP = 5
"""Every fifth LGG patient is enough to choose by."""

COMPONENTS_ML = (0.2, 0.5, 1.0, 2.0, 5.0)
MIN_ENHANCING_ML = (0.1, 0.3, 0.5, 1.0)
THRESHOLDS = (0.3, 0.4, 0.6, 0.7, 0.8)
SOLID_BELOW = 0.05
SOLID_RIMS = (0.15, 0.2, 0.3, 0.4)


def main(model: Path, data: Path) -> None:
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    cases = []
    for folder in ("lgg", "lgg_half", "brats", "brats_lgg", "brats_more", "btp"):
        usable = [
            replace(case, patient=split["patients"].get(case.patient, case.patient))
            for case in find_cases(data / folder)
        ]
        usable = [case for case in usable if case.patient not in split["held_out"]]
        cases += usable[:: {"lgg": 2, "lgg_half": LGG_STEP}.get(folder, 1)]
        cases += [case for case in usable if case.patient in split["validation"] and case not in cases]
    card = ModelStore().find(model).card
    dice: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        side = "validation" if case.patient in split["validation"] else "training"
        volume, reference = read_case(case), read_reference(case)
        for name, masks in try_settings(volume, model, card):
            for mask, region in zip(masks, card.regions, strict=True):
                if region.name in reference.regions:
                    value = volume_dice(mask, reference.regions[region.name])
                    if (
                        case.group == "brats"
                        and ("rim" in name or name == "as it is")
                        and region.name != card.regions[0].name
                    ):
                        print(f"{case.name} {side} {region.name} {name}: {value:.3f}", flush=True)
                    dice.setdefault(name, {}).setdefault(f"{case.group} {region.name} {side}", []).append(value)
    for column in dice["as it is"]:
        print(f"{column}, n = {len(dice['as it is'][column])}")
        for name, columns in dice.items():
            print(f"  {name:26s} {mean(columns[column]):.3f}", flush=True)


def try_settings(volume: Volume, model: Path, card: ModelCard) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield each setting's name and its result: a mask for each region."""
    whole, core, enhancing = card.regions
    voxel_ml = volume.source.voxel_ml
    found = find_regions(volume, model, card, None)
    yield "as it is", found
    for ml in COMPONENTS_ML:
        yield f"components under {ml} mL", changed(found, remove_small_components, round(ml / voxel_ml), False)
    yield "only the largest component", changed(found, remove_small_components, 0, True)
    for ml in MIN_ENHANCING_ML:
        least = card.model_copy(update={"regions": (whole, core, enhancing.model_copy(update={"least_ml": ml}))})
        yield f"enhancing under {ml} mL", changed(found, drop_small_regions, least, voxel_ml)
    for share in SOLID_RIMS:
        rule = card.model_copy(update={"solid_core": SolidCore(below_share=SOLID_BELOW, rim_share=share, rim_mm=2.0)})
        yield f"little core, all beyond a rim of {share}", changed(found, solidify, rule, volume)
    for threshold in THRESHOLDS:
        yield f"threshold {threshold}", find_regions(volume, model, card, threshold)


def changed(regions_RZYX: NDArray[np.bool_], change: Callable[..., None], *how: Any) -> NDArray[np.bool_]:
    """Return nested regions after a change that works on the number of regions each voxel lies in."""
    depth = regions_RZYX.sum(0, dtype=np.uint8)
    change(depth, *how)
    return depth > np.arange(len(regions_RZYX))[:, None, None, None]


def solidify(depth_ZYX: NDArray[np.uint8], card: ModelCard, volume: Volume) -> None:
    fill_solid_core(depth_ZYX, SimpleNamespace(card=card, volume=volume, not_measurable={}))


def find_regions(volume: Volume, model: Path, card: ModelCard, threshold: float | None) -> NDArray[np.bool_]:
    config = SegmentConfig(model=str(model), device="cpu", min_volume_ml=0, threshold=threshold)
    labels = next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))
    return np.stack([region_from_labels(labels, region.name) for region in card.regions])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
