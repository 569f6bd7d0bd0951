import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.record import describe_segmentation, save_segmentation
from napari_braintumor.engine.types import Segmentation, default_grid


@pytest.fixture
def segmentation() -> Segmentation:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 3
    grid = default_grid((4, 5, 6), (2, 1, 1))
    return Segmentation(
        labels, {3: "enhancing tumor"}, {3: "#ffffff"}, ("enhancing tumor",), {"enhancing tumor": 0.002}, grid
    )


def test_labels_and_record_are_written_side_by_side(segmentation, tmp_path: Path) -> None:
    labels, record = save_segmentation(segmentation, tmp_path / "new" / "folder")
    assert labels.name == "case_tumor.nii.gz"
    assert np.asarray(nib.load(labels).dataobj).sum() == 3
    assert json.loads(record.read_text()) == describe_segmentation(segmentation)
    assert json.loads(record.read_text())["volumes_ml"] == {"enhancing tumor": 0.002}


def test_another_kind_of_file_can_be_asked_for(segmentation, tmp_path: Path) -> None:
    assert save_segmentation(segmentation, tmp_path, ".tif")[0].name == "case_tumor.tif"


def test_a_folder_that_cannot_be_written_to_is_named(segmentation, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"'.*taken' cannot be written to"):
        save_segmentation(segmentation, tmp_path / "taken")
