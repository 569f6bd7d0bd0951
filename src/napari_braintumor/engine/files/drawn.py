"""Labels from a file of their own, without the scan that they were drawn on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from napari_braintumor.engine.anatomy import REGION_LABELS, find_fitting_conventions, guess_convention
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.formats import check_readable, strip_suffix
from napari_braintumor.engine.files.labels import find_label_values, reference_from_values
from napari_braintumor.engine.files.naming import read_words
from napari_braintumor.engine.files.schemes import is_result, read_scheme
from napari_braintumor.engine.volumes import Reference

_OWN = "brats2024"
"""The numbers of `LABELS`, the cavity included."""


def read_drawn(path: Path, convention: str | None = None) -> Reference:
    """Read a file of labels as regions.

    Parameters
    ----------
    path
        A mask in any format that is read, or a DICOM segmentation or structure set.
    convention
        A key of `CONVENTIONS`. If it is left out, the file's content, name or record must say it.

    Returns
    -------
    Reference
        The regions that the file defines, on its own grid.

    Raises
    ------
    DataError
        If the file cannot be read or holds no labels, or several conventions fit it.
    """
    form = check_readable(path)
    if form.name == "dicom":
        return _read_dicom(path, convention)
    data, grid = form.read(path)
    if data.ndim != 3:
        raise DataError(f"'{path.name}' has {len(data)} channels. Expected labels: one number for each voxel.")
    if convention is not None:
        return reference_from_values(data, convention, grid)
    if is_result(path):
        read = reference_from_values(data, _OWN, grid)
        regions = _list_recorded(path) or [name for name in read.regions if name in REGION_LABELS]
        return replace(read, regions={name: mask for name, mask in read.regions.items() if name in regions})
    named = read_scheme(path)
    stated = named.convention if named is not None else read_words(strip_suffix(path)).convention
    stated = stated or guess_convention(values := find_label_values(data, grid))
    if stated is None:
        fitting = find_fitting_conventions(values)
        raise DataError(
            f"'{path.name}' contains the values {', '.join(map(str, values))}, which fit several label conventions: "
            f"{', '.join(fitting)}. State which one it is: --labels {fitting[0]}."
        )
    return reference_from_values(data, stated, grid)


def _read_dicom(path: Path, convention: str | None) -> Reference:
    from napari_braintumor.engine.files.dicom.labels import read_labels

    image = read_labels(path)
    if convention is None and not image.own:
        raise DataError(
            f"{capitalize(call_file(path))} names its labels in words that are not known. State what its numbers mean: "
            "--labels brats2023."
        )
    read = reference_from_values(image.labels, convention or _OWN, image.grid)
    return replace(read, notes=(*read.notes, *image.notes))


def _list_recorded(path: Path) -> list[str]:
    """Return the regions that the record beside a result lists; none if there is no record."""
    try:
        record = json.loads(path.with_name(f"{strip_suffix(path)}.json").read_bytes())
        return [str(name) for name in record["volumes_ml"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
