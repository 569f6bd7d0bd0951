"""Save a segmentation to disk: the labels on the source's own grid, and a JSON record next to them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from napari_braintumor.engine.atomic import (
    create_new,
    fold,
    list_taken_names,
    numbered,
    put_in_place,
    replacing,
    staging,
)
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.formats import FORMATS, find_label_suffix, strip_suffix
from napari_braintumor.engine.grid import SourceGrid
from napari_braintumor.engine.measuring.dicom_export import EXTRA_ENDINGS, write_with_extras
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.volumes import Segmentation

Naming = Callable[[int], str]
"""The name of a result's files, without a suffix, for a number from 1: the number rises until a name is free."""

_PICTURE = ".png"
_MOST_BYTES = 200
"""Bytes of a case's name used in a file name: file systems allow 255, and a suffix and a number follow."""


def describe_segmentation(segmentation: Segmentation) -> dict[str, Any]:
    """Return a segmentation's record: the measurements, the model and the source file; JSON values only."""
    source = segmentation.source
    return {
        "case": segmentation.name,
        "volumes_ml": {name: round(ml, 3) for name, ml in segmentation.volumes_ml.items()},
        "labels": {str(label): name for label, name in segmentation.label_names.items()},
        "source": _describe_source(source),
        "spacing_zyx_mm": [round(side, 6) for side in source.spacing],
        "spacing_known": source.spacing_known,
        **({"not_measurable": dict(segmentation.not_measurable)} if segmentation.not_measurable else {}),
        **segmentation.provenance,
    }


def _describe_source(source: SourceGrid) -> str | None:
    """Return the path of a scan; scanners and archives may name DICOM files after the patient, so not theirs."""
    if source.format == "dicom":
        return "DICOM"
    return str(source.path) if source.path else None


def describe_corrected(
    record: Mapping[str, Any],
    *,
    volumes_ml: Mapping[str, float],
    model_ml: Mapping[str, float],
    label_names: Mapping[int, str],
    label_ml: Mapping[int, float],
    edited: Sequence[int],
    reviewed: Sequence[int],
    grid: SourceGrid,
) -> dict[str, Any]:
    """Return the record of labels as they are now, which a person may have edited since the model made them.

    Parameters
    ----------
    record
        The record of the model's result, from `describe_segmentation`.
    volumes_ml, model_ml
        The volume of each region, as it is now and as the model drew it.
    label_names, label_ml
        The name and volume of each label as it is now; the volume is NaN if the scans cannot show it.
    edited, reviewed
        Slices along Z, from inferior, that differ from the model's result, and those that a person marked as reviewed.
    grid
        The current grid of the labels.

    Returns
    -------
    dict
        The record, ready for JSON.
    """
    return {
        **record,
        "volumes_ml": {name: round(ml, 3) for name, ml in volumes_ml.items()},
        "model_volumes_ml": {name: round(ml, 3) for name, ml in model_ml.items()},
        "by_hand_ml": {name: round(ml - model_ml.get(name, 0.0), 3) for name, ml in volumes_ml.items()},
        "labels": {str(label): name for label, name in label_names.items()},
        "label_volumes_ml": {str(label): round(ml, 3) for label, ml in label_ml.items() if not math.isnan(ml)},
        "edited_slices_z": [int(z) for z in edited],
        "reviewed_slices_z": [int(z) for z in reviewed],
        "spacing_zyx_mm": [round(side, 6) for side in grid.spacing],
        "spacing_known": grid.spacing_known,
    }


