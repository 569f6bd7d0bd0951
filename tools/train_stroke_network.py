"""Train the small network that says how far strokes reach: simulated strokes on patients that the model was trained on.

A model knows its training patients by heart, so its errors there are too few. So modalities are left out, and its
logits are weakened, shifted and disturbed by smooth noise before the first stroke. Strokes are drawn as in
measure_strokes.py, up to ten on end, and followed by likeness and nearness or, for two persons of three, by an earlier
network (--network). After some of them, voxels around the strokes are kept with their clues and the truth.

Neither validation patients nor those held out are read.

Usage: python tools/train_stroke_network.py MODEL DATA OUT.safetensors --kept FOLDER [--network EARLIER.safetensors]
"""

from __future__ import annotations

import argparse
import json
import pickle
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy import ndimage
from torch import nn

from measure_strokes import Case, draw_stroke, find_error
from napari_braintumor.engine import gather_features, segment
from napari_braintumor.engine.anatomy import CORE, WHOLE
from napari_braintumor.engine.correcting.clues import Clues
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.depth import depth_of_labels, labels_of_depth
from napari_braintumor.engine.correcting.evidence import gather_evidence
from napari_braintumor.engine.correcting.features import NOWHERE, CaseFeatures
from napari_braintumor.engine.correcting.fitting import GaussianProcess, Likeness, fit_change, squeeze
from napari_braintumor.engine.correcting.following import Change, Fit, agree
from napari_braintumor.engine.correcting.learned import load_stroke_network, refine_by
from napari_braintumor.engine.correcting.painting import repaint
from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Volume

FOLDERS = ("lgg_half", "lgg", "brats", "brats_lgg", "brats_more", "brats_pseudo")
LEFT_WITH = (None, ("FLAIR",), ("T1", "T1ce"))
"""Modalities that a case is seen with: all, and every second time one of the others."""

MOST_STROKES = 10
RECORDED = 4
"""After so many of the strokes, chosen by chance, voxels are kept, and after the first."""

VOXELS = 1500
NEAR_MM = 40.0
SMALLEST_VOXELS = 50
BY_NETWORK = 0.65

STEPS, BATCH, HIDDEN = 2500, 8192, 48
RATE, DECAY, DROPOUT, NOISE = 2e-3, 0.2, 0.2, 0.1
MOST_WEIGHT = 4.0


@dataclass(frozen=True, eq=False)
class Kept:
    """Voxels after a stroke: their clues, the squeezed logit that likeness and nearness give, the truth, weights."""

    patient: str
    clues: NDArray[np.float16]
    logit: NDArray[np.float16]
    truth: NDArray[np.bool_]
    weight: NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kept", type=Path, required=True, help="a folder, not of the project, for what is gathered")
    parser.add_argument("--network", type=Path, help="an earlier one, to follow strokes by")
    options = parser.parse_args()
    by_network = None
    if options.network is not None:
        by_network = partial(fit_change, refine=refine_by(load_stroke_network(options.network)))
    kept: list[Kept] = []
    for name, patient, features, labels, truth in find_training(options.model, options.data, options.kept):
        before = len(kept)
        kept += record_case(name, patient, features, labels, truth, by_network)
        print(f"{name}: {len(kept) - before} records", flush=True)
    save_file(
        train(kept),
        options.out,
        metadata={"trained_with": options.model, "patients": str(len({k.patient for k in kept}))},
    )


def find_training(
    model: str, data: Path, kept: Path
) -> Iterator[tuple[str, str, CaseFeatures, NDArray[np.uint8], dict[str, NDArray[np.bool_]]]]:
    """Yield training patients, with all modalities and with fewer."""
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    kept.mkdir(parents=True, exist_ok=True)
    folders = [data / folder for folder in FOLDERS if (data / folder).is_dir()]
    for number, files in enumerate(files for folder in folders for files in find_cases(folder)):
        patient = split["patients"].get(files.patient, files.patient)
        if patient in split["held_out"] or patient in split["validation"]:
            continue
        for way, modalities in enumerate(LEFT_WITH):
            if modalities and (number + way) % 2:
                continue
            name = f"{files.name}_{'+'.join(modalities or ('all',))}"
            at = kept / f"{name}.pkl"
            if not at.exists():
                volume, truth = read_case(files), dict(read_reference(files).regions)
                if modalities and not (volume := leave(volume, modalities)):
                    continue
                config = SegmentConfig(model=model, device="cpu")
                labels = next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))
                *_, features = gather_features(volume, config)
                at.write_bytes(pickle.dumps((features, labels, truth)))
            yield name, patient, *pickle.loads(at.read_bytes())


