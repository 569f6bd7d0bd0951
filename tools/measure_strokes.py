"""Measure how well strokes correct a model's results, on patients that its training never saw.

A stroke of 12 mm is drawn inside the largest error, on its largest section: along the longest line through its deepest
point, at most 12 mm of it, with a pen that stays inside. It says that the tissue belongs to the region, or to which
region it belongs instead. The next stroke is drawn on the labels that followed. Beside it, by the same rule: a brush of
12 mm that paints the truth, and other ways to follow strokes.

Usage: python tools/measure_strokes.py MODEL DATA RECORD.json [--kept FOLDER] [--patients NAME ...]
"""

import argparse
import json
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from napari_braintumor.engine import gather_features, segment
from napari_braintumor.engine.anatomy import CORE, WHOLE
from napari_braintumor.engine.correcting import fitting
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.following import Fit
from napari_braintumor.engine.correcting.learned import fit_learned
from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.events import Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.settings import SegmentConfig

FOLDERS = ("lgg", "lgg_half", "brats", "brats_lgg", "brats_more")
LENGTH_MM = 12.0
MOST_STROKES = 10
SHOWN = (0, 1, 3, 5, 10)
LOW = 0.75
ENOUGH = 0.9
DIRECTIONS = 12
STEP_MM = 0.5

Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Case:
    """A case with the model's labels, what its last layers see, and the truth."""

    name: str
    features: CaseFeatures
    labels: NDArray[np.uint8]
    truth: dict[str, Mask]
    seconds: tuple[float, float] = (0.0, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--kept", type=Path, help="a folder, not of the project, in which gathered features are kept")
    parser.add_argument("--patients", nargs="*", help="these instead of those held out: to choose settings by")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    rows = []
    for case in find_held_out(options.model, options.data, options.patients, options.kept):
        for region in (WHOLE, CORE):
            if region not in case.truth or not case.truth[region].any():
                continue
            for way in options.ways:
                dice, seconds = simulate(case, region, WAYS[way])
                rows.append({"case": case.name, "region": region, "way": way, "dice": dice, "seconds": seconds})
                shown = " ".join(f"{dice[number]:.3f}" for number in SHOWN)
                print(f"{case.name} {region} {way}: {shown}, {np.median(seconds):.2f} s", flush=True)
    record = {
        "model": options.model,
        "rows": rows,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(record).replace('{"case"', '\n{"case"') + "\n")
    print("\n".join(make_tables(rows)))


def find_held_out(model: str, data: Path, patients: list[str] | None, kept: Path | None) -> Iterator[Case]:
    """Yield the cases of the patients, each once: the finer files where there are two."""
    split = json.loads((Path(__file__).parent / "split.json").read_text())
    wanted = split["held_out"] if patients is None else patients
    for folder in FOLDERS:
        for files in find_cases(data / folder):
            patient = split["patients"].get(files.patient, files.patient)
            if patient not in wanted:
                continue
            at = None if kept is None else kept / f"{model}_{files.name}.pkl"
            if at is not None and at.exists():
                features, labels, truth, *seconds = pickle.loads(at.read_bytes())
                yield Case(files.name, features, labels, truth, *seconds)
                continue
            volume, truth = read_case(files), dict(read_reference(files).regions)
            config = SegmentConfig(model=model, device="cpu")
            started = time.perf_counter()
            labels = next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))
            between = time.perf_counter()
            *_, features = gather_features(volume, config)
            seconds = between - started, time.perf_counter() - between
            if at is not None:
                at.parent.mkdir(parents=True, exist_ok=True)
                at.write_bytes(pickle.dumps((features, labels, truth, seconds)))
            yield Case(files.name, features, labels, truth, seconds)


# ------------------------------------------------------------------------------------------------- a simulated person


@dataclass(frozen=True, eq=False)
class Error:
    """The largest connected error of a region, on its largest section: `missed`, or found where none is."""

    missed: bool
    z: int
    plane: Mask
    depth_mm: NDArray[np.float64]

    @property
    def deepest(self) -> tuple[int, int]:
        """Row and column of the point that is farthest from the error's edge."""
        y, x = np.unravel_index(int(self.depth_mm.argmax()), self.plane.shape)
        return int(y), int(x)


