"""A patient as the scanner leaves them: four scans on four grids, as NIfTI and once more as DICOM."""

from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import region_from_labels
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from native_case import native_folder, write_native_case
from segmenting import result_of

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
    folder = write_native_case(real_data, tmp_path / "dicom", lost)
    (case,) = find_cases(folder)
    assert [image.modality for image in case.images] == ["T1", "T1ce", "T2", "FLAIR"]
    volume = read_case(case)
    assert any("slice" in note and "interpolated" in note for note in volume.notes) == (lost is not None), volume.notes
    found = result_of(volume).labels
    expected = result_of(read_case(find_cases(native_folder(real_data))[0])).labels

    assert found.shape == expected.shape
    for region in regions:
        ours, theirs = region_from_labels(found, region), region_from_labels(expected, region)
        dice = 2 * np.count_nonzero(ours & theirs) / (ours.sum() + theirs.sum())
        print(f"{region}: Dice {dice:.4f}, {ours.sum()} and {theirs.sum()} voxels")
        assert dice >= 0.99, region
