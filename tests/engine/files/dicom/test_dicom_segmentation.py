"""A DICOM segmentation says the same as the labels it was made of, at the same place, to whoever reads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from dicom import MARKED, Acquisition, Storage, affine_of, with_tags, write_series
from dicom_tools import convert_segments, errors_of
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_COLORS, LABELS, REGION_LABELS, labels_by_region
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.labels import read_labels
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.segmentation import write_segmentation
from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.volumes import Legend

SHAPE = (7, 24, 20)
MODEL = {"model": "glioma-test", "model_version": "3"}
LEGEND = Legend({label: LABELS[label] for label in (1, 2, 3)}, LABEL_COLORS, labels_by_region(GLIOMA_REGIONS), MODEL)

WAYS: dict[str, tuple[dict[str, Any], Storage]] = {
    "axial": ({}, Storage()),
    "reversed": ({"normal": (0, 0, -1)}, Storage()),
    "shuffled": ({}, Storage(shuffle=4)),
    "sagittal": ({"normal": (-1, 0.1, 0)}, Storage()),
    "coronal": ({"normal": (0.05, 1, 0.1)}, Storage(shuffle=1)),
    "oblique": ({"normal": (0.2, -0.3, 1), "turn": 0.4}, Storage()),
    "enhanced": ({"normal": (0.1, 0.2, 1)}, Storage(enhanced=True, shuffle=2)),
    "reversed enhanced": ({"normal": (0, 0.2, -1)}, Storage(enhanced=True)),
    "missing": ({}, Storage(left_out=(3,))),
    "missing enhanced": ({}, Storage(enhanced=True, left_out=(2,))),
}  # fmt: skip
TILTED = {"tilted": ({"tilt": 0.7}, Storage())}


def make_case(
    folder: Path, way: tuple[Mapping[str, Any], Storage], acquisition: Acquisition | None = None
) -> tuple[NDArray[np.uint8], SourceGrid]:
    """Write a series, and return labels on its grid: nested, in no way symmetric, some at the edge."""
    options, storage = way
    shape = (12, *SHAPE[1:]) if storage.left_out else SHAPE
    affine = affine_of(shape=shape, center=(11.3, -7.5, 4.1), spacing=(2.5, 0.9, 1.1), **options)
    values = np.random.default_rng(0).integers(0, 900, shape)
    _, grid = read_series(write_series(folder, values, affine, acquisition, storage))
    return draw_labels(grid.shape_ZYX), grid


def draw_labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    z, y, x = (
        np.linspace(-1, 1, size).reshape(at) for size, at in zip(shape, ((-1, 1, 1), (-1, 1), (-1,)), strict=True)
    )
    labels = np.zeros(shape, np.uint8)
    for label, radius in ((2, 0.9), (1, 0.6), (3, 0.35)):
        labels[(z - 0.1) ** 2 + (y * 1.2 + 0.2) ** 2 + (x - 0.3) ** 2 < radius**2] = label
    labels[0, 0, 0], labels[-1, -1, -2] = 2, 3
    return labels


def places_of(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The RAS mm of the voxels of a mask."""
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def assert_marks(places: NDArray[np.float64], mask: NDArray[np.bool_], grid: SourceGrid) -> None:
    """Places in RAS mm are the voxels of a mask, each once."""
    back = np.linalg.inv(grid.affine_ZYX)
    index = places @ back[:3, :3].T + back[:3, 3]
    whole = np.rint(index).astype(int)
    assert np.abs(index - whole).max() < 1e-3
    assert len(whole) == len(np.unique(whole, axis=0))
    again = np.zeros_like(mask)
    again[tuple(whole.T)] = True
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("way", WAYS)
def test_dcmqi_reads_each_region_back_at_its_place(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS[way])
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    files = convert_segments(tmp_path / "seg.dcm", tmp_path / "itk")
    assert len(files) == 3
    for file, members in zip(files, LEGEND.regions.values(), strict=True):
        image = SimpleITK.ReadImage(str(file))
        inside = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        assert_marks((inside @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1), np.isin(labels, members), grid)


