"""DICOM files are found in folders, by a DICOMDIR and in zip archives, and nothing outside is read or written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom import Acquisition, affine_of, write_dicomdir, write_series
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.dicom import listing
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import scan_series
from napari_braintumor.engine.files.reading import read_case

VALUES = np.random.default_rng(0).integers(0, 900, (4, 12, 10))
AFFINE = affine_of(shape=VALUES.shape)
FLAIR = Acquisition("flair", 3)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path / "series", VALUES, AFFINE, FLAIR)


def zipped(archive: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return archive


def test_a_zip_archive_opens_as_its_folder_does(tmp_path, paths):
    files = {f"SECRET^NAME/{path.name}": path.read_bytes() for path in paths}
    archive = zipped(tmp_path / "case.zip", {**files, "notes.txt": b"SECRET"})
    (series,) = scan_series([archive])
    read, grid = read_series(series.paths)
    np.testing.assert_array_equal(read, VALUES)
    assert grid.path == archive
    assert "SECRET" not in str(series)
    (case,) = find_cases(archive)
    assert [image.modality for image in case.images] == ["FLAIR"]
    np.testing.assert_array_equal(read_case(case).data[0], VALUES)


def test_names_in_an_archive_lead_nowhere(tmp_path, paths):
    content = paths[0].read_bytes()
    below = tmp_path / "below"
    below.mkdir()
    archive = zipped(below / "a.zip", {"../../escaped.dcm": content, str(tmp_path / "absolute.dcm"): content})
    scan_series([archive])
    assert not (tmp_path / "absolute.dcm").exists()
    assert not list(tmp_path.rglob("escaped.dcm"))
    assert not (tmp_path.parent / "escaped.dcm").exists()


def test_an_archive_that_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_LEAST_BYTES", 1 << 20)
    archive = zipped(tmp_path / "bomb.zip", {"a.dcm": bytes(128) + b"DICM" + bytes(8 << 20)})
    with pytest.raises(DataError, match=r"The zip archive holds more than 1 MB or 20,000 files\. Unpack it yourself"):
        scan_series([archive])
    monkeypatch.setattr(listing, "_MOST_FILES", 2)
    archive = zipped(tmp_path / "many.zip", dict.fromkeys("abc", b""))
    with pytest.raises(DataError, match=r"The zip archive holds more than .* or 2 files"):
        scan_series([archive])


def test_a_damaged_archive_is_refused(tmp_path, paths):
    archive = zipped(tmp_path / "a.zip", {path.name: path.read_bytes() for path in paths})
    content = bytearray(archive.read_bytes())
    content[200:400] = bytes(200)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"The zip archive is damaged, locked by a password or packed in a way"):
        scan_series([archive])


def test_an_index_opens_what_it_lists(tmp_path, paths):
    index = write_dicomdir(tmp_path / "disc", paths)
    stranger = tmp_path / "disc" / "stranger.dcm"
    stranger.write_bytes(write_series(tmp_path / "other", VALUES, AFFINE, Acquisition("t1", 1))[0].read_bytes())
    (series,) = scan_series([index])
    np.testing.assert_array_equal(read_series(series.paths)[0], VALUES)
    assert len(scan_series([tmp_path / "disc"])) == 2


def test_an_index_is_found_again_in_lower_case(tmp_path, paths):
    index = write_dicomdir(tmp_path / "disc", paths)
    for path in sorted((tmp_path / "disc").rglob("*"), key=lambda each: -len(each.parts)):
        if path != index:
            path.rename(path.with_name(path.name.lower()))
    (series,) = scan_series([index])
    assert series.slices == 4


def test_an_index_leads_nowhere_outside_its_folder(tmp_path, paths):
    index = write_dicomdir(tmp_path / "disc", paths)
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(index)
        for record in data.DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                record.ReferencedFileID = ["..", "series", paths[0].name]
        data.save_as(index)
    with pytest.raises(
        DataError, match=r"The DICOMDIR lists 4 files, but none of them is there\. Copy the folder again"
    ):
        scan_series([index])


def test_files_without_a_suffix_are_found_by_their_content(tmp_path, paths):
    for number, path in enumerate(paths):
        path.rename(path.with_name(["IM0001", "MR.1.2.840.3", "0004", "image"][number]))
    (tmp_path / "series" / "README").write_text("no scan")
    (case,) = find_cases(tmp_path / "series")
    np.testing.assert_array_equal(read_case(case).data[0], VALUES)