def leave(volume: Volume, modalities: tuple[str, ...]) -> Volume | None:
    """Return a volume with these of its modalities; None if it has none of them, or no others."""
    left = [number for number, own in enumerate(volume.modalities) if own in modalities]
    if not left or len(left) == len(volume.modalities):
        return None
    return replace(volume, data=volume.data[left], modalities=tuple(volume.modalities[number] for number in left))


# ----------------------------------------------------------------------------------------------- strokes and voxels


def record_case(
    name: str,
    patient: str,
    features: CaseFeatures,
    labels: NDArray[np.uint8],
    truth: dict[str, NDArray[np.bool_]],
    by_network: Fit | None,
) -> list[Kept]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    starts = [] if name.endswith("_all") else [(features, labels)]
    while len(starts) < 2:
        starts.append(disturb(features, random))
    kept = []
    for own, before in starts:
        for region in (WHOLE, CORE):
            if region in truth and truth[region].sum() >= SMALLEST_VOXELS:
                fit = by_network if by_network is not None and random.random() < BY_NETWORK else fit_change
                kept += record_strokes(Case(name, own, before, truth), region, patient, fit, random)
    return kept


def disturb(features: CaseFeatures, random: np.random.Generator) -> tuple[CaseFeatures, NDArray[np.uint8]]:
    """Return a worse answer of the model: weaker, shifted, and with smooth noise; and its labels."""
    strength = random.uniform(0.25, 1)
    sides = np.array(features.step) * features.spacing
    noise = ndimage.gaussian_filter(random.normal(size=features.grid), random.uniform(5, 12) / sides)
    noise = (noise / noise.std()).reshape(-1)[features.places] * random.uniform(1, 4) * strength
    weaker = features.logits * random.uniform(0.4, 0.9) ** strength + random.uniform(-2.0, 1.2) * strength
    logits = np.minimum.accumulate(weaker + noise[:, None] * np.array([1, 0.8, 0.8]), axis=1)
    possible = features.logits > -7  # no new tumor where the model saw none at all
    logits = np.where(possible, logits, np.minimum(logits, features.logits + 2)).clip(-12, 12).astype(np.float32)
    worse = replace(features, logits=logits)
    z, y, x = (slice(0, size) for size in features.grid)
    after = worse.take(logits, (z, y, x))
    depth = np.zeros(features.shape, np.uint8)
    repaint(depth, worse, Change((z, y, x), (np.full_like(after, NOWHERE), after)))
    return worse, labels_of_depth(depth, features.regions)


def record_strokes(case: Case, region: str, patient: str, fit: Fit, random: np.random.Generator) -> list[Kept]:
    """Draw strokes on end, and keep voxels around them after some."""
    regions = [each.name for each in case.features.regions]
    numbers = [each.label for each in case.features.regions[regions.index(region) :]]
    recorded = {1, *random.choice(np.arange(1, MOST_STROKES + 1), RECORDED, replace=False).tolist()}
    strokes: list[Stroke] = []
    labels, kept = case.labels, []
    for number in range(1, max(recorded) + 1):
        error = find_error(np.isin(labels, numbers), case.truth[region], case.features.spacing)
        if error is None:
            break
        strokes.append(draw_stroke(error, region, case))
        if number in recorded:
            kept += keep_voxels(case, strokes, patient, random)
        labels = correct(case.features, case.labels, strokes, fit=fit).labels
    return kept


