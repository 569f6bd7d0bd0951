"""TIFF stacks <-> arrays with axes (Z, Y, X).

A TIFF file does not state its orientation. Its axes are taken as stored: Z through the pages, from inferior to
superior, Y down to posterior, X right to the patient's left.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_braintumor.engine.atomic import replacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign
from napari_braintumor.engine.files._access import check_file
from napari_braintumor.engine.files._tiff_pages import read_whole
from napari_braintumor.engine.grid import SourceGrid, default_grid, replace_impossible_spacing

TIFF_SUFFIXES = (".tif", ".tiff")

_MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "inch": 25.4,
}


def read_tiff(path: Path) -> tuple[NDArray[Any], SourceGrid, tuple[str, ...]]:
    """Read a TIFF stack.

    Parameters
    ----------
    path
        A ``.tif`` or ``.tiff`` file with a slice, a stack of slices, or a stack with channels: plain, ImageJ or OME.

    Returns
    -------
    tuple
        The values as stored, ``(Z, Y, X)`` or ``(C, Z, Y, X)``; the grid, with `spacing_known` False and 1 mm if the
        file (OME or ImageJ) states no size; and the names of the channels, empty if it states none.

    Raises
    ------
    DataError
        If the file is missing, empty or damaged, has another format, or its axes are unclear.
    """
    check_file(path, _foreign.TIFF)
    try:
        with _complete(), tifffile.TiffFile(path) as tiff:
            array, axes = read_whole(tiff, path)
            spacing, names = _read_metadata(tiff)
    except DataError:
        raise
    except Exception as error:  # tifffile raises almost anything for files that are not TIFF
        raise DataError(
            f"'{path.name}' is damaged, truncated or not a readable TIFF file "
            f"({str(error).rstrip('.') or type(error).__name__}). Copy it again, or save it uncompressed."
        ) from error
    array = _order_axes(array, axes, path)
    z, y, x = array.shape[-3:]
    known = spacing is not None and (spacing[0] is not None or z == 1)
    z_mm, y_mm, x_mm = spacing or (None, 1.0, 1.0)
    sides = (z_mm or 1.0, y_mm, x_mm)
    grid = default_grid((z, y, x), sides, path=path, format="tiff", spacing_known=known, orientation_known=False)
    channels = len(array) if array.ndim == 4 else 1
    return array, replace_impossible_spacing(grid), names if len(names) == channels else ()


def read_tiff_slices(paths: Sequence[Path]) -> tuple[NDArray[Any], SourceGrid, tuple[str, ...]]:
    """Read a stack stored as one TIFF file per slice.

    Parameters
    ----------
    paths
        The slices, in order.

    Returns
    -------
    tuple
        As `read_tiff`.

    Raises
    ------
    DataError
        As `read_tiff`, or if a slice is missing or the slices differ in shape.
    """
    _check_no_gap(paths)
    slices = [read_tiff(path) for path in paths]
    first, grid, names = slices[0]
    for path, (array, _, _) in zip(paths, slices, strict=True):
        if array.shape != first.shape:
            raise DataError(
                f"Slices '{paths[0].name}' {first.shape} and '{path.name}' {array.shape} differ in shape. "
                "The slices of a case must share one grid. Remove the one that does not belong."
            )
    array = np.concatenate([array for array, _, _ in slices], axis=-3)
    z, y, x = array.shape[-3:]
    # Separate files do not state the distance between slices.
    return (
        array,
        default_grid(
            (z, y, x),
            (1.0, *grid.spacing[1:]),
            path=paths[0],
            format="tiff",
            spacing_known=False,
            orientation_known=False,
        ),
        names,
    )


def _check_no_gap(paths: Sequence[Path]) -> None:
    """Raise an error if a slice is missing from a stack of single slices."""
    numbers = [int(found[-1]) for path in paths if (found := re.findall(r"\d+", path.stem))]
    if len(numbers) < len(paths):
        return
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers))
    if missing:
        raise DataError(
            f"Slices {', '.join(map(str, missing))} are missing next to '{paths[0].name}'. "
            "Expected every slice of the stack. Copy or download them again."
        )


def write_tiff_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path) -> None:
    """Write labels as an OME-TIFF with axes ZYX, zlib-compressed, with the voxel size if it is known.

    Parameters
    ----------
    labels_ZYX
        uint8 ``(Z, Y, X)``, of the source's shape.
    source
        The grid of the scan.
    path
        Ends in ``.tif`` or ``.tiff``. The file appears only when it is complete.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    metadata: dict[str, Any] = {"axes": "ZYX", "Name": "tumor labels"}
    if source.spacing_known:
        for axis, size in zip("ZYX", source.spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "mm"}
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary, np.asarray(labels_ZYX, np.uint8), ome=True, metadata=metadata, compression="zlib",
            photometric="minisblack",
        )  # fmt: skip