def save_segmentation(
    segmentation: Segmentation,
    folder: Path,
    suffix: str | None = None,
    overwrite: bool = False,
    picture: Callable[[Path], object] | None = None,
    also: Collection[str] = (),
    more: Mapping[str, Any] | None = None,
    naming: Naming | None = None,
    workplace: Path | None = None,
) -> tuple[Path, Path]:
    """Write a segmentation's labels and record as ``<case>_tumor.nii.gz`` and ``<case>_tumor.json``.

    The record names the scan that the labels were made from, and has a checksum of every file written with it. Files
    are replaced only if they were made from the same scan and have not changed since; otherwise the new files get a
    number: ``<case>_tumor_2.nii.gz``.

    Everything is made in a hidden folder and then put into place, the record first. So wherever this is interrupted, no
    file contradicts its record, and a second call replaces what the first one left.

    Parameters
    ----------
    segmentation
        The segmentation to write.
    folder
        The target folder; created if it does not exist.
    suffix
        ``.nii``, ``.nii.gz``, ``.tif`` or ``.tiff``; if left out, the source's own format.
    overwrite
        Also replace files that were changed or not written by this function; never those of another scan.
    picture
        Called to write a picture to the path it is given: ``<case>_tumor.png``.
    also
        Any of `EXTRAS`: what to write beside a DICOM segmentation, such as ``<case>_tumor_report.dcm``.
    more
        What else the record says; JSON values only.
    naming
        Returns the name of the files, without a suffix, for a number from 1; `number_result` if left out.
    workplace
        Where to make the hidden folder, on the same file system; `folder` if left out.

    Returns
    -------
    labels, record
        The two files.

    Raises
    ------
    DataError
        If the folder cannot be written to, or the labels cannot be written in that format.
    """
    suffix, origin = suffix or find_label_suffix(segmentation.source), _origin_of(segmentation)
    names = naming or partial(number_result, segmentation.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging(workplace or folder) as made:
            record, files = _claim(folder, names, suffix, origin, overwrite, made)
            staged = made / record.name
            try:
                written = write_with_extras(
                    segmentation.labels, segmentation.source, _beside(staged, suffix), segmentation.legend, also
                )
                if picture is not None:
                    picture(_beside(staged, _PICTURE))
                    written.append(_beside(staged, _PICTURE))
                files |= {path.name: file_sha256(path) for path in written}
                content = {**describe_segmentation(segmentation), **(more or {})}
                content["written"] = {"files": files, "from": origin}
                staged.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
                for path in written:  # so that at no moment a file is there that is not the one of the record
                    (folder / path.name).unlink(missing_ok=True)
                put_in_place((staged, *written), folder)
            except BaseException:
                if _is_claim(record):
                    record.unlink()
                raise
    except OSError as error:
        raise DataError(
            f"The folder '{folder}' cannot be written to: {error.strerror}. Choose another folder."
        ) from error
    return folder / written[0].name, record


def write_record(content: Mapping[str, Any], labels: Path) -> Path:
    """Write the record of labels that a person saved, next to them; other files with that name are not replaced.

    The record has no checksums, so `save_segmentation` never mistakes these labels for its own.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    first = labels.with_name(f"{strip_suffix(labels)}.json")
    record = next(path for path in numbered(first, ".json") if not path.exists() or _is_record_of(path, labels))
    with replacing(record) as temporary:
        text = json.dumps({"labels_file": labels.name, **content}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    return record


def read_record(labels: Path) -> dict[str, Any] | None:
    """Return the record beside labels that this program saved; None if there is none."""
    for path in numbered(labels.with_name(f"{strip_suffix(labels)}.json"), ".json"):
        if not path.exists():
            return None
        if _is_record_of(path, labels):
            content: dict[str, Any] = json.loads(path.read_bytes())
            return content
    return None


def _is_record_of(record: Path, labels: Path) -> bool:
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return False
    files, _ = read_written(record)
    return labels.name in files or (isinstance(content, dict) and content.get("labels_file") == labels.name)


def name_result(case: str) -> str:
    """Return the base name of a case's results, if it is not taken: ``<case>_tumor``."""
    word = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", case)
    while len(os.fsencode(word)) > _MOST_BYTES:
        word = word[:-1]
    return f"{word}_tumor"


def number_result(case: str, number: int) -> str:
    """Return the base name of a case's results: ``<case>_tumor``, then ``<case>_tumor_2`` and so on."""
    return name_result(case) if number == 1 else f"{name_result(case)}_{number}"


def _origin_of(segmentation: Segmentation) -> dict[str, str] | None:
    """Return the scan that labels were made from: its path, and its content in case another scan replaces it."""
    path = segmentation.source.path
    try:
        if path is None:
            return None
        where = str(path.resolve())
        if segmentation.source.format == "dicom":  # see `_describe_source`
            where = hashlib.sha256(os.fsencode(where)).hexdigest()
        return {"path": where, "sha256": file_sha256(path)}
    except OSError:
        return None


def _claim(
    folder: Path, naming: Naming, suffix: str, origin: dict[str, str] | None, overwrite: bool, through: Path
) -> tuple[Path, dict[str, str]]:
    """Return the first record that may be written, and the checksums of files next to it that stay unchanged."""
    for number in count(1):
        record = folder / f"{naming(number)}.json"
        beside = (_PICTURE, *EXTRA_ENDINGS)
        endings = (*(suffix for each in FORMATS for suffix in each.suffixes), *beside, ".json")
        names = {fold(_beside(record, ending).name) for ending in endings}
        there = [path for name, path in list_taken_names(record.parent).items() if name in names]
        if not there:
            with suppress(FileExistsError):
                # An empty record claims the name, so that no other process takes it.
                create_new(record, json.dumps({"written": {"files": {}, "from": origin}}), through)
                return record, {}
            continue
        files, known = read_written(record)
        own = origin is not None and known == origin
        stay = {path.name: files.get(path.name) for path in there if path.name != record.name}
        unchanged = are_intact(record, stay)
        expected = {record.name, *(_beside(record, ending).name for ending in (suffix, *beside))}
        if own and (overwrite or (unchanged and {path.name for path in there} <= expected)):
            return record, {name: sha256 for name, sha256 in files.items() if name in stay}
        if overwrite and known is None and {path.name for path in there} <= expected:
            return record, {}
    raise AssertionError("numbers do not end")


def _is_claim(record: Path) -> bool:
    """Whether a record only reserves its name."""
    try:
        return list(json.loads(record.read_bytes())) == ["written"]
    except (OSError, ValueError):
        return False


def read_written(record: Path) -> tuple[dict[str, str], object]:
    """Return the checksum of each file written with a record, and its scan; empty if the record states none."""
    try:
        written = json.loads(record.read_bytes())["written"]
        return dict(written["files"]), written["from"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}, None


def are_intact(record: Path, files: Mapping[str, str | None]) -> bool:
    """Whether the files next to a record are there and have these checksums."""
    paths = {record.with_name(name): sha256 for name, sha256 in files.items()}
    return all(path.is_file() and file_sha256(path) == sha256 for path, sha256 in paths.items())


def _beside(record: Path, ending: str) -> Path:
    return record.with_name(record.name.removesuffix(".json") + ending)