def find_error(answer: Mask, truth: Mask, spacing: Triple) -> Error | None:
    found = [(missed, *_largest_part(mask)) for missed, mask in ((True, truth & ~answer), (False, answer & ~truth))]
    missed, size, part = max(found, key=lambda each: each[1])
    if size == 0:
        return None
    z = int(part.sum((1, 2)).argmax())
    _, plane = _largest_part(part[z])
    depth_mm = ndimage.distance_transform_edt(np.pad(plane, 1), sampling=spacing[1:])[1:-1, 1:-1]
    return Error(missed, z, plane, depth_mm)


def _largest_part(mask: Mask) -> tuple[int, Mask]:
    hits = [
        np.flatnonzero(mask.any(tuple(each for each in range(mask.ndim) if each != axis))) for axis in range(mask.ndim)
    ]
    if not hits[0].size:
        return 0, mask
    box = tuple(slice(hit[0], hit[-1] + 1) for hit in hits)
    parts, _ = ndimage.label(mask[box])
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = np.zeros(mask.shape, bool)
    largest[box] = parts == sizes.argmax()
    return int(sizes.max()), largest


def draw_stroke(error: Error, region: str, case: Case) -> Stroke:
    sides = np.array(case.features.spacing[1:])
    center = np.array(error.deepest, float)

    def reach(direction: NDArray[np.float64]) -> float:
        length = 0.0
        while length + STEP_MM <= LENGTH_MM / 2:
            y, x = np.rint(center + (length + STEP_MM) * direction / sides).astype(int)
            if not (0 <= y < error.plane.shape[0] and 0 <= x < error.plane.shape[1] and error.plane[y, x]):
                break
            length += STEP_MM
        return length

    angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    lines = [(np.array([np.sin(angle), np.cos(angle)])) for angle in angles]
    best = max(lines, key=lambda line: reach(line) + reach(-line))
    ends = center - reach(-best) * best / sides, center + reach(best) * best / sides
    points = tuple((float(error.z), float(y), float(x)) for y, x in ends)
    radius_mm = float(np.clip(error.depth_mm.max() - max(sides), 0, 2))
    if error.missed:
        return Stroke(region, points, radius_mm, innermost=False)
    outer = [each.name for each in case.features.regions]
    around = [name for name in outer[: outer.index(region)] if case.truth[name][(error.z, *error.deepest)]]
    return Stroke(around[-1] if around else None, points, radius_mm)


# ------------------------------------------------------------------------------------------------ ways to follow them

Follow = Callable[[Case, str, NDArray[np.uint8], Error, list[Stroke]], NDArray[np.uint8]]


def simulate(case: Case, region: str, follow: Follow) -> tuple[list[float], list[float]]:
    """Return Dice before and after each stroke, and the processor's seconds for each."""
    labels = case.labels
    numbers = [each.label for each in case.features.regions]
    numbers = numbers[[each.name for each in case.features.regions].index(region) :]
    dice, seconds, strokes = [], [], []
    for number in range(MOST_STROKES + 1):
        answer = np.isin(labels, numbers)
        dice.append(round(float(volume_dice(answer, case.truth[region])), 4))
        error = find_error(answer, case.truth[region], case.features.spacing)
        if error is None or number == MOST_STROKES:
            break
        strokes.append(draw_stroke(error, region, case))
        started = time.process_time()
        labels = follow(case, region, labels, error, strokes)
        seconds.append(round(time.process_time() - started, 3))
    return dice + dice[-1:] * (MOST_STROKES + 1 - len(dice)), seconds