@pytest.mark.parametrize("way", WAYS | TILTED)
def test_each_frame_lies_where_its_labels_do_and_refers_to_the_image_there(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", (WAYS | TILTED)[way])
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    scans = {scan.SOPInstanceUID: scan for scan in map(pydicom.dcmread, (tmp_path / "scan").iterdir())}
    shared = data.SharedFunctionalGroupsSequence[0]
    along, down = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    found: dict[int, list[NDArray[np.float64]]] = {1: [], 2: [], 3: []}
    unreferenced = 0
    for frame, pixels in zip(data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True):
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(pixels)
        places = place + np.outer(column, along) * column_mm + np.outer(row, down) * row_mm
        found[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber].append(places * (-1, -1, 1))
        if not frame.DerivationImageSequence:
            unreferenced += 1
            continue
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        scan = scans[image.ReferencedSOPInstanceUID]
        if "NumberOfFrames" in scan:
            scan = scan.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        np.testing.assert_allclose(np.array(scan.ImagePositionPatient, float), place, atol=1e-3)
    for number, members in enumerate(LEGEND.regions.values(), start=1):
        assert_marks(np.concatenate(found[number]), np.isin(labels, members), grid)
    assert unreferenced == (3 if "missing" in way else 0)


@pytest.mark.parametrize("way", WAYS | TILTED)
def test_a_segmentation_is_read_back_as_the_labels_it_was_made_of(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", (WAYS | TILTED)[way])
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    again = read_labels(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_allclose(again.grid.affine_ZYX, grid.affine_ZYX, atol=1e-3)
    assert again.names == LEGEND.names
    assert again.colors == {label: LABEL_COLORS[label] for label in (1, 2, 3)}
    assert again.own
    assert not again.notes


@pytest.mark.parametrize("way", ["axial", "oblique", "enhanced", "missing"])
def test_dciodvfy_finds_nothing_wrong_that_the_scan_does_not_have(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS[way])
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    assert errors_of(tmp_path / "seg.dcm") <= errors_of(next((tmp_path / "scan").iterdir()))


@pytest.mark.real_data
def test_a_segmentation_of_a_real_scan_is_right_for_dciodvfy_and_dcmqi(real_data: Path, tmp_path: Path) -> None:
    scans = sorted((real_data / "dicom" / "studyforrest_T1w").glob("*.dcm"))
    _, grid = read_series(scans)
    labels = draw_labels(grid.shape_ZYX)
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    assert errors_of(tmp_path / "seg.dcm") <= errors_of(scans[0])
    for file, members in zip(convert_segments(tmp_path / "seg.dcm", tmp_path), LEGEND.regions.values(), strict=True):
        image = SimpleITK.ReadImage(str(file))
        inside = np.argwhere(SimpleITK.GetArrayFromImage(image))[::50, ::-1].tolist()
        points = np.array([image.TransformIndexToPhysicalPoint(index) for index in inside]) * (-1, -1, 1)
        back = np.linalg.inv(grid.affine_ZYX)
        index = points @ back[:3, :3].T + back[:3, 3]
        assert np.abs(index - np.rint(index)).max() < 1e-2
        assert np.isin(labels[tuple(np.rint(index).astype(int).T)], members).all()
        assert np.count_nonzero(SimpleITK.GetArrayFromImage(image)) == np.isin(labels, members).sum()


def test_segments_are_coded_and_name_the_model_that_made_them(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    segments = data.SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["whole tumor", "tumor core", "enhancing tumor"]
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in types] == [
        ("52988006", "SCT"), ("108369006", "SCT"), ("C113842", "NCIt"),
    ]  # fmt: skip
    for segment in segments:
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert segment.AnatomicRegionSequence[0].CodeMeaning == "Brain"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("glioma-test", "3")
    assert data.SegmentsOverlap == "YES"
    assert data.SegmentationType == "BINARY"


@pytest.mark.parametrize(
    ("provenance", "kind"), [({}, "MANUAL"), (MODEL, "AUTOMATIC"), ({**MODEL, "edited_slices_z": [3]}, "SEMIAUTOMATIC")]
)
def test_a_segmentation_says_whether_a_hand_drew_it(provenance: Mapping[str, Any], kind: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    legend = Legend(LEGEND.names, LEGEND.colors, LEGEND.regions, provenance)
    made, _, _ = write_segmentation(labels, grid, tmp_path / "seg.dcm", legend)
    assert {segment.SegmentAlgorithmType for segment in made.SegmentSequence} == {kind}


def test_patient_and_study_are_those_of_the_scan_and_stay_in_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = Acquisition(tags={"PatientName": "SECRET_J\u00f6rg", "PatientAge": "63", "PatientBirthDate": "SECRETDATE"})
    with caplog.at_level(logging.DEBUG):
        with pytest.warns(UserWarning, match="Invalid value"):
            labels, grid = make_case(tmp_path / "scan", WAYS["axial"], odd)
        caplog.clear()
        write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
        read_labels(tmp_path / "seg.dcm")
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    scan = pydicom.dcmread(next((tmp_path / "scan").iterdir()))
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyID", "AccessionNumber"):
        assert str(data[keyword].value) == str(scan[keyword].value), keyword
    assert data.FrameOfReferenceUID == scan.FrameOfReferenceUID
    assert data.SeriesInstanceUID != scan.SeriesInstanceUID
    for keyword in ("InstitutionName", "StationName", "OperatorsName", "PatientComments", "PatientAddress"):
        assert keyword not in data, keyword
    heard = caplog.text + "".join(capfd.readouterr())
    assert "SECRET" not in heard
    assert MARKED["PatientBirthDate"] not in heard


def test_a_de_identified_scan_gets_a_segmentation(tmp_path: Path) -> None:
    patient = (*MARKED, "PatientSex", "PatientAge", "StudyDate", "StudyTime", "SpecificCharacterSet")
    gone = dict.fromkeys((*patient, "SeriesDescription", "PositionReferenceIndicator"))
    acquisition = with_tags(Acquisition(), **gone, PatientIdentityRemoved="YES", DeidentificationMethod="stripped")
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"], acquisition)
    write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.dcm").labels, labels)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert data.PatientIdentityRemoved == "YES"
    assert not data.PatientID
    assert errors_of(tmp_path / "seg.dcm") <= errors_of(next((tmp_path / "scan").iterdir()))


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("FrameOfReferenceUID", "does not state its frame of reference"),
        ("StudyInstanceUID", "does not state its examination"),
        ("SOPInstanceUID", "does not state its identity"),
    ],
)
def test_a_scan_that_nothing_can_refer_to_is_refused(keyword: str, words: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    for path in (tmp_path / "scan").iterdir():
        data = pydicom.dcmread(path)
        del data[keyword]
        data.save_as(path)
    with pytest.raises(DataError, match=f"Series 1 't1_mprage_tra' {words} .*Save the labels as NIfTI"):
        write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND)
    assert not (tmp_path / "seg.dcm").exists()


def test_labels_of_a_scan_that_is_not_dicom_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t1.nii").write_bytes(b"x" * 400)
    for grid, words in (
        (default_grid(SHAPE), "The labels do not belong to a DICOM image"),
        (default_grid(SHAPE, path=tmp_path / "gone.dcm"), "The labels do not belong to a DICOM image"),
        (default_grid(SHAPE, path=tmp_path / "t1.nii"), "'t1.nii' is not a DICOM image"),
    ):
        with pytest.raises(DataError, match=f"{words}.*Save the labels as NIfTI"):
            write_segmentation(draw_labels(SHAPE), grid, tmp_path / "seg.dcm", LEGEND)


def test_labels_on_another_grid_keep_their_own_place_and_refer_to_the_series(tmp_path: Path) -> None:
    _, grid = make_case(tmp_path / "scan", WAYS["oblique"])
    scan = grid.path
    affine = grid.affine_ZYX.copy()
    affine[:3, 0] *= 0.5  # twice as many slices
    z, y, x = grid.shape_ZYX
    finer = grid_from_affine((2 * z, y, x), affine, path=scan, format="dicom")
    labels = draw_labels(finer.shape_ZYX)
    made, _, _ = write_segmentation(labels, finer, tmp_path / "seg.dcm", LEGEND)
    again = read_labels(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_allclose(again.grid.affine_ZYX, finer.affine_ZYX, atol=1e-3)
    references = [bool(frame.DerivationImageSequence) for frame in made.PerFrameFunctionalGroupsSequence]
    assert sum(references) == 3 * SHAPE[0]
    assert len(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[0]


def test_labels_of_another_frame_of_reference_are_refused(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    make_case(tmp_path / "other", WAYS["axial"], Acquisition(number=2, frame_of_reference="elsewhere"))
    other = next((tmp_path / "other").iterdir())
    with pytest.raises(DataError, match=r"does not share the frame of reference of Series 2.*Save them on the grid"):
        write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND, series=other)
    make_case(tmp_path / "same", WAYS["axial"], Acquisition(number=3))
    same = next((tmp_path / "same").iterdir())
    made, _, _ = write_segmentation(labels, grid, tmp_path / "seg.dcm", LEGEND, series=same)
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == Acquisition(number=3).uid


def test_a_series_is_found_among_others_in_its_folder(tmp_path: Path) -> None:
    make_case(tmp_path / "scan", WAYS["sagittal"], Acquisition(number=2, description="other"))
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    made, images, _ = write_segmentation(labels, grid, tmp_path / "scan" / "seg.dcm", LEGEND)
    assert len(images.headers) == SHAPE[0]
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == Acquisition().uid
    write_segmentation(labels, grid, tmp_path / "scan" / "seg2.dcm", LEGEND)  # beside an earlier one


def test_labels_of_no_region_are_segments_of_their_own(tmp_path: Path) -> None:
    _, grid = make_case(tmp_path / "scan", WAYS["axial"])
    labels = np.zeros(grid.shape_ZYX, np.uint8)
    labels[1, 2:9, 3:8], labels[2, 4, 5], labels[5, 5:7, 5] = 7, 12, 255
    legend = Legend({12: "Gef\u00e4\u00df"}, {7: "#112233"}, {}, {})
    made, _, segments = write_segmentation(labels, grid, tmp_path / "seg.dcm", legend)
    assert [(each.name, each.labels) for each in segments] == [
        ("label 7", (7,)), ("Gef\u00e4\u00df", (12,)), ("label 255", (255,)),
    ]  # fmt: skip
    again = read_labels(tmp_path / "seg.dcm")
    assert again.names == {1: "label 7", 2: "Gef\u00e4\u00df", 3: "label 255"}
    assert again.colors[1] == "#112233"
    assert not again.own
    for number, label in enumerate((7, 12, 255), start=1):
        np.testing.assert_array_equal(again.labels == number, labels == label)
    assert len(made.SegmentSequence) == 3
    assert errors_of(tmp_path / "seg.dcm") <= errors_of(next((tmp_path / "scan").iterdir()))


def test_empty_labels_of_a_model_are_written_and_others_are_refused(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    write_segmentation(labels * 0, grid, tmp_path / "seg.dcm", LEGEND)
    again = read_labels(tmp_path / "seg.dcm")
    assert again.labels.shape == labels.shape
    assert not again.labels.any()
    with pytest.raises(DataError, match=r"The labels are empty.*Draw something first"):
        write_segmentation(labels * 0, grid, tmp_path / "seg.dcm")


def test_a_resection_cavity_is_a_segment_that_does_not_nest(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    labels[3, 10:14, 2:6] = 4
    write_segmentation(labels, grid, tmp_path / "seg.dcm", Legend(LABELS, LABEL_COLORS, REGION_LABELS, MODEL))
    again = read_labels(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(again.labels, labels)
    assert again.names[4] == "resection cavity"


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", WAYS["axial"])
    with pytest.raises(DataError, match="cannot be written"):
        write_segmentation(labels, grid, tmp_path / "nowhere" / "seg.dcm", LEGEND)
    with pytest.raises(DataError, match="differ in shape"):
        write_segmentation(labels[1:], grid, tmp_path / "seg.dcm", LEGEND)
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]
