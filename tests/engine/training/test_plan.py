"""What a plan may say of itself, before any case is looked at."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan

WHOLE, CORE, ENHANCING = "whole tumor", "tumor core", "enhancing tumor"


def plan(**more) -> TrainPlan:
    return TrainPlan(**{"name": "a", "cases": ("b",), **more})


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (("t1gd", "flair"), ("T1ce", "FLAIR")),
        (("t1n", "t1c", "t2w", "t2f"), ("T1", "T1ce", "T2", "FLAIR")),
        (("FLAIR", "T1"), ("FLAIR", "T1")),
    ],
)
def test_modalities_are_read_by_their_usual_names_in_any_order(names, read) -> None:
    assert plan(modalities=names).modalities == read


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("modalities", ["T1", "DWI"], "'DWI' is not a known modality. Expected T1, T1ce, T2, FLAIR"),
        ("modalities", ["T1, FLAIR"], "'T1, FLAIR' is not a known modality"),
        ("modalities", ["T1x"], "'T1x' is not a known modality"),
        ("modalities", ["T1", "T1"], "T1 is there twice"),
        ("modalities", ["t1gd", "T1ce"], "T1ce is there twice"),
        ("regions", [CORE, WHOLE], "not in order. Expected the outermost first: whole tumor, tumor core"),
        ("regions", [WHOLE, ENHANCING, CORE], "not in order. Expected the outermost first"),
        ("regions", [WHOLE, WHOLE], "'whole tumor' is there twice"),
        ("regions", ["whole tumour"], "'whole tumour' is not a region. Expected one or more of whole tumor, tumor"),
        ("regions", ["Whole tumor"], "'Whole tumor' is not a region"),
        ("spacing", [None, 0, 1], "0.0 is not a voxel size"),
        ("spacing", [None, -1, 1], "-1.0 is not a voxel size"),
        ("spacing", [None, float("nan"), 1], "nan is not a voxel size"),
        ("held_out", [""], "at least 1 character"),
        ("patients", {"a": ""}, "at least 1 character"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name_with_what_is_allowed(
    field: str, value, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match="validation error"):
        plan(**{field: value})
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"name": "a", "cases": ["b"], field: value}))
    with pytest.raises(SettingsError, match=f"is not valid: {field}") as error:
        read_plan(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("one", "other"), [("held_out", "validation"), ("training", "held_out"), ("training", "validation")]
)
def test_a_patient_is_on_one_side(one: str, other: str) -> None:
    with pytest.raises(ValidationError, match=r"'p2' is named in both .* Expected every patient on one side"):
        plan(**{one: ("p1", "p2"), other: ("p2", "p3")})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_plan_is_read_in_every_encoding_that_editors_write(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(json.dumps({"name": "a", "cases": ["Müller"]}, ensure_ascii=False).encode(encoding))
    assert read_plan(path).cases == (Path("Müller"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff", "it is not text"),
        (b'{"cases": ["C:\\Users\\me"]}', "JSON"),
        (b"", "JSON"),
        (b"[1]", "object"),
    ],
)
def test_anything_but_a_plan_is_refused_in_a_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="is not valid") as error:
        read_plan(path)
    assert message in str(error.value)
