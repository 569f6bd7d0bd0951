"""Draw the one split, by patient, of the shared scans that all bundled models are trained and measured by.

Held-out patients are never looked at in training; validation patients choose the best weights. BRISC has no patient
numbers, so all of it is for training.

Usage: python tools/make_split.py DATA_FOLDER > tools/split.json
"""

import json
import random
import sys
from pathlib import Path

from napari_braintumor.engine.files.cases import find_cases

SEED = 2026
# Folder: how many patients are held out, how many choose the weights.
SHARES = {
    "lgg": (4, 0),
    "lgg_half": (12, 5),
    "brats four modalities": (2, 0),
    "brats two modalities": (1, 1),
    "btp": (2, 0),
}

TWINS = {
    "BraTS2021_01476": "TCGA_CS_4942",
    "BraTS2021_01477": "TCGA_CS_4944",
    "BraTS2021_01480": "TCGA_CS_5397",
    "BraTS2021_01482": "TCGA_CS_6188",
    "BraTS2021_01483": "TCGA_CS_6665",
    "BraTS2021_01485": "TCGA_CS_6668",
    "BraTSpseudo_du7294": "TCGA_DU_7294",
}
"""Who is who where two sets call one person by two names, as a plan's `patients`: the second name's side counts."""


def main(data: Path) -> None:
    strata: dict[str, set[str]] = {name: set() for name in SHARES}
    for folder in ("lgg", "lgg_half", "brats", "btp"):
        for case in find_cases(data / folder):
            complete = "four" if len(case.images) == 4 else "two"
            strata[f"brats {complete} modalities" if folder == "brats" else folder].add(case.patient)
    chosen: dict[str, list[str]] = {"held_out": [], "validation": []}
    for name, patients in strata.items():
        held_out, validation = SHARES[name]
        order = sorted(patients)
        random.Random(SEED).shuffle(order)
        chosen["held_out"] += order[:held_out]
        chosen["validation"] += order[held_out : held_out + validation]
    split = {side: sorted(names) for side, names in chosen.items()}
    print(json.dumps({**split, "patients": TWINS}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
