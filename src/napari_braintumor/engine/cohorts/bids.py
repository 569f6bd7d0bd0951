"""BIDS: what names of scans say in entities, and a dataset of derivatives made of results.

https://bids-specification.readthedocs.io, "Common derivatives" and "Imaging data: discrete segmentations".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_braintumor import __version__
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.files.formats import strip_suffix

DESCRIPTION = "dataset_description.json"
VERSION = "1.10.0"
"""The version of BIDS that is written."""

_NOT_OF_RESULTS = ("space", "desc", "res", "den", "label", "seg", "part", "echo", "inv", "rec", "mod")
"""Entities that say which version of a scan a file is, not when and how the patient was examined."""

_PART = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class BidsName:
    """A name in BIDS.

    Attributes
    ----------
    entities
        The label of each entity in order, by its short name: ``sub``, ``ses``, ``acq``, ``ce``, ``run``.
    suffix
        What kind of scan it is, such as ``T1w``.
    """

    entities: Mapping[str, str]
    suffix: str


def read_bids_name(path: Path) -> BidsName | None:
    """Read a file's name.

    Returns
    -------
    BidsName or None
        None if it is not a name in BIDS: entities with ``sub`` first, then a suffix without a dash.
    """
    *parts, suffix = strip_suffix(path).split("_")
    matches = [_PART.fullmatch(part) for part in parts]
    if not suffix.isalnum() or not matches or None in matches:
        return None
    pairs = [(match[1], match[2]) for match in matches if match is not None]
    if pairs[0][0] != "sub" or len(dict(pairs)) < len(pairs):
        return None
    return BidsName(dict(pairs), suffix)


def is_bids_dataset(folder: Path) -> bool:
    """Whether a folder is the root of a dataset in BIDS, by its description."""
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "BIDSVersion" in content


def read_entities(case: CaseFiles) -> dict[str, str] | None:
    """Return the entities that all scans of a case share, without those of versions of scans.

    Returns
    -------
    dict or None
        With ``sub`` first; None if the scans are not named as BIDS says.
    """
    names = [read_bids_name(image.paths[0]) for image in case.images]
    known = [name.entities for name in names if name is not None]
    if not known or len(known) < len(names):
        return None
    first, *others = known
    shared = {key: label for key, label in first.items() if all(each.get(key) == label for each in others)}
    return {key: label for key, label in shared.items() if key not in _NOT_OF_RESULTS} if "sub" in shared else None


def folder_of(entities: Mapping[str, str]) -> Path:
    """Return where results of a case go, within a dataset: ``sub-01/ses-2/anat``."""
    session = [f"ses-{entities['ses']}"] if "ses" in entities else []
    return Path(f"sub-{entities['sub']}", *session, "anat")


def name_labels(entities: Mapping[str, str], number: int, space: str | None = None) -> str:
    """Return the name of labels without a suffix, the second ones being ``..._desc-tumor2_dseg``."""
    parts = [f"{key}-{label}" for key, label in entities.items()]
    parts += [f"space-{space}"] if space else []
    return "_".join([*parts, f"desc-tumor{number if number > 1 else ''}", "dseg"])


def describe_sources(case: CaseFiles, root: Path) -> dict[str, Any]:
    """Return what a sidecar says of the scans that labels were made from."""
    paths = [path for image in case.images for path in image.paths]
    sources = [address for path in paths if (address := find_address(path, root)) is not None]
    return {"Sources": sources, "Manual": False, "Description": "Labels of a brain tumor, drawn by a network."}


def find_address(path: Path, root: Path) -> str | None:
    """Return the address of a scan in a dataset, ``bids:raw:sub-01/anat/...``; None if it lies outside."""
    inside, top = path.resolve(), root.resolve()
    return f"bids:raw:{inside.relative_to(top).as_posix()}" if inside.is_relative_to(top) else None


def list_dataset_files(
    root: Path, output: Path, results: Sequence[tuple[Mapping[str, str], Mapping[str, str]]], labels: Mapping[str, str]
) -> dict[str, str]:
    """Return the files of a dataset of derivatives beside the labels.

    Parameters
    ----------
    root, output
        The dataset that was segmented, and that of the derivatives.
    results
        The entities and the measurements of each result.
    labels
        The name of each label by its number.

    Returns
    -------
    dict
        The text of each file by its path in the dataset.
    """
    legend = [{"index": "0", "name": "background"}]
    legend += [{"index": number, "name": name} for number, name in labels.items()]
    files = {
        DESCRIPTION: _describe_dataset(root, output),
        "README": "Brain tumors segmented with napari-braintumor. For research only; not a medical device.\n",
        ".bidsignore": "*_dseg.png\n*_tumor*\nvolumes.csv\nreport.html\n.unfinished/\n",
        "desc-tumor_dseg.tsv": _write_tsv(legend),
    }
    columns = list(dict.fromkeys(column for _, measured in results for column in measured))
    subjects: dict[str, list[tuple[Mapping[str, str], Mapping[str, str]]]] = {}
    for entities, measured in results:
        subjects.setdefault(entities["sub"], []).append((entities, measured))
    rows = []
    for subject, own in subjects.items():
        measured = own[0][1] if len(own) == 1 else {}
        rows.append({"participant_id": f"sub-{subject}", "results": str(len(own)), **_fill(columns, measured)})
        if any("ses" in entities for entities, _ in own):
            files[f"sub-{subject}/sub-{subject}_sessions.tsv"] = _write_tsv(
                [
                    {"session_id": f"ses-{entities['ses']}", **_fill(columns, measured)}
                    for entities, measured in {each[0]["ses"]: each for each in own if "ses" in each[0]}.values()
                ]
            )
    if rows:
        files["participants.tsv"] = _write_tsv(rows)
        meanings = {column: {"Description": _describe_column(column)} for column in columns}
        if any(name.endswith("_sessions.tsv") for name in files):
            files["sessions.json"] = _write_json(meanings)
        about = {"results": {"Description": "How many results there are; with several, see the table of sessions."}}
        files["participants.json"] = _write_json({**about, **meanings})
    return files


def _describe_dataset(root: Path, output: Path) -> str:
    source: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        source = json.loads((root / DESCRIPTION).read_text(encoding="utf-8-sig"))
    try:
        where = Path(os.path.relpath(root.resolve(), output.resolve())).as_posix()
    except ValueError:  # on another drive
        where = root.resolve().as_uri()
    link = {"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {"URL": where}
    return _write_json(
        {
            "Name": f"Brain tumors in {source.get('Name') or 'a dataset'}",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "napari-braintumor", "Version": __version__}],
            "SourceDatasets": [link],
            "DatasetLinks": {"raw": where},
        }
    )


def _describe_column(column: str) -> str:
    return f"{column.replace('_', ' ')}, measured by napari-braintumor"


def _fill(columns: Iterable[str], measured: Mapping[str, str]) -> dict[str, str]:
    return {column: measured.get(column) or "n/a" for column in columns}


def _write_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _write_tsv(rows: Sequence[Mapping[str, str]]) -> str:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"
