"""NRRD and MetaImage files <-> arrays with axes (Z, Y, X), by SimpleITK.

A header is looked at first: its sizes must fit the file, and its voxels must lie in the file or beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files._access import check_file
from napari_braintumor.engine.grid import SourceGrid, grid_from_affine, replace_impossible_spacing

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
"""Those that hold header and voxels in one file."""

_HEADER_BYTES = 1 << 16
_MOST_PACKED = 1032
"""The highest compression ratio of deflate."""
_LEAST_BYTES = 16 << 20
_DAMAGES = (RuntimeError, ValueError, KeyError, OverflowError, MemoryError, UnicodeError, OSError)
_KINDS = {
    "nrrd": _foreign.NRRD,
    "metaimage": _foreign.META,
}
_IO = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_PLACED = {"transformmatrix", "rotation", "orientation"}
_ANATOMICAL = re.compile(r"(left|right)-(anterior|posterior)-(superior|inferior)(-time)?|[LR][AP][SI]T?", re.IGNORECASE)


@dataclass(frozen=True)
class _Stated:
    """What a header states, as far as it must be known before the file is read."""

    sizes: tuple[int, ...]
    data_file: str
    oriented: bool


def read_itk(path: Path) -> tuple[NDArray[np.float32], SourceGrid]:
    """Read an NRRD or MetaImage file and reorder its axes to (Z, Y, X), without resampling.

    Parameters
    ----------
    path
        A file of real numbers with two or three axes, or with a fourth one or several numbers a voxel as channels.

    Returns
    -------
    tuple
        float32 ``(Z, Y, X)`` or ``(C, Z, Y, X)``, and the grid. `SourceGrid.orientation_known` is False if the header
        does not relate the axes to the patient.

    Raises
    ------
    DataError
        If the file is damaged, has other axes, or its voxels lie in a file elsewhere.
    """
    reader, grid, _ = _open(path)
    import SimpleITK

    try:
        image = reader.Execute()
        if image.GetDimension() == 2:
            image = SimpleITK.JoinSeries(image)
        array = SimpleITK.GetArrayFromImage(image)
    except _DAMAGES as error:
        raise _damaged(path) from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    return grid.from_source(np.swapaxes(array, -1, -3).astype(np.float32)), grid


def read_itk_grid(path: Path) -> tuple[SourceGrid, int]:
    """Read only the grid of an NRRD or MetaImage file, and how many channels it has.

    Returns
    -------
    tuple
        As `read_itk`, with the number of channels.

    Raises
    ------
    DataError
        As `read_itk`.
    """
    _, grid, channels = _open(path)
    return grid, channels


def write_itk_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path) -> None:
    """Write labels as a compressed NRRD or MetaImage file onto exactly the grid of their scan.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``, of the source's shape.
    source
        The grid of the scan.
    path
        Ending in ``.nrrd`` or ``.mha``. The file appears only when it is complete.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.swapaxes(source.to_source(labels_ZYX), 0, 2)))
    affine = np.diag([-1.0, -1, 1, 1]) @ source.affine
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetDirection((affine[:3, :3] / sides).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    with replacing(path) as temporary:
        try:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OSError(0, "SimpleITK cannot write there") from error


def _open(path: Path) -> tuple[Any, SourceGrid, int]:
    """Return a reader that has read the header, the grid, and the number of channels."""
    import SimpleITK

    name = "nrrd" if path.name.lower().endswith(NRRD_SUFFIXES) else "metaimage"
    check_file(path, _KINDS[name])
    try:
        stated = _read_nrrd(path) if name == "nrrd" else _read_meta(path)
        _check_data(path, stated)
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings go to the console
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO(_IO[name])
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        axes = int(reader.GetDimension())
        sizes = [int(size) for size in reader.GetSize()]
        if axes not in (2, 3, 4):
            raise DataError(
                f"'{path.name}' has {axes} axes. Expected three, or four with channels last. Convert it again."
            )
        if "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()):
            raise DataError(
                f"'{path.name}' contains complex numbers. Expected a scan of real numbers. Convert it again."
            )
        direction = np.array(reader.GetDirection()).reshape(axes, axes)
        spacing, origin = np.array(reader.GetSpacing()), np.array(reader.GetOrigin())
    except DataError:
        raise
    except _DAMAGES as error:
        raise _damaged(path) from error
    affine, used = np.eye(4), min(axes, 3)
    affine[:used, :used] = direction[:used, :used] * spacing[:used]
    affine[:used, 3] = origin[:used]
    affine[:2] *= -1  # LPS to RAS
    with np.errstate(all="ignore"):
        flatness = abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)))
    if not np.isfinite(affine).all() or not flatness > 1e-3:
        raise DataError(
            f"'{path.name}' states directions that cannot be right. Correct its header, or convert it again."
        )
    i, j, k = (*sizes, 1)[:3]
    grid = grid_from_affine((i, j, k), affine, path=path, format=name, orientation_known=stated.oriented and axes > 2)
    channels = int(reader.GetNumberOfComponents()) * (sizes[3] if axes == 4 else 1)
    return reader, replace_impossible_spacing(grid), channels


def _read_start(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES).decode("latin-1")


def _read_nrrd(path: Path) -> _Stated:
    lines = _read_start(path).replace("\r", "").split("\n\n", 1)[0].splitlines()
    fields = _fields(lines[1:], ":")
    return _Stated(
        tuple(int(size) for size in fields["sizes"].split()),
        fields.get("data file", fields.get("datafile", "")),
        "space directions" in fields and _ANATOMICAL.fullmatch(fields.get("space", "")) is not None,
    )


def _read_meta(path: Path) -> _Stated:
    text = _read_start(path)
    head = re.split(r"(?im)^ElementDataFile\s*=[^\n]*\n?", text, maxsplit=1)[0]
    match = re.search(r"(?im)^ElementDataFile\s*=\s*([^\r\n]*)", text)
    fields = _fields(head.splitlines(), "=")
    return _Stated(
        tuple(int(size) for size in fields["dimsize"].split()),
        "" if match is None or match[1].strip().upper() == "LOCAL" else match[1].strip(),
        bool(_PLACED & fields.keys()),
    )


def _fields(lines: list[str], between: str) -> Mapping[str, str]:
    parts = (line.partition(between) for line in lines if not line.startswith("#"))
    return {name.strip().lower(): value.strip().lstrip("=") for name, _, value in parts if value}


def _check_data(path: Path, stated: _Stated) -> None:
    """Raise an error if the voxels lie elsewhere, or are more than the file can hold."""
    data = path
    if stated.data_file:
        data = path.parent / stated.data_file
        home = path.parent.resolve()
        if (
            stated.data_file.upper().startswith("LIST")
            or "%" in stated.data_file
            or not data.resolve().is_relative_to(home)
        ):
            raise DataError(
                f"'{path.name}' keeps its voxels in several files or in another folder. Expected one file beside it. "
                "Convert the scan to NIfTI (.nii.gz)."
            )
        if not data.is_file():
            raise DataError(f"'{path.name}' keeps its voxels in another file, which is not beside it. Copy both again.")
    if min(stated.sizes) < 1 or prod(stated.sizes) > max(_LEAST_BYTES, data.stat().st_size * _MOST_PACKED):
        raise ValueError("sizes that cannot be")


def _damaged(path: Path) -> DataError:
    kind = "NRRD" if path.name.lower().endswith(NRRD_SUFFIXES) else "MetaImage"
    return DataError(f"'{path.name}' is damaged, truncated or not a readable {kind} file. Copy or download it again.")
