"""Made-up cases: a ball of a head with a ball of a tumor, on disk and in memory; and a model trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from napari_braintumor.engine import train
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.volumes import Reference, Volume

SHAPE = (12, 72, 64)


def make_case(
    seed: int, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = (3, 1, 1)
) -> tuple[Volume, Reference]:
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = (z / 0.95) ** 2 + (y / 0.8) ** 2 + (x / 0.75) ** 2 < 1
    center = random.uniform(-0.3, 0.3, 3)
    distance = np.sqrt((0.5 * (z - center[0])) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2)
    whole, core, enhancing = (distance < 0.34) & head, distance < 0.24, (distance < 0.24) & (distance > 0.14)
    brightness = {"T1": -25 * core, "T1ce": 60 * enhancing, "T2": 50 * whole, "FLAIR": 60 * (whole & ~core) + 30 * core}
    data = np.stack([(100 + brightness[m] + random.normal(0, 6, shape)) * head for m in MODALITIES]).astype(np.float32)
    grid = default_grid(shape, spacing)
    regions = {"whole tumor": whole, "tumor core": core & head, "enhancing tumor": enhancing & head}
    return Volume(data, MODALITIES, grid, f"case{seed}"), Reference(regions, "brats2023", grid)


def add_skull(image_ZYX: np.ndarray, noise: float = 5.0, bone_vox: float = 2.0, scalp_vox: float = 2.0) -> np.ndarray:
    """Put a stripped brain into a head: dark bone, a scalp as bright as the brain, and air that is not blank."""
    brain = image_ZYX > 0
    air = np.abs(np.random.default_rng(1).normal(0, noise, image_ZYX.shape))
    beyond = np.stack(
        [ndimage.distance_transform_edt(~plane) if plane.any() else np.full(plane.shape, 1e3) for plane in brain]
    )
    scalp = (beyond > bone_vox) & (beyond <= bone_vox + scalp_vox)
    head = np.where(scalp, np.median(image_ZYX[brain]), np.where(brain, image_ZYX, air))
    return head.astype(np.float32)


def write_case(folder: Path, volume: Volume, reference: Reference | None = None) -> Path:
    """Write a case as NIfTI files as BraTS names them, and return its folder."""
    case = folder / volume.name
    case.mkdir(parents=True)
    arrays = dict(zip(("t1", "t1ce", "t2", "flair"), volume.data, strict=True))
    if reference is not None:
        arrays["seg_brats2023"] = reference.labels
    for name, array in arrays.items():
        nib.save(
            nib.Nifti1Image(volume.source.to_source(array), volume.source.affine), case / f"{volume.name}_{name}.nii.gz"
        )
    return case


def segment_plainly(volume, path: Path) -> np.ndarray:
    """The slow, obvious way: all slices of the whole frame, one at a time, eager float32, no crop, no runtime."""
    import torch
    from scipy import ndimage

    from napari_braintumor.engine.models.model_file import load_weights, read_card
    from napari_braintumor.engine.models.registry import build_network, find_architecture
    from napari_braintumor.engine.preparing.context import take_images
    from napari_braintumor.engine.preparing.prepare import prepare_for
    from napari_braintumor.engine.segmenting.regions import BACKGROUND_LOGIT, nest_logits, restore_slices

    card = read_card(path)
    network = build_network(card.architecture, in_channels=len(card.inputs), out_channels=3, options=card.options)
    network.load_state_dict(load_weights(path))
    network.eval()
    prepared = prepare_for(card, volume, find_architecture(card.architecture).divisor, crop=False)
    regions = np.zeros((3, *volume.shape), bool)
    with torch.no_grad():
        for z in range(volume.shape[0]):
            logits = network(torch.from_numpy(take_images(prepared, np.array([z])).swapaxes(0, 1)))
            logits = nest_logits(logits).masked_fill(torch.from_numpy(~prepared.foreground[z]), BACKGROUND_LOGIT)
            regions[:, z] = (restore_slices(prepared, logits.transpose(0, 1))[:, 0] > 0).numpy()
    parts, count = ndimage.label(regions.any(0), np.ones((3, 3, 3)))
    sizes_ml = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(volume.spacing)) / 1000
    regions &= (sizes_ml >= card.min_volume_ml)[parts]
    for index, region in enumerate(card.regions):
        if regions[index].sum() * float(np.prod(volume.spacing)) / 1000 < region.least_ml:
            regions[index:] = False  # so little of it counts as the region around it
    labels = np.zeros(volume.shape, np.uint8)
    for mask, region in zip(regions, card.regions, strict=True):
        labels[mask] = region.label
    return labels


@pytest.fixture
def make_volume() -> Callable[..., tuple[Volume, Reference]]:
    return make_case


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight made-up cases on disk."""
    folder = tmp_path_factory.mktemp("cases")
    for seed in range(8):
        write_case(folder, *make_case(seed))
    return folder


@pytest.fixture(scope="session")
def toy_plan(case_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainPlan:
    """A training that takes seconds."""
    return TrainPlan(
        name="toy",
        cases=(case_folder,),
        output=tmp_path_factory.mktemp("runs"),
        validation=("case6",),
        held_out=("case7",),
        options={"width": 4, "dropout": 0.0},
        patch=(64, 64),
        augmentation="light",
        epochs=3,
        steps_per_epoch=40,
        batch_size=6,
        learning_rate=0.01,
        averaging=0.9,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="session")
def trained(toy_plan: TrainPlan) -> list:
    """The events of one toy training."""
    return list(train(toy_plan))


@pytest.fixture(scope="session")
def toy_model(trained: list) -> Path:
    """The file of a model trained on the made-up cases."""
    return trained[-1].path


@pytest.fixture(scope="session")
def context_model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, but it also takes half as much of the slices 3 mm above and below."""
    import torch

    from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model

    card = read_card(toy_model).model_copy(update={"context_mm": 3.0})
    weights = load_weights(toy_model)
    own = weights["down.0.0.weight"]
    weights["down.0.0.weight"] = torch.cat([own * 0.5, own * 0.25, own * 0.25], dim=1)
    return save_model(tmp_path_factory.mktemp("context") / "toy.safetensors", weights, card)
