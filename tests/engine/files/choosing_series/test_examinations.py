"""Series of one patient on one day make one case; other patients and days are never mixed in."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from napari_braintumor.engine.files.choosing_series.examinations import group_examinations, name_apart
from napari_braintumor.engine.files.series import Series

TOP = Path("/export").absolute()


def series(number: int, patient: str = "", date: str = "", study: str = "", folder: str = "") -> Series:
    path = TOP / folder / f"im{number}"
    return Series((path,), "dicom", f"k{number}", patient=patient, date=date, study=study, number=number)


def numbers(*scans: Series) -> list[list[int | None]]:
    return [[each.number for each in found.series] for found in group_examinations(scans)]


def test_each_patient_and_each_day_is_an_examination():
    scans = [
        series(5, "a", "2020-01-02", "s1"), series(1, "b", "2020-01-02", "s2"), series(2, "a", "2020-01-02", "s1"),
        series(3, "a", "2019-05-05", "s3"),
    ]  # fmt: skip
    assert numbers(*scans) == [[3], [2, 5], [1]]
    assert [(e.patient, e.date) for e in group_examinations(scans)] == [
        ("patient 1", "2019-05-05"), ("patient 1", "2020-01-02"), ("patient 2", "2020-01-02"),
    ]  # fmt: skip


def test_two_studies_of_one_patient_on_one_day_are_one_examination():
    assert numbers(series(1, "a", "2020-01-02", "s1"), series(2, "a", "2020-01-02", "s2")) == [[1, 2]]


def test_a_series_that_names_nobody_is_of_the_patient_of_its_study():
    assert numbers(series(1, "a", "2020-01-02", "s1"), series(2, "", "", "s1")) == [[1, 2]]


def test_series_without_dates_are_split_by_study_and_without_studies_by_folder():
    assert numbers(series(1, "a", "", "s1"), series(2, "a", "", "s2")) == [[1], [2]]
    assert numbers(series(1, folder="x"), series(2, folder="x"), series(3, folder="y")) == [[1, 2], [3]]
    assert group_examinations([series(1)])[0].patient == "unnamed"


scans = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["2020-01-01", "2021-01-01"]), st.sampled_from("123")),
    max_size=12,
)


@given(scans)
def test_no_examination_mixes_patients_or_days_and_none_is_lost(made: list[tuple[str, str, str]]):
    every = [series(i, p, d, f"{p}{d}{s}") for i, (p, d, s) in enumerate(made)]
    found = group_examinations(every)
    assert sorted(each.key for one in found for each in one.series) == sorted(each.key for each in every)
    assert all(len({(each.patient, each.date) for each in one.series}) == 1 for one in found)
    assert len({(one.patient, one.date) for one in found}) == len(found)


def named(*scans: Series) -> list[tuple[str, str]]:
    found = group_examinations(scans)
    return [(str(folder.relative_to(TOP)), rest) for folder, rest in name_apart(found, [TOP])]


def test_an_examination_with_a_folder_of_its_own_is_named_by_the_highest_one():
    assert named(series(1, "a", folder="P1/DICOM/1"), series(2, "a", folder="P1/DICOM/2")) == [(".", "")]
    assert named(series(1, "a", folder="P1/DICOM/1"), series(2, "b", folder="P2/DICOM/1")) == [("P1", ""), ("P2", "")]
    assert named(series(1, "a", "2019-01-01", folder="P1/x/1"), series(2, "a", "2020-01-01", folder="P1/y/1")) == [
        ("P1/x", ""), ("P1/y", ""),
    ]  # fmt: skip


def test_a_folder_named_like_a_collection_names_no_case():
    assert named(series(1, "a", folder="images/P1/1"), series(2, "b", folder="P2/images/1")) == [
        ("images/P1", ""), ("P2", ""),
    ]  # fmt: skip


def test_a_collection_of_one_patient_is_not_the_patient():
    found = group_examinations([series(1, "a", folder="dicom/P1/7")])
    assert name_apart(found, [TOP / "dicom"]) == [(TOP / "dicom/P1", "")]
    found = group_examinations([series(1, "a", folder="P1/dicom/7")])
    assert name_apart(found, [TOP / "P1/dicom"]) == [(TOP / "P1/dicom", "")]


def test_a_folder_that_holds_other_scans_too_names_no_examination():
    found = group_examinations([series(1, "a", folder="P1/DICOM")])
    assert name_apart(found, [TOP], [TOP / "P2"]) == [(TOP / "P1", "")]
    assert name_apart(found, [TOP], [TOP / "P1/DICOM"]) == [(TOP, "")]


def test_examinations_in_one_folder_are_told_apart_by_patient_and_date():
    assert named(series(1, "a", folder="x"), series(2, "b", folder="x")) == [("x", "patient1"), ("x", "patient2")]
    assert named(series(1, "a", "2019-01-01", folder="x"), series(2, "a", "2020-01-01", folder="x")) == [
        ("x", "2019-01-01"), ("x", "2020-01-01"),
    ]  # fmt: skip
    assert named(series(1, "a", "", "s1", "x"), series(2, "a", "", "s2", "x")) == [("x", "1"), ("x", "2")]
