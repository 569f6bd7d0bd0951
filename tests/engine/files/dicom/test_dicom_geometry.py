"""DICOM series made of arrays come back with their values, at the places in the world that they were written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from dicom import SYNTAXES, Storage, affine_of, write_series
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import scan_series
from napari_braintumor.engine.grid import SourceGrid

QUICK = 24
MANY = 200


def places_of(grid: SourceGrid) -> NDArray[np.float64]:
    """``(Z, Y, X, 3)`` RAS mm of each voxel."""
    index = np.indices(grid.shape_ZYX).reshape(3, -1)
    affine = grid.affine_ZYX
    return (affine[:3, :3] @ index + affine[:3, 3:]).T.reshape(*grid.shape_ZYX, 3)


def assert_lies_where_written(
    read: NDArray[np.floating], grid: SourceGrid, values: NDArray[np.floating], affine: NDArray[np.float64]
) -> None:
    """Each voxel that was read has the value that was written for its place."""
    back = np.linalg.inv(affine)
    places = places_of(grid).reshape(-1, 3)
    index = places @ back[:3, :3].T + back[:3, 3]
    whole = np.rint(index).astype(int)
    assert np.abs(index - whole).max() < 1e-4
    assert len(np.unique(whole, axis=0)) == values.size
    np.testing.assert_allclose(read.ravel(), values[tuple(whole.T)], rtol=1e-6)


def any_series(seed: int) -> tuple[NDArray[np.floating], NDArray[np.float64], Storage]:
    """A series of any direction, size, order of files, numbers and transfer syntax."""
    random = np.random.default_rng(seed)
    z, y, x = (int(n) for n in random.integers((2, 4, 4), (9, 20, 20)))
    normal = np.eye(3)[random.integers(3)] * random.choice([-1, 1]) + random.normal(0, 0.25, 3) * random.integers(2)
    turn = float(random.choice([0, np.pi / 2, np.pi, random.uniform(0, 6.2)]))
    spacing = tuple(float(f"{mm:.6g}") for mm in random.uniform((0.8, 0.4, 0.4), (6, 2, 2)))
    tilt = float(random.choice([0, 0, 0, random.uniform(-0.5, 0.5)]))
    center = tuple(random.uniform(-80, 80, 3))
    signed = bool(random.integers(2))
    slope = [None, 1.0, 2.5, 0.125][random.integers(4)]
    storage = Storage(
        enhanced=bool(random.integers(2)),
        syntax=list(SYNTAXES)[random.integers(len(SYNTAXES))],
        bits=int(random.choice([8, 10, 12, 16])),
        signed=signed,
        slope=slope,
        intercept=None if slope is None else float(random.integers(-500, 500)),
        shuffle=int(random.integers(1 << 30)),
        suffix=[".dcm", "", ".IMA"][random.integers(3)],
    )
    low = -(1 << storage.bits - 1) if signed else 0
    raw = random.integers(low, low + (1 << storage.bits), (z, y, x))
    values = raw * (slope or 1.0) + (storage.intercept or 0.0)
    affine = affine_of(tuple(normal), turn=turn, spacing=spacing, center=center, shape=(z, y, x), tilt=tilt)
    return values, affine, storage


def check_any_series(folder: Path, seed: int) -> None:
    values, affine, storage = any_series(seed)
    written = write_series(folder, values, affine, storage=storage)
    (series,) = scan_series([folder])
    assert series.problem is None, series.problem
    assert series.slices == len(values)
    read, grid = read_series(series.paths)
    assert series.grid is not None
    np.testing.assert_allclose(series.grid.affine, grid.affine)
    assert_lies_where_written(read, grid, values, affine)
    if not storage.enhanced:
        assert list(series.paths) in (written, written[::-1])


@pytest.mark.parametrize("seed", range(QUICK))
def test_any_series_lies_where_it_was_written_from(tmp_path, seed):
    check_any_series(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1000 + MANY, 25))
def test_two_hundred_series_lie_where_they_were_written_from(tmp_path, first):
    for seed in range(first, first + 25):
        check_any_series(tmp_path / str(seed), seed)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_way_to_store_numbers_is_read_to_the_last_bit(tmp_path, syntax, signed, enhanced):
    for bits in (8, 12, 16):
        low = -(1 << bits - 1) if signed else 0
        raw = np.random.default_rng(bits).integers(low, low + (1 << bits), (3, 9, 11))
        raw[0, 0, :2] = low, low + (1 << bits) - 1
        affine = affine_of(shape=raw.shape)
        storage = Storage(enhanced=enhanced, syntax=syntax, bits=bits, signed=signed)
        read, grid = read_series(write_series(tmp_path / str(bits), raw, affine, storage=storage))
        assert_lies_where_written(read, grid, raw, affine)


def itk_of(paths: list[Path]) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """What SimpleITK's GDCM reader reads: ``(slice, row, column)``, and its affine, index to RAS mm."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return SimpleITK.GetArrayFromImage(image), affine


@pytest.mark.parametrize("seed", range(8))
def test_simpleitk_puts_a_series_in_the_same_place(tmp_path, seed):
    values, affine, _ = any_series(seed)
    affine[:3, 0] = np.cross(affine[:3, 1], affine[:3, 2])  # SimpleITK knows no tilted gantry
    affine[:3, 0] *= 2.5 / np.linalg.norm(affine[:3, 0])
    storage = Storage(signed=True, slope=0.5, intercept=3.0, shuffle=seed)
    write_series(tmp_path, np.clip(values, -900, 900), affine, storage=storage)
    (series,) = scan_series([tmp_path])
    array, theirs = itk_of(list(series.paths))
    read, grid = read_series(series.paths)
    np.testing.assert_allclose(grid.affine, theirs, atol=1e-4)
    np.testing.assert_allclose(grid.to_source(read).transpose(2, 1, 0), array, rtol=1e-6)


@pytest.mark.real_data
def test_a_real_series_opens_with_the_geometry_of_simpleitk(real_data):
    (series,) = scan_series([real_data / "dicom" / "studyforrest_T1w"])
    assert (series.problem, series.notes, series.slices) == (None, (), 24)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(real_data / "dicom" / "studyforrest_T1w"))
    array, theirs = itk_of([Path(name) for name in names])
    read, grid = read_series(series.paths)
    corners = np.array([[i, j, k, 1] for i in (0, 273) for j in (0, 383) for k in (0, 23)])
    assert np.abs(corners @ (grid.affine - theirs).T).max() < 1e-3
    np.testing.assert_array_equal(grid.to_source(read).transpose(2, 1, 0), array)


def test_a_sheared_stack_keeps_the_places_of_its_slices(tmp_path):
    values = np.random.default_rng(0).integers(0, 900, (6, 8, 9)).astype(float)
    affine = affine_of((0.1, 0, 1), shape=values.shape, tilt=1.2)
    write_series(tmp_path, values, affine)
    (series,) = scan_series([tmp_path])
    read, grid = read_series(series.paths)
    assert_lies_where_written(read, grid, values, affine)
    assert "tilted by 21.8 degrees (gantry tilt)" in series.notes[0]
