"""A calibration beside a model, for tests of what follows from one."""

from pathlib import Path

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.models.calibration import CalibratedScans, Calibration, RegionCalibration
from napari_braintumor.engine.models.model_file import read_weights_sha256

TRUST = {
    "word": "medium",
    "expected_dice": {"whole tumor": [0.61, 0.78, 0.89]},
    "reasons": ["large faint whole tumor: expect missed parts"],
}
"""As a record states it."""

TRUST_IN_WORDS = "Trust: medium\nwhole tumor: Dice 0.61 to 0.89\nLarge faint whole tumor: expect missed parts"


def calibrate(model: Path, *regions: str) -> Path:
    """Write a calibration with wide intervals beside a model."""
    wide = RegionCalibration(intercept=0, slope=1, reach=1, least=-9, most=9, patients=20)
    scans = CalibratedScans(modalities=(MODALITIES,), regions=dict.fromkeys(regions, wide))
    known = Calibration(weights_sha256=read_weights_sha256(model), scans=(scans,))
    path = model.with_name("any.trust.json")
    path.write_text(known.model_dump_json())
    return path