def paint(case: Case, region: str, labels: NDArray[np.uint8], error: Error, strokes: list[Stroke]) -> NDArray[np.uint8]:
    """Paint the truth of the region, with a brush as wide as a stroke is long."""
    y, x = np.ogrid[: labels.shape[1], : labels.shape[2]]
    away = [(axis - at) * side for axis, at, side in zip((y, x), error.deepest, case.features.spacing[1:], strict=True)]
    disc = away[0] ** 2 + away[1] ** 2 <= (LENGTH_MM / 2) ** 2
    names = [each.name for each in case.features.regions]
    own = case.features.regions[names.index(region)]
    deeper = [each.label for each in case.features.regions[names.index(region) :]]
    around = case.features.regions[names.index(region) - 1].label if names.index(region) else 0
    painted = labels.copy()
    plane, truth = painted[error.z], case.truth[region][error.z]
    plane[disc & truth & ~np.isin(plane, deeper)] = own.label
    plane[disc & ~truth & np.isin(plane, deeper)] = around
    return painted


def follow_by(fit: Fit) -> Follow:
    """Follow strokes as it is shipped, but with another way from what they say to logits."""

    def follow(case: Case, region: str, labels: NDArray[np.uint8], error: Error, strokes: list[Stroke]) -> NDArray:
        return correct(case.features, case.labels, strokes, fit=fit).labels

    return follow


GEODESIC_MM = 15.0
GEODESIC_EDGES = 20.0
GEODESIC_GAIN = 6.0
EDGE_CHANNELS = 4


def fit_geodesically(features: CaseFeatures, logits_VR: NDArray, evidence: Evidence) -> NDArray:
    """Raise or lower the network's logits by the geodesic distance from each stroke.

    A step costs its length, and more where the first directions of what the network sees change: these follow the edges
    in the scans.
    """
    maps = [features.spread(column.astype(np.float32), 0) for column in features.values[:, :EDGE_CHANNELS].T]
    edges = np.sqrt(sum(np.gradient(each, axis=axis) ** 2 for each in maps for axis in (1, 2)))
    cost = 1 + GEODESIC_EDGES * edges / max(1e-6, float(np.percentile(edges[edges > 0], 95)))
    cost[features.spread(np.zeros(len(features.places), np.float32), 1) > 0] = np.inf
    after = fitting.squeeze(logits_VR)
    for number in np.unique(evidence.stroke):
        under = evidence.stroke == number
        starts = np.stack(np.unravel_index(features.places[evidence.rows[under]], features.grid), 1)
        search = MCP_Geometric(cost, sampling=tuple(np.array(features.step) * features.spacing))
        away_mm = search.find_costs(starts)[0].reshape(-1)[features.places]
        gain = GEODESIC_GAIN * np.exp(-np.minimum(away_mm, 1000) / GEODESIC_MM)
        after += gain[:, None].astype(np.float32) * evidence.says[under][0]
    return after


HEAD_REACH_MM = 60.0
PRIOR = 0.02
LEAST_PULL = 0.02


class HeadLikeness(fitting.Likeness):
    """What voxels are to a last layer that is fitted again, beside what is near and looks alike.

    The layer is held where it is by some voxels of the case, each by how uncertain it is, and by a prior (the Laplace
    approximation: Rasmussen and Williams 2006, chapter 3.4). Its part fades with distance, so that the far end of the
    brain stays. A network that does not show its layers has no such part.
    """

    def __init__(
        self,
        features: CaseFeatures,
        squeezed_VR: NDArray,
        sampled: fitting.Sampled,
        head: float,
        near: float,
    ) -> None:
        super().__init__(features, squeezed_VR, sampled)
        self.head, self.near = (head, near) if features.adapts else (0.0, 1.0)
        self.head_RCS = [self._fit_head(column) for column in squeezed_VR[self.some].T] if self.head else []

    def _fit_head(self, squeezed_V: NDArray) -> NDArray:
        """Return what the samples are to the layer: ``(C + 1, S)``."""
        held_VC = self.features.values[self.some].astype(np.float32)
        scale = np.float32(np.sqrt(held_VC.shape[1]))
        held = _with_one(held_VC / self.spread * scale)
        likely = 1 / (1 + np.exp(-squeezed_V))
        weights = np.maximum(4 * likely * (1 - likely), LEAST_PULL).astype(np.float32)
        stiffness = (held.T * weights) @ held / weights.sum() + PRIOR * np.eye(held.shape[1], dtype=np.float32)
        solved = np.linalg.solve(stiffness, _with_one(self.seen_SC * scale).T) / held.shape[1]
        solved[:-1] *= scale
        return solved

    def compare(self, rows: NDArray, regions: list[int]) -> list[NDArray]:
        """Return the likeness ``(len(rows), S)``, with that to the last layer, for each of some regions."""
        near = [np.float32(self.near) * alike for alike in super().compare(rows, regions)]
        if not self.head:
            return near
        seen_VC = self.features.values[rows].astype(np.float32) / self.spread
        apart2 = fitting.square_distances(self.features.find_mm(rows), self.mm_S3)
        fading = np.exp(apart2 / np.float32(-2 * HEAD_REACH_MM**2)) * np.float32(self.head)
        heads = (self.head_RCS[region] for region in regions)
        return [alike + fading * (seen_VC @ head[:-1] + head[-1]) for alike, head in zip(near, heads, strict=True)]


