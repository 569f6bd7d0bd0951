"""Segmentations of other programs are read where they lie; what is broken is refused in a sentence."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from dicom import Acquisition, Storage, affine_of, write_pdf, write_series
from dicom_tools import require_tool
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, LABEL_COLORS, LABELS, labels_by_region
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.labels import holds_labels, read_labels
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import scan_series
from napari_braintumor.engine.files.dicom.segmentation import write_segmentation
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine
from napari_braintumor.engine.volumes import Legend

SHAPE = (9, 16, 14)
LEGEND = Legend(LABELS, LABEL_COLORS, labels_by_region(GLIOMA_REGIONS), {"model": "toy"})


def make_scan(folder: Path, storage: Storage | None = None) -> tuple[list[Path], SourceGrid]:
    affine = affine_of((0.2, -0.1, 1), turn=np.pi / 2, shape=SHAPE, spacing=(3.0, 1.2, 0.8), center=(4, 5, 6))
    paths = write_series(folder, np.random.default_rng(1).integers(0, 500, SHAPE), affine, Acquisition(), storage)
    return paths, read_series(paths)[1]


def write_foreign(
    path: Path, scans: list[Path], pixels: NDArray[Any], kind: str, names: list[str], *, omit: bool = True
) -> None:
    """Write a segmentation as another program would: planes in the order of the scans, empty ones left out."""
    scan = [pydicom.dcmread(file) for file in scans]
    made = hd.seg.Segmentation(
        source_images=scan, pixel_array=pixels, segmentation_type=kind,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number, segment_label=name, algorithm_type="MANUAL",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Lesion,
            )
            for number, name in enumerate(names, start=1)
        ],
        series_instance_uid=hd.UID(), series_number=5, sop_instance_uid=hd.UID(), instance_number=1,
        manufacturer="x", manufacturer_model_name="x", software_versions="1", device_serial_number="1",
        omit_empty_frames=omit,
    )  # fmt: skip
    made.save_as(path)


def in_scan_order(grid: SourceGrid, labels_ZYX: NDArray[Any]) -> NDArray[Any]:
    """``(slice, row, column)`` of the scan's files."""
    return np.transpose(grid.to_source(labels_ZYX), (2, 1, 0))


def draw() -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 3:9, 2:9], labels[3, 2:5, 4:12], labels[7, 9:12, 3:6] = 1, 2, 1
    labels[5, 4, 4] = 2
    return labels


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_planes_that_were_left_out_are_empty(kind: str, tmp_path: Path) -> None:
    scans, grid = make_scan(tmp_path / "scan")
    labels = draw()
    write_foreign(tmp_path / "seg.dcm", scans, in_scan_order(grid, labels), kind, ["cyst", "Wall"])
    again = read_labels(tmp_path / "seg.dcm")
    first = np.linalg.solve(grid.affine_ZYX, again.grid.affine_ZYX[:, 3])
    np.testing.assert_allclose(first[:3], (2, 0, 0), atol=1e-3)
    np.testing.assert_allclose(again.grid.affine_ZYX[:3, :3], grid.affine_ZYX[:3, :3], atol=1e-3)
    np.testing.assert_array_equal(again.labels, labels[2:8])
    assert (again.names, again.own) == ({1: "cyst", 2: "Wall"}, False)
    assert set(again.colors) == {1, 2}


