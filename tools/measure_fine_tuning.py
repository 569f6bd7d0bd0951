"""What fine-tuning gains on patients that a model never saw: three corrected slices of each, a few minutes.

For each case the three slices that are most wrong are "corrected" from its reference, the model is tuned to them, and
Dice on all *other* slices is compared, before and after. What is forgotten is measured on training patients that the
tuning does not draw from.

    python tools/measure_fine_tuning.py DATA OUT [--patients NAME ...] [--minutes 3] [--distil]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine import segment, train
from napari_braintumor.engine.anatomy import region_from_labels
from napari_braintumor.engine.events import Judged, Segmented, Trained
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.written import write_case
from napari_braintumor.engine.measuring.metrics import mean_interval, volume_dice
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import DEFAULT_MODEL, SegmentConfig
from napari_braintumor.engine.training.plan import FineTuning, plan_fine_tuning
from napari_braintumor.engine.volumes import Reference, Volume

REPLAY = ("TCGA_CS", "TCGA_DU", "TCGA_HT", "BraTS")


def choose_slices(labels_ZYX: NDArray[np.uint8], reference: Reference) -> list[int]:
    """Return the three slices that a person would correct first: the most wrong voxels, some slices apart."""
    wrong = np.zeros(len(labels_ZYX), int)
    for name, mask in reference.regions.items():
        wrong += (region_from_labels(labels_ZYX, name) != mask).sum((1, 2))
    apart = max(2, int(next(iter(reference.regions.values())).any((1, 2)).sum()) // 10)
    chosen: list[int] = []
    for z in np.argsort(-wrong):
        if all(abs(int(z) - other) >= apart for other in chosen):
            chosen.append(int(z))
    return sorted(chosen[:3])


def predict(volume: Volume, model: str) -> NDArray[np.uint8]:
    """Return a model's labels for a case."""
    config = SegmentConfig(model=model)
    return next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))


def measure(labels: NDArray[np.uint8], volume: Volume, reference: Reference, without: list[int]) -> dict[str, float]:
    """Return the Dice of each region on all slices but those given."""
    rest = np.setdiff1d(np.arange(volume.shape[0]), without)
    return {
        name: volume_dice(region_from_labels(labels, name)[rest], mask[rest])
        for name, mask in reference.regions.items()
    }


def choose_replay(cases: list[CaseFiles], patients: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    """Link a few training cases of each kind into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in REPLAY:
        of_kind = [case for case in cases if case.patient in patients and case.patient.startswith(start)]
        for case in of_kind[: 4 if start == "BraTS" else 6]:
            link = folder / case.name
            if not link.exists():
                link.symlink_to(case.images[0].paths[0].parent.resolve(), target_is_directory=True)
    return (folder,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", nargs="*", help="left out, six LGG and two BraTS patients that were held out")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--distil", action="store_true", help="no replay set: the parent's own answers stand in for it")
    parser.add_argument("--settings", type=json.loads, default={}, help="further fields of the plan, JSON")
    options = parser.parse_args()
    card = ModelStore().find(DEFAULT_MODEL).card
    assert card is not None
    cases = find_cases([options.data / name for name in ("lgg", "lgg_half", "brats")])
    held_out = [case for case in cases if case.patient in card.held_out_patients]
    chosen = (
        options.patients
        or [
            *dict.fromkeys(c.patient for c in held_out if c.group == "lgg"),
        ][:6]
        + [c.patient for c in held_out if c.patient.startswith("BraTS2021")][:2]
    )
    replay = () if options.distil else choose_replay(cases, card.training_patients, options.out / "replay")
    rows = []
    for case in (case for case in cases if case.patient in chosen):
        volume, reference = read_case(case), read_reference(case)
        assert reference is not None
        parent = predict(volume, DEFAULT_MODEL)
        slices = choose_slices(parent, reference)
        convention = "whole" if case.group == "lgg" else "brats2023"
        written = write_case(options.out / "cases", volume, reference.labels, convention, reviewed=slices)
        plan = plan_fine_tuning(
            card, DEFAULT_MODEL, f"tuned-{case.name}", (written,), output=options.out / "runs",
            **{"minutes": options.minutes, "fine_tuning": FineTuning(replay=replay), **options.settings},
        )  # fmt: skip
        events = list(train(plan))
        verdict = next(event for event in events if isinstance(event, Judged))
        trained = next(event for event in events if isinstance(event, Trained))
        before = measure(parent, volume, reference, slices)
        child = predict(volume, str(trained.path)) if trained.path else parent
        after = measure(child, volume, reference, slices)
        row = {
            "case": case.name,
            "slices": slices,
            "accepted": verdict.accepted,
            "before": before,
            "after": after,
            "kept_back": [verdict.before, verdict.after],
            "replay": [verdict.replay_before, verdict.replay_after],
        }
        rows.append(row)
        gain = np.mean(list(after.values())) - np.mean(list(before.values()))
        print(
            f"{case.name:28s} {'accepted' if verdict.accepted else 'refused ':8s} "
            + "  ".join(f"{name} {before[name]:.3f} -> {after[name]:.3f}" for name in before)
            + f"  gain {gain:+.3f}  validation {verdict.before:.3f} -> {verdict.after:.3f}"
            + (f"  replay {verdict.replay_before:.3f} -> {verdict.replay_after or 0:.3f}" if replay else ""),
            flush=True,
        )
        (options.out / "rows.json").write_text(json.dumps(rows, indent=1))
    gains = np.array([np.mean(list(r["after"].values())) - np.mean(list(r["before"].values())) for r in rows])
    low, high = mean_interval(gains)
    print(f"mean gain {gains.mean():+.4f}, 95 % confidence {low:+.4f} to {high:+.4f} (bootstrap, n = {len(gains)})")


if __name__ == "__main__":
    main()
