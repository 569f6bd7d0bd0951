"""Models that also see the slices above and below: the same labels however a case is read, searched and batched."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.gathering import gather_features
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume
from segmenting import result_of
from toy_cases import make_case, segment_plainly

pytestmark = pytest.mark.usefixtures("converted_here")


@pytest.fixture
def volume():
    """A case of slices of 1 mm."""
    return make_case(7, (36, 72, 64), (1, 1, 1))[0]


@pytest.fixture
def expected(volume, context_model) -> np.ndarray:
    labels = segment_plainly(volume, context_model)
    assert len(np.unique(labels)) > 2
    return labels


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime": "torch"},
        {"runtime": "torch", "batch_size": 3},
        {"runtime": "openvino"},
        {"runtime": "torch", "search_step_mm": 3},
        {"runtime": "torch", "probabilities": True},
    ],
    ids=["torch", "batches", "openvino", "searched", "probabilities"],
)
def test_labels_equal_those_of_the_plain_way(volume, expected, context_model, settings) -> None:
    search = {} if "search_step_mm" in settings else {"search_step_mm": 0}
    assert np.array_equal(result_of(volume, model=str(context_model), **search, **settings).labels, expected)


@pytest.mark.parametrize("slab", [1, 4, 16])
def test_a_streamed_case_gets_the_labels_of_the_case_in_memory(volume, expected, context_model, slab: int) -> None:
    streamed = StreamedVolume(tuple(volume.data), volume.modalities, volume.source, slab_slices=slab)
    assert np.array_equal(result_of(streamed, model=str(context_model), runtime="torch").labels[:], expected)


def test_a_slab_that_is_stored_together_is_read_twice_with_context_too(volume, context_model) -> None:
    reads: list[int] = []

    class Stored:
        def __init__(self, image: np.ndarray) -> None:
            self.image, self.shape = image, image.shape

        def __getitem__(self, index: slice) -> np.ndarray:
            reads.append(index.start // 16)
            return self.image[index]

    images = tuple(Stored(image) for image in volume.data)
    streamed = StreamedVolume(images, volume.modalities, volume.source, slab_slices=16)
    result_of(streamed, model=str(context_model), runtime="torch")
    assert sorted(reads) == sorted([0, 1, 2] * 2 * len(images))  # once to measure, once to prepare


def test_scans_of_1_and_of_3_mm_get_much_the_same_labels(volume, expected, context_model) -> None:
    thick = replace(volume, data=volume.data[:, ::3], source=default_grid((12, 72, 64), (3, 1, 1)))
    labels = result_of(thick, model=str(context_model), runtime="torch").labels
    assert (labels == expected[::3]).mean() > 0.999


def test_what_lies_beside_a_slice_changes_its_labels(volume, context_model) -> None:
    swapped = replace(volume, data=volume.data.copy())
    swapped.data[:, 15] = 0  # above and below slices 12 and 18
    labels, others = (result_of(each, model=str(context_model), runtime="torch").labels for each in (volume, swapped))
    changed = np.flatnonzero((labels != others).any((1, 2)))
    assert {12, 18} & set(changed.tolist())


def test_a_widened_model_that_has_not_learned_yet_answers_as_its_parent(volume, toy_model, tmp_path) -> None:
    weights = load_weights(toy_model)
    own = weights["down.0.0.weight"]
    weights["down.0.0.weight"] = torch.cat([own, torch.zeros_like(own), torch.zeros_like(own)], dim=1)
    card = read_card(toy_model).model_copy(update={"context_mm": 3.0})
    path = save_model(tmp_path / "widened.safetensors", weights, card)
    ours, theirs = (result_of(volume, model=str(each), runtime="torch").labels for each in (path, toy_model))
    assert (ours > 0).any()
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_case_of_one_or_two_slices_is_segmented(volume, context_model, slices: int) -> None:
    source = default_grid((slices, 72, 64), (1, 1, 1))
    few = replace(volume, data=volume.data[:, 18 : 18 + slices], source=source)
    assert np.array_equal(
        result_of(few, model=str(context_model), runtime="torch").labels, segment_plainly(few, context_model)
    )


def test_strokes_are_followed_by_what_a_network_with_context_sees(volume, expected, context_model) -> None:
    *_, features = gather_features(volume, SegmentConfig(model=str(context_model), device="cpu"))
    assert isinstance(features, CaseFeatures)
    assert features.adapts
    found = (features.logits[:, 0] > 0).sum() * np.prod(features.step)
    assert found == pytest.approx((expected > 0).sum(), rel=0.1)
