"""Strokes and thresholds look only at voxels that may change; here is what they decide, looking at all of them."""

import numpy as np
import pytest
from scipy import ndimage

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, REGIONS
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.depth import OTHER, depth_of_labels, labels_of_depth
from napari_braintumor.engine.correcting.evidence import gather_evidence
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.fitting import Likeness, _solve, choose_samples, squeeze
from napari_braintumor.engine.correcting.following import agree
from napari_braintumor.engine.correcting.painting import enforce
from napari_braintumor.engine.correcting.shifting import shift_region
from napari_braintumor.engine.correcting.spreading import LEAST_CHANGE
from napari_braintumor.engine.correcting.strokes import Stroke


def make_case(seed: int, regions=REGIONS) -> tuple[CaseFeatures, np.ndarray]:
    """A case of smooth chance in a head that does not fill the grid, and labels that agree with it only in part."""
    random = np.random.default_rng(seed)
    step = int(random.integers(1, 4))
    grid = (int(random.integers(3, 14)), int(random.integers(8, 26)), int(random.integers(8, 26)))
    shape = (grid[0], grid[1] * step + int(random.integers(0, step)), grid[2] * step)

    def smooth(deviation: float) -> np.ndarray:
        values = ndimage.gaussian_filter(random.normal(size=grid), deviation)
        return (values / values.std()).reshape(-1)

    places = np.flatnonzero(smooth(3) > -1)
    nested = [smooth(1.5) * 3 - 1]
    while len(nested) < len(GLIOMA_REGIONS):
        nested.append(np.minimum(nested[-1], smooth(1) * 3 - 1))
    logits = np.stack([*nested, *(smooth(1) * 3 - 3 for _ in regions[len(GLIOMA_REGIONS) :])], 1)[places]
    features = CaseFeatures(
        regions=tuple(regions),
        shape=shape,
        spacing=(float(random.uniform(1, 6)), 1.0, 1.0),
        grid=grid,
        start=(0.0, (step - 1) / 2 + 0.07, (step - 1) / 2 - 0.04),  # so that nothing lies exactly between
        step=(1.0, float(step), float(step)),
        places=places,
        logits=logits.astype(np.float32),
        values=np.stack([smooth(1) for _ in range(6)], 1)[places].astype(np.float16),
    )
    known = [0, 0, 0, *(region.label for region in regions), 77]
    labels = random.choice(known, grid).astype(np.uint8).repeat(step, 1).repeat(step, 2)
    return features, np.pad(labels, ((0, 0), (0, shape[1] - labels.shape[1]), (0, 0)))


def draw_strokes(features: CaseFeatures, seed: int) -> list[Stroke]:
    random = np.random.default_rng(seed)
    names = [*(region.name for region in features.regions), None]
    strokes = []
    for _ in range(int(random.integers(1, 5))):
        ends = random.uniform(0, np.array(features.shape) - 1, (2, 3))
        ends[1, 0] = ends[0, 0]
        region = names[int(random.integers(len(names)))]
        points = tuple(tuple(map(float, end)) for end in ends)
        strokes.append(Stroke(region, points, float(random.uniform(0, 3)), bool(random.integers(2))))
    return strokes


def move_plainly(features: CaseFeatures, base: np.ndarray, strokes: list[Stroke]) -> tuple[np.ndarray, np.ndarray]:
    """Return the squeezed logits before and after, of all voxels: every one is compared with the strokes."""
    evidence = gather_evidence(features, strokes)
    before = squeeze(base)
    after = before.copy()
    if not len(evidence.rows):
        return before, after
    sampled = choose_samples(features, evidence.rows, evidence.says, evidence.stroke)
    compared = Likeness(features, before, sampled)
    every = np.arange(len(before))
    for region in np.flatnonzero(sampled.says.any(0)):
        alike = compared.compare(sampled.rows, [region])[0]
        move = _solve(alike, sampled, region, before[sampled.rows, region])
        after[:, region] += compared.compare(every, [region])[0] @ move
    flips = ((before > 0) != (after > 0)) & (np.abs(after) > LEAST_CHANGE)
    for region in range(before.shape[1]):
        said = evidence.rows[evidence.says[:, region] != 0]
        marked = np.zeros(features.grid, bool)
        marked.reshape(-1)[features.places] = flips[:, region]
        marked.reshape(-1)[features.places[said]] = True
        parts = ndimage.label(marked, np.ones((3, 3, 3)))[0].reshape(-1)[features.places]
        flips[:, region] &= np.isin(parts, parts[said])
    np.copyto(after, before, where=~flips & ((before > 0) != (after > 0)))
    return before, after


