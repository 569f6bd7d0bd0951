"""What a person changes in a table of series, and that it is there the next time, without a word about the patient."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom import Acquisition, affine_of, write_pdf, write_series
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.choosing_series.changing import (
    change_row,
    choose_series,
    label_patients,
    label_rows,
    remember_choice,
    reset_rows,
)

SHAPE = (6, 12, 10)
SERIES = (
    Acquisition("localizer", 1),
    Acquisition("ax t1", 2),
    Acquisition("ax t2", 3, echo_time=100.0, repetition_time=5000.0),
    Acquisition("cor t2", 4, echo_time=100.0, repetition_time=5000.0),
    Acquisition("ax something", 5, echo_time=None, repetition_time=None),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("scans")
    for acquisition in SERIES:
        normal = (0.0, 1.0, 0.0) if "cor" in acquisition.description else (0.0, 0.0, 1.0)
        place = affine_of(normal, spacing=(5.0, 1.0, 1.0), shape=SHAPE)
        values = np.random.default_rng(acquisition.number).integers(1, 99, SHAPE)
        write_series(tmp_path / "P7" / str(acquisition.number), values, place, acquisition)
    write_pdf(tmp_path / "P7", Acquisition("Report", 6))
    return tmp_path / "P7"


def used(case: CaseFiles) -> dict[str, int | None]:
    return {image.modality: image.series.number for image in case.images if image.series}


def key_of(case: CaseFiles, number: int) -> str:
    return next(row.key for row in case.rows if row.series.number == number)


def test_a_series_can_be_used_for_another_modality_and_left_out(folder: Path):
    (case,) = find_cases(folder)
    assert used(case) == {"T1": 2, "T2": 3}
    case = change_row(case, key_of(case, 5), "FLAIR")
    assert used(case) == {"T1": 2, "T2": 3, "FLAIR": 5}
    case = change_row(case, key_of(case, 3), None)
    assert used(case) == {"T1": 2, "T2": 4, "FLAIR": 5}
    case = change_row(case, key_of(case, 2), "T1ce")
    assert used(case) == {"T1ce": 2, "T2": 4, "FLAIR": 5}
    assert used(reset_rows(case)) == {"T1": 2, "T2": 3}


def test_the_last_choice_for_a_modality_counts(folder: Path):
    (case,) = find_cases(folder)
    for number in (3, 4, 5, 4):
        case = change_row(case, key_of(case, number), "T2")
        assert used(case) == {"T1": 2, "T2": number}


def test_notes_follow_the_table(folder: Path):
    (case,) = find_cases(folder)
    assert any("Series 5 'ax something' was left out" in note for note in case.notes)
    case = change_row(case, key_of(case, 5), "FLAIR")
    assert not any("ax something" in note for note in case.notes)
    assert "Series 1 'localizer' was left out: a scout." in case.notes
    case = change_row(case, key_of(case, 5), None)
    assert "Series 5 'ax something' was left out: not wanted." in case.notes


def test_what_is_no_scan_cannot_be_chosen(folder: Path):
    (case,) = find_cases(folder)
    with pytest.raises(DataError, match=r"Series 6 'Report' cannot be used: a document\. Choose another one\."):
        change_row(case, key_of(case, 6), "T1")


def test_a_case_without_any_choice_left_says_so(folder: Path):
    (case,) = find_cases(folder)
    case = choose_series(case, ["T1=none", "T2=none"])
    assert case.problem is not None
    assert "has no series for T1, T1ce, T2 or FLAIR" in case.problem
    assert reset_rows(case).problem is None


@pytest.mark.parametrize(
    ("picks", "expected"),
    [
        (["T1=5"], {"T1": 5, "T2": 3}),
        (["t2w=cor t2"], {"T1": 2, "T2": 4}),
        (["FLAIR=Something"], {"T1": 2, "T2": 3, "FLAIR": 5}),
        (["T2=none"], {"T1": 2}),
        (["T1ce=2", "FLAIR = 5"], {"T1ce": 2, "T2": 3, "FLAIR": 5}),
        (["T1ce=2", "auto"], {"T1": 2, "T2": 3}),
    ],
)
def test_the_command_line_chooses_by_number_or_description(folder: Path, picks: list[str], expected: dict[str, int]):
    (case,) = find_cases(folder)
    assert used(choose_series(case, picks)) == expected


def test_a_series_is_found_by_its_key(folder: Path):
    (case,) = find_cases(folder)
    assert used(choose_series(case, [f"FLAIR={key_of(case, 5)}"])) == {"T1": 2, "T2": 3, "FLAIR": 5}


@pytest.mark.parametrize(
    ("pick", "error", "message"),
    [
        ("T1=9", DataError, r"Case 'P7' has no series '9'\. It has 1 'localizer', 2 'ax t1', 3 'ax t2'"),
        (
            "T1=t2",
            DataError,
            r"'t2' may mean several series of case 'P7': 3 'ax t2', 4 'cor t2'\. Name one by its number",
        ),
        ("T1", SettingsError, "'T1' does not choose a series. Expected a modality and a series, as in T1=3."),
        ("=3", SettingsError, "does not choose a series"),
        ("T9=3", DataError, "'T9' is not a known modality"),
        ("T1=6", DataError, "cannot be used: a document"),
    ],
)
def test_a_choice_that_fits_nothing_is_refused(folder: Path, pick: str, error: type[Exception], message: str):
    (case,) = find_cases(folder)
    with pytest.raises(error, match=message):
        choose_series(case, [pick])


def test_a_choice_is_remembered_and_can_be_dropped(folder: Path):
    (case,) = find_cases(folder)
    case = choose_series(case, ["T1ce=2", "FLAIR=5"])
    remember_choice(case)
    (again,) = find_cases(folder)
    assert used(again) == used(case) == {"T1ce": 2, "T2": 3, "FLAIR": 5}
    assert again.rows[4].reason == "chosen by hand"
    remember_choice(reset_rows(again))
    assert used(find_cases(folder)[0]) == {"T1": 2, "T2": 3}


def test_a_choice_holds_for_a_copy_and_nothing_is_written_beside_the_scans(folder: Path, tmp_path: Path):
    before = sorted(folder.rglob("*"))
    remember_choice(choose_series(find_cases(folder)[0], ["T1ce=2"]))
    assert sorted(folder.rglob("*")) == before
    shutil.copytree(folder, tmp_path / "moved")
    assert used(find_cases(tmp_path / "moved")[0]) == {"T1ce": 2, "T2": 3}


def test_what_is_remembered_names_nobody(folder: Path, tmp_path: Path):
    remember_choice(choose_series(find_cases(folder)[0], ["T1ce=2"]))
    (written,) = (tmp_path / "users-choices").iterdir()
    text = f"{written.name} {written.read_text()}"
    assert "T1ce" in text
    assert "SECRET" not in text
    assert "P7" not in text


def test_a_damaged_memory_is_as_if_nothing_was_chosen(folder: Path, tmp_path: Path):
    remember_choice(choose_series(find_cases(folder)[0], ["T1ce=2"]))
    (written,) = (tmp_path / "users-choices").iterdir()
    for content in ("", "[]", '{"series": 3}', '{"series": {"x": "T9"}}'):
        written.write_text(content)
        assert used(find_cases(folder)[0]) == {"T1": 2, "T2": 3}


def test_a_folder_that_cannot_be_written_to_is_named(folder: Path, tmp_path: Path):
    (tmp_path / "users-choices").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"cannot be kept in .*users-choices.*set BRAINTUMOR_CHOICES"):
        remember_choice(choose_series(find_cases(folder)[0], ["T1ce=2"]))


# ----------------------------------------------------------------------------------------------------- other files


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        data = np.random.default_rng(i).normal(size=(10, 12, 6)).astype(np.float32)
        nib.save(nib.Nifti1Image(data, np.diag([1, 1, 5, 1])), folder / name)
    return folder


def files(case: CaseFiles) -> dict[str, str]:
    return {image.modality: image.paths[0].name for image in case.images}


def test_files_with_clear_names_have_a_table_if_it_is_asked_for(tmp_path: Path):
    folder = touch(tmp_path / "anna", "t1.nii.gz", "flair.nii.gz", "adc.nii.gz", "seg.nii.gz")
    assert find_cases(folder)[0].rows == ()
    (case,) = find_cases(folder, offer=True)
    assert files(case) == files(find_cases(folder)[0]) == {"T1": "t1.nii.gz", "FLAIR": "flair.nii.gz"}
    assert case.notes == find_cases(folder)[0].notes
    assert {row.title: row.used for row in case.rows} == {
        "'t1.nii.gz'": True, "'flair.nii.gz'": True, "'adc.nii.gz'": False,
    }  # fmt: skip
    assert case.rows[0].reason == "the name says T1"
    assert (case.rows[0].plane, case.rows[0].voxel_size) == ("axial", "5 x 1 x 1")
    assert label_rows(case.rows) == ("#1", "#2", "#3")


def test_files_whose_names_say_nothing_can_be_chosen_and_are_remembered(tmp_path: Path):
    folder = touch(tmp_path / "anna", "scan_a.nii.gz", "scan_b.nii.gz")
    with pytest.raises(DataError, match="does not say which modality"):
        find_cases(folder)
    (case,) = find_cases(folder, offer=True)
    assert case.problem is not None
    case = choose_series(case, ["T1=scan_a", "FLAIR=#2"])
    assert case.problem is None
    assert files(case) == {"T1": "scan_a.nii.gz", "FLAIR": "scan_b.nii.gz"}
    remember_choice(case)
    assert files(find_cases(folder)[0]) == files(case)


def test_a_choice_overrules_the_names_of_files(tmp_path: Path):
    folder = touch(tmp_path / "anna", "t1.nii.gz", "t2.nii.gz", "flair.nii.gz")
    (case,) = find_cases(folder, offer=True)
    case = choose_series(case, ["T1=t2", "T2=t1.nii.gz"])
    assert files(case) == {"T1": "t2.nii.gz", "T2": "t1.nii.gz", "FLAIR": "flair.nii.gz"}


def test_cases_in_one_folder_keep_their_choices_apart(tmp_path: Path):
    folder = touch(tmp_path / "all", "anna_t1.nii", "anna_t2.nii", "bert_t1.nii", "bert_t2.nii")
    for case in find_cases(folder, offer=True):
        remember_choice(choose_series(case, [f"FLAIR={case.name}_t2"]))
    assert [files(case) for case in find_cases(folder)] == [
        {"T1": "anna_t1.nii", "FLAIR": "anna_t2.nii"}, {"T1": "bert_t1.nii", "FLAIR": "bert_t2.nii"},
    ]  # fmt: skip


def test_patients_are_numbered_and_never_named(tmp_path: Path, folder: Path):
    shutil.copytree(folder, tmp_path / "P7")
    touch(tmp_path / "zoe", "t1.nii.gz")
    nameless = replace(SERIES[1], number=9, study="x", tags={"PatientID": None, "PatientName": None})
    write_series(tmp_path / "nameless", np.ones(SHAPE), affine_of(shape=SHAPE), nameless)
    cases = find_cases(tmp_path, offer=True)
    assert dict(zip((case.name for case in cases), label_patients(cases), strict=True)) == {
        "P7": "patient 1", "nameless": "unnamed", "zoe": "zoe",
    }  # fmt: skip