def test_shares_of_voxels_count_from_one_half(tmp_path: Path) -> None:
    scans, grid = make_scan(tmp_path / "scan")
    shares = np.zeros((*SHAPE, 1), np.float32)
    shares[2:5, 3:9, 2:9], shares[3, 2:5, 4:12] = 0.4, 0.6
    pixels = in_scan_order(grid, shares[..., 0])[..., None]
    write_foreign(tmp_path / "seg.dcm", scans, pixels, "FRACTIONAL", ["tumor"], omit=False)
    again = read_labels(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(again.labels, shares[..., 0] > 0.5)
    assert again.notes == ("File 1 of 1 in its folder holds shares of voxels; those of more than one half are inside.",)


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (["Whole Tumour", "ET"], {2: "whole tumor", 3: "enhancing tumor"}),
        (["Edema", "Necrosis"], {2: "edema", 1: "necrotic / non-enhancing core"}),
        (["whole tumor", "edema"], None),
        (["enhancing tumor", "vessel"], None),
    ],
)
def test_known_names_get_our_numbers_if_all_are_known(
    names: list[str], own: dict[int, str] | None, tmp_path: Path
) -> None:
    scans, grid = make_scan(tmp_path / "scan")
    outer = np.zeros(SHAPE, np.uint8)
    outer[2:6, 3:9, 2:9] = 1
    inner = np.zeros(SHAPE, np.uint8)
    inner[3:5, 4:6, 4:7] = 1
    pixels = np.stack([in_scan_order(grid, outer), in_scan_order(grid, inner)], axis=-1)
    write_foreign(tmp_path / "seg.dcm", scans, pixels, "BINARY", names, omit=False)
    again = read_labels(tmp_path / "seg.dcm")
    assert again.own == (own is not None)
    assert again.names == (own or dict(enumerate(names, start=1)))
    low, high = list(own or (1, 2))
    np.testing.assert_array_equal(again.labels, np.where(inner, high, np.where(outer, low, 0)))


