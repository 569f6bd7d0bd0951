"""Folders of DICOM series become cases: one for each patient and day, named without naming the patient."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom import Acquisition, Storage, affine_of, with_tags, write_capture, write_case, write_pdf, write_series
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.choosing_series.changing import asks_to_choose
from napari_braintumor.engine.files.reading import read_case

T1 = Acquisition("t1_se_tra", 2, echo_time=9.0, repetition_time=500.0)
T2 = Acquisition("t2_tse_tra", 3, echo_time=100.0, repetition_time=5000.0)
FLAIR = Acquisition("t2_tirm_tra_dark-fluid", 4, echo_time=110.0, repetition_time=9000.0, inversion_time=2500.0)
T1CE = Acquisition("t1_se_tra", 7, echo_time=9.0, repetition_time=500.0, contrast="Gadovist")
FOUR = (T1, T2, FLAIR, T1CE)
SHAPE = (8, 12, 10)


def entry(acquisition: Acquisition, storage: Storage | None = None, shape=SHAPE, **place):
    values = np.random.default_rng(acquisition.number).integers(1, 500, shape)
    return values, affine_of(shape=shape, spacing=(5.0, 1.0, 1.0), **place), acquisition, storage or Storage()


def write(folder: Path, *acquisitions: Acquisition) -> Path:
    return write_case(folder, [entry(each) for each in acquisitions])


def used(case: CaseFiles) -> dict[str, str]:
    return {image.modality: image.series.description for image in case.images if image.series}


def test_a_folder_of_series_is_one_case_with_its_table(tmp_path: Path):
    scout = replace(T1, description="localizer", number=1)
    adc = replace(T1, description="ep2d_diff_ADC", number=5, image_type=("DERIVED", "PRIMARY", "DIFFUSION", "ADC"))
    (case,) = find_cases(write(tmp_path / "P7", scout, adc, *FOUR))
    assert (case.name, case.group, case.problem) == ("P7", "dicom", None)
    assert [image.modality for image in case.images] == ["T1", "T1ce", "T2", "FLAIR"]
    assert [image.series.number for image in case.images if image.series] == [2, 7, 3, 4]
    assert [row.series.number for row in case.rows] == [1, 2, 3, 4, 5, 7]
    assert all(len(image.paths) == SHAPE[0] for image in case.images)
    assert case.notes == (
        "Series 1 'localizer' was left out: a scout.",
        "Series 5 'ep2d_diff_ADC' was left out: a map computed from a diffusion scan.",
    )


def test_files_without_a_suffix_are_found_by_their_content(tmp_path: Path):
    entries = [entry(each, Storage(suffix="")) for each in FOUR]
    (case,) = find_cases(write_case(tmp_path / "P7", entries))
    assert len(case.images) == 4


def test_two_patients_in_one_folder_are_two_cases_and_noted(tmp_path: Path):
    for patient, number in (("one", 1), ("two", 5)):
        series = replace(T1, patient=patient, study=patient, number=number)
        write_series(tmp_path / "mixed", *entry(series))
    one, two = find_cases(tmp_path / "mixed")
    assert (one.name, two.name) == ("mixed_patient1", "mixed_patient2")
    assert one.patient != two.patient
    assert not {*one.images[0].paths} & {*two.images[0].paths}
    assert (
        "holds series of several patients; they are cases of their own and not mixed: 'mixed_patient2'" in one.notes[0]
    )


def test_two_days_of_one_patient_are_two_cases_of_one_patient(tmp_path: Path):
    for date in ("20200101", "20210203"):
        write_series(tmp_path / "P7", *entry(replace(T1, study=date, date=date, number=int(date[3]) + 1)))
    one, two = find_cases(tmp_path / "P7")
    assert (one.name, two.name) == ("P7_2020-01-01", "P7_2021-02-03")
    assert one.patient == two.patient


def test_cases_in_folders_of_their_own_are_named_by_these(tmp_path: Path):
    for patient, folder in (("anna", "A"), ("bert", "B")):
        write(tmp_path / folder / "DICOM", replace(T1, patient=patient, study=patient))
    write(tmp_path / "C" / "2020-01-02", replace(T1, patient="carl", study="1", date="20200102"))
    write(tmp_path / "C" / "2021-01-02", replace(T1, patient="carl", study="2", date="20210102"))
    assert [case.name for case in find_cases(tmp_path)] == ["A", "B", "C_2020-01-02", "C_2021-01-02"]
    assert [case.name for case in find_cases(tmp_path / "A" / "DICOM")] == ["A"]


@pytest.mark.parametrize("folder", ["SECRET_NAME", "secret-id-4711", "20240229_Name_Secret", "x SECRET^NAME"])
def test_a_folder_that_names_the_patient_does_not_name_the_case(tmp_path: Path, folder: str):
    (case,) = find_cases(write(tmp_path / folder, T1))
    assert case.name.startswith("patient-")
    assert "secret" not in f"{case.name} {case.patient} {case.notes}".lower()
    (again,) = find_cases(tmp_path / folder)
    assert again.name == case.name


def test_names_are_kept_only_if_the_user_asks(tmp_path: Path):
    write(tmp_path / "P7", T1)
    assert find_cases(tmp_path)[0].name == tmp_path.name
    (case,) = find_cases(tmp_path / "P7", keep_names=True)
    assert case.name == "SECRET_NAME_2024-02-29"
    assert case.patient == "SECRET_NAME"


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        ("t1 SECRET^NAME tra", "t1 tra"),
        ("t1_SECRET-ID-4711", "t1"),
        ("Name, t1", "t1"),
        ("t1 secretname", "t1"),
        ("t1 SecretNames", "t1 SecretNames"),
    ],
)
def test_a_description_that_names_the_patient_is_shown_without_the_name(tmp_path: Path, description: str, shown: str):
    (case,) = find_cases(write(tmp_path / "P7", replace(T1, description=description)))
    assert used(case) == {"T1": shown}


def test_a_single_file_stands_for_its_series(tmp_path: Path):
    for each in FOUR:
        write_series(tmp_path / "flat", *entry(each))
    path = next((tmp_path / "flat").glob("MR004_*"))
    (case,) = find_cases(path)
    assert used(case) == {"FLAIR": FLAIR.description}
    assert len(case.images[0].paths) == SHAPE[0]


def test_documents_and_pictures_are_left_out_with_a_sentence_and_the_rest_goes_on(tmp_path: Path):
    folder = write(tmp_path / "P7", T1, FLAIR)
    write_pdf(folder, replace(T1, description="Report", number=90))
    write_capture(folder, replace(T1, description="Key images", number=91))
    (case,) = find_cases(folder)
    assert len(case.images) == 2
    assert "Series 90 'Report' was left out: a document." in case.notes
    assert any("Series 91 'Key images' is a color picture" in note for note in case.notes)


def test_a_report_of_another_patient_is_a_note_and_no_case(tmp_path: Path):
    folder = write(tmp_path / "P7", T1)
    write_pdf(folder, Acquisition("Report", 90, patient="two", study="two"))
    (case,) = find_cases(folder)
    assert used(case) == {"T1": T1.description}
    assert "Series 90 'Report' was left out: a document." in case.notes


def test_a_half_copied_file_costs_only_itself(tmp_path: Path):
    folder = write(tmp_path / "P7", T1, FLAIR)
    broken = sorted(folder.rglob("MR002_*"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:300])
    (case,) = find_cases(folder)
    assert used(case) == {"FLAIR": FLAIR.description}
    assert any("damaged, truncated" in note for note in case.notes)


def test_a_missing_slice_is_noted_with_its_series(tmp_path: Path):
    folder = write_case(tmp_path / "P7", [entry(T1), entry(FLAIR, Storage(left_out=(3,)))])
    (case,) = find_cases(folder)
    assert len(case.images) == 2
    assert any("Series 4 't2_tirm_tra_dark-fluid'" in note for note in case.notes)


def test_series_that_do_not_overlap_are_not_one_case(tmp_path: Path):
    folder = write_case(tmp_path / "P7", [entry(T1), entry(T2, center=(0.0, 0.0, -400.0))])
    (case,) = find_cases(folder)
    assert used(case) == {"T1": T1.description}
    assert "Series 3 't2_tse_tra' was left out: it does not lie where series 2 't1_se_tra' lies." in case.notes


def test_a_phantom_is_left_out_by_its_name(tmp_path: Path):
    (case,) = find_cases(write(tmp_path / "P7", replace(T2, description="ACR phantom T2"), T1))
    assert used(case) == {"T1": T1.description}
    assert "Series 3 'ACR phantom T2' was left out: a scan of a phantom." in case.notes


def test_an_examination_without_any_of_the_four_says_what_it_holds(tmp_path: Path):
    folder = write(tmp_path / "P7", replace(T1, description="localizer"), replace(T2, description="ax swi"))
    (case,) = find_cases(folder)
    assert case.problem is not None
    assert case.problem.startswith(
        "Case 'P7' has no series for T1, T1ce, T2 or FLAIR. Series 2 'localizer' was left out"
    )
    assert "--" not in case.problem  # how to choose is said where that is done
    assert asks_to_choose(case)


def test_nobody_is_asked_to_choose_where_a_series_is_used_or_none_can_be(tmp_path: Path):
    (case,) = find_cases(write(tmp_path / "P7", T1, replace(T2, description="localizer")))
    assert not asks_to_choose(case)
    write_pdf(tmp_path / "P8", Acquisition("Report", 9))
    (case,) = find_cases(tmp_path / "P8", offer=True)
    assert case.problem is not None
    assert not asks_to_choose(case)


def test_dicom_and_nifti_below_one_folder_are_all_found(tmp_path: Path):
    write(tmp_path / "P7", T1)
    (tmp_path / "P8").mkdir()
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "P8" / "flair.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["P7", "P8"]


def test_a_zip_archive_is_a_case_named_by_it(tmp_path: Path):
    import shutil

    write(tmp_path / "P7", *FOUR)
    archive = shutil.make_archive(str(tmp_path / "P12"), "zip", tmp_path / "P7")
    (case,) = find_cases(Path(archive))
    assert case.name == "P12"
    assert len(case.images) == 4


def test_an_archive_without_dicom_is_refused(tmp_path: Path):
    import shutil

    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "readme.txt").write_text("nothing")
    archive = shutil.make_archive(str(tmp_path / "P12"), "zip", tmp_path / "x")
    with pytest.raises(DataError, match="P12"):
        find_cases(Path(archive))


def test_a_case_is_the_same_whatever_the_order_of_its_files(tmp_path: Path):
    named = with_tags(T1, SeriesDescription="t1 +c")
    folder = write_case(tmp_path / "P7", [entry(named, Storage(shuffle=3)), entry(FLAIR, Storage(shuffle=4))])
    (case,) = find_cases(folder)
    (again,) = find_cases(sorted(folder.rglob("*.dcm"), reverse=True))
    assert used(case) == used(again) == {"T1ce": "t1 +c", "FLAIR": FLAIR.description}
    assert [image.paths for image in case.images] == [image.paths for image in again.images]


# ------------------------------------------------------------------------------------------------- by their voxels


def write_heads(folder: Path, **changed: np.ndarray) -> Path:
    """Write three series of heads, some with other voxels."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (18, 50, 46)), indexing="ij")
    ball = (z / 0.85) ** 2 + (y / 0.8) ** 2 + (x / 0.75) ** 2 < 1
    folds = np.sign(np.sin(25 * z) + np.sin(30 * y + 2) + np.sin(28 * x + 1))
    place = affine_of(shape=ball.shape, spacing=(8.0, 4.0, 4.0))
    entries = []
    for acquisition in (T1, T2, FLAIR):
        random = np.random.default_rng(acquisition.number)
        head = (100 + 25 * folds + random.normal(0, 3, ball.shape)) * ball
        name = {2: "t1", 3: "t2", 4: "flair"}[acquisition.number]
        entries.append((changed.get(name, head), place, acquisition, Storage()))
    return write_case(folder, entries)


