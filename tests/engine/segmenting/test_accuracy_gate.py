"""What makes the program fast must not change what it finds: everything as users run it, against the plain way."""

from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine import segment
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume, Volume
from toy_cases import segment_plainly

LEAST_DICE = 0.999
MODELS = ("glioma-u2net", "glioma-res-unet", "glioma-unet")


def dice_with_the_plain_way(volume: Volume, model: str, *others: StreamedVolume) -> list[float]:
    """Return the Dice of every label, of the volume as it is and of the same volume in other forms."""
    plain = segment_plainly(volume, ModelStore().find(model).path)
    assert (plain > 0).sum() > 1000
    found = []
    for given in (volume, *others):
        *_, last = segment(given, SegmentConfig(model=model, device="cpu"))
        labels = np.asarray(last.segmentation.labels)
        found += [volume_dice(labels == label, plain == label) for label in (1, 2, 3)]
    return found


@pytest.mark.parametrize("model", [pytest.param(model, marks=pytest.mark.slow) for model in MODELS[:-1]] + [MODELS[-1]])
def test_the_fast_way_finds_on_the_sample_case_what_the_plain_way_finds(model: str) -> None:
    volume = read_case(find_cases(sample_folder())[0])
    streamed = StreamedVolume(tuple(volume.data), volume.modalities, volume.source, slab_slices=32)
    assert min(dice_with_the_plain_way(volume, model, streamed)) >= LEAST_DICE


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "model"),
    [
        pytest.param("brats/BraTS2021_00024", "glioma-u2net", marks=pytest.mark.slow),
        ("lgg/TCGA_CS_4941_19960909", "glioma-u2net"),
        pytest.param("brats/BraTS2021_00002", "glioma-unet", marks=pytest.mark.slow),
        ("lgg/TCGA_CS_6669_20020102", "glioma-res-unet"),
    ],
)
def test_the_fast_way_finds_on_real_cases_what_the_plain_way_finds(real_data: Path, case: str, model: str) -> None:
    volume = read_case(find_cases(real_data / case)[0])
    assert min(dice_with_the_plain_way(volume, model)) >= LEAST_DICE
