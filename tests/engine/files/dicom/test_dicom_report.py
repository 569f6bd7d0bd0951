"""A DICOM report says the volumes and diameters that were measured, to whoever reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from dicom import Acquisition, Storage, affine_of, write_series
from dicom_tools import errors_of, read_measurements
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_COLORS, LABELS, labels_by_region
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import EXTRAS, export_labels, measure_sizes, write_with_extras
from napari_braintumor.engine.volumes import Legend

MODEL = {"model": "glioma-test", "model_version": "3"}
LEGEND = Legend(LABELS, LABEL_COLORS, labels_by_region(GLIOMA_REGIONS), MODEL)


def make_case(folder: Path, storage: Storage | None = None) -> tuple[NDArray[np.uint8], SourceGrid]:
    shape = (10, 40, 36)
    affine = affine_of((0.2, 0.1, 1), shape=shape, spacing=(3.0, 1.2, 0.8))
    values = np.random.default_rng(1).integers(0, 500, shape)
    _, grid = read_series(write_series(folder, values, affine, Acquisition(), storage))
    z, y, x = np.indices(grid.shape_ZYX) - np.reshape(np.array(grid.shape_ZYX) / 2, (3, 1, 1, 1))
    labels = np.zeros(grid.shape_ZYX, np.uint8)
    labels[z**2 / 10 + y**2 / 100 + x**2 / 50 < 1] = 2
    labels[z**2 / 6 + y**2 / 40 + x**2 / 20 < 1] = 1
    return labels, grid


@pytest.mark.parametrize("enhanced", [False, True])
def test_dcmqi_reads_what_was_measured(enhanced: bool, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", Storage(enhanced=enhanced))
    files = write_with_extras(labels, grid, tmp_path / "out.dcm", LEGEND, ["report"])
    assert [path.name for path in files] == ["out.dcm", "out_report.dcm"]
    assert errors_of(files[1]) <= errors_of(next((tmp_path / "scan").iterdir()))
    groups = read_measurements(files[1], tmp_path)
    assert [group["TrackingIdentifier"] for group in groups] == ["whole tumor", "tumor core", "enhancing tumor"]
    segments = pydicom.dcmread(files[0]).SegmentSequence
    for number, (group, (name, members)) in enumerate(zip(groups, LEGEND.regions.items(), strict=True), start=1):
        sizes = measure_sizes(np.isin(labels, members), grid)
        wanted = {"Volume": sizes.volume_ml}
        if name != "enhancing tumor":
            assert sizes.axial_mm is not None
            assert sizes.across_mm is not None
            assert sizes.longest_mm is not None
            assert sizes.longest_mm >= sizes.axial_mm > sizes.across_mm > 0
            wanted |= {"Long axis": sizes.axial_mm, "Perpendicular Axis": sizes.across_mm}
            wanted |= {"Maximum 3D Diameter of a Mesh": sizes.longest_mm}
        found = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert found == pytest.approx(wanted, abs=1e-3)
        units = {item["quantity"]["CodeMeaning"]: item["units"]["CodeValue"] for item in group["measurementItems"]}
        assert units == {quantity: "mL" if quantity == "Volume" else "mm" for quantity in wanted}
        assert group["ReferencedSegment"] == number
        assert group["TrackingUniqueIdentifier"] == segments[number - 1].TrackingUID
        assert group["SourceSeriesForImageSegmentation"] == Acquisition().uid
        assert group["measurementAlgorithmIdentification"] == {
            "AlgorithmName": "glioma-test", "AlgorithmVersion": "3",
        }  # fmt: skip


def test_a_report_is_filed_with_the_patient_and_refers_to_segmentation_and_scan(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan")
    seg, path = (
        pydicom.dcmread(file) for file in write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["report"])
    )
    scans = [pydicom.dcmread(file) for file in (tmp_path / "scan").iterdir()]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
        assert path[keyword].value == scans[0][keyword].value, keyword
    (study,) = path.CurrentRequestedProcedureEvidenceSequence
    named = {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == {seg.SOPInstanceUID, *(scan.SOPInstanceUID for scan in scans)}
    assert (path.CompletionFlag, path.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_labels_by_hand_have_a_report_without_a_model(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan")
    legend = Legend({1: "left", 2: "right"}, {}, {}, {})
    _, path = write_with_extras(labels, grid, tmp_path / "a.dcm", legend, ["report"])
    groups = read_measurements(path, tmp_path)
    assert [group["TrackingIdentifier"] for group in groups] == ["left", "right"]
    assert all("measurementAlgorithmIdentification" not in group for group in groups)


def test_what_cannot_be_written_beside_labels_is_refused(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan")
    with pytest.raises(SettingsError, match=r"There is no 'pdf' to write beside labels. Choose report or rtstruct"):
        write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["pdf"])
    with pytest.raises(SettingsError, match=r"A report refers to a DICOM segmentation.* written as '.nii.gz'"):
        write_with_extras(labels, grid, tmp_path / "a.nii.gz", LEGEND, ["report"])
    with pytest.raises(DataError, match="cannot be written"):
        write_with_extras(labels, grid, tmp_path / "nowhere" / "a.dcm", LEGEND, ["report"])
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_whoever_stops_before_the_end_finds_no_file(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.dcm").write_text("an older file")
    total = len(list(export_labels(labels, grid, tmp_path / "b.dcm", LEGEND, EXTRAS)))
    assert total > 5
    for count in range(1, total):
        events = export_labels(labels, grid, tmp_path / "out" / "a.dcm", LEGEND, EXTRAS)
        for _ in range(count):
            assert isinstance(next(events), PhaseReached)
        events.close()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.dcm"]
        assert (tmp_path / "out" / "a.dcm").read_text() == "an older file"


def test_if_one_file_cannot_be_written_none_is(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan")
    (tmp_path / "out" / "a_report.dcm").mkdir(parents=True)
    with pytest.raises(DataError, match=r"a_report.dcm' is a folder"):
        write_with_extras(labels, grid, tmp_path / "out" / "a.dcm", LEGEND, ["report"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_report.dcm"]