def test_whole_heads_are_nothing_to_remark_on(tmp_path: Path):
    volume = read_case(find_cases(write_heads(tmp_path / "P7"))[0])
    assert volume.modalities == ("T1", "T2", "FLAIR")
    assert volume.notes == ()


def test_a_phantom_is_noted_with_its_series_and_the_rest_goes_on(tmp_path: Path):
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (18, 50, 46)), indexing="ij")
    phantom = 200.0 * (z**2 + y**2 + x**2 < 0.7)
    volume = read_case(find_cases(write_heads(tmp_path / "P7", t2=phantom))[0])
    assert "Series 3 't2_tse_tra' is uniform inside, as a phantom is and a head is not." in volume.notes


def test_a_head_that_is_cut_off_is_noted_with_its_series(tmp_path: Path):
    folder = write_heads(tmp_path / "P7")
    for path in sorted((folder / "004").iterdir())[9:]:
        path.unlink()
    (case,) = find_cases(folder)
    assert "Series 4 't2_tirm_tra_dark-fluid' cuts off the top of the head." in read_case(case).notes


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_empty_series_is_left_out_and_the_rest_goes_on(tmp_path: Path, value: float):
    volume = read_case(find_cases(write_heads(tmp_path / "P7", t2=np.full((18, 50, 46), value)))[0])
    assert volume.modalities == ("T1", "FLAIR")
    assert any(note.startswith("Series 3 't2_tse_tra' was left out. Image 'T2' has the value") for note in volume.notes)


def test_pixels_that_cannot_be_decoded_cost_only_their_series(tmp_path: Path):
    folder = write_heads(tmp_path / "P7")
    path = sorted((folder / "003").iterdir())[4]
    path.write_bytes(path.read_bytes()[:-1500])
    (case,) = find_cases(folder)
    volume = read_case(case)
    assert volume.modalities == ("T1", "FLAIR")
    assert any(note.startswith("Series 3 't2_tse_tra' was left out.") for note in volume.notes)


def test_a_case_of_which_nothing_can_be_read_is_refused(tmp_path: Path):
    folder = write_heads(tmp_path / "P7")
    for path in folder.rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-1500])
    (case,) = find_cases(folder)
    with pytest.raises(DataError, match=r"damaged|truncated|cannot"):
        read_case(case)
