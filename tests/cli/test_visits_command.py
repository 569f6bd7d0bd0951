"""The command ``compare-visits``: tables, the map and its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from napari_braintumor.cli import app
from napari_braintumor.engine.files.sample import sample_folder

run = CliRunner().invoke


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Two visits: the enhancing tumor grows by a voxel in all directions."""
    for day in ("2024-01-10", "2024-04-09"):
        folder = tmp_path / "cohort" / f"p7_{day}"
        folder.mkdir(parents=True)
        for name in ("t1", "t1ce", "t2", "flair", "seg"):
            shutil.copy(sample_folder() / f"sample_{name}.nii.gz", folder / f"p7_{day}_{name}.nii.gz")
        (folder / f"p7_{day}_seg.nii.gz").rename(folder / f"p7_{day}_seg_brats2023.nii.gz")
    path = folder / f"p7_{day}_seg_brats2023.nii.gz"
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj).astype(np.uint8)
    labels[ndimage.binary_dilation(labels == 3, iterations=2)] = 3
    nibabel.save(nibabel.Nifti1Image(labels, image.affine, image.header), path)
    return tmp_path / "cohort"


def test_two_visits_are_compared_and_written(visits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(app, ["compare-visits", str(visits), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "p7_2024_01_10 to p7_2024_04_09, 90 days apart" in result.output
    assert "RANO, Wen et al. 2010 and 2023" in result.output
    (record,) = (json.loads(path.read_text()) for path in out.glob("*.json"))
    assert (record["interval_days"], record["assessed"], record["new_lesions"]) == (90, "enhancing tumor", 0)
    volumes = record["volumes_ml"]["enhancing tumor"]
    assert volumes["later"] > 1.4 * volumes["earlier"]
    assert record["by_volume"] == "PD"
    assert record["changes_ml"]["grown"] == pytest.approx(volumes["later"] - volumes["earlier"], abs=0.01)
    (picture,) = out.glob("*_changes.nii.gz")
    changes = np.asarray(nibabel.load(picture).dataobj)
    assert set(np.unique(changes)) == {0, 1, 2}


def test_one_visit_is_not_enough(visits: Path) -> None:
    result = run(app, ["compare-visits", str(visits / "p7_2024-01-10")])
    assert result.exit_code == 1
    assert "No patient has two visits among 1 cases" in result.output


def test_an_unknown_region_is_refused(visits: Path) -> None:
    result = run(app, ["compare-visits", str(visits), "--region", "skull"])
    assert result.exit_code == 2
    assert "There is no region 'skull'" in result.output


@pytest.mark.real_data
@pytest.mark.slow
def test_the_two_visits_of_a_patient_of_brats_reg_are_compared(real_data: Path, tmp_path: Path) -> None:
    result = run(app, ["compare-visits", str(real_data / "brats_reg"), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert record["interval_days"] == 262
    assert record["earlier"].endswith("_00_0000")
    assert record["category"] in ("CR", "PR", "SD", "PD")
    before, after = (record["volumes_ml"]["whole tumor"][visit] for visit in ("earlier", "later"))
    assert before > 5
    assert after > 5
