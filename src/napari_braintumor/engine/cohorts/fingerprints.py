"""What a result depends on, as one digest: the content of its scans, the model and the settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from napari_braintumor.engine.cohorts.plan import CohortConfig
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.calling import call_file, capitalize
from napari_braintumor.engine.files.case_files import CaseFiles

_VERSION = 1
"""Rises when results of the same scans, model and settings change, so that they are made again."""

_IN_TWO = (".hdr", ".mhd", ".nhdr")
"""Headers whose voxels are in a file of the same name beside them."""

_CHUNK = 1 << 20


def find_key(case: CaseFiles, config: CohortConfig, model_sha256: str) -> str:
    """Return what identifies a case's result: the same for the same content, wherever the files lie.

    Parameters
    ----------
    case
        Its files are read whole.
    config
        The settings; where the model lies does not count.
    model_sha256
        The checksum of the model's file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    settings = config.model_dump(mode="json")
    del settings["segmentation"]["model"]
    images = [[image.modality, image.channel, [_digest(path) for path in image.paths]] for image in case.images]
    known = {
        "version": _VERSION,
        "group": case.group,
        "spacing_known": case.spacing_known,
        "images": images,
        "reference": [_digest(path) for path in case.reference],  # its grid may be the one that labels lie on
        "model": model_sha256,
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        for file in _parts_of(path):
            with file.open("rb") as opened:
                while chunk := opened.read(_CHUNK):
                    digest.update(chunk)
    except OSError as error:
        raise DataError(
            f"{capitalize(call_file(path))} cannot be read: {error.strerror or error}. Check that it is there and that "
            "you may read it."
        ) from error
    return digest.hexdigest()


def _parts_of(path: Path) -> list[Path]:
    if path.suffix.lower() not in _IN_TWO:
        return [path]
    beside = (each for each in path.parent.iterdir() if each.name.partition(".")[0] == path.name.partition(".")[0])
    return [path, *sorted(each for each in beside if each != path and each.is_file())]
