"""Label files without a scan: what their numbers mean, or why nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.drawn import read_drawn


def write(path: Path, values: list[int], channels: int = 0) -> Path:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels.flat[: len(values)] = values
    data = np.stack([labels] * channels, axis=-1) if channels else labels
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


@pytest.mark.parametrize(
    ("name", "values", "convention"),
    [
        ("BraTS2021_00000_seg.nii.gz", [1, 2, 4], "brats2017"),
        ("BraTS-GLI-00001-000-seg.nii.gz", [1, 2, 3], "brats2023"),
        ("BraTS-GLI-00001-101-seg.nii.gz", [1, 2, 3, 4], "brats2024"),
        ("p1_seg_decathlon.nii.gz", [1, 2, 3], "decathlon"),
        ("anything.nii.gz", [1, 4], "brats2017"),
    ],
)
def test_the_name_or_the_values_say_what_numbers_mean(tmp_path, name: str, values: list[int], convention: str) -> None:
    read = read_drawn(write(tmp_path / name, values))
    assert read.convention == convention
    assert np.count_nonzero(read.regions["whole tumor"]) == len(
        [v for v in values if (convention, v) != ("brats2024", 4)]
    )


def test_a_stated_convention_wins(tmp_path) -> None:
    path = write(tmp_path / "BraTS2021_00000_seg.nii.gz", [1, 2, 4])
    assert list(read_drawn(path, "core").regions) == ["tumor core"]


def test_a_result_has_the_regions_of_its_record(tmp_path) -> None:
    path = write(tmp_path / "p1_tumor.nii.gz", [2, 2])
    record = {"case": "p1", "volumes_ml": {"whole tumor": 0.002}, "labels": {"2": "whole tumor"}}
    path.with_name("p1_tumor.json").write_text(json.dumps(record))
    assert list(read_drawn(path).regions) == ["whole tumor"]


def test_labels_that_may_mean_several_things_are_refused(tmp_path) -> None:
    path = write(tmp_path / "drawing.nii.gz", [1, 2, 3])
    with pytest.raises(
        DataError, match=r"'drawing\.nii\.gz' contains the values 0, 1, 2, 3, which fit several .* --labels brats2013"
    ):
        read_drawn(path)


def test_a_file_with_channels_is_refused(tmp_path) -> None:
    path = write(tmp_path / "drawing.nii.gz", [1], channels=2)
    with pytest.raises(DataError, match=r"has 2 channels\. Expected labels: one number for each voxel"):
        read_drawn(path)


def test_a_dicom_segmentation_of_unknown_words_is_refused(tmp_path, monkeypatch) -> None:
    from napari_braintumor.engine.files.dicom import labels
    from napari_braintumor.engine.grid import default_grid

    values = np.zeros((2, 3, 4), np.uint8)
    values[0, 0, :3] = 1, 2, 3
    for own in (True, False):
        image = labels.LabelImage(values, default_grid(values.shape), {1: "thing"}, {}, own, ("A note.",))
        monkeypatch.setattr(labels, "read_labels", lambda _, image=image: image)
        path = tmp_path / "x.dcm"
        path.write_bytes(bytes(128) + b"DICM")
        if own:
            assert read_drawn(path).notes == ("A note.",)
            continue
        with pytest.raises(DataError, match="names its labels in words that are not known"):
            read_drawn(path)
        assert list(read_drawn(path, "whole").regions) == ["whole tumor"]
