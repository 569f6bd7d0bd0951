"""A real patient's four scans on grids of their own, written as the DICOM series that they once were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicom import Acquisition, Storage, write_case
from napari_braintumor.engine.files.formats import check_readable

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


def native_folder(real_data: Path) -> Path:
    """Return the folder of the scans as NIfTI."""
    return real_data / "unlabelled" / "TCGA-FG-6692_native"


def write_native_case(real_data: Path, folder: Path, lost: str | None = None) -> Path:
    """Write the scans as DICOM series; of one of them a slice may be lost."""
    series = []
    for name, (acquisition, storage) in SERIES.items():
        path = native_folder(real_data) / f"{name}.nii.gz"
        values, grid = check_readable(path).read(path)
        placed = replace(acquisition, frame_of_reference=name)  # their coordinates do not agree, see the registration
        stored = replace(storage, left_out=(4,)) if name == lost else storage
        series.append((values, grid.affine_ZYX, placed, stored))
    return write_case(folder, series)
