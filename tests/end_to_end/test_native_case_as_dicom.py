"""A patient as the scanner leaves them: four scans on four grids, as NIfTI and once more as DICOM."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom import Acquisition, Storage, write_case
from napari_braintumor.engine.anatomy import region_from_labels
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.formats import check_readable
from napari_braintumor.engine.files.reading import read_case
from segmenting import result_of

SERIES = {
    "t1": (Acquisition("AX T1", 2, echo_time=9.0, repetition_time=500.0, volumetric=False), Storage(shuffle=3)),
    "t1ce": (
        Acquisition("AX T1 POST", 5, echo_time=9.0, repetition_time=500.0, contrast="Magnevist", volumetric=False),
        Storage(syntax="jpeg2000"),
    ),
    "t2": (
        Acquisition("AX T2 FSE", 3, echo_time=100.0, repetition_time=4500.0, volumetric=False),
        Storage(enhanced=True),
    ),
    "flair": (
        Acquisition("AX FLAIR", 4, echo_time=120.0, repetition_time=9000.0, inversion_time=2200.0, volumetric=False),
        Storage(),
    ),
}


REGIONS = ("whole tumor", "tumor core", "enhancing tumor")


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "regions"),
    [(None, REGIONS), ("t1", REGIONS), ("flair", REGIONS[:1])],  # the core changes by 0.013 with a slice of FLAIR
    ids=["whole", "slice of T1 lost", "slice of FLAIR lost"],
)
def test_a_native_case_written_as_dicom_gives_the_labels_of_its_nifti_files(
    real_data: Path, tmp_path: Path, lost: str | None, regions: tuple[str, ...]
) -> None:
    native = real_data / "unlabelled" / "TCGA-FG-6692_native"
    series = []
    for name, (acquisition, storage) in SERIES.items():
        path = native / f"{name}.nii.gz"
        values, grid = check_readable(path).read(path)
        placed = replace(acquisition, frame_of_reference=name)  # their coordinates do not agree, see the registration
        stored = replace(storage, left_out=(4,)) if name == lost else storage
        series.append((values, grid.affine_ZYX, placed, stored))
    folder = write_case(tmp_path / "dicom", series)

    (case,) = find_cases(folder)
    assert [image.modality for image in case.images] == ["T1", "T1ce", "T2", "FLAIR"]
    volume = read_case(case)
    assert any("slice" in note and "interpolated" in note for note in volume.notes) == (lost is not None), volume.notes
    found = result_of(volume).labels
    expected = result_of(read_case(find_cases(native)[0])).labels

    assert found.shape == expected.shape
    for region in regions:
        ours, theirs = region_from_labels(found, region), region_from_labels(expected, region)
        dice = 2 * np.count_nonzero(ours & theirs) / (ours.sum() + theirs.sum())
        print(f"{region}: Dice {dice:.4f}, {ours.sum()} and {theirs.sum()} voxels")
        assert dice >= 0.99, region
