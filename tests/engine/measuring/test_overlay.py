from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, labels_by_region
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.measuring.metrics import region_volume_ml
from napari_braintumor.engine.measuring.overlay import choose_slices, save_overlay
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume

REGIONS = labels_by_region(GLIOMA_REGIONS)
COLORS = {2: "#4fae5b", 1: "#d64550", 3: "#f2c14e"}


def make_volume(shape=(12, 40, 32), spacing=(3.0, 1.0, 1.0), modalities=("T1", "FLAIR", "T1ce")) -> Volume:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = (z**2 + y**2 + x**2 < 0.9).astype(np.float32)
    data = np.stack([head * (100 + 40 * np.cos(9 * k * x + 7 * y)) for k in range(len(modalities))])
    return Volume(data.astype(np.float32), modalities, default_grid(shape, spacing), "synthetic")


def make_segmentation(volume: Volume, radius: float = 0.45) -> Segmentation:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape), indexing="ij")
    distance = np.sqrt(z**2 + (y - 0.2) ** 2 + (x + 0.2) ** 2)
    labels = np.zeros(volume.shape, np.uint8)
    for label, share in ((2, 1.0), (3, 0.6), (1, 0.3)):
        labels[distance < radius * share] = label
    return Segmentation(
        labels,
        {2: "edema", 1: "necrotic core", 3: "enhancing tumor"},
        COLORS,
        REGIONS,
        {region: region_volume_ml(np.isin(labels, made), volume.source) for region, made in REGIONS.items()},
        volume.source,
        volume.name,
    )


def make_reference(segmentation: Segmentation) -> Reference:
    moved = np.roll(segmentation.labels, 2, axis=2)
    regions = {name: np.isin(moved, made) for name, made in REGIONS.items()}
    return Reference(regions, "BraTS 2023", segmentation.source)


def count_pixels(path: Path, color: str, tolerance: float = 0.02) -> int:
    wanted = matplotlib.colors.to_rgb(color)
    picture = matplotlib.image.imread(path)[..., :3]
    return int((np.abs(picture - wanted).max(axis=-1) < tolerance).sum())


def test_an_overlay_shows_every_label_in_its_color(tmp_path):
    volume = make_volume()
    save_overlay(volume, make_segmentation(volume), tmp_path / "new" / "overlay.png")
    for color in COLORS.values():
        assert count_pixels(tmp_path / "new" / "overlay.png", color) > 50


def test_an_overlay_without_tumor_is_drawn_too(tmp_path):
    volume = make_volume()
    save_overlay(volume, make_segmentation(volume, radius=0), tmp_path / "overlay.png")
    assert matplotlib.image.imread(tmp_path / "overlay.png").shape[1] > 500


def test_a_reference_is_outlined_in_blue(tmp_path):
    volume = make_volume()
    segmentation = make_segmentation(volume)
    save_overlay(volume, segmentation, tmp_path / "without.png")
    save_overlay(volume, segmentation, tmp_path / "with.png", make_reference(segmentation))
    assert count_pixels(tmp_path / "without.png", "#35d0ff") == 0
    assert count_pixels(tmp_path / "with.png", "#35d0ff") > 100


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.0)])
def test_a_pixel_is_as_tall_as_its_spacing_says(tmp_path, spacing):
    volume = make_volume((3, 40, 40), spacing, ("FLAIR",))
    save_overlay(volume, make_segmentation(volume, radius=0), tmp_path / "overlay.png")
    picture = matplotlib.image.imread(tmp_path / "overlay.png")[..., :3]
    black = (picture < 0.01).all(axis=-1)  # the air around the head; the paper is lighter
    rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
    first = columns[: np.flatnonzero(np.diff(columns) > 1)[0] + 1] if (np.diff(columns) > 1).any() else columns
    assert (rows[-1] - rows[0]) / (first[-1] - first[0]) == pytest.approx(spacing[1], rel=0.05)


def test_a_volume_with_one_unknown_modality_and_one_slice_is_drawn(tmp_path):
    volume = make_volume((1, 20, 20), modalities=("PD",))
    save_overlay(volume, make_segmentation(volume), tmp_path / "overlay.png")
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_the_slices_with_most_tumor_are_chosen_a_little_apart():
    tumor = np.zeros((40, 10, 10), bool)
    for z in range(10, 34):
        tumor[z, : 1 + min(z - 10, 33 - z) // 2] = True
    chosen = choose_slices(tumor)
    assert len(chosen) == 3
    assert chosen == sorted(chosen)
    assert min(np.diff(chosen)) >= 4
    assert tumor[chosen].sum(axis=(1, 2)).max() == tumor.sum(axis=(1, 2)).max()


def test_a_tumor_in_one_slice_gives_one_slice():
    tumor = np.zeros((9, 4, 4), bool)
    tumor[5] = True
    assert choose_slices(tumor) == [5]


def test_slices_are_evenly_spaced_where_there_is_no_tumor():
    assert choose_slices(np.zeros((100, 4, 4), bool)) == [25, 50, 75]
    assert choose_slices(np.zeros((1, 4, 4), bool)) == [0]


@pytest.mark.parametrize("name", ["pays $5 and $x^2$", "broken $\\frac", "张伟", "pat[old]"])
def test_a_name_is_drawn_as_it_stands_whatever_is_in_it(tmp_path, name):
    volume = replace(make_volume((1, 20, 20), modalities=("FLAIR",)), name=name)
    save_overlay(volume, make_segmentation(volume), tmp_path / "overlay.png")
    assert matplotlib.image.imread(tmp_path / "overlay.png").shape[1] > 500
