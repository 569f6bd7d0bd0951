"""Measure what removing small islands of tumor does on training and validation patients, never on held-out ones.

Usage: python tools/choose_postprocessing.py MODEL DATA_FOLDER
"""

import json
import sys
from pathlib import Path
from statistics import mean

from napari_braintumor.engine import evaluate
from napari_braintumor.engine.config import SegmentConfig
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.types import CaseEvaluated

LGG_STEP = 5
"""Every fifth LGG patient is enough to choose by."""


def main(model: Path, data: Path) -> None:
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    cases = []
    for folder in ("lgg", "lgg_half", "brats", "btp"):
        usable = [case for case in find_cases(data / folder) if case.patient not in split["held_out"]]
        cases += usable[:: LGG_STEP if folder == "lgg_half" else 2]
        cases += [case for case in usable if case.patient in split["validation"] and case not in cases]
    for min_volume_ml in (0.0, 0.5, 1.0, 2.0, 5.0):
        config = SegmentConfig(model=str(model), device="cpu", min_volume_ml=min_volume_ml)
        dice: dict[str, list[float]] = {}
        for event in evaluate(cases, config):
            if isinstance(event, CaseEvaluated):
                for region, value in event.dice.items():
                    dice.setdefault(f"{event.group} {region}", []).append(value)
        means = "  ".join(f"{name} {mean(values):.3f}" for name, values in sorted(dice.items()))
        print(f"smallest island {min_volume_ml:3.1f} mL  {means}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
