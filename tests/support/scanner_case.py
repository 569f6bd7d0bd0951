"""The sample case as a scanner would write it: four DICOM series on grids of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from dicom import Acquisition, Storage, affine_of, write_case
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.volumes import Volume

SCALE = 8.0
"""Scanners store whole numbers, so that the sample's values are multiplied."""

SERIES: dict[str, dict[str, Any]] = {
    "T1": {
        "number": 2, "description": "SAG T1", "normal": (1.0, 0.0, 0.0), "side": 2.0, "slices": 6.0,
        "echo_time": 9.0, "repetition_time": 500.0, "volumetric": False,
    },
    "T2": {
        "number": 3, "description": "AX T2 TSE", "normal": (0.0, 0.0, 1.0), "side": 1.6, "slices": 5.0,
        "echo_time": 100.0, "repetition_time": 4500.0, "volumetric": False,
    },
    "FLAIR": {
        "number": 4, "description": "AX FLAIR", "normal": (0.0, 0.05, 1.0), "side": 1.5, "slices": 4.0,
        "echo_time": 120.0, "repetition_time": 9000.0, "inversion_time": 2500.0, "volumetric": False,
    },
    "T1ce": {
        "number": 5, "description": "T1 MPRAGE POST GD", "normal": (0.0, 0.0, 1.0), "side": 2.0, "slices": 2.0,
        "echo_time": 3.0, "repetition_time": 2000.0, "inversion_time": 900.0, "contrast": "Gadavist",
    },
}  # fmt: skip
"""What the headers say of each modality, and how its slices lie."""

STORED = {
    "T1": Storage(shuffle=1),
    "T2": Storage(syntax="jpeg2000"),
    "FLAIR": Storage(),
    "T1ce": Storage(enhanced=True),
}


def read_sample() -> Volume:
    """Read the synthetic sample case."""
    return read_case(find_cases(sample_folder())[0])


def write_scanner_case(folder: Path, modalities: tuple[str, ...] = tuple(SERIES), **storage: Storage) -> Path:
    """Write the sample case as DICOM series on different grids in one frame of reference.

    Parameters
    ----------
    folder
        Where to write it.
    modalities
        Those that are written.
    **storage
        For a modality how it is stored; the others as in `STORED`.
    """
    volume = read_sample()
    series = []
    for modality in modalities:
        words = dict(SERIES[modality])
        normal, side, step = words.pop("normal"), words.pop("side"), words.pop("slices")
        values, affine = cut(volume, modality, normal, step, side)
        series.append((values * SCALE, affine, Acquisition(**words), storage.get(modality, STORED[modality])))
    return write_case(folder, series)


def cut(
    volume: Volume, modality: str, normal: tuple[float, float, float], step: float, side: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Cut slices across a direction out of a volume; return them with their affine, index to RAS mm."""
    source = volume.source.affine_ZYX
    size = np.array(volume.shape)
    middle = source[:3, :3] @ ((size - 1) / 2) + source[:3, 3]
    extent = np.abs(source[:3, :3]) @ size
    probe = affine_of(normal, spacing=(step, side, side), center=tuple(middle), shape=(1, 1, 1))
    axes = np.abs(probe[:3, :3] / np.linalg.norm(probe[:3, :3], axis=0))
    lengths = extent[axes.argmax(axis=0)]
    shape = tuple(int(length / each) for length, each in zip(lengths, (step, side, side), strict=True))
    affine = affine_of(normal, spacing=(step, side, side), center=tuple(middle), shape=shape)  # type: ignore[arg-type]
    index = np.indices(shape).reshape(3, -1)
    to_volume = np.linalg.solve(source, affine)
    places = to_volume[:3, :3] @ index + to_volume[:3, 3:]
    image = volume.data[volume.modalities.index(modality)]
    cut = map_coordinates(image, places, order=1, cval=float(image.min()))
    return cut.reshape(shape).astype(np.float32), affine
