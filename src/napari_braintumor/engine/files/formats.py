"""The image formats that are read and written, with their names in messages and dialogs.

To add a format, write a module with its functions and add a row to `FORMATS`. The napari manifest lists the suffixes
again, and a test compares the two lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files import _foreign, analyze, freesurfer, itk, nifti, tiff
from napari_braintumor.engine.files._access import check_file
from napari_braintumor.engine.files.calling import DICOM_SUFFIXES, call_file, capitalize
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.volumes import Legend

Image = tuple[NDArray[Any], SourceGrid]
"""The values of a file, ``(Z, Y, X)`` or ``(C, Z, Y, X)``, and their grid."""


@dataclass(frozen=True)
class Format:
    """A kind of image file.

    Attributes
    ----------
    name
        The value of `SourceGrid.format` for its files.
    title
        Its name in messages and dialogs.
    suffixes
        Its file suffixes in lower case, the default for writing first.
    content
        The kind of file that the first bytes must show.
    always_scan
        Whether every file is a scan or a mask, whatever its name says; TIFF files may be any picture.
    names_channels
        Whether its files may say what their channels are.
    read
        Reads a file.
    count_channels
        Returns how many channels a file has, and their names if it states them.
    read_grid
        Reads only the grid; None if the whole file must be read for that.
    read_slices
        Reads a stack stored as one file per slice; None if the format has no such stacks.
    write_labels
        Writes uint8 labels ``(Z, Y, X)`` onto the grid of a scan, completely or not at all; shape and suffix are
        checked before. None if labels of such scans are written in the first of the `FORMATS`.
    write_named
        As `write_labels`, with what the labels mean; None if its files do not say.
    labels_by_choice
        Whether labels of its scans are written in the first of the `FORMATS` unless its own is asked for.
    label_suffixes
        The suffixes of its label files, the default first; all of its suffixes if left out.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    content: _foreign.FileKind
    always_scan: bool
    names_channels: bool
    read: Callable[[Path], Image]
    count_channels: Callable[[Path], tuple[int, tuple[str, ...]]]
    write_labels: Callable[[NDArray[np.uint8], SourceGrid, Path], None] | None
    read_grid: Callable[[Path], SourceGrid] | None = None
    read_slices: Callable[[Sequence[Path]], Image] | None = None
    label_suffixes: tuple[str, ...] = ()
    write_named: Callable[[NDArray[np.uint8], SourceGrid, Path, Legend], None] | None = None
    labels_by_choice: bool = False

    @property
    def written_suffixes(self) -> tuple[str, ...]:
        """The suffixes of its label files; empty if it has none."""
        return () if self.write_labels is None else self.label_suffixes or self.suffixes

    @property
    def words(self) -> str:
        """Its name and suffixes, for messages."""
        return f"{self.title} ({', '.join(sorted(self.suffixes, key=len))})"


# pydicom takes long to import, so it is not before a DICOM file is read.
def _read_dicom(paths: Sequence[Path]) -> Image:
    from napari_braintumor.engine.files.dicom.reading import read_series

    return read_series(paths)


def _read_dicom_grid(path: Path) -> SourceGrid:
    from napari_braintumor.engine.files.dicom.scanning import find_stacks, grid_of

    return grid_of(find_stacks([path])[0], path)


def _count_dicom_channels(path: Path) -> tuple[int, tuple[str, ...]]:
    from napari_braintumor.engine.files.dicom.scanning import find_stacks

    return len(find_stacks([path])), ()


def _write_dicom_labels(labels_ZYX: NDArray[np.uint8], source: SourceGrid, path: Path, legend: Legend) -> None:
    from napari_braintumor.engine.files.dicom.segmentation import write_segmentation

    write_segmentation(labels_ZYX, source, path, legend)


def _count_tiff_channels(path: Path) -> tuple[int, tuple[str, ...]]:
    array, _, names = tiff.read_tiff(path)
    return len(array) if array.ndim == 4 else 1, names