def test_a_segmentation_by_dcmqi_is_read(tmp_path: Path) -> None:
    tool = require_tool("itkimage2segimage")
    _, grid = make_scan(tmp_path / "scan")
    labels = draw()
    image = SimpleITK.GetImageFromArray(in_scan_order(grid, labels))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetDirection((affine[:3, :3] / sides).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "labels.nrrd"))
    code = {"CodeValue": "52988006", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Lesion"}
    category = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Morphologically Altered"}
    described = {
        "ContentCreatorName": "x", "SeriesDescription": "x", "SeriesNumber": "3", "InstanceNumber": "1",
        "segmentAttributes": [[
            {
                "labelID": number, "SegmentLabel": name, "SegmentDescription": name, "SegmentAlgorithmType": "MANUAL",
                "SegmentedPropertyCategoryCodeSequence": category, "SegmentedPropertyTypeCodeSequence": code,
                "recommendedDisplayRGBValue": [200, 30, 60],
            }
            for number, name in ((1, "cyst"), (2, "wall"))
        ]],
    }  # fmt: skip
    (tmp_path / "meta.json").write_text(json.dumps(described))
    command = [
        tool, "--inputImageList", str(tmp_path / "labels.nrrd"), "--inputMetadata", str(tmp_path / "meta.json"),
        "--inputDICOMDirectory", str(tmp_path / "scan"), "--outputDICOM", str(tmp_path / "seg.dcm"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    again = read_labels(tmp_path / "seg.dcm")
    assert again.names == {1: "cyst", 2: "wall"}
    back = np.linalg.inv(grid.affine_ZYX) @ again.grid.affine_ZYX
    for number in (1, 2):
        index = np.argwhere(again.labels == number) @ back[:3, :3].T + back[:3, 3]
        assert np.abs(index - np.rint(index)).max() < 0.01
        np.testing.assert_array_equal(
            sorted(np.rint(index).astype(int).tolist()), np.argwhere(labels == number).tolist()
        )
    red, green, blue = (int(again.colors[1][i : i + 2], 16) for i in (1, 3, 5))
    assert np.abs(np.array([red, green, blue]) - (200, 30, 60)).max() <= 2


@pytest.mark.parametrize("packed", [False, True])
def test_labels_of_a_zipped_or_packed_series_refer_to_it(packed: bool, tmp_path: Path) -> None:
    paths, _ = make_scan(tmp_path / "scan", Storage(syntax="jpeg2000") if packed else None)
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    (series,) = scan_series([tmp_path / "case.zip"])
    assert series.grid is not None
    made, _, _ = write_segmentation(draw(), series.grid, tmp_path / "seg.dcm", LEGEND)
    assert len(made.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[0]
    again = read_labels(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(again.labels, draw())


def test_segmentations_and_structure_sets_are_labels_and_scans_are_not(tmp_path: Path) -> None:
    paths, grid = make_scan(tmp_path / "scan")
    write_segmentation(draw(), grid, tmp_path / "scan" / "seg.dcm", LEGEND)
    assert holds_labels(tmp_path / "scan" / "seg.dcm")
    assert not holds_labels(paths[0])
    assert not holds_labels(tmp_path / "gone.dcm")
    with pytest.raises(DataError, match=r"holds no labels. Expected a DICOM segmentation \(SEG\) or structure set"):
        read_labels(paths[0])
    with pytest.raises(DataError, match="holds no labels"):
        read_labels(write_pdf(tmp_path, Acquisition()))
    (found,) = (series for series in scan_series([tmp_path / "scan"]) if series.problem is None)
    assert found.slices == SHAPE[0]


def test_labels_on_a_grid_whose_rows_and_columns_are_askew_are_refused(tmp_path: Path) -> None:
    _, grid = make_scan(tmp_path / "scan")
    affine = grid.affine_ZYX.copy()
    affine[:3, 2] += 0.1 * affine[:3, 1]
    askew = grid_from_affine(SHAPE, affine, path=grid.path, format="dicom")
    with pytest.raises(DataError, match="are not at right angles, which DICOM cannot store"):
        write_segmentation(draw(), askew, tmp_path / "seg.dcm", LEGEND)


def spoil(path: Path, how: str) -> None:
    data = pydicom.dcmread(path)
    if how == "a plane aside":
        data.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0].ImagePositionPatient[2] += 1.3
    elif how == "a plane far away":
        data.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3e9]
    elif how == "turned":
        group = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        data.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence = [pydicom.Dataset()]
        data.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence[0].ImageOrientationPatient = [
            *group[0].ImageOrientationPatient[3:], *group[0].ImageOrientationPatient[:3],
        ]  # fmt: skip
    elif how == "a number too high":
        data.SegmentSequence[0].SegmentNumber = 300
        data.SegmentSequence[0].SegmentLabel = "vessel"
        for frame in data.PerFrameFunctionalGroupsSequence:
            identity = frame.SegmentIdentificationSequence[0]
            identity.ReferencedSegmentNumber = {1: 300}.get(identity.ReferencedSegmentNumber, 2)
    else:
        del data[how]
    data.save_as(path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a plane aside", "make no even stack"),
        ("a plane far away", "make no even stack|lie too far apart"),
        ("turned", "has planes in several directions"),
        ("a number too high", "numbers its labels up to 300"),
        ("SegmentSequence", "is damaged"),
        ("PerFrameFunctionalGroupsSequence", "is damaged"),
        ("SharedFunctionalGroupsSequence", "is damaged"),
        ("PixelData", "is damaged"),
        ("Rows", "is damaged"),
    ],
)
def test_a_broken_segmentation_is_refused_in_a_sentence(how: str, words: str, tmp_path: Path) -> None:
    _, grid = make_scan(tmp_path / "scan")
    write_segmentation(draw(), grid, tmp_path / "seg.dcm", LEGEND)
    spoil(tmp_path / "seg.dcm", how)
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / "seg.dcm")


def test_bytes_that_are_lost_or_changed_anywhere_do_not_crash_it(tmp_path: Path) -> None:
    _, grid = make_scan(tmp_path / "scan")
    write_segmentation(draw(), grid, tmp_path / "seg.dcm", LEGEND)
    sound = (tmp_path / "seg.dcm").read_bytes()
    random, reasons = np.random.default_rng(0), []
    for _ in range(40):
        content = bytearray(sound)
        if random.integers(2):
            content = content[: random.integers(200, len(content))]
        for place in random.integers(132, len(content), 12):
            content[place] = random.integers(256)
        (tmp_path / "spoiled.dcm").write_bytes(content)
        try:
            read_labels(tmp_path / "spoiled.dcm")
        except DataError as error:
            reasons.append(str(error))
    assert reasons
    assert "SECRET" not in "".join(reasons)
