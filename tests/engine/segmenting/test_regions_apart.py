"""A region that does not nest, such as a resection cavity, is painted over those that do, and measured by itself."""

import sys
from dataclasses import replace
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from napari_braintumor.engine import evaluate, segment, train
from napari_braintumor.engine.anatomy import (
    CAVITY,
    CORE,
    ENHANCING,
    GLIOMA_REGIONS,
    MODALITIES,
    REGION_NAMES,
    REGIONS,
    WHOLE,
)
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.events import CaseEvaluated
from napari_braintumor.engine.exchange.monai.writing import export
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_reference
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models import registry
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import read_card, save_model
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.segmenting.cleaning import count_voxels, drop_small_regions, leave_out, paint_labels
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from napari_braintumor.engine.volumes import Volume

SHAPE = (12, 72, 64)
LABELS = {WHOLE: 2, CORE: 1, ENHANCING: 3, CAVITY: 4}


class Pointwise(nn.Module):
    """A voxel lies in a region where the modality of the same number is bright."""

    def __init__(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.layer = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture(params=[2, 3], ids=["slices", "volume"])
def model(request, tmp_path, monkeypatch):
    """A tiny model with a cavity on its card."""
    module = ModuleType("toy.pointwise")
    module.Pointwise = Pointwise
    monkeypatch.setitem(sys.modules, "toy.pointwise", module)
    known = registry.IMPORTED["buda_unet"]
    row = replace(known, target="toy.pointwise:Pointwise", spatial_dims=(2, 3), convertible=False, signature=None)
    monkeypatch.setitem(registry.IMPORTED, "pointwise", row)
    dims = request.param
    card = ModelCard(
        name="apart", architecture="pointwise", regions=REGIONS, spatial_dims=dims,
        window=(16, 32, 32) if dims == 3 else None,
    )  # fmt: skip
    weights = {"layer.weight": 5 * torch.eye(4).reshape(4, 4, *[1] * dims), "layer.bias": torch.full((4,), -5.0)}
    return save_model(tmp_path / "apart.safetensors", weights, card)


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    distance = np.sqrt((0.5 * z) ** 2 + y**2 + x**2)
    cavity = np.sqrt((0.5 * z) ** 2 + (y - 0.25) ** 2 + x**2) < 0.16
    return {WHOLE: distance < 0.34, CORE: distance < 0.24, ENHANCING: distance < 0.15, CAVITY: cavity}


@pytest.fixture
def volume(masks) -> Volume:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    head = (z / 0.95) ** 2 + (y / 0.8) ** 2 + (x / 0.75) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 3, (4, *SHAPE))
    data = np.stack([(100 + 90 * mask) * head for mask in masks.values()]) + noise * head
    return Volume(data.astype(np.float32), MODALITIES, default_grid(SHAPE, (3, 1, 1)), "operated")


@pytest.fixture
def painted(masks) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for name, mask in masks.items():
        labels[mask] = LABELS[name]
    return labels


@pytest.fixture
def operated(volume, painted, tmp_path):
    """The case on disk, its mask numbered as BraTS 2024 does."""
    folder = tmp_path / "cases" / volume.name
    folder.mkdir(parents=True)
    arrays = dict(zip(("t1", "t1ce", "t2", "flair"), volume.data, strict=True)) | {"seg_brats2024": painted}
    for name, array in arrays.items():
        image = nib.Nifti1Image(volume.source.to_source(array), volume.source.affine)
        nib.save(image, folder / f"{volume.name}_{name}.nii.gz")
    return folder


def test_a_cavity_is_painted_over_the_tumor_and_each_has_its_own_volume(model, volume, masks, painted) -> None:
    settings = SegmentConfig(model=str(model), device="cpu", runtime="torch", min_volume_ml=0, probabilities=True)
    result = list(segment(volume, settings))[-1].segmentation
    np.testing.assert_array_equal(result.labels, painted)
    voxel_ml = volume.source.voxel_ml
    for name in (WHOLE, CORE, ENHANCING):
        assert result.volumes_ml[name] == pytest.approx((masks[name] & ~masks[CAVITY]).sum() * voxel_ml)
        np.testing.assert_array_equal(result.mask_of(name), masks[name] & ~masks[CAVITY])
    assert result.volumes_ml[CAVITY] == pytest.approx(masks[CAVITY].sum() * voxel_ml)
    counted = {label: pytest.approx((painted == label).sum() * voxel_ml) for label in LABELS.values()}
    assert result.label_volumes_ml == counted
    np.testing.assert_array_equal(result.probabilities[0] > 0.5, masks[WHOLE])  # what lies beneath is still known


def test_a_cavity_far_from_the_largest_tumor_stays_when_only_that_is_kept(model, volume) -> None:
    data = volume.data.copy()
    data[3] = np.where(volume.data[0] > 0, 100, 0)
    data[3, 5:8, 48:54, 40:46] = 190
    data[0, 5:7, 20:23, 20:23] = 190
    settings = SegmentConfig(model=str(model), device="cpu", runtime="torch", min_volume_ml=0, keep_largest=True)
    result = list(segment(Volume(data, MODALITIES, volume.source), settings))[-1].segmentation
    assert (result.labels[5:8, 48:54, 40:46] == 4).all()
    assert not result.labels[5:7, 20:23, 20:23].any()


def test_a_model_with_a_cavity_is_measured_against_masks_of_brats_2024(model, operated) -> None:
    (case,) = find_cases(operated)
    assert tuple(read_reference(case).regions) == REGION_NAMES
    segmentation = SegmentConfig(model=str(model), device="cpu", runtime="torch", min_volume_ml=0)
    (result,) = (e for e in evaluate([case], EvaluateConfig(segmentation=segmentation)) if isinstance(e, CaseEvaluated))
    assert result.dice == dict.fromkeys(REGION_NAMES, 1.0)


@pytest.mark.slow
def test_a_cavity_can_be_trained(toy_plan, operated, tmp_path) -> None:
    plan = toy_plan.model_copy(
        update={
            "cases": (operated,), "output": tmp_path, "regions": REGION_NAMES, "epochs": 1, "steps_per_epoch": 2,
            "validation": 0.3, "split_by": "slice", "held_out": (),
        }
    )  # fmt: skip
    assert read_card(list(train(plan))[-1].path).regions == REGIONS


def test_what_is_small_or_not_measurable_beside_the_nested_regions_is_left_out_by_itself() -> None:
    whole, core, enhancing, cavity = REGIONS
    regions = (whole, core.model_copy(update={"least_ml": 5}), enhancing, cavity.model_copy(update={"least_ml": 5}))
    card, depth = ModelCard(name="a", architecture="unet", regions=regions), np.array([[[0, 1, 2, 3, 4]]], np.uint8)
    assert count_voxels(depth, card) == [3, 2, 1, 1]
    dropped = depth.copy()
    drop_small_regions(dropped, card, voxel_ml=1.0)
    assert dropped.ravel().tolist() == [0, 1, 1, 1, 0]
    leave_out(depth, card, [CAVITY])
    paint_labels(depth, card)
    assert depth.ravel().tolist() == [0, 2, 1, 3, 0]


def test_a_card_states_regions_in_the_order_in_which_they_are_painted() -> None:
    with pytest.raises(ValueError, match="must come after the nested ones"):
        ModelCard(name="a", architecture="unet", regions=(REGIONS[-1], *GLIOMA_REGIONS))


def test_a_bundle_for_monai_refuses_a_region_that_does_not_nest(model, tmp_path) -> None:
    with pytest.raises(ModelError, match="'apart' has a region that is not nested"):
        export(ModelStore().find(str(model)), tmp_path / "bundle")