def write_any_labels(labels: NDArray[np.integer[Any]], path: Path) -> None:
    """Write labels that are not those of a scan as they are: of any shape, and any integer type.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, labels, compression="zlib", photometric="minisblack")


class _MissingPageLog(logging.Handler):
    """Collects what tifffile logs in this thread about missing pages."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record."""
        if record.thread == self.thread and "TiffPages" in record.getMessage():
            self.messages.append(record.getMessage())


@contextmanager
def _complete() -> Iterator[None]:
    """Raise an error if tifffile only logs that pages are missing and returns the ones it found."""
    complaints = _MissingPageLog()
    log = logging.getLogger("tifffile")
    log.addHandler(complaints)
    try:
        yield
    except DataError:
        if not complaints.messages:  # other errors may be caused by the missing pages
            raise
    finally:
        log.removeHandler(complaints)
    if complaints.messages:
        raise tifffile.TiffFileError(complaints.messages[0])


def _order_axes(array: NDArray[Any], axes: str, path: Path) -> NDArray[Any]:
    """Bring an array with tifffile's axis letters to (Z, Y, X) or (C, Z, Y, X)."""
    keep = [i for i, (size, axis) in enumerate(zip(array.shape, axes, strict=True)) if size > 1 or axis in "YX"]
    array, axes = array.reshape([array.shape[i] for i in keep]), "".join(axes[i] for i in keep)
    if array.ndim == 4 and not set(axes) & set("CSZ"):  # unnamed axes
        axes = "ZYXC" if array.shape[-1] <= 4 else "CZYX" if array.shape[0] <= 4 else axes
    letters = ["C" if axis in "CS" else axis if axis in "YX" else "Z" for axis in axes]
    if sorted(letters) not in (["X", "Y"], ["X", "Y", "Z"], ["C", "X", "Y"], ["C", "X", "Y", "Z"]):
        raise DataError(
            f"'{path.name}' has the axes {axes} with the shape {array.shape}. Expected one stack of slices, "
            "with at most one axis of channels. Save it as OME-TIFF with axes ZYX or CZYX."
        )
    array = np.transpose(array, [letters.index(axis) for axis in "CZYX" if axis in letters])
    return array if "Z" in letters else np.expand_dims(array, -3)


def _read_metadata(tiff: tifffile.TiffFile) -> tuple[tuple[float | None, float, float] | None, tuple[str, ...]]:
    """Return the voxel size along Z, Y, X in mm, None if not stated, and the names of the channels."""
    if tiff.is_ome and tiff.ome_metadata:
        return _read_ome(tiff.ome_metadata)
    if tiff.is_imagej and tiff.imagej_metadata:
        return _read_imagej(tiff)
    return None, ()


def _read_ome(xml: str) -> tuple[tuple[float | None, float, float] | None, tuple[str, ...]]:
    pixels = next(
        (e for e in ElementTree.fromstring(xml).iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"), None
    )
    if pixels is None:
        return None, ()
    sizes: list[float | None] = []
    for axis in "ZYX":
        size = _as_size(pixels.get(f"PhysicalSize{axis}"))
        factor = _MM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("\u03bc", "µ"), 0.0)
        sizes.append(size * factor if size * factor > 0 else None)
    names = [e.get("Name") or "" for e in pixels if e.tag.endswith("Channel")]
    z, y, x = sizes
    return (None if y is None or x is None else (z, y, x)), tuple(names) if all(names) else ()


def _read_imagej(tiff: tifffile.TiffFile) -> tuple[tuple[float | None, float, float] | None, tuple[str, ...]]:
    metadata: dict[str, Any] = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ").replace("\u03bc", "µ")
    names = tuple(str(name) for name in metadata.get("Labels") or ())[: int(metadata.get("channels", 1))]
    tags = tiff.pages.first.tags
    if unit not in _MM or "XResolution" not in tags or "YResolution" not in tags:
        return None, names
    sizes = []
    for key in ("YResolution", "XResolution"):
        pixels, units = tags[key].value
        if not pixels or not units:
            return None, names
        sizes.append(units / pixels * _MM[unit])
    z_mm = abs(_as_size(metadata.get("spacing"))) * _MM[unit]  # ImageJ stores the direction in the sign
    return (z_mm or None, sizes[0], sizes[1]), names


def _as_size(text: Any) -> float:
    """Return a size that a file states; 0 if it is not a number, or is impossible for any scan."""
    try:
        size = float(text)
    except (TypeError, ValueError):
        return 0.0
    return size if 1e-12 < abs(size) < 1e12 else 0.0  # also rejects NaN
