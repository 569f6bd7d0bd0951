"""Calibrate how far a model's results can be trusted, and print how often held-out patients lie in their intervals.

A network's probabilities promise a Dice. Over patients, the logit of the true Dice is fitted as a line over that of the
promise. Patients that training saw give the slope alone: on them a network does better than it promises elsewhere, so
they have an intercept of their own. The interval holds nine of ten patients that training did not see. It is that of
Student's t over residuals, each from a fit without the patient it is of; so is every figure that is printed.

The calibration is written beside the model, and is of these weights alone: train again, calibrate again.

Usage: python tools/calibrate_trust.py MODEL DATA [--kept ROWS.jsonl]
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from napari_braintumor.engine import segment
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.patients import WhoIsWho
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.calibration import ENDING, CalibratedScans, Calibration, RegionCalibration
from napari_braintumor.engine.models.model_file import read_weights_sha256
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.trust import expect_dice, promise, to_logit
from napari_braintumor.engine.settings import SegmentConfig

FOLDERS = ("lgg", "lgg_half", "brats", "brats_lgg", "brats_more")
"""Gliomas before treatment. Nothing is claimed of others."""

SUBSETS = (None, ("FLAIR",))
"""All modalities of a case, and what may be all that there is."""

TELLING = "T1ce"
"""Scans with and without it are calibrated apart: only with it can a network see what is core."""

SHARE = 0.9
FEWEST = 5
"""With fewer patients that training did not see, nothing is claimed."""

STEADY = 1.0
"""The slope is held at 1, as by so many patients one logit away from the mean."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--kept", type=Path, help="rows measured before, not of the project; new ones are added")
    options = parser.parse_args()
    path = ModelStore().find(options.model).path
    calibration, lines = calibrate(list(measure_cases(path, options.data, options.kept)), read_weights_sha256(path))
    path.with_name(path.stem + ENDING).write_text(calibration.model_dump_json(indent=1) + "\n")
    print("\n".join(lines))


def measure_cases(model: Path, data: Path, kept: Path | None) -> Iterator[Row]:
    """Yield a row for each region of each case and subset: what is promised, and the true Dice."""
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    weights = read_weights_sha256(model)
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept is not None and kept.exists() else []
    rows = [row for row in rows if row["weights"] == weights]
    yield from rows
    done = {(row["case"], tuple(row["modalities"])) for row in rows}
    complete = {row["case"] for row in rows} - {row["case"] for row in rows[-1:]}  # the last one may have been cut off
    found = [files for folder in FOLDERS for files in find_cases(data / folder)]
    who = WhoIsWho({files.name: files.patient for files in found}, split["patients"])
    sides = {side: who.find(split[side]) for side in ("held_out", "validation")}
    for files in found:
        if files.name in complete:
            continue
        patient = who.patient_of(files.name)
        side = next((name for name, patients in sides.items() if patient in patients), "training")
        volume, reference = read_case(files), read_reference(files)
        for subset in SUBSETS:
            used = tuple(name for name in volume.modalities if subset is None or name in subset)
            if not used or (files.name, used) in done:
                continue
            done.add((files.name, used))
            config = SegmentConfig(model=str(model), device="cpu")
            events = segment(volume.with_modalities(used), config)
            result = next(event.segmentation for event in events if isinstance(event, Segmented))
            for region, sums in result.provenance["certainty"].items():
                if region not in reference.regions:
                    continue
                promised = promise(sums, result.volumes_ml[region])
                dice = float(volume_dice(result.mask_of(region), reference.regions[region]))
                row = {"weights": weights, "case": files.name, "patient": patient, "side": side, "modalities": used}
                row |= {"region": region, "promised": promised, "dice": round(dice, 4)}
                if kept is not None:
                    with kept.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                yield row


def calibrate(rows: list[Row], weights: str) -> tuple[Calibration, list[str]]:
    """Return the calibration, and lines to print."""
    scans, lines, inside = [], [], []
    for telling in (True, False):
        group = [row for row in rows if (TELLING in row["modalities"]) is telling and row["promised"] is not None]
        regions = {}
        for region in dict.fromkeys(row["region"] for row in group):
            own = [row for row in group if row["region"] == region]
            if len({row["patient"] for row in own if row["side"] != "training"}) < FEWEST:
                continue
            fitted = regions[region] = fit(own)
            held = [row for row in own if row["side"] == "held_out"]
            others = [fit([each for each in own if each["patient"] != row["patient"]]) for row in held]
            hits = [is_inside(row, fitted) for row, fitted in zip(held, others, strict=True)]
            inside += hits
            dice = [expect_dice(fitted, row["promised"]) for row in held]
            lines.append(
                f"{region}, {'with' if telling else 'without'} {TELLING}: {sum(hits)} of {len(hits)} held-out scans in "
                f"their interval, which is {np.mean([each.high - each.low for each in dice]):.2f} wide; fitted on "
                f"{fitted.patients} patients that training did not see"
            )
        if regions:
            sets = sorted({tuple(row["modalities"]) for row in group if row["side"] != "training"})
            scans.append(CalibratedScans(modalities=tuple(sets), regions=regions))
    lines.append(f"all: {sum(inside)} of {len(inside)}, {np.mean(inside):.0%}" if inside else "too few patients")
    return Calibration(weights_sha256=weights, scans=tuple(scans)), lines


def is_inside(row: Row, fitted: RegionCalibration) -> bool:
    """Whether the Dice of a row lies in the interval that a fit gives."""
    dice = expect_dice(fitted, row["promised"])
    return dice.low <= row["dice"] <= dice.high


def fit(rows: list[Row]) -> RegionCalibration:
    """Fit a region."""
    unseen = sorted({row["patient"] for row in rows if row["side"] != "training"})
    residuals = []
    for patient in unseen:
        intercept, slope = fit_line([row for row in rows if row["patient"] != patient])
        own = [to_logit(row["dice"]) - intercept - slope * row["promised"] for row in rows if row["patient"] == patient]
        residuals.append(own)
    spread = np.sqrt(np.mean([np.mean(np.square(own)) for own in residuals]))
    intercept, slope = fit_line(rows)
    promised = [row["promised"] for row in rows]
    return RegionCalibration(
        intercept=round(intercept, 4),
        slope=round(slope, 4),
        reach=round(float(stats.t.ppf((1 + SHARE) / 2, len(unseen) - 1) * spread), 4),
        least=round(min(promised), 4),
        most=round(max(promised), 4),
        patients=len(unseen),
    )


def fit_line(rows: Iterable[Row]) -> tuple[float, float]:
    """Return intercept and slope for patients that training did not see; each patient counts as one."""
    rows = list(rows)
    promised = np.array([row["promised"] for row in rows])
    logit = np.array([to_logit(row["dice"]) for row in rows])
    seen = np.array([row["side"] == "training" for row in rows], float)
    patients = [row["patient"] for row in rows]
    weight = np.array([1 / patients.count(patient) for patient in patients])
    center = np.average(promised, weights=weight)
    design = np.stack([np.ones(len(rows)), promised - center, seen], 1)
    pull = np.diag([0, STEADY, 1e-6])
    target = logit - (promised - center)  # what differs from a slope of 1
    solved = np.linalg.solve((design.T * weight) @ design + pull, (design.T * weight) @ target)
    slope = 1 + solved[1]
    return float(solved[0] - slope * center), float(slope)


if __name__ == "__main__":
    main()
