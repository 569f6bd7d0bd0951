"""A model that goes out and comes back in gives the same labels on the sample case, whatever it traveled as."""

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_braintumor.engine import segment
from napari_braintumor.engine.exchange import KINDS, SUFFIXES, export_model, import_model
from napari_braintumor.engine.exchange._example import make_example
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import load_weights, save_model
from napari_braintumor.engine.models.registry import ARCHITECTURES, build_network
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Segmentation, Volume

SMALL = {
    **{"unet": {"width": 4}, "res_unet": {"width": 4}},
    **{f"fcn{stride}s": {"width": 8, "trunk_width": 4} for stride in (8, 16, 32)},
}


def case(name: str, kind: str, *more: int) -> object:
    """Of the slow ones the quick suite takes a few."""
    quick = (name == "unet" and kind != "onnx") or (name == "glioma-unet" and kind == "safetensors")
    return pytest.param(name, kind, *more, marks=() if quick else pytest.mark.slow)


CASES = [case(name, kind, dims) for name, row in ARCHITECTURES.items() for dims in row.spatial_dims for kind in KINDS]
BUNDLED = [case(name, kind) for name in ("glioma-unet", "glioma-res-unet", "glioma-u2net") for kind in KINDS]


@pytest.fixture(scope="module")
def sample() -> Volume:
    return read_case(find_cases(sample_folder())[0])


def make_model(folder: Path, architecture: str, dims: int, context_mm: float | None = None) -> StoredModel:
    """A network that learned nothing, at a spacing at which it is quick."""
    torch.manual_seed(1)
    options = SMALL.get(architecture, {})
    card = ModelCard(
        name="traveler", architecture=architecture, options=options, spatial_dims=dims, license="CC0-1.0",
        spacing=(None, 4.0, 4.0) if dims == 2 else (4.0, 4.0, 4.0), window=(32, 64, 64) if dims == 3 else None,
        context_mm=context_mm,
    )  # fmt: skip
    network = build_network(
        architecture, in_channels=len(card.inputs), out_channels=3, spatial_dims=dims, options=options
    ).eval()
    layer = [each for each in network.modules() if getattr(each, "out_channels", 0) == 3][-1]
    with torch.no_grad():  # small logits, or probabilities are 0 and 1
        largest = network(torch.from_numpy(make_example(card))).abs().max()
        for own in layer.parameters():
            own /= largest
    return ModelStore().find(save_model(folder / "traveler.safetensors", network.state_dict(), card))


def result_of(volume: Volume, model: StoredModel, **more: object) -> Segmentation:
    settings = {"device": "cpu", "min_volume_ml": 0.0, "search_step_mm": 0.0, **more}
    *_, last = segment(volume, SegmentConfig.model_validate({"model": str(model.path), **settings}))
    return last.segmentation


def least_dice(labels: np.ndarray, others: np.ndarray) -> float:
    return min(volume_dice(labels == label, others == label) for label in (1, 2, 3) if (labels == label).any())


@pytest.mark.usefixtures("converted_here")
@pytest.mark.parametrize(("architecture", "kind", "dims"), CASES)
def test_every_architecture_comes_back_with_the_same_labels(
    sample: Volume, tmp_path: Path, architecture: str, kind: str, dims: int
) -> None:
    travel(sample, tmp_path, make_model(tmp_path, architecture, dims), kind)


@pytest.mark.usefixtures("converted_here")
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "monai" else pytest.mark.slow) for kind in KINDS]
)
def test_a_network_that_sees_the_slices_above_and_below_comes_back_with_the_same_labels(
    sample: Volume, tmp_path: Path, kind: str
) -> None:
    assert travel(sample, tmp_path, make_model(tmp_path, "unet", 2, 3.0), kind).context_mm == 3.0


def travel(sample: Volume, tmp_path: Path, model: StoredModel, kind: str) -> ModelCard:
    """Export a model, import it again, compare the labels, and return the card that came back."""
    probabilities = result_of(sample, model, probabilities=True).probabilities
    assert probabilities is not None
    head = sample.data.any(0)
    threshold = float(np.quantile(probabilities[0][head].astype(np.float32), 0.7))  # that there is something to compare
    labels = result_of(sample, model, threshold=threshold).labels
    assert 0.1 < (labels[head] > 0).mean() < 0.9
    path = export_model(model, kind, tmp_path / f"traveler-out{SUFFIXES[kind]}")
    again = import_model(path, store=ModelStore(tmp_path / "store"))
    others = result_of(sample, again, threshold=threshold).labels
    if kind == "onnx":
        assert least_dice(labels, others) >= 0.9999
    else:
        assert np.array_equal(labels, others)
    assert again.card is not None
    return again.card


@pytest.mark.parametrize(("name", "kind"), BUNDLED)
@pytest.mark.usefixtures("converted_here")
def test_bundled_models_come_back_with_the_same_labels(sample: Volume, tmp_path: Path, name: str, kind: str) -> None:
    bundled = ModelStore().find(name)
    assert bundled.card is not None
    mine = save_copy(bundled, tmp_path)
    labels = result_of(sample, mine).labels
    path = export_model(mine, kind, tmp_path / f"out{SUFFIXES[kind]}")
    others = result_of(sample, import_model(path, store=ModelStore(tmp_path / "store"))).labels
    assert (labels > 0).any()
    if kind == "onnx":
        assert least_dice(labels, others) >= 0.9999
    else:
        assert np.array_equal(labels, others)


def save_copy(model: StoredModel, folder: Path) -> StoredModel:
    """The same model under a name that the store does not have yet."""
    assert model.card is not None
    card = model.card.model_copy(update={"name": "copy"})
    return ModelStore().find(save_model(folder / "copy.safetensors", load_weights(model.path), card))