def paint_plainly(features: CaseFeatures, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return region depth in which all voxels are decided that lie in the box around what flips."""
    depth = depth_of_labels(labels, features.regions)
    flips = np.zeros(features.grid, bool)
    flips.reshape(-1)[features.places] = ((before > 0) != (after > 0)).any(1)
    if not flips.any():
        return depth
    ends = [(max(0, hit.min() - 1), min(n, hit.max() + 2)) for hit, n in zip(flips.nonzero(), flips.shape, strict=True)]
    box = tuple(slice(*end) for end in ends)
    at = []
    for (first, stop), start, step, size in zip(ends, features.start, features.step, features.shape, strict=True):
        where = (np.arange(size) - start) / step
        at.append((np.flatnonzero((where >= first - 0.5) & (where <= stop - 0.5)), first, start, step))
    voxels = np.meshgrid(*(each[0] for each in at), indexing="ij")
    where = [(v - start) / step - first for v, (_, first, start, step) in zip(voxels, at, strict=True)]
    where[0] = np.rint(where[0])

    def enlarge(values: np.ndarray) -> np.ndarray:
        whole = np.full(features.grid, -12.0)
        whole.reshape(-1)[features.places] = values
        return ndimage.map_coordinates(whole[box], where, order=1, mode="nearest")

    here = depth[np.ix_(*(each[0] for each in at))]
    inside = []
    differs = np.zeros(here.shape, bool)
    for place, (one, other) in enumerate(zip(before.T, after.T, strict=True), start=1):
        was, now = enlarge(one) > 0, enlarge(other) > 0
        held = (here >= place) & (here <= features.nested) if place <= features.nested else here == place
        inside.append(np.where(was != now, now, held))
        differs |= was != now
    new = np.logical_and.accumulate(inside[: features.nested]).sum(0)
    for place in range(features.nested + 1, len(inside) + 1):
        new[inside[place - 1]] = place
    depth[np.ix_(*(each[0] for each in at))] = np.where(differs & (here != OTHER), new, here)
    return depth


def paint_labels(features: CaseFeatures, labels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return np.where(depth == OTHER, labels, labels_of_depth(np.where(depth == OTHER, 0, depth), features.regions))


@pytest.mark.parametrize("seed", range(20))
def test_a_stroke_changes_what_it_would_if_every_voxel_were_looked_at(seed):
    features, labels = make_case(seed)
    strokes = draw_strokes(features, seed)
    z, y, x = features.find_indices()
    depth = depth_of_labels(labels, features.regions)[np.ix_(z, y, x)].reshape(-1)[features.places]
    wanted = paint_plainly(features, labels, *move_plainly(features, agree(features, depth), strokes))
    enforce(wanted, features, strokes)
    corrected = correct(features, labels, strokes)
    assert np.array_equal(corrected.labels, paint_labels(features, labels, wanted))
    assert (corrected.labels != labels).any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shift", [-3.5, -0.5, 1.0, 4.0])
def test_a_threshold_decides_as_if_every_voxel_were_looked_at(seed, shift):
    features, labels = make_case(seed)
    number = seed % len(features.regions)
    moved = features.logits.copy()
    moved[:, number] += np.float32(shift)
    wanted = paint_plainly(features, labels, features.logits, moved)
    shifted = shift_region(features, labels, features.regions[number].name, shift)
    assert np.array_equal(shifted.labels, paint_labels(features, labels, wanted))
