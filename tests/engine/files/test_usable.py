import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import usable
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.usable import survey_cases


@pytest.fixture
def folder(case_folder: Path, tmp_path: Path) -> Path:
    """Five cases, four of them spoiled."""
    for number in range(5):
        shutil.copytree(case_folder / f"case{number}", tmp_path / f"case{number}")
    mask = {number: next((tmp_path / f"case{number}").glob("*seg*")) for number in range(5)}
    mask[1].unlink()
    image = nib.load(mask[2])
    nib.save(nib.Nifti1Image(np.full(image.shape, 77, np.uint8), image.affine), mask[2])
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), image.affine), mask[3])
    mask[4].write_bytes(b"nonsense")
    return tmp_path


def test_every_case_is_reported_with_the_reason_why_it_cannot_be_used(folder: Path) -> None:
    reports = list(survey_cases([folder]))
    problems = [report.problem for report in reports]
    assert problems[0] == ""
    assert problems[1] == "It has no mask."
    assert "contains the values 77" in problems[2]
    assert "differ in shape" in problems[3]
    assert "is damaged" in problems[4]
    assert reports[0].regions == ("whole tumor", "tumor core", "enhancing tumor")
    assert reports[0].shape == (12, 72, 64)
    assert reports[0].modalities == ("T1", "T1ce", "T2", "FLAIR")


def test_a_case_that_cannot_be_read_is_reported_with_its_problem_and_the_others_are_looked_at(
    case_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_cases(case_folder)
    found[1] = replace(found[1], images=(), reference=(), problem="Case 'case1' has two masks. Move one of them.")
    monkeypatch.setattr(usable, "find_cases", lambda _: found)
    for wanted in ((), ("FLAIR",)):
        problems = [report.problem for report in survey_cases([case_folder], wanted)]
        assert problems == ["", "Case 'case1' has two masks. Move one of them.", *[""] * 6]


def test_requested_modalities_must_be_there(case_folder: Path) -> None:
    (report,) = survey_cases([case_folder / "case0"], modalities=("DWI",))
    assert report.problem == "It has T1, T1ce, T2, FLAIR, but DWI is needed."
    (report,) = survey_cases([case_folder / "case0"], regions=("cavity",))
    assert report.problem.startswith("Its mask defines whole tumor, tumor core, enhancing tumor, but cavity")


def test_a_folder_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No case was found"):
        list(survey_cases([tmp_path]))
