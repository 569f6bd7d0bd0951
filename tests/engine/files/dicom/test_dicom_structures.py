"""Outlines of a DICOM structure set lie around the voxels they were drawn from, and are filled to the same voxels."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dicom import Acquisition, Storage, affine_of, write_series
from dicom_tools import errors_of
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_COLORS, LABELS, labels_by_region
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.files.dicom.labels import read_labels
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.structures import fill_outlines, trace_outlines
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import write_with_extras
from napari_braintumor.engine.volumes import Legend

LEGEND = Legend(LABELS, LABEL_COLORS, labels_by_region(GLIOMA_REGIONS), {"model": "glioma-test"})
WAYS: dict[str, tuple[dict[str, Any], Storage]] = {
    "axial": ({}, Storage()),
    "reversed": ({"normal": (0, 0, -1)}, Storage(shuffle=2)),
    "oblique": ({"normal": (0.2, -0.3, 1), "turn": 0.4}, Storage()),
    "sagittal": ({"normal": (-1, 0.1, 0)}, Storage()),
    "enhanced": ({"normal": (0.1, 0.2, 1)}, Storage(enhanced=True, shuffle=2)),
    "missing": ({}, Storage(left_out=(4,))),
}


def make_case(
    folder: Path,
    way: str,
    shape: tuple[int, int, int] = (12, 24, 20),
    sides: tuple[float, float, float] = (2.5, 0.9, 1.1),
) -> tuple[NDArray[np.uint8], SourceGrid]:
    options, storage = WAYS[way]
    affine = affine_of(shape=shape, center=(11.3, -7.5, 4.1), spacing=sides, **options)
    values = np.random.default_rng(0).integers(0, 900, shape)
    _, grid = read_series(write_series(folder, values, affine, Acquisition(), storage))
    random = np.random.default_rng(3)
    labels = np.zeros(grid.shape_ZYX, np.uint8)
    inner = tuple(slice(2, 8) for _ in range(3))
    labels[inner] = random.choice([0, 1, 2, 3], size=labels[inner].shape, p=[0.3, 0.2, 0.3, 0.2])  # many holes
    labels[0, 0, 0], labels[-1, -1, -1] = 1, 2
    return labels, grid


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_mask_is_filled_again_from_its_outlines(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(fill_outlines(list(trace_outlines(mask)), mask.shape), mask)


def test_outlines_enclose_the_area_of_their_voxels() -> None:
    y, x = np.indices((80, 80)) - 39.6
    mask = np.hypot(y, x) < 30
    (outline,) = trace_outlines(mask)
    after = np.roll(outline, -1, axis=0)
    area = abs((outline[:, 0] * after[:, 1] - outline[:, 1] * after[:, 0]).sum()) / 2
    assert area == pytest.approx(mask.sum(), rel=0.01)


@pytest.mark.parametrize("way", WAYS)
def test_a_structure_set_is_read_back_as_the_labels_it_was_made_of(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", way)
    _, path = write_with_extras(labels, grid, tmp_path / "scan" / "a.dcm", LEGEND, ["rtstruct"])
    again = read_labels(path)
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_allclose(again.grid.affine_ZYX, grid.affine_ZYX, atol=1e-6)
    assert again.names == {label: LABELS[label] for label in (1, 2, 3)}
    assert again.colors == {label: LABEL_COLORS[label] for label in (1, 2, 3)}
    assert again.own
    assert errors_of(path) <= errors_of(next((tmp_path / "scan").glob("*MR*" if way != "enhanced" else "series*")))


@pytest.mark.parametrize("way", ["axial", "oblique", "enhanced"])
def test_contours_lie_around_the_voxels_in_the_world_and_name_their_image(way: str, tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", way)
    labels[:] = 0
    labels[3:6, 4:9, 6:15] = 2
    _, path = write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["rtstruct"])
    data = pydicom.dcmread(path)
    contours = data.ROIContourSequence[0].ContourSequence
    assert len(contours) == 3
    points = np.concatenate([np.reshape(contour.ContourData, (-1, 3)) for contour in contours]).astype(float)
    index = np.linalg.inv(grid.affine_ZYX) @ np.insert(points * (-1, -1, 1), 3, 1, axis=1).T
    np.testing.assert_allclose(index[:3].min(1), (3, 3.5, 5.5), atol=1e-3)
    np.testing.assert_allclose(index[:3].max(1), (5, 8.5, 14.5), atol=1e-3)
    scans = {scan.SOPInstanceUID: scan for scan in map(pydicom.dcmread, (tmp_path / "scan").iterdir())}
    for contour in contours:
        (image,) = contour.ContourImageSequence
        scan = scans[image.ReferencedSOPInstanceUID]
        if way == "enhanced":
            scan = scan.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        normal = grid.affine_ZYX[:3, 0] / np.linalg.norm(grid.affine_ZYX[:3, 0])
        away = (np.array(contour.ContourData[:3], float) - scan.ImagePositionPatient) * (-1, -1, 1)
        assert abs(away @ normal) < 1e-3


def test_rt_utils_reads_the_structures_where_they_are(tmp_path: Path) -> None:
    builder = pytest.importorskip("rt_utils").RTStructBuilder
    labels, grid = make_case(tmp_path / "scan", "axial", (12, 22, 22), (2.5, 1, 1))  # it takes all to be square
    labels[:] = 0
    labels[3:6, 4:9, 6:15] = 2
    _, path = write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["rtstruct"])
    theirs = builder.create_from(str(tmp_path / "scan"), str(path))
    assert theirs.get_roi_names() == ["whole tumor", "tumor core", "enhancing tumor"]
    mask = grid.from_source(np.transpose(theirs.get_roi_mask_by_name("whole tumor"), (1, 0, 2)))
    inside = np.argwhere(mask)  # rounded to whole voxels, so up to one larger
    assert (np.abs(inside.min(0) - (3, 4, 6)) <= 1).all()
    assert (np.abs(inside.max(0) - (5, 8, 14)) <= 1).all()
    assert {*inside[:, 0]} == {3, 4, 5}


def test_the_patient_is_that_of_the_scan_and_the_maker_is_this_program(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", "axial")
    _, path = write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["rtstruct"])
    data, scan = pydicom.dcmread(path), pydicom.dcmread(next((tmp_path / "scan").iterdir()))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyID", "FrameOfReferenceUID"):
        assert data[keyword].value == scan[keyword].value, keyword
    assert data.Manufacturer == "napari-braintumor"
    assert "InstitutionName" not in data
    assert {roi.ROIGenerationAlgorithm for roi in data.StructureSetROISequence} == {"AUTOMATIC"}


def test_a_missing_rt_utils_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, grid = make_case(tmp_path / "scan", "axial")
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("rt_utils"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"need the package rt-utils.*pip install 'napari-braintumor\[rtstruct\]'"):
        write_with_extras(labels, grid, tmp_path / "a.dcm", LEGEND, ["rtstruct"])
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_a_structure_set_without_its_images_is_refused(tmp_path: Path) -> None:
    labels, grid = make_case(tmp_path / "scan", "axial")
    _, path = write_with_extras(labels, grid, tmp_path / "scan" / "a.dcm", LEGEND, ["rtstruct"])
    alone = tmp_path / "elsewhere" / "deep" / "a.dcm"
    alone.parent.mkdir(parents=True)
    path.rename(alone)
    with pytest.raises(
        DataError, match=r"The images that file 1 of 1 in its folder was drawn on are not in its folder"
    ):
        read_labels(alone)