def keep_voxels(case: Case, strokes: list[Stroke], patient: str, random: np.random.Generator) -> list[Kept]:
    """Keep voxels near strokes, of the whole tumor: those in question more often."""
    features = case.features
    cells = np.ix_(*features.find_indices())
    depth = depth_of_labels(case.labels[cells].reshape(-1)[features.places], features.regions)
    before = squeeze(agree(features, depth))
    evidence = gather_evidence(features, strokes)
    if not len(evidence.rows) or not evidence.says[:, 0].any():
        return []
    process = GaussianProcess(features, before, evidence, Likeness)
    near = np.unique(
        np.concatenate(
            [
                features.find_near(features.find_mm(evidence.rows[evidence.stroke == number]).mean(0), NEAR_MM)
                for number in np.unique(evidence.stroke)
            ]
        )
    )
    truth = case.truth[WHOLE][cells].reshape(-1)[features.places][near]
    asked = np.where(((before[near, 0] > 0) != truth) | (before[near, 0] > -4), 1.0, 0.15)
    chosen = random.choice(len(near), min(VOXELS, len(near)), replace=False, p=asked / asked.sum())
    rows = near[chosen]
    moved = process.move(rows)[:, process.regions.index(0)]
    clues = Clues(process).describe(rows, 0, moved)
    weight = 1 / asked[chosen]
    logit = before[rows, 0] + moved
    weight = (weight / weight.mean()).astype(np.float32)
    return [Kept(patient, clues.astype(np.float16), logit.astype(np.float16), truth[chosen], weight)]


# ---------------------------------------------------------------------------------------------------------- training


class Perceptron(nn.Module):
    """Three hidden layers; at first it adds nothing."""

    def __init__(self, clues: int) -> None:
        super().__init__()
        sizes = [clues, HIDDEN, HIDDEN, HIDDEN, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return a number for each voxel."""
        for layer in self.layers[:-1]:
            values = self.dropout(nn.functional.silu(layer(values)))
        return self.layers[-1](values)[:, 0]


def train(kept: list[Kept]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a network that adds to the logit what is missing to the truth; patients count alike."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    clues, logit, truth = (np.concatenate([getattr(k, name) for k in kept]) for name in ("clues", "logit", "truth"))
    patients = np.concatenate([np.full(len(k.truth), zlib.crc32(k.patient.encode())) for k in kept])
    _, of, counts = np.unique(patients, return_inverse=True, return_counts=True)
    weight = np.minimum(np.concatenate([k.weight for k in kept]), MOST_WEIGHT) / np.sqrt(counts[of])
    weight /= weight.mean()
    some = clues[::20].astype(np.float32)
    mean, deviation = some.mean(0), some.std(0) + 1e-2
    network, average = Perceptron(clues.shape[1]), Perceptron(clues.shape[1])
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 100) * (1 + np.cos(np.pi * step / STEPS)) / 2 + 1e-6
        rows = random.choice(len(truth), BATCH)
        values = torch.from_numpy((clues[rows].astype(np.float32) - mean) / deviation)
        asked = (torch.from_numpy(each[rows].astype(np.float32)) for each in (logit, truth, weight))
        start, wanted, counting = asked
        answer = start + network(values + NOISE * torch.randn_like(values))
        loss = nn.functional.binary_cross_entropy_with_logits(answer, wanted, counting)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.995, step / (step + 10))
        with torch.no_grad():
            for own, other in zip(average.parameters(), network.parameters(), strict=True):
                own.mul_(decay).add_(other, alpha=1 - decay)
    return fold(average, mean, deviation)


def fold(network: Perceptron, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> dict[str, NDArray]:
    """Return weights that take clues as they are, by number of the layer."""
    tensors = {}
    for number, layer in enumerate(network.layers):
        tensors[f"{number}.weight"] = layer.weight.detach().numpy().T.copy()
        tensors[f"{number}.bias"] = layer.bias.detach().numpy().copy()
    tensors["0.bias"] -= (mean / deviation) @ tensors["0.weight"]
    tensors["0.weight"] /= deviation[:, None]
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


if __name__ == "__main__":
    main()
