"""``segment`` writes what DICOM archives and planning systems read, for cases from DICOM."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from dicom import Acquisition, Storage, write_case
from dicom_tools import errors_of, read_measurements
from napari_braintumor.cli import app
from napari_braintumor.engine.files.dicom.labels import read_labels
from toy_cases import make_case

run = CliRunner().invoke

SERIES = {
    "T1": Acquisition("ax t1", 2, echo_time=9.0, repetition_time=500.0),
    "T1ce": Acquisition("ax t1 post", 7, echo_time=9.0, repetition_time=500.0, contrast="Gadovist"),
    "T2": Acquisition("ax t2", 3, echo_time=100.0, repetition_time=5000.0),
    "FLAIR": Acquisition("ax flair", 4, echo_time=110.0, repetition_time=9000.0, inversion_time=2500.0),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    volume, _ = make_case(7)
    folder = tmp_path_factory.mktemp("scans") / "patient"
    entries = [
        (volume.data[volume.modalities.index(name)].clip(0), volume.source.affine_ZYX, acquisition, Storage())
        for name, acquisition in SERIES.items()
    ]
    return write_case(folder, entries)


def test_segmentation_report_and_contours_say_what_the_nifti_file_says(
    scans: Path, toy_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    plain = run(app, ["segment", str(scans), "-o", str(tmp_path / "nifti"), "-m", str(toy_model)])
    assert plain.exit_code == 0, plain.output
    result = run(
        app, ["segment", str(scans), "-o", str(tmp_path / "dicom"), "-m", str(toy_model), "--also", "report,rtstruct"]
    )
    assert result.exit_code == 0, result.output
    (nifti,) = (tmp_path / "nifti").glob("*_tumor.nii.gz")
    name = nifti.name.removesuffix(".nii.gz")
    assert sorted(path.name for path in (tmp_path / "dicom").iterdir()) == [
        f"{name}.dcm", f"{name}.json", f"{name}_report.dcm", f"{name}_rtstruct.dcm",
    ]  # fmt: skip
    again = read_labels(tmp_path / "dicom" / f"{name}.dcm")
    image = nib.load(nifti)
    np.testing.assert_array_equal(again.grid.to_source(again.labels), np.asarray(image.dataobj))
    np.testing.assert_allclose(again.grid.affine, image.affine, atol=1e-3)
    record = json.loads((tmp_path / "dicom" / f"{name}.json").read_text())
    groups = read_measurements(tmp_path / "dicom" / f"{name}_report.dcm", tmp_path)
    found = {group["TrackingIdentifier"]: float(group["measurementItems"][0]["value"]) for group in groups}
    assert found == pytest.approx(record["volumes_ml"], abs=1e-3)
    data = pydicom.dcmread(tmp_path / "dicom" / f"{name}.dcm")
    (algorithm,) = data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == record["model"]
    assert set(record["written"]["files"]) == {f"{name}.dcm", f"{name}_report.dcm", f"{name}_rtstruct.dcm"}
    scan = next((scans / "002").iterdir())
    for path in (tmp_path / "dicom").glob("*.dcm"):
        assert errors_of(path) <= errors_of(scan)
        assert path.name in result.output
    assert "secret" not in (result.output + json.dumps(record) + caplog.text).casefold()
    again_result = run(
        app, ["segment", str(scans), "-o", str(tmp_path / "dicom"), "-m", str(toy_model), "--also", "report,rtstruct"]
    )
    assert again_result.exit_code == 0, again_result.output
    assert len(list((tmp_path / "dicom").iterdir())) == 4  # unchanged files of the same scan are replaced


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--also", "pdf"], "There is no 'pdf' to write beside labels"),
        (["--also", "report", "--format", "nii.gz"], "A report refers to a DICOM segmentation"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_segmented(
    options: list[str], words: str, scans: Path, toy_model: Path, tmp_path: Path
) -> None:
    result = run(app, ["segment", str(scans), "-o", str(tmp_path / "out"), "-m", str(toy_model), *options])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_case_from_other_files_fails_with_a_sentence(case_folder: Path, toy_model: Path, tmp_path: Path) -> None:
    case = str(case_folder / "case7")
    result = run(app, ["segment", case, "-o", str(tmp_path / "out"), "-m", str(toy_model), "--format", "dcm"])
    assert result.exit_code == 1
    assert "not a DICOM image" in " ".join(result.output.split())
    assert not list((tmp_path / "out").iterdir())
