"""The sample head as a scanner would show it: on any grid, and moved between two scans."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from napari_braintumor.engine.aligning.scans import Scan
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine

STAY = np.eye(4)
STAY.setflags(write=False)


@cache
def read_sample(kind: str) -> tuple[NDArray[np.float32], SourceGrid]:
    return read_nifti(sample_folder() / f"sample_{kind}.nii.gz")


def make_move(degrees: tuple[float, float, float], mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """A rigid move in RAS mm: turned about the middle of the sample by angles about its three axes, then shifted."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one = np.eye(3)
        one[np.ix_(*[[a for a in range(3) if a != axis]] * 2)] = (
            (np.cos(angle), -np.sin(angle)),
            (np.sin(angle), np.cos(angle)),
        )
        turn = one @ turn
    grid = read_sample("flair")[1]
    center = (grid.affine @ np.array([*((np.array(grid.shape) - 1) / 2), 1]))[:3]
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = turn, center - turn @ center + mm
    return move


def make_grid(
    spacing: tuple[float, float, float] = (5.0, 2.0, 2.0),
    extent_mm: tuple[float, float, float] = (144, 192, 160),
    tilt_deg: float = 0.0,
    plane: str = "axial",
    shear: float = 0.0,
) -> SourceGrid:
    """A grid around the middle of the sample: spacing across slices, down and along a row; tilted about left-right."""
    columns = {
        "axial": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
        "sagittal": ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
        "coronal": ((0, -1, 0), (0, 0, -1), (-1, 0, 0)),
    }[plane]  # fmt: skip
    angle = np.deg2rad(tilt_deg)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    directions = tilt @ np.array(columns, float).T
    directions[:, 0] += shear * directions[:, 1]
    lengths = np.abs(np.array(columns) @ np.array(extent_mm[::-1]))
    shape = tuple(int(n) for n in np.round(lengths / spacing))
    sample = read_sample("flair")[1]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    center = (sample.affine @ np.array([*((np.array(sample.shape) - 1) / 2), 1]))[:3]
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return grid_from_affine(shape, affine, format="nifti")


def scan_head(kind: str, grid: SourceGrid, move: NDArray[np.float64] = STAY, order: int = 1, frame: str = "") -> Scan:
    """Scan the sample's head on a grid, after it moved."""
    image, own = read_sample(kind)
    matrix = np.linalg.inv(own.affine_ZYX) @ np.linalg.inv(move) @ grid.affine_ZYX
    data = affine_transform(image, matrix[:3, :3], matrix[:3, 3], grid.shape_ZYX, order=order, mode="constant")
    return Scan(data, grid, f"'{kind}.nii.gz'", frame)


def measure_error(found: NDArray[np.float64], expected: NDArray[np.float64]) -> tuple[float, float]:
    """How far a move is from the expected one: mm, on average over the sample's head, and degrees."""
    image, grid = read_sample("flair")
    index = np.argwhere(image > 20)[::5003]
    points = np.c_[index, np.ones(len(index))] @ grid.affine_ZYX.T
    error = found @ np.linalg.inv(expected)
    apart = points @ error.T - points
    return float(np.linalg.norm(apart[:, :3], axis=1).mean()), measure_turn(error)


def measure_turn(move: NDArray[np.float64]) -> float:
    """By how many degrees a move turns."""
    return float(np.degrees(np.arccos(np.clip((np.trace(move[:3, :3]) - 1) / 2, -1, 1))))
