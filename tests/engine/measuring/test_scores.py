"""All scores against MONAI, and against plain loops over voxels, on masks of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import default_grid, grid_from_affine
from napari_braintumor.engine.measuring.metrics import hd95_mm, surface_dice, volume_dice
from napari_braintumor.engine.measuring.scores import list_scores, score_labels, score_regions
from napari_braintumor.engine.volumes import Reference

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (0.7, 1.3, 2.1)]
Pair = tuple[np.ndarray, np.ndarray]


def make_pairs() -> dict[str, Pair]:
    random = np.random.default_rng(0)
    one, other = np.zeros((9, 11, 10), np.bool_), np.zeros((9, 11, 10), np.bool_)
    single = one.copy()
    single[4, 5, 6] = True
    moved = np.roll(single, 2, axis=1)
    one[2:5, 2:6, 2:6], other[5:8, 2:6, 2:6] = True, True
    inside = one.copy()
    inside[3, 3, 3] = False
    noise = random.random((9, 11, 10)) < 0.3, random.random((9, 11, 10)) < 0.4
    return {
        "touching": (one, other),
        "overlapping": (one, np.roll(one, 1, axis=2)),
        "the same": (one, one),
        "one hole": (one, inside),
        "single voxels": (single, moved),
        "a voxel and a block": (single, one),
        "noise": noise,
        "full": (np.ones_like(one), one),
        "at the edge": (np.roll(one, (-2, -2, -2), (0, 1, 2)), one),
    }


PAIRS = make_pairs()


def find_surface(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Voxels with a face neighbor outside, looked up one by one."""
    found = []
    for z, y, x in np.argwhere(mask):
        for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            place = (z + step[0], y + step[1], x + step[2])
            if not all(0 <= p < size for p, size in zip(place, mask.shape, strict=True)) or not mask[place]:
                found.append((int(z), int(y), int(x)))
                break
    return found


def find_distances(of: np.ndarray, to: np.ndarray, spacing: tuple[float, float, float]) -> list[float]:
    scaled = np.array(find_surface(to)) * spacing
    return [float(np.sqrt(((np.array(place) * spacing - scaled) ** 2).sum(axis=1).min())) for place in find_surface(of)]


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("kind", PAIRS)
def test_scores_agree_with_plain_loops(kind: str, spacing: tuple[float, float, float]) -> None:
    prediction, reference = PAIRS[kind]
    grid = default_grid(prediction.shape, spacing)
    there, back = find_distances(prediction, reference, spacing), find_distances(reference, prediction, spacing)
    assert hd95_mm(prediction, reference, grid) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    for tolerance in (0.5, 1.0, 2.0):
        near = sum(distance <= tolerance + 1e-9 for distance in there + back)
        expected = near / len(there + back)
        assert surface_dice(prediction, reference, grid, tolerance) == pytest.approx(expected, abs=1e-9)
    common = sum(bool(a and b) for a, b in zip(prediction.ravel(), reference.ravel(), strict=True))
    assert volume_dice(prediction, reference) == pytest.approx(2 * common / (prediction.sum() + reference.sum()))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # inside MONAI
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("kind", PAIRS)
def test_scores_agree_with_monai(kind: str, spacing: tuple[float, float, float]) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    prediction, reference = PAIRS[kind]
    grid = default_grid(prediction.shape, spacing)
    ours, theirs = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, reference))
    assert volume_dice(prediction, reference) == pytest.approx(float(compute_dice(ours, theirs)), abs=1e-6)
    distance = compute_hausdorff_distance(ours, theirs, include_background=True, percentile=95, spacing=[*spacing])
    assert hd95_mm(prediction, reference, grid) == pytest.approx(float(distance), rel=1e-6, abs=1e-6)
    share = compute_surface_dice(ours, theirs, [1.0], include_background=True, spacing=[*spacing])
    assert surface_dice(prediction, reference, grid, 1.0) == pytest.approx(float(share), abs=1e-6)


def test_empty_masks_have_defined_scores() -> None:
    block, nothing = PAIRS["touching"][0], np.zeros((9, 11, 10), np.bool_)
    grid = default_grid(block.shape)
    assert surface_dice(nothing, nothing, grid) == 1
    assert surface_dice(block, nothing, grid) == surface_dice(nothing, block, grid) == 0
    both = score_regions({"whole tumor": nothing}, {"whole tumor": nothing}, grid)["whole tumor"]
    assert (both["dice"], both["hd95_mm"], both["lesion_dice_2023"], both["lesions"]) == (1, 0, 1, 0)


def test_each_region_has_each_score() -> None:
    one, other = PAIRS["overlapping"]
    grid = default_grid(one.shape, (2.0, 1.0, 1.0))
    regions = {"whole tumor": one, "resection cavity": other}
    scores = score_regions({**regions, "tumor core": one}, regions, grid)
    assert list(scores) == ["whole tumor", "resection cavity"]
    assert list(scores["whole tumor"]) == [each.name for each in list_scores()]
    assert np.isnan(scores["resection cavity"]["lesion_dice_2023"])  # the rules of 2023 know no cavity
    assert scores["resection cavity"]["lesion_dice_2024"] == 1
    assert [each.show(scores["resection cavity"][each.name]) for each in list_scores() if "2023" in each.name] == [
        ""
    ] * 5


def test_missed_and_false_lesions_and_the_difference_in_volume_are_counted() -> None:
    reference, prediction = np.zeros((8, 30, 30), np.bool_), np.zeros((8, 30, 30), np.bool_)
    reference[2:4, 2:4, 2:4] = reference[2:4, 20:22, 2:4] = True
    prediction[2:4, 2:4, 2:5] = prediction[5, 25, 25] = prediction[5, 25, 10] = True
    values = score_regions({"core": prediction}, {"core": reference}, default_grid(reference.shape))["core"]
    assert (values["lesions"], values["missed_lesions"], values["false_lesions"]) == (2, 1, 2)
    assert values["difference_ml"] == pytest.approx(-0.002)


def test_scores_do_not_depend_on_the_empty_space_around() -> None:
    one, other = PAIRS["overlapping"]
    grid = default_grid(one.shape)
    near = score_regions({"whole tumor": one}, {"whole tumor": other}, grid)
    far = score_regions({"whole tumor": np.pad(one, 20)}, {"whole tumor": np.pad(other, 20)}, grid)
    assert near["whole tumor"] == pytest.approx(far["whole tumor"])


def test_labels_on_another_grid_are_refused() -> None:
    mask = PAIRS["the same"][0]
    one = Reference({"whole tumor": mask}, "whole", default_grid(mask.shape))
    far = one.source.affine.copy()
    far[:3, 3] += 30
    other = Reference({"whole tumor": mask}, "whole", grid_from_affine(mask.shape, far))
    with pytest.raises(DataError, match="Resample the labels to the grid of the reference first"):
        score_labels(one, other)


def test_labels_of_other_regions_are_refused() -> None:
    mask = PAIRS["the same"][0]
    one = Reference({"tumor core": mask}, "core", default_grid(mask.shape))
    other = Reference({"whole tumor": mask}, "whole", default_grid(mask.shape))
    with pytest.raises(
        DataError, match=r"The labels define tumor core, the reference whole tumor: none of these is the same"
    ):
        score_labels(one, other)
