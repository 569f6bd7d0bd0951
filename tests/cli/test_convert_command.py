"""The command ``convert-labels``."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from typer.testing import CliRunner

from napari_braintumor.cli import app

run = CliRunner().invoke


def test_a_file_is_converted_on_its_own_grid(tmp_path: Path) -> None:
    labels = np.zeros((5, 6, 7), np.int16)
    labels[1, 2, :3] = 1, 2, 4
    affine = np.array([[-1.2, 0, 0, 40], [0, -0.9, 0.1, 30], [0, 0.1, 2, -20], [0, 0, 0, 1]], float)
    before, after = tmp_path / "BraTS2021_00001_seg.nii.gz", tmp_path / "new.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, affine), before)
    result = run(app, ["convert-labels", str(before), str(after), "--to", "brats2023"])
    assert result.exit_code == 0, result.output
    written = nibabel.load(after)
    assert np.allclose(written.affine, affine, atol=1e-5)
    assert np.asarray(written.dataobj)[1, 2, :4].tolist() == [1, 2, 3, 0]
    again = run(app, ["convert-labels", str(before), str(after), "--to", "brats2023"])
    assert again.exit_code == 1
    assert "already exists" in again.output
    unknown = run(app, ["convert-labels", str(before), str(after), "--to", "brats1999"])
    assert unknown.exit_code == 2
