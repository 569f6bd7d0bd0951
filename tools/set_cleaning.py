"""Write onto a trained model's card how its answers are cleaned, as `choose_postprocessing.py` found best.

The name on the card becomes that of the bundled model, so a copy can be measured and published.

Usage: python tools/set_cleaning.py MODEL.safetensors NAME
"""

import sys
from pathlib import Path

from napari_braintumor.engine.anatomy import ENHANCING
from napari_braintumor.engine.models.card import SolidCore
from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model

LEAST_ENHANCING_ML = 1.0
SOLID_CORE = SolidCore(below_share=0.05, rim_share=0.2, rim_mm=2.0)


def main(path: Path, name: str) -> None:
    card = read_card(path)
    regions = tuple(
        region.model_copy(update={"least_ml": LEAST_ENHANCING_ML}) if region.name == ENHANCING else region
        for region in card.regions
    )
    cleaned = card.model_copy(update={"name": name, "regions": regions, "solid_core": SOLID_CORE})
    save_model(path, load_weights(path), cleaned)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
