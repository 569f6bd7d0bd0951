"""The models that ship with the package, on the sample case and, where they are at hand, on real scans."""

import numpy as np
import pytest

from napari_braintumor.engine import evaluate, segment
from napari_braintumor.engine.events import CaseEvaluated, Segmented
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.models.model_file import load_weights
from napari_braintumor.engine.models.store import ModelStore, bundled_folder
from napari_braintumor.engine.settings import DEFAULT_MODEL, EvaluateConfig, SegmentConfig
from toy_cases import segment_plainly

MODELS = [model for model in ModelStore().list() if model.bundled]


def test_the_default_model_ships_with_the_package() -> None:
    assert DEFAULT_MODEL in {model.name for model in MODELS}


def test_all_bundled_models_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in bundled_folder().glob("*.safetensors")) < 25e6


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_bundled_model_is_small_whole_and_fully_described(model) -> None:
    assert model.problem == ""
    assert model.path.stat().st_size <= 10e6
    weights = load_weights(model.path)
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    card = model.card
    assert "CC BY-NC-SA 4.0" in card.license
    assert card.trained_on
    assert card.limitations
    assert "Not a medical device" in card.intended_use
    assert [metric for metric in card.metrics if metric.held_out]
    seen = {*card.training_patients, *card.validation_patients}
    assert card.held_out_patients
    assert not seen & set(card.held_out_patients)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_bundled_model_finds_the_tumor_of_the_sample_case_whatever_runs_it(model) -> None:
    case = find_cases(sample_folder())[0]
    volume, reference = read_case(case), read_reference(case)
    labels = {}
    for runtime in ("openvino", "torch"):
        config = SegmentConfig(model=model.name, device="cpu", runtime=runtime)
        labels[runtime] = next(e.segmentation.labels for e in segment(volume, config) if isinstance(e, Segmented))
    head = volume.data.any(axis=0)
    assert (labels["openvino"] == labels["torch"])[head].mean() >= 0.999
    assert volume_dice(labels["torch"] > 0, reference.regions["whole tumor"]) > 0.8
    found = [volume_dice(np.isin(labels["torch"], values), reference.regions[region]) for region, values in
             (("tumor core", (1, 3)), ("enhancing tumor", (3,)))]  # fmt: skip
    assert min(found) > 0.5


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("patient", ["BraTS2021_00002", "BraTS2021_00024"])
def test_a_real_patient_that_training_never_saw_is_segmented(real_data, patient: str) -> None:
    cases = find_cases(real_data / "brats" / patient)
    config = EvaluateConfig(segmentation=SegmentConfig(device="cpu"), held_out=True)
    (result,) = (e for e in evaluate(cases, config) if isinstance(e, CaseEvaluated))
    assert result.held_out
    assert result.dice["whole tumor"] > 0.6


@pytest.mark.real_data
@pytest.mark.slow
def test_cropping_to_the_head_leaves_a_real_case_as_it_is(real_data) -> None:
    volume = read_case(find_cases(real_data / "brats" / "BraTS2021_00014")[0])
    plain = segment_plainly(volume, ModelStore().find(DEFAULT_MODEL).path)
    *_, result = segment(volume, SegmentConfig(device="cpu"))
    assert (plain == result.segmentation.labels).mean() >= 0.999
    assert volume_dice(result.segmentation.labels > 0, plain > 0) >= 0.999
