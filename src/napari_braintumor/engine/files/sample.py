"""The sample case that ships with the package."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """Return the folder of the sample case.

    It contains a synthetic glioma in a synthetic brain, as NIfTI files on one grid: ``sample_t1.nii.gz``,
    ``sample_t1ce.nii.gz``, ``sample_t2.nii.gz``, ``sample_flair.nii.gz`` and the reference mask
    ``sample_seg.nii.gz`` with the labels of BraTS 2023.

    Returns
    -------
    Path
        A folder inside the installed package.
    """
    return Path(__file__).resolve().parents[2] / "sample"
