"""What is wrong with a series is mended with a note, or refused in one sentence that names it and not the patient."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from dicom import MARKED, Acquisition, Storage, affine_of, with_tags, write_capture, write_pdf, write_series
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import find_series_of, scan_series
from napari_braintumor.engine.files.series import Series

SHAPE = (12, 14, 16)
VALUES = np.random.default_rng(0).integers(0, 900, SHAPE).astype(float)
AFFINE = affine_of(shape=SHAPE)
FLAIR = Acquisition("flair_tra", 3)


def write(
    folder: Path, acquisition: Acquisition = FLAIR, values: NDArray = VALUES, affine: NDArray = AFFINE, **storage
):
    return write_series(folder, values, affine, acquisition, Storage(**storage))


def change(path: Path, **tags) -> None:
    """Change tags of a file; None removes one."""
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path)


def move(path: Path, mm: tuple[float, float, float]) -> None:
    change(
        path, ImagePositionPatient=[a + b for a, b in zip(pydicom.dcmread(path).ImagePositionPatient, mm, strict=True)]
    )


def only(folder: Path) -> Series:
    (series,) = scan_series([folder])
    names = (*MARKED.values(), "SECRET")
    assert not any(name in f"{series}" for name in names)
    return series


# ------------------------------------------------------------------------------------------------------ missing slices


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_missing_slice_is_interpolated_and_said(tmp_path, enhanced):
    write(tmp_path, left_out=(5,), enhanced=enhanced, shuffle=1)
    series = only(tmp_path)
    assert series.notes == (
        "1 slice is missing from Series 3 'flair_tra' (after slice 5); interpolated between the neighbors. Copy or "
        "export it again if you can.",
    )
    read, grid = read_series(series.paths)
    np.testing.assert_allclose(grid.affine_ZYX, AFFINE, atol=1e-9)
    whole = VALUES.copy()
    whole[5] = (VALUES[4] + VALUES[6]) / 2
    np.testing.assert_allclose(read, whole)


def test_two_missing_slices_in_a_row_are_interpolated_by_distance(tmp_path):
    values = np.random.default_rng(1).integers(0, 900, (30, 8, 8)).astype(float)
    write(tmp_path, values=values, affine=affine_of(shape=values.shape), left_out=(10, 11))
    series = only(tmp_path)
    assert "2 slices are missing" in series.notes[0]
    read, _ = read_series(series.paths)
    np.testing.assert_allclose(read[10], 2 / 3 * values[9] + 1 / 3 * values[12], rtol=1e-5)


@pytest.mark.parametrize("gone", [(3, 7), (4, 5, 6), (2, 4, 6, 8)])
def test_too_many_missing_slices_are_refused(tmp_path, gone):
    write(tmp_path, left_out=gone)
    assert only(tmp_path).problem is not None
    assert (
        f"Series 3 'flair_tra' is incomplete: {len(gone)} of 12 slices are missing (after slice "
        in only(tmp_path).problem
    )
    with pytest.raises(DataError, match=r"is incomplete: .* Copy or export it again"):
        read_series(only(tmp_path).paths)


def test_a_half_copied_folder_is_said(tmp_path):
    paths = write(tmp_path, with_tags(FLAIR, ImagesInAcquisition=12))
    for path in paths[7:]:
        path.unlink()
    assert only(tmp_path).notes[0].startswith("Series 3 'flair_tra' has 7 of the 12 images that its headers speak of")


# --------------------------------------------------------------------------------------------------------- duplicates


@pytest.mark.parametrize("fresh", [False, True], ids=["same file", "new number"])
def test_an_image_that_is_there_twice_is_used_once(tmp_path, fresh):
    paths = write(tmp_path)
    shutil.copy(paths[4], tmp_path / "copy.dcm")
    if fresh:
        change(tmp_path / "copy.dcm", SOPInstanceUID=generate_uid(), InstanceNumber=99)
    series = only(tmp_path)
    assert series.notes == ("1 images of Series 3 'flair_tra' are there twice; one of each is used.",)
    np.testing.assert_array_equal(read_series(series.paths)[0], VALUES)


def test_a_different_image_in_the_place_of_another_is_refused(tmp_path):
    paths = write(tmp_path)
    other = pydicom.dcmread(paths[4])
    other.PixelData, other.SOPInstanceUID = bytes(len(other.PixelData)), generate_uid()
    other.save_as(tmp_path / "other.dcm")
    assert "Series 3 'flair_tra' has different images in 1 of its 12 places" in (only(tmp_path).problem or "")


def test_two_full_stacks_in_one_series_become_two(tmp_path):
    write(tmp_path / "a")
    for path in write(tmp_path / "b", values=VALUES + 50):
        change(path, SOPInstanceUID=generate_uid(), InstanceNumber=100 + pydicom.dcmread(path).InstanceNumber)
    one, two = scan_series([tmp_path])
    assert [one.description, two.description] == ["flair_tra (part 1)", "flair_tra (part 2)"]
    assert one.key != two.key
    np.testing.assert_array_equal(read_series(one.paths)[0] + 50, read_series(two.paths)[0])


# ------------------------------------------------------------------------------------------ several stacks in a series


@pytest.mark.parametrize(
    ("tags", "titles"),
    [
        (({"EchoTime": 12.0}, {"EchoTime": 100.0}), ["echo 1", "echo 2"]),
        (({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}), ["b 0", "b 1000"]),
        (({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}), ["M", "P"]),
        (({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}), ["dynamic 1", "dynamic 2"]),
        (({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}), ["acquisition 1", "acquisition 2"]),
        (({"InversionTime": 800.0}, {"InversionTime": 2500.0}), ["inversion 1", "inversion 2"]),
    ],
)  # fmt: skip
def test_a_series_of_several_stacks_is_split(tmp_path, tags, titles):
    for number, each in enumerate(tags):
        for path in write(tmp_path / str(number), with_tags(FLAIR, **each), VALUES + 50 * number):
            change(path, SOPInstanceUID=generate_uid())
    series = scan_series([tmp_path])
    assert [each.description for each in series] == [f"flair_tra ({title})" for title in titles]
    for number, each in enumerate(series):
        np.testing.assert_array_equal(read_series(each.paths)[0], VALUES + 50 * number)


def test_traits_that_differ_between_slices_do_not_split_a_stack(tmp_path):
    for number, path in enumerate(write(tmp_path)):
        change(path, EchoTime=4 + number / 100, AcquisitionNumber=number, TriggerTime=number * 7)
    assert only(tmp_path).slices == 12


def test_many_images_in_each_place_are_no_scan(tmp_path):
    for number in range(9):
        folder = tmp_path / str(number)
        for path in write(folder, with_tags(FLAIR, TemporalPositionIdentifier=number), VALUES[:3] + number):
            change(path, SOPInstanceUID=generate_uid())
    assert "Series 3 'flair_tra' has up to 9 images in each place" in (only(tmp_path).problem or "")


def test_a_scout_of_three_directions_is_three_series(tmp_path):
    scout = Acquisition("localizer", 1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    for name, normal in (("a", (0, 0, 1)), ("c", (0, 1, 0)), ("s", (1, 0, 0))):
        shape = (3, 10, 10)
        affine = affine_of(normal, shape=shape, spacing=(20, 5, 5))
        for path in write_series(tmp_path / name, VALUES[:3, :10, :10], affine, scout):
            change(path, SOPInstanceUID=generate_uid())
    series = scan_series([tmp_path])
    assert sorted(each.description for each in series) == [f"localizer ({p})" for p in ("axial", "coronal", "sagittal")]
    assert all(each.problem is None and "LOCALIZER" in each.image_type for each in series)


def test_a_file_of_several_stacks_is_read_by_the_number_of_the_stack(tmp_path):
    (one,) = write(tmp_path, enhanced=True)
    data = pydicom.dcmread(one)
    data.NumberOfFrames = 24
    frames = list(data.PerFrameFunctionalGroupsSequence)
    second = [pydicom.dcmread(one).PerFrameFunctionalGroupsSequence[i] for i in range(12)]
    for group, echo in ((frames, 12.0), (second, 90.0)):
        for frame in group:
            item = pydicom.Dataset()
            item.EffectiveEchoTime = echo
            frame.MREchoSequence = [item]
    data.PerFrameFunctionalGroupsSequence = [*frames, *second]
    data.PixelData += (VALUES + 50).astype("<u2").tobytes()
    data.save_as(one)
    series = scan_series([one])
    assert [(each.description, each.channel, each.echo_time_ms) for each in series] == [
        ("flair_tra (echo 1)", 0, 12.0), ("flair_tra (echo 2)", 1, 90.0),
    ]  # fmt: skip
    for number, each in enumerate(series):
        np.testing.assert_array_equal(read_series(each.paths, each.channel)[0], VALUES + 50 * number)
    np.testing.assert_array_equal(read_series([one])[0], [VALUES, VALUES + 50])
    with pytest.raises(DataError, match=r"holds 2 stacks; there is no number 3"):
        read_series([one], 2)


# ---------------------------------------------------------------------------------------------------------- geometry


def test_slices_that_lie_a_little_off_are_evened_out(tmp_path):
    paths = write(tmp_path)
    move(paths[5], (0, 0, 0.2))
    (note,) = only(tmp_path).notes
    assert note == "The slices of Series 3 'flair_tra' are 2.8 to 3.2 mm apart; their mean of 2.999 mm is used."


def test_positions_rounded_by_the_scanner_need_no_word(tmp_path):
    paths = write(tmp_path, affine=affine_of((0.1, 0.2, 1), shape=SHAPE, spacing=(1.234567, 1, 1)))
    for path in paths:
        change(path, ImagePositionPatient=[round(float(p), 2) for p in pydicom.dcmread(path).ImagePositionPatient])
    assert (only(tmp_path).notes, only(tmp_path).problem) == ((), None)


@pytest.mark.parametrize("mm", [(0, 0, 1.2), (4, 0, 0)], ids=["along", "aside"])
def test_a_slice_far_off_its_place_is_refused(tmp_path, mm):
    paths = write(tmp_path)
    move(paths[5], mm)
    assert (only(tmp_path).problem or "").startswith("Series 3 'flair_tra' makes no even stack: its slices are ")


def test_slices_at_growing_distances_are_refused(tmp_path):
    for number, path in enumerate(write(tmp_path)):
        move(path, (0, 0, 0.2 * number**2))
    assert "makes no even stack: its slices are 3.2 to 7.2 mm apart" in (only(tmp_path).problem or "")


@pytest.mark.parametrize(
    ("keyword", "what"),
    [
        ("ImagePositionPatient", "where they lie (ImagePositionPatient)"),
        ("ImageOrientationPatient", "their directions (ImageOrientationPatient)"),
        ("PixelSpacing", "the size of their pixels (PixelSpacing)"),
    ],
)
def test_a_series_without_a_place_is_refused(tmp_path, keyword, what):
    write(tmp_path, with_tags(FLAIR, **{keyword: None}))
    assert only(tmp_path).problem == (
        f"Series 3 'flair_tra' cannot be placed: 12 of its 12 images do not state {what}. Export it again from the "
        "scanner or the archive."
    )


def test_directions_that_are_not_at_right_angles_are_refused(tmp_path):
    write(tmp_path, with_tags(FLAIR, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]))
    assert "directions in its header (ImageOrientationPatient) are not at right angles" in (
        only(tmp_path).problem or ""
    )


def test_a_single_slice_lies_where_it_says(tmp_path):
    write(tmp_path, values=VALUES[:1])
    series = only(tmp_path)
    assert series.grid is not None
    assert (series.problem, series.grid.spacing, series.grid.spacing_known) == (None, (3, 1, 1), True)
    change(series.paths[0], SliceThickness=None, SpacingBetweenSlices=None)
    series = only(tmp_path)
    assert series.grid is not None
    assert not series.grid.spacing_known
    assert "does not state how thick its slice is" in series.notes[0]


def test_missing_tags_that_matter_little_do_no_harm(tmp_path):
    gone = (
        "SeriesNumber", "SeriesDescription", "EchoTime", "StudyDate", "SeriesDate", "AcquisitionDate", "PatientID",
        "PatientName", "FrameOfReferenceUID", "ImageType", "Modality",
    )  # fmt: skip
    write(tmp_path, with_tags(FLAIR, **dict.fromkeys(gone)))
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        change(path, InstanceNumber=None, SOPInstanceUID=f"1.2.{number}")
    series = only(tmp_path)
    assert (series.problem, series.patient, series.frame_of_reference, series.number) == (None, "", "", None)
    np.testing.assert_array_equal(read_series(series.paths)[0], VALUES)


# -------------------------------------------------------------------------------------------------------- no scans


def test_what_is_no_scan_is_called_what_it_is_and_the_rest_goes_on(tmp_path):
    write(tmp_path / "flair")
    write_pdf(tmp_path, Acquisition("Report", 7))
    write_capture(tmp_path, Acquisition("Screen", 8))
    write(tmp_path / "mosaic", Acquisition("bold", 9, image_type=("ORIGINAL", "PRIMARY", "M", "MOSAIC")))
    write(tmp_path / "seg", with_tags(Acquisition("Tumor", 10), Modality="SEG"))
    write(tmp_path / "report", with_tags(Acquisition("Findings", 11), Modality="SR"))
    assert [each.problem for each in scan_series([tmp_path])] == [
        None,
        "Series 7 'Report' is a document (PDF), not a scan.",
        "Series 8 'Screen' is a color picture, such as a screen capture, not a scan.",
        "Series 9 'bold' stores volumes as mosaics of slices, as functional and diffusion scans do, and is not read.",
        "Series 10 'Tumor' is a segmentation, not a scan.",
        "Series 11 'Findings' is a report, not a scan.",
    ]
    with pytest.raises(DataError, match=r"Series 7 'Report' is a document \(PDF\), not a scan"):
        read_series([tmp_path / "document7.dcm"])


def test_patients_and_scanner_coordinates_are_told_apart_by_digests(tmp_path):
    write(tmp_path / "1", Acquisition("t1", 1))
    write(tmp_path / "2", Acquisition("t2", 2, frame_of_reference="moved"))
    write(tmp_path / "3", Acquisition("flair", 3, patient="two", study="second"))
    one, two, three = sorted(scan_series([tmp_path]), key=lambda each: each.number or 0)
    assert one.patient == two.patient != three.patient
    assert one.study == two.study != three.study
    assert len({each.frame_of_reference for each in (one, two, three)}) == 3
    assert len({each.key for each in (one, two, three)}) == 3


def test_what_the_headers_say_is_in_the_series(tmp_path):
    acquisition = Acquisition("t1_gd", 5, echo_time=3.5, repetition_time=2000, inversion_time=900, contrast="Gadovist")
    for name, enhanced in (("classic", False), ("enhanced", True)):
        write(tmp_path / name, acquisition, enhanced=enhanced)
        series = only(tmp_path / name)
        assert (series.number, series.description, series.date, series.kind) == (5, "t1_gd", "2024-02-29", "MR")
        assert (series.echo_time_ms, series.repetition_time_ms, series.inversion_time_ms) == (3.5, 2000, 900)
        assert (series.contrast, series.volumetric, series.flip_angle_deg) == (True, True, 9)
        assert series.image_type[:2] == ("ORIGINAL", "PRIMARY")


@pytest.mark.parametrize("agent", [None, "", "NONE"])
def test_no_contrast_agent_is_no_contrast(tmp_path, agent):
    write(tmp_path, with_tags(FLAIR, **({} if agent is None else {"ContrastBolusAgent": agent})))
    assert only(tmp_path).contrast is (None if agent is None else False)


def test_a_file_stands_for_its_series(tmp_path):
    paths = write(tmp_path)
    write(tmp_path, Acquisition("t1", 4))
    write_pdf(tmp_path, Acquisition("Report", 7))
    assert [series.paths for series in find_series_of(paths[3])] == [tuple(paths)]


def test_a_copy_of_an_image_stands_for_itself(tmp_path):
    paths = write(tmp_path)
    copy = Path(shutil.copy(paths[3], tmp_path / "zzz.dcm"))
    assert [series.paths for series in find_series_of(copy)] == [(copy,)]
    assert find_cases(copy)


def test_a_damaged_image_is_a_series_with_a_problem(tmp_path):
    paths = write(tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    (series,) = find_series_of(paths[3])
    assert (series.paths, "damaged" in (series.problem or "")) == ((paths[3],), True)


def test_what_is_not_dicom_belongs_to_no_series(tmp_path):
    write(tmp_path)
    (tmp_path / "notes.dcm").write_text("hello")
    with pytest.raises(DataError, match="not"):
        find_series_of(tmp_path / "notes.dcm")


def test_slopes_that_differ_between_slices_are_used_each(tmp_path):
    paths = write(tmp_path)
    change(paths[2], RescaleSlope=3, RescaleIntercept=-5)
    change(paths[3], RescaleSlope=0, RescaleIntercept=7)  # a slope of 0 cannot be meant
    whole = VALUES.copy()
    whole[2] = VALUES[2] * 3 - 5
    np.testing.assert_array_equal(read_series(paths)[0], whole)
