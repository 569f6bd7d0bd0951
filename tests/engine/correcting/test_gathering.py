"""What a network's last layers see is gathered on a grid that fits the scan's."""

import numpy as np
import pytest

from napari_braintumor.engine import gather_features
from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.correcting import gathering
from napari_braintumor.engine.correcting.correcting import correct
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.strokes import Stroke
from napari_braintumor.engine.events import SlicesDone
from napari_braintumor.engine.models.registry import ARCHITECTURES, build_network
from napari_braintumor.engine.settings import SegmentConfig
from segmenting import result_of


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose last layers are not known."""
    row = gathering.find_architecture("unet")
    monkeypatch.setattr(gathering, "find_architecture", lambda name: row.__class__(row.title, row.target, row.citation))


def gather(volume, model) -> tuple[list, CaseFeatures]:
    *progress, features = gather_features(volume, SegmentConfig(model=str(model), device="cpu"))
    return progress, features


@pytest.mark.parametrize("shows", [True, False])
def test_gathered_logits_agree_with_the_labels_of_a_run(toy_model, make_volume, request, shows):
    if not shows:
        request.getfixturevalue("hidden")
    volume, _ = make_volume(3)
    labels = result_of(volume, model=str(toy_model), min_volume_ml=0).labels
    progress, features = gather(volume, toy_model)
    assert all(isinstance(each, SlicesDone) for each in progress)
    assert features.adapts == shows
    assert len(features.values) == len(features.logits) == len(features.places)
    z, y, x = features.find_indices()
    inside = features.spread(features.logits[:, 0], -9) > 0
    agree = inside == (labels[np.ix_(z, y, x)] > 0)
    assert agree.mean() > 0.98


def test_a_network_that_hides_its_layers_is_named_in_a_note(toy_model, make_volume, hidden):
    _, features = gather(make_volume(3)[0], toy_model)
    assert "toy does not show what its last layers see" in features.notes[0]


def test_the_scans_are_kept_in_one_order_whatever_the_model_was_given(toy_model, make_volume):
    volume, _ = make_volume(3)
    _, features = gather(volume, toy_model)
    seen = {name for name, column in zip(MODALITIES, features.images.T, strict=True) if column.any()}
    assert features.images.shape == (len(features.places), len(MODALITIES))
    assert seen == set(volume.modalities) & set(MODALITIES)


def test_a_stroke_through_air_removes_a_tumor_that_is_not_there(toy_model, make_volume):
    volume, _ = make_volume(3)
    labels = result_of(volume, model=str(toy_model)).labels
    _, features = gather(volume, toy_model)
    z, y, x = (int(v) for v in np.argwhere(labels > 0).mean(0))
    corrected = correct(features, labels, [Stroke(None, ((z, y, x - 3), (z, y, x + 3)))]).labels
    assert (corrected > 0).sum() < (labels > 0).sum()
    assert corrected[z, y, x] == 0


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.decoder])
def test_the_named_layers_of_an_architecture_exist(name):
    small = {"width": 4} if "unet" in name else {}
    network = build_network(name, in_channels=4, out_channels=3, options=small)
    for each in ARCHITECTURES[name].decoder:
        network.get_submodule(each)
