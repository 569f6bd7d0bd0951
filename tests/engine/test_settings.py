import pytest
from pydantic import ValidationError

from napari_braintumor.engine.settings import SegmentConfig, describe_problem
from napari_braintumor.engine.training.plan import TrainPlan


def test_a_setting_out_of_its_bounds_is_refused() -> None:
    with pytest.raises(ValidationError, match="threshold"):
        SegmentConfig(threshold=1.5)


@pytest.mark.parametrize("kind", [SegmentConfig, lambda **x: TrainPlan(name="a", cases=("b",), **x)])
def test_an_unknown_setting_is_refused(kind) -> None:
    with pytest.raises(ValidationError, match="color"):
        kind(color="red")


def test_settings_cannot_change_once_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SegmentConfig().device = "cuda"


@pytest.mark.parametrize("kind", [SegmentConfig, TrainPlan])
def test_every_setting_is_explained(kind) -> None:
    assert all(field.description for field in kind.model_fields.values())


def test_a_plan_survives_being_written_and_read() -> None:
    plan = TrainPlan(name="a", cases=("b", "c"), validation=("p1",), spacing=(None, 2.0, 2.0))
    assert TrainPlan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a", "cases": ["b"], "epochs": 0}, "epochs = 0: Input should be greater"),
        ({"name": "a", "cases": ["b"], "color": "red"}, "color = 'red': Extra inputs"),
        ({"name": "a"}, "cases: Field required"),
        ({"name": "a", "cases": ["b"], "epochs": "x" * 1000}, "epochs: Input should be a valid integer"),
        ({"name": "a", "cases": ["b"], "fold": [3, 2]}, "Value error, fold is"),
    ],
)
def test_a_problem_is_described_with_its_place_and_a_value_that_is_short(fields, words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TrainPlan.model_validate(fields)
    assert describe_problem(raised.value).startswith(words)
