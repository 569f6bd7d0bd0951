"""Cohorts that are listed in a table of paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohorts import write_cohort
from dicom import Acquisition, write_series
from napari_braintumor.engine.cohorts.listed import is_table, read_table
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.reading import read_case
from toy_cases import make_case


@pytest.fixture
def cases(tmp_path) -> Path:
    write_cohort(tmp_path / "cases", 2)
    return tmp_path / "cases"


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "separator", "begin"), [("list.csv", ",", ""), ("list.csv", ";", "\ufeff"), ("list.tsv", "\t", "")]
)
def test_a_column_for_each_modality(cases, name, separator, begin) -> None:
    lines = [
        ["Case", "T1w", "t1_post", "flair", "age"],
        ["anna", "p00/p00_t1.nii.gz", "p00/p00_t1ce.nii.gz", "p00/p00_flair.nii.gz", "61"],
        [],
        ["bert", "p01/p01_t1.nii.gz", "", "p01/p01_flair.nii.gz", ""],
    ]
    table = write(cases, begin + "\n".join(separator.join(line) for line in lines), name)
    assert is_table(table)
    anna, bert = read_table(table)
    assert (anna.name, bert.name) == ("anna", "bert")
    assert [image.modality for image in anna.images] == ["T1", "T1ce", "FLAIR"]
    assert read_case(bert).modalities == ("T1", "FLAIR")


def test_a_folder_for_each_case(cases) -> None:
    table = write(cases, "subject,patient,path\nanna,P1,p00\n,,p01\n")
    anna, other = read_table(table)
    assert (anna.name, anna.patient, other.name) == ("anna", "P1", "p01")
    assert len(anna.images) == 4


def test_a_folder_of_several_cases_names_them_after_the_line(cases) -> None:
    assert [case.name for case in read_table(write(cases, "case,path\nx,.\n"))] == ["x_p00", "x_p01"]


def test_cases_that_share_a_name_get_numbers(cases) -> None:
    table = write(cases, "case,path\nanna,p00\nanna,p01\n")
    assert [case.name for case in read_table(table)] == ["anna", "anna_2"]


def test_a_folder_of_one_dicom_series_is_a_scan(tmp_path) -> None:
    volume, _ = make_case(7)
    for folder, number in (("a", 1), ("two", 2), ("two", 3)):
        write_series(tmp_path / folder, volume.data[0], volume.source.affine_ZYX, Acquisition("any", number))
    table = write(tmp_path, "case,t1,flair\nanna,a,\nbert,,two\n")
    anna, bert = read_table(table)
    assert anna.problem is None
    assert anna.group == "dicom"
    assert anna.images[0].modality == "T1"
    assert bert.problem is not None
    assert "Expected one series, but there are 2" in bert.problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("anna,gone.nii.gz,", r"In line 2 of 'list.csv', the T1 does not exist\. Correct it"),
        ("anna,empty,", "holds no DICOM files"),
    ],
)
def test_a_line_that_cannot_be_used_is_a_case_with_a_problem(cases, line, problem) -> None:
    (cases / "empty").mkdir()
    broken, good = read_table(write(cases, f"case,t1,flair\n{line}\nbert,p01/p01_t1.nii.gz,\n"))
    assert broken.name == "anna"
    with pytest.raises(DataError, match=problem):
        read_case(broken)
    assert good.problem is None


def test_a_path_that_leads_nowhere_is_not_shown(cases) -> None:
    case, _ = read_table(write(cases, "case,path\nanna,Smith_Anna/7\nbert,p01\n"))
    assert case.problem == "In line 2 of 'list.csv', the path does not exist. Correct it, or delete the line."


def test_a_line_without_a_scan_says_so(cases) -> None:
    case, _ = read_table(write(cases, "case,path\nanna,\nbert,p01\n"))
    assert case.problem == "Line 2 of 'list.csv' names no scan. Fill in a path, or delete the line."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,age\nanna,61\n", "has the columns case, age, none of which says where scans are"),
        ("", "has the columns none"),
        ("case,t1,T1w\nanna,a,b\n", "has two columns for T1"),
        ("case,t1\n,\n", "lists no case"),
        ('case,t1\n"anna"x,b\n', "is not a table"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path, text, message) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path) -> None:
    (tmp_path / "list.csv").write_bytes("case,t1\nmüller,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"it is not UTF-8\. Save it again"):
        read_table(tmp_path / "list.csv")


def test_a_scan_is_not_a_table(cases) -> None:
    assert not is_table(cases / "p00" / "p00_t1.nii.gz")
    assert not is_table(cases)
    assert not is_table(Path("nowhere.csv"))