def _with_one(values: NDArray) -> NDArray:
    return np.concatenate([values, np.ones((len(values), 1), np.float32)], axis=1)


def fit_head(head: float, near: float) -> Fit:
    """Return a way with these shares of the last layer and of what is near."""
    return partial(fitting.fit_change, likeness=partial(HeadLikeness, head=head, near=near))


WAYS: dict[str, Follow] = {
    "brush": paint,
    "head": follow_by(fit_head(1.0, 0.0)),
    "geodesic": follow_by(fit_geodesically),
    "near": follow_by(fitting.fit_change),
    "learned": follow_by(fit_learned),
    "head and near": follow_by(fit_head(0.3, 1.0)),
}
"""Brush alone; (a) the last layer fitted again; (b) geodesic distance; likeness and nearness; that and (c), a small
network, which is shipped; likeness and (a)."""


def make_tables(rows: list[dict]) -> list[str]:
    """Return a table for each region, and the cases one by one: Markdown."""
    lines = []
    for region in (WHOLE, CORE):
        for title, keeps in (("all", lambda dice: True), (f"under {LOW}", lambda dice: dice[0] < LOW)):
            chosen = [row for row in rows if row["region"] == region and keeps(row["dice"])]
            cases = {row["case"] for row in chosen}
            if not cases:
                continue
            lines += ["", f"{region}, {title}, n = {len(cases)}", ""]
            lines.append(
                "| way | "
                + " | ".join(map(str, SHOWN))
                + " | worst change | 0.90 reached (strokes) | s, median | s, 95 % |"
            )
            lines.append("|---" * (len(SHOWN) + 5) + "|")
            for way in dict.fromkeys(row["way"] for row in chosen):
                own = [row for row in chosen if row["way"] == way]
                dice = np.array([row["dice"] for row in own])
                lowest = (dice[:, SHOWN[1:]] - dice[:, :1]).min()
                counts = [next((n for n, d in enumerate(row["dice"]) if d >= ENOUGH), None) for row in own]
                reached = [count for count in counts if count is not None]
                seconds = np.concatenate([row["seconds"] for row in own])
                cells = [f"{mean:.3f}" for mean in dice[:, SHOWN].mean(0)]
                cells += [f"{lowest:+.3f}", f"{len(reached)} of {len(own)} ({np.median(reached) if reached else 0:g})"]
                cells += [f"{np.median(seconds):.2f}", f"{np.percentile(seconds, 95):.2f}"]
                lines.append(f"| {way} | " + " | ".join(cells) + " |")
    lines += ["", "| case | region | " + " | ".join(map(str, SHOWN)) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in rows:
        if row["way"] == "learned":
            lines.append(
                f"| {row['case']} | {row['region']} | " + " | ".join(f"{row['dice'][n]:.3f}" for n in SHOWN) + " |"
            )
    return lines


if __name__ == "__main__":
    main()
