"""Open scans in napari: thin calls into `engine.files` and `layers`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from napari.utils.notifications import show_warning

from napari_braintumor.engine.card import GLIOMA_REGIONS
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.types import LABELS
from napari_braintumor.layers import LayerData, default_placement, image_layer, label_layer, layers_from_case

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

MOST_CASES = 4
"""Cases opened at once; more would fill memory and the layer list."""

_NIFTI = (".nii", ".nii.gz")
_TIFF = (".tif", ".tiff")
_MASK_WORDS = {"seg", "segmentation", "dseg", "mask", "label", "labels", "tumor"}


def find_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Offer to read NIfTI files, and those TIFF files and folders that are cases; napari's reader entry point.

    Parameters
    ----------
    path
        A file, a folder, or several.

    Returns
    -------
    callable or None
        None leaves the path to other readers: for ordinary TIFF pictures, and for folders without scans.
    """
    paths = _as_paths(path)
    folders = [item for item in paths if item.is_dir()]
    nifti = [item for item in paths if item.name.lower().endswith(_NIFTI)]
    if not all(item in folders or item.name.lower().endswith((*_NIFTI, *_TIFF)) for item in paths):
        return None
    if len(nifti) == len(paths) or any(_holds_nifti(folder) for folder in folders):
        return read_layers  # from here on, what cannot be read is told, not left to others
    try:
        cases = find_cases(paths)
        if len(cases) > MOST_CASES:
            return read_layers
        layers = read_layers(path)
    except DataError:
        return None
    flat = any(data.shape[0] == 1 for data, _, _ in layers) and all(case.group == "other" for case in cases)
    return None if flat else lambda _: layers


def read_layers(path: Paths) -> list[LayerData]:
    """Read a case folder, its files, or single files.

    Parameters
    ----------
    path
        A file, a folder, or several. A NIfTI file whose name does not tell its modality becomes a plain image layer;
        a mask by itself becomes a label layer.

    Returns
    -------
    list of LayerData
        One image layer for each modality; the mask of a case folder as hidden label layer.

    Raises
    ------
    DataError
        If a file cannot be read, or a folder holds more than `MOST_CASES` cases.
    """
    paths = _as_paths(path)
    try:
        cases = find_cases(paths)
    except DataError:
        if not all(item.name.lower().endswith(_NIFTI) for item in paths):
            raise
        return [layer for item in paths for layer in _read_plain(item)]
    if len(cases) > MOST_CASES:
        raise DataError(
            f"'{paths[0].name}' holds {len(cases)} cases, from '{cases[0].name}' to '{cases[-1].name}'. "
            f"At most {MOST_CASES} can be open at once. Open the folder of one case."
        )
    folders = any(item.is_dir() for item in paths)
    return [layer for case in cases for layer in _read_case(case, folders or set(case.reference) <= set(paths))]


def _read_case(case: CaseFiles, with_reference: bool) -> list[LayerData]:
    reference = None
    if with_reference:
        try:
            reference = read_reference(case)
        except DataError as error:
            show_warning(f"The scan is opened without its mask. {error}")
    return layers_from_case(read_case(case), reference)


def _read_plain(path: Path) -> list[LayerData]:
    """Read a NIfTI file that is no case: a scan of unknown modality, several in one file, or a mask."""
    data, grid = read_nifti(path)
    place = default_placement(grid)
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    words = set(re.split(r"[^a-z]+", stem.lower()))
    if words & _MASK_WORDS and data.ndim == 3 and data.min() >= 0 and data.max() <= 255 and not np.any(data % 1):
        labels = data.astype(np.uint8)
        if "tumor" in words and labels.max() in LABELS:  # as this plugin names and numbers its results
            colors = {region.label: region.color for region in GLIOMA_REGIONS}
            return [label_layer(labels, place, stem, LABELS, colors, case=stem, role="mask")]
        return [(labels, {**place.options, "name": stem, "metadata": place.remember(case=stem, role="mask")}, "labels")]
    channels = data if data.ndim == 4 else data[None]
    names = [stem] if len(channels) == 1 else [f"{stem} channel {i + 1}" for i in range(len(channels))]
    return [image_layer(channel, place, name, stem) for name, channel in zip(names, channels, strict=True)]


def _holds_nifti(folder: Path) -> bool:
    return any(name.lower().endswith(_NIFTI) for _, _, names in os.walk(folder) for name in names)


def _as_paths(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | os.PathLike) else [Path(item) for item in path]