FORMATS: list[Format] = [
    Format(
        name="nifti",
        title="NIfTI",
        suffixes=nifti.NIFTI_SUFFIXES,
        content=_foreign.NIFTI,
        always_scan=True,
        names_channels=False,
        read=nifti.read_nifti,
        count_channels=lambda path: (nifti.read_nifti_grid(path)[1], ()),
        write_labels=nifti.write_nifti_labels,
        read_grid=lambda path: nifti.read_nifti_grid(path)[0],
    ),
    Format(
        name="tiff",
        title="TIFF",
        suffixes=tiff.TIFF_SUFFIXES,
        content=_foreign.TIFF,
        always_scan=False,
        names_channels=True,
        read=lambda path: tiff.read_tiff(path)[:2],
        count_channels=_count_tiff_channels,
        write_labels=tiff.write_tiff_labels,
        read_slices=lambda paths: tiff.read_tiff_slices(paths)[:2],
    ),
    Format(
        name="dicom",
        title="DICOM",
        suffixes=DICOM_SUFFIXES,
        content=_foreign.DICOM,
        always_scan=True,
        names_channels=False,
        read=lambda path: _read_dicom([path]),
        count_channels=_count_dicom_channels,
        write_labels=lambda labels, source, path: _write_dicom_labels(labels, source, path, Legend()),
        read_grid=_read_dicom_grid,
        read_slices=_read_dicom,
        label_suffixes=(".dcm",),
        write_named=_write_dicom_labels,
        labels_by_choice=True,
    ),
    *(
        Format(
            name=name,
            title=title,
            suffixes=suffixes,
            content=content,
            always_scan=True,
            names_channels=False,
            read=itk.read_itk,
            count_channels=lambda path: (itk.read_itk_grid(path)[1], ()),
            write_labels=itk.write_itk_labels,
            read_grid=lambda path: itk.read_itk_grid(path)[0],
            label_suffixes=suffixes[:1],
        )
        for name, title, suffixes, content in (
            ("nrrd", "NRRD", itk.NRRD_SUFFIXES, _foreign.NRRD),
            ("metaimage", "MetaImage", itk.META_SUFFIXES, _foreign.META),
        )
    ),
    Format(
        name="mgh",
        title="FreeSurfer",
        suffixes=freesurfer.MGH_SUFFIXES,
        content=_foreign.MGH,
        always_scan=True,
        names_channels=False,
        read=freesurfer.read_mgh,
        count_channels=lambda path: (freesurfer.read_mgh_grid(path)[1], ()),
        write_labels=freesurfer.write_mgh_labels,
        read_grid=lambda path: freesurfer.read_mgh_grid(path)[0],
    ),
    Format(
        name="analyze",
        title="Analyze",
        suffixes=analyze.PAIR_SUFFIXES,
        content=_foreign.PAIR,
        always_scan=True,
        names_channels=False,
        read=analyze.read_pair,
        count_channels=lambda path: (analyze.read_pair_grid(path)[1], ()),
        write_labels=None,
        read_grid=lambda path: analyze.read_pair_grid(path)[0],
    ),
]
"""The formats; labels of a scan that did not come from a file are written in the first."""


def find_format(path: Path) -> Format | None:
    """Return the format for a file's suffix; None if it is not in `FORMATS`.

    Returns
    -------
    Format or None
        Suffixes that mean little are held against the content: a file without one may be DICOM, ``.hdr`` a picture.
    """
    suffix = find_suffix(path)
    found = next((each for each in FORMATS if suffix in each.suffixes), None)
    if found is not None and found.content == _foreign.PAIR and not _foreign.may_be_pair(path):
        return None
    if found is None and _foreign.may_be_anything(path) and _foreign.is_dicom(path):
        return next(each for each in FORMATS if each.content == _foreign.DICOM)
    return found


def find_suffix(path: Path) -> str:
    """Return a file name's suffix in lower case, with ``.nii.gz`` as one suffix."""
    name = path.name.lower()
    known = sorted((suffix for each in FORMATS for suffix in each.suffixes), key=len, reverse=True)
    return next((suffix for suffix in known if name.endswith(suffix) and name != suffix), path.suffix.lower())


def strip_suffix(path: Path) -> str:
    """Return a file's name without the suffix that `find_suffix` returns."""
    return path.name[: len(path.name) - len(find_suffix(path))]


def is_listed(path: Path) -> bool:
    """Whether a file is a scan or a mask by its suffix; the voxels of a pair do not count beside their header."""
    if find_format(path) is None:
        return False
    return not (path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file())


def check_readable(path: Path) -> Format:
    """Raise an error if a path is not a file, is empty, or has a format that is not supported, whatever its name says.

    Returns
    -------
    Format
        The format of the file.

    Raises
    ------
    DataError
        Naming the file.
    """
    found = find_format(path)
    check_file(path, found.content if found else None)
    if found is None:
        raise DataError(
            f"{capitalize(call_file(path))} cannot be read. Expected {join_words(each.words for each in FORMATS)}."
        )
    return found


def check_writable(path: Path) -> Format:
    """Return the format in which labels are written to a path.

    Returns
    -------
    Format
        The row of the table.

    Raises
    ------
    DataError
        If no format has this suffix.
    """
    suffix = find_suffix(path)
    found = next((each for each in FORMATS if suffix in each.written_suffixes), None)
    if found is None:
        endings = join_words(suffix for each in FORMATS for suffix in each.written_suffixes)
        raise DataError(f"Labels cannot be written as '{path.name}'. Expected a name ending in {endings}.")
    return found


def find_label_suffix(source: SourceGrid) -> str:
    """Return the suffix for a scan's label file: the scan's own format if labels are written in it without asking."""
    own = next((each for each in FORMATS if each.name == source.format), FORMATS[0])
    return (FORMATS[0].suffixes if own.labels_by_choice or not own.written_suffixes else own.written_suffixes)[0]


def describe_for_dialog() -> str:
    """Return the file filter of the save dialog: ``NIfTI (*.nii.gz *.nii);;TIFF (*.tif *.tiff)``."""
    return ";;".join(
        f"{each.title} ({' '.join(f'*{suffix}' for suffix in each.written_suffixes)})"
        for each in FORMATS
        if each.written_suffixes
    )


def join_words(words: Iterable[str], last: str = "or") -> str:
    """Join words with commas, and with `last` before the last word."""
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end
